//! The main job on real input: OpenTelemetry SDKs of Python (gRPC and HTTP) and JavaScript (HTTP with
//! JSON) send a known workload through the gateway into a real Jaeger and a real Prometheus.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use support::clients::{Sent, javascript, python};
use support::jaeger::StoredTrace;
use support::otlp::{attribute, sum_request, trace, traces_request};
use support::otlp_client::OK;
use support::{Backend, Gateway, Jaeger, OtlpClient, Prometheus, eventually, unix_nanos};

const SLOW_RATE: f64 = 0.5;
const BASE_RATE: f64 = 0.1;

const TRACES: &str = "
extensions:
  health_check: {endpoint: 127.0.0.1:@HEALTH@}
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}, http: {endpoint: 127.0.0.1:@HTTP@}}}
processors:
  tail_sampling:
    decision_wait: 5s
    rules:
      - name: important users
        sampling_percentage: 100
        when: {attribute: {key: user.id, values: [user-vip-1, user-vip-2]}}
      - name: important operations
        sampling_percentage: 100
        when: {span_name: {values: [POST /checkout/pay]}}
      - name: errors
        sampling_percentage: 100
        when: {error: true}
      - name: slow
        sampling_percentage: 50
        when: {latency: {threshold: 1s}}
      - name: rest
        sampling_percentage: 10
exporters:
  otlp/jaeger: {endpoint: 127.0.0.1:@JAEGER@, tls: {insecure: true}}
  otlp_http/exact: {endpoint: 'http://127.0.0.1:@EXACT@'}
service:
  extensions: [health_check]
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    traces: {receivers: [otlp], processors: [tail_sampling], exporters: [otlp/jaeger, otlp_http/exact]}
";

const METRICS: &str = "
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}, http: {endpoint: 127.0.0.1:@HTTP@}}}
processors:
  cardinality_limit:
    flush_interval: 1s
    default: {max_values_per_label: 500, max_series_per_metric: 5000}
exporters:
  prometheus_remote_write: {endpoint: '@PROMETHEUS@'}
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    metrics: {receivers: [otlp], processors: [cardinality_limit], exporters: [prometheus_remote_write]}
";

/// How many traces of each class a client sends.
const WORKLOAD: [&str; 10] = ["--error", "60", "--user", "40", "--operation", "40", "--slow", "400", "--rest", "1500"];

/// Waits until nothing is buffered, queued or in flight.
fn wait_until_drained(gateway: &Gateway) {
    eventually("everything has left the gateway", || {
        let holding: Vec<_> = gateway
            .metrics()
            .ledger()
            .into_iter()
            .filter(|account| account.held != 0.0 || account.difference() != 0.0)
            .collect();
        if holding.is_empty() { Ok(()) } else { Err(holding) }
    });
}

/// Five standard deviations of a binomial distribution around its mean: a right sampler fails this
/// less than once in a million runs.
fn binomial_bounds(count: usize, rate: f64) -> std::ops::RangeInclusive<usize> {
    let mean = count as f64 * rate;
    let spread = 5.0 * (mean * (1.0 - rate)).sqrt();
    (mean - spread).floor().max(0.0) as usize..=(mean + spread).ceil() as usize
}

/// The classes that are kept in full are in Jaeger in full; the others at their rates; nothing is
/// there in part, and nothing that was not sent.
fn assert_sampled(client: &str, sent: &Sent, stored: &BTreeMap<String, StoredTrace>) {
    for class in ["error", "user", "operation"] {
        let missing: Vec<_> = sent.of_class(class).filter(|(id, _)| !stored.contains_key(*id)).collect();
        assert!(missing.is_empty(), "{client}: {} traces of class {class} are missing: {missing:?}", missing.len());
    }
    for (class, rate) in [("slow", SLOW_RATE), ("rest", BASE_RATE)] {
        let count = sent.of_class(class).count();
        let kept = sent.of_class(class).filter(|(id, _)| stored.contains_key(*id)).count();
        let bounds = binomial_bounds(count, rate);
        eprintln!("{client}: {class}: kept {kept} of {count}, bounds {bounds:?}");
        assert!(bounds.contains(&kept), "{client}: kept {kept} of {count} {class} traces, expected {bounds:?}");
    }
    for (id, trace) in stored {
        let sent = sent.traces.get(id).unwrap_or_else(|| panic!("{client}: trace {id} was never sent"));
        let stored: BTreeSet<&String> = trace.keys().collect();
        assert_eq!(stored, sent.spans.iter().collect(), "{client}: the spans of trace {id} ({})", sent.class);
    }
}

/// Every error, important user's and important operation's trace arrives in full, slow ones and the
/// rest at their rates, from all three SDKs at once; each trace says which rule kept it.
#[test]
fn traces_are_sampled_by_rules_on_their_way_to_jaeger() {
    let jaeger = Jaeger::start();
    let exact = Backend::start();
    let config = TRACES.replace("@JAEGER@", &jaeger.otlp_port.to_string()).replace("@EXACT@", &exact.port.to_string());
    let gateway = Gateway::start(&config);
    let (grpc, http) = (gateway.grpc_port.to_string(), gateway.http_port.to_string());
    let arguments = |protocol: &[&'static str], port: &str, service: &str| {
        let fixed = ["--port", port, "--service", service, "--signal", "traces"];
        [protocol, &fixed, &WORKLOAD].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let runs = [
        ("python-grpc", arguments(&["--protocol", "grpc"], &grpc, "python-grpc")),
        ("python-http", arguments(&["--protocol", "http"], &http, "python-http")),
        ("javascript", arguments(&[], &http, "javascript")),
    ];
    let sent: Vec<Sent> = std::thread::scope(|scope| {
        let run = |(name, arguments): &(&'static str, Vec<String>)| {
            let (name, arguments) = (*name, arguments.clone());
            scope.spawn(move || {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                if name == "javascript" { javascript(&arguments) } else { python(&arguments) }
            })
        };
        let running: Vec<_> = runs.iter().map(run).collect();
        running.into_iter().map(|client| client.join().unwrap()).collect()
    });
    wait_until_drained(&gateway);

    let mut spans_in_jaeger = 0;
    for ((name, _), sent) in runs.iter().zip(&sent) {
        let stored = jaeger.traces(name);
        assert_sampled(name, sent, &stored);
        spans_in_jaeger += stored.values().map(BTreeMap::len).sum::<usize>();
        assert_fidelity(name, sent, &stored);
    }
    // Jaeger hides duplicates; the other branch of the fan-out does not.
    let arrived = exact.spans();
    assert_eq!(arrived.len(), spans_in_jaeger, "both branches have the same");
    assert!(arrived.values().all(|count| *count == 1), "nothing arrived twice");
}

/// What the gateway does not decide about is unchanged: names, services, attributes, events.
fn assert_fidelity(client: &str, sent: &Sent, stored: &BTreeMap<String, StoredTrace>) {
    let (id, trace) = sent.of_class("operation").next().expect("the workload has operations");
    let root = &stored[id][&trace.spans[0]];
    assert_eq!((root.name.as_str(), root.service.as_str()), ("POST /checkout/pay", client));
    assert_eq!(root.tags["http.request.method"], "GET", "{client}: {root:?}");
    assert_eq!(root.tags["cart.total"], "12.5", "{client}: {root:?}");
    let served = &stored[id][&trace.spans[3]];
    assert_eq!(served.service, format!("{client}-backend"), "the span of the second resource stays there");
    assert_eq!(served.process_tags["service.instance.id"], format!("{client}-backend-1"));
    let with_events = sent.of_class("error").filter(|(id, trace)| stored[*id][&trace.spans[3]].log_count > 0).count();
    assert!(with_events > 0, "{client}: exception events arrive");
    let recorded = sent.of_class("error").all(|(id, _)| {
        stored[id]
            .values()
            .any(|span| span.tags.iter().any(|(key, value)| key == "nyquist.sampling.rule" && value == "errors"))
    });
    assert!(recorded, "{client}: error traces say which rule kept them: {:?}", stored[id]);
}

/// Prometheus answers with the values that the SDKs recorded; a label with 100,000 values ends within
/// its budget, and its sum is complete.
#[test]
fn metrics_arrive_in_prometheus_within_their_budgets() {
    let prometheus = Prometheus::start();
    let gateway = Gateway::start(&METRICS.replace("@PROMETHEUS@", &prometheus.write_url()));
    let (grpc, http) = (gateway.grpc_port.to_string(), gateway.http_port.to_string());
    let run = |protocol: &str, port: &str, service: &str, values: &str| {
        let arguments = ["--protocol", protocol, "--port", port, "--service", service, "--signal", "metrics"];
        python(&[&arguments[..], &["--values", values]].concat())
    };
    let by_grpc = run("grpc", &grpc, "python-grpc", "100000");
    let by_http = run("http", &http, "python-http", "100");
    let by_json = javascript(&["--port", &http, "--service", "javascript", "--signal", "metrics"]);

    for (job, sent) in [("python-grpc", &by_grpc), ("python-http", &by_http)] {
        let expect = |query: &str, name: &str| {
            prometheus.wait_for(&query.replace('@', &format!("job=\"{job}\"")), sent.metrics[name]);
        };
        expect("sum(shop_orders_total{@})", "orders");
        expect("sum(shop_orders_total{@, region=\"eu\"})", "orders_eu");
        expect("sum(shop_request_duration_seconds_count{@})", "duration_count");
        expect("sum(shop_request_duration_seconds_sum{@})", "duration_sum");
        expect("sum(shop_request_duration_seconds_bucket{@, le=\"+Inf\"})", "duration_count");
        expect("sum(shop_queue_length{@})", "queue");
        expect("shop_temperature_celsius{@, room=\"north\"}", "temperature");
        expect("sum(shop_logins_total{@})", "logins");
    }
    let visits = by_json.metrics["visits"];
    prometheus.wait_for("sum(shop_visits_total{job=\"javascript\"})", visits);
    prometheus.wait_for("sum(shop_basket_size_bytes_sum{job=\"javascript\"})", by_json.metrics["size_sum"]);
    prometheus.wait_for("count(target_info{job=\"python-grpc\", instance=\"python-grpc-1\"})", 1.0);

    let values = prometheus.value("count(count by (user_id) (shop_logins_total{job=\"python-grpc\"}))").unwrap();
    assert!(values <= 501.0, "{values} values of user.id where 500 and the replacement are allowed");
    let within = prometheus.value("count(shop_logins_total{job=\"python-http\"})").unwrap();
    assert!(within <= 100.0, "{within}");

    let output = gateway.process.output();
    let tells = output.lines().any(|line| line.contains("shop.logins") && line.contains("user.id"));
    assert!(tells, "one log line names metric and label:\n{output}");
    wait_until_drained(&gateway);
}

/// Streams that are older than the gateway: what they counted before it came is not counted again
/// when their label is collapsed, and each such baseline is counted.
#[test]
fn older_streams_are_never_over_counted() {
    let prometheus = Prometheus::start();
    let config = METRICS.replace("@PROMETHEUS@", &prometheus.write_url());
    let gateway = Gateway::start(&config.replace("max_values_per_label: 500", "max_values_per_label: 10"));
    let mut client = gateway.client();
    let an_hour_ago = unix_nanos() - 3_600_000_000_000;
    let send = |client: &mut OtlpClient, value: i64| {
        let user = |number: i64| (vec![attribute("user.id", &format!("user-{number}"))], value);
        let request = sum_request("older", "shop.logins", an_hour_ago, &(0..1000).map(user).collect::<Vec<_>>());
        let outcome = client.metrics(&request);
        assert_eq!(outcome.status, OK, "{outcome:?}");
    };
    send(&mut client, 1000);
    prometheus.wait_for("count(shop_logins_total{job=\"older\", user_id!=\"other\"})", 10.0);
    send(&mut client, 1001);
    send(&mut client, 1002);
    prometheus.wait_for("sum(shop_logins_total{job=\"older\", user_id!=\"other\"})", 10.0 * 1002.0);
    prometheus.wait_for("sum(shop_logins_total{job=\"older\", user_id=\"other\"})", 990.0 * 2.0);
    let own = gateway.metrics();
    let baselined: f64 = own.0.iter().filter(|row| row.name.contains("rebaselined")).map(|row| row.value).sum();
    assert_eq!(baselined, 990.0, "streams that began with a baseline");
    wait_until_drained(&gateway);
}

const COMPRESSED: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
exporters:
  otlp_http: {endpoint: 'http://127.0.0.1:@JAEGER@', compression: @COMPRESSION@}
service: {telemetry: {metrics: {level: none}}, pipelines: {traces: {receivers: [otlp], exporters: [otlp_http]}}}
";

/// Scenario: OTLP/HTTP to Jaeger, whose receiver is the Collector's, in every compression that the exporter has. Guarantee: each is
/// understood.
#[test]
fn jaeger_understands_every_compression() {
    let jaeger = Jaeger::start();
    for compression in ["none", "gzip", "zlib", "deflate", "snappy", "x-snappy-framed", "zstd", "lz4"] {
        let config = COMPRESSED.replace("@JAEGER@", &jaeger.otlp_http_port.to_string());
        let gateway = Gateway::start(&config.replace("@COMPRESSION@", compression));
        let spans = (0..50).flat_map(|number| trace(number, 20)).collect();
        let outcome = gateway.client().traces(&traces_request(compression, spans));
        assert_eq!(outcome.status, OK, "{outcome:?}");
        eventually(&format!("the spans are there, compressed with {compression}"), || {
            let spans: usize = jaeger.traces(compression).values().map(BTreeMap::len).sum();
            if spans == 1000 { Ok(()) } else { Err(spans) }
        });
    }
}
