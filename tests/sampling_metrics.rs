//! The metrics of `tail_sampling` as its README lists them, on the page of a running gateway; and what it says about
//! traces that arrive in parts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use support::otlp::{trace, traces_request};
use support::otlp_client::OK;
use support::{Backend, Gateway, eventually, http};
use tempfile::TempDir;

const README: &str = include_str!("../crates/processors/src/tail_sampling/README.md");
const PREFIX: &str = "otelcol_processor_tail_sampling_";

/// A sampler with a list from a file, an adaptive percentage and an `ottl` condition, and one with a storage.
const CONFIG: &str = "
extensions:
  file_storage: {directory: @DIR@/storage, create_directory: true}
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
processors:
  tail_sampling:
    decision_wait: 1s
    stress: {}
    rules:
      - {name: listed, sampling_percentage: 100, when: {attribute: {key: user.id, values_file: @DIR@/users}}}
      - {name: failed, sampling_percentage: 100, when: {error: true}}
      - {name: rest, adaptive: {goal_percentage: 50, keys: [root.span_name]}}
  tail_sampling/stored:
    compression: lz4
    decision_wait: 1s
    storage: file_storage
    policies:
      - {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}
      - {name: health, type: drop, drop: {drop_sub_policy: [{name: h, type: span_count, span_count: {min_spans: 100}}]}}
exporters:
  otlp: {endpoint: 127.0.0.1:@BACKEND@, tls: {insecure: true}, sending_queue: {enabled: false}}
service:
  extensions: [file_storage]
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    traces: {receivers: [otlp], processors: [tail_sampling], exporters: [otlp]}
    traces/stored: {receivers: [otlp], processors: [tail_sampling/stored], exporters: [otlp]}
";

/// What the README says of a metric.
#[derive(Debug, PartialEq)]
struct Listed {
    labels: BTreeSet<String>,
    kind: &'static str,
}

/// The tables below the heading "Metrics".
fn listed() -> BTreeMap<String, Listed> {
    let section = README.split("\n## Metrics\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut columns: Vec<&str> = Vec::new();
    let mut found = BTreeMap::new();
    for line in section.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if cells.len() < 3 || cells[0].starts_with("--") {
            continue;
        }
        if cells[0] == "metric" {
            columns = cells;
            continue;
        }
        let cell = |name: &str| columns.iter().position(|column| *column == name).map_or("", |at| cells[at]);
        let words = format!("{} {}", cell("type"), cells[2]);
        let is =
            |word: &str| words.split([' ', ',', ':']).any(|found| found.strip_suffix('s').unwrap_or(found) == word);
        let kind = if is("histogram") {
            "histogram"
        } else if is("gauge") {
            "gauge"
        } else {
            "counter"
        };
        let labels: BTreeSet<String> =
            cell("labels").split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        for name in cells[0].split(", ") {
            let name = name.trim_matches('`').to_owned();
            let before = found.insert(name, Listed { labels: labels.clone(), kind });
            assert_eq!(before, None, "listed twice: {line}");
        }
    }
    found
}

/// What the page says of them.
fn scraped(gateway: &Gateway) -> BTreeMap<String, Listed> {
    let page = http::get(gateway.metrics_port, "/metrics").unwrap().text();
    let samples = gateway.metrics();
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_prefix(PREFIX));
    let family = |line: &str| {
        let (name, kind) = line.split_once(' ').unwrap();
        let kind = ["counter", "gauge", "histogram"].into_iter().find(|known| *known == kind).unwrap();
        let full = format!("{PREFIX}{name}");
        let parts = ["", "_bucket", "_sum", "_count"].map(|part| format!("{full}{part}"));
        let series = samples.0.iter().filter(|sample| parts.contains(&sample.name));
        let labels = series.flat_map(|sample| sample.labels.keys()).filter(|label| *label != "le").cloned().collect();
        (name.to_owned(), Listed { labels, kind })
    };
    families.map(family).collect()
}

/// The gateway, and the folder of the list.
fn start(backend: &Backend) -> (Gateway, TempDir) {
    // The list has to be there at the start, before the gateway has a folder of its own.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users"), "user-1\n").unwrap();
    let config = CONFIG
        .replace("@BACKEND@", &backend.port.to_string())
        .replace("@DIR@/users", &folder.path().join("users").display().to_string());
    let gateway = Gateway::start(&config);
    std::fs::write(folder.path().join("users"), "user-1\nuser-2\n").unwrap();
    eventually("the changed list is read", || {
        let reloads = gateway.metrics().sum(&format!("{PREFIX}value_list_reloads"), &[("outcome", "ok")]);
        if reloads == 1.0 { Ok(()) } else { Err(reloads) }
    });
    (gateway, folder)
}

fn send(gateway: &Gateway, spans: Vec<Span>) {
    assert_eq!(gateway.client().traces(&traces_request("metrics", spans)).status, OK);
}

fn failed(mut spans: Vec<Span>) -> Vec<Span> {
    spans[0].status = Some(Status { code: 2, ..Status::default() });
    spans
}

/// Names, types and labels of the README's tables are those of the page, all of them and no others; and the page
/// counts what was sent.
#[test]
fn the_readme_lists_what_a_gateway_shows() {
    let backend = Backend::start();
    let (gateway, _folder) = start(&backend);
    send(&gateway, [trace(1, 3), trace(2, 1), failed(trace(3, 2)), trace(4, 2)].concat());
    let sum = |name: &str, labels: &[(&str, &str)]| gateway.metrics().sum(&format!("{PREFIX}{name}"), labels);
    eventually("both samplers have decided", || {
        let decided = sum("global_count_traces_sampled", &[]);
        if decided == 8.0 { Ok(()) } else { Err(decided) }
    });
    let (listed, scraped) = (listed(), scraped(&gateway));
    assert!(listed.len() > 30, "{listed:?}");
    let names = |of: &BTreeMap<String, Listed>| of.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&listed), names(&scraped));
    for (name, listed) in &listed {
        assert_eq!(listed, &scraped[name], "{name}: in the README, and on the page");
    }

    assert_eq!(sum("new_trace_id_received", &[]), 8.0);
    for (policy, count) in [("listed", 2.0), ("failed", 1.0), ("stored.errors", 1.0)] {
        let labels = [("policy", policy), ("sampled", "true"), ("decision", "sampled")];
        assert_eq!(sum("count_traces_sampled", &labels), count, "{policy}");
        assert_eq!(sum("decisions", &[("policy", policy), ("trigger", "wait"), ("decision", "sampled")]), count);
    }
    assert_eq!(sum("decisions", &[("policy", "stored.none"), ("decision", "not_sampled")]), 3.0);
    assert_eq!(sum("decision_delay_count", &[]), 8.0);
    eventually("no trace is held", || {
        let held = sum("sampling_traces_on_memory", &[]);
        if held == 0.0 { Ok(()) } else { Err(held) }
    });
    assert!(sum("storage_bytes", &[]) > 0.0);
}

/// Most traces have no root span, as where spans of a trace go to several gateways: that is counted, and said once,
/// with what to do.
#[test]
fn traces_in_parts_are_counted_and_told_of_once() {
    let backend = Backend::start();
    let (gateway, _folder) = start(&backend);
    let advice = "if their spans go to several gateways, each decides on a part only; balance by trace id in front of \
                  them (load_balancing with routing_key: traceID)";
    let mut number = 0;
    for round in 1..=2 {
        for _ in 0..5 {
            let traces = (0..500).flat_map(|_| {
                number += 1;
                let mut spans = trace(number, 2);
                if number % 10 < 6 {
                    spans.remove(0);
                }
                spans
            });
            send(&gateway, traces.collect());
        }
        eventually("all are decided", || {
            let without = gateway.metrics().sum(&format!("{PREFIX}traces_without_root"), &[]);
            let held = gateway.metrics().sum(&format!("{PREFIX}sampling_traces_on_memory"), &[]);
            // By each of two samplers.
            if (without, held) == (f64::from(round) * 3000.0, 0.0) { Ok(()) } else { Err((without, held)) }
        });
    }
    let output = gateway.terminate().output;
    let said: Vec<&str> = output.lines().filter(|line| line.contains(advice)).collect();
    assert_eq!(said.len(), 2, "once by each sampler:\n{output}");
    assert!(said.iter().all(|line| line.contains(" % of the traces had no root span when they were decided")));
}
