//! The same OTLP metrics on several ways into a real Prometheus: through the gateway's remote write, through
//! the page of its `prometheus` exporter, and straight into Prometheus' own OTLP endpoint. Series, values, buckets, exemplars, `target_info`,
//! types, units, help and start times are equal, or the difference is listed in `known` with its reason (and the list may hold nothing that is not
//! seen).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

#[path = "differential/known.rs"]
mod known;
#[path = "differential/pages.rs"]
mod pages;
#[path = "support/prompb.rs"]
mod prompb;
#[path = "differential/pushes.rs"]
mod pushes;
#[path = "differential/sink.rs"]
mod sink;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use known::{
    Known, Side, TARGETS, ZEROED, assert_all_seen, different, equal_values, rewritten, sanitised_exemplar, without_sum,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;
use pushes::*;
use serde_json::{Value, json};
use sink::Sink;
use support::{Gateway, Prometheus, eventually, http, unix_nanos};

const GATEWAY: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
exporters:
  prometheus_remote_write:
    endpoint: '@PROMETHEUS@'
    protobuf_message: @MESSAGE@
    translation_strategy: @STRATEGY@
    delta: accumulate
    target_info: {interval: 1ms}
    @MORE@
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    metrics: {receivers: [otlp], exporters: [prometheus_remote_write]}
";

/// Like the gateway by default: with the labels of scopes, and label names as the Collector makes them.
const PROMETHEUS: &str = "
global: {}
storage:
  tsdb: {out_of_order_time_window: 1h}
  exemplars: {max_exemplars: 10000}
otlp:
  translation_strategy: @STRATEGY@
  promote_scope_metadata: true
  label_name_underscore_sanitization: false
  label_name_preserve_multiple_underscores: true
  convert_histograms_to_nhcb: @NHCB@
";

const V1: &str = "prometheus.WriteRequest";
const V2: &str = "io.prometheus.write.v2.Request";

/// Start times show as a zero that Prometheus puts where each stream begins.
const FEATURES: &str =
    "--enable-feature=exemplar-storage,otlp-deltatocumulative,created-timestamp-zero-ingestion,metadata-wal-records";

/// Remote write 1.0 has no start times.
const FEATURES_V1: &str = "--enable-feature=exemplar-storage,otlp-deltatocumulative,metadata-wal-records";

/// Both ways.
struct Pair {
    message: &'static str,
    gateway: Gateway,
    /// Behind the gateway.
    ours: Prometheus,
    /// Takes OTLP itself.
    theirs: Prometheus,
}

impl Pair {
    fn start(strategy: &str, nhcb: bool) -> Self {
        Self::start_with(V2, strategy, nhcb, ["", ""])
    }

    /// With more in the configurations of both.
    fn start_with(message: &'static str, strategy: &str, nhcb: bool, more: [&str; 2]) -> Self {
        let features = if message == V1 { FEATURES_V1 } else { FEATURES };
        let config = PROMETHEUS.replace("@STRATEGY@", strategy).replace("@NHCB@", &nhcb.to_string());
        let [ours, theirs] = more
            .map(|more| Prometheus::start_with(&format!("{config}{more}"), &["--web.enable-otlp-receiver", features]));
        let more = if nhcb { "convert_explicit_histograms_to_nhcb: true" } else { "" };
        let config = GATEWAY.replace("@PROMETHEUS@", &ours.write_url());
        let config = config.replace("@STRATEGY@", strategy).replace("@MORE@", more).replace("@MESSAGE@", message);
        Self { message, gateway: Gateway::start(&config), ours, theirs }
    }

    /// Sends `request` on both ways; gives the status of Prometheus' answer.
    fn send(&self, request: &ExportMetricsServiceRequest) -> u16 {
        let outcome = self.gateway.client().metrics(request);
        assert_eq!(outcome.status, 0, "the gateway takes it: {}", outcome.message);
        let kind = "application/x-protobuf";
        let answer = http::post(self.theirs.port, "/api/v1/otlp/v1/metrics", kind, "", request.encode_to_vec());
        answer.expect("Prometheus answers").status
    }

    /// Waits until both have the same, apart from what `known` lists; streams begin at `start`.
    fn compare(&self, start: u64, known: &[Known]) {
        let (mut seen, mut zeroed) = (BTreeSet::new(), BTreeSet::new());
        eventually("equal series and exemplars", || {
            seen.clear();
            zeroed.clear();
            let theirs = without_zeros(series(&self.theirs), start, &mut zeroed);
            let mut unexpected = differences(&series(&self.ours), &theirs, known, &mut seen);
            let exemplars = (exemplars(&self.ours), exemplars(&self.theirs));
            unexpected.extend(differences(&exemplars.0, &exemplars.1, known, &mut seen));
            if unexpected.is_empty() { Ok(()) } else { Err(unexpected.join("\n")) }
        });
        assert_all_seen(known, &seen);
        let expected = if self.message == V1 { BTreeSet::new() } else { BTreeSet::from(ZEROED) };
        assert_eq!(zeroed, expected, "gauges that Prometheus begins with a zero");
        assert!(series(&self.theirs).len() > 100, "there was something to compare");
    }
}

/// `content` without the zeros where those begin, which are noted.
fn without_zeros(content: Content, start: u64, zeroed: &mut BTreeSet<&'static str>) -> Content {
    let zero = json!([start / 1_000_000_000, "0"]);
    let keep = |(key, mut value): (String, Value)| {
        let name = letters(&key);
        let known = ZEROED.iter().find(|known| name.starts_with(**known));
        if let (Some(known), Some(values)) = (known, value[0].as_array_mut())
            && values.first() == Some(&zero)
        {
            values.remove(0);
            zeroed.insert(*known);
        }
        let is_empty = value[0].as_array().is_some_and(Vec::is_empty) && value[1].is_null();
        (!is_empty).then_some((key, value))
    };
    content.into_iter().filter_map(keep).collect()
}

/// The letters, digits and colons of the name of the series with these labels.
fn letters(labels: &str) -> String {
    let labels: Value = serde_json::from_str(labels).unwrap();
    let name = labels["__name__"].as_str().unwrap_or_default();
    name.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == ':').collect()
}

/// What a Prometheus has, by labels: samples and native histograms; or exemplars.
type Content = BTreeMap<String, Value>;

fn differences(ours: &Content, theirs: &Content, known: &[Known], seen: &mut BTreeSet<usize>) -> Vec<String> {
    let (ours, theirs) = (rewritten(ours, Side::Ours, known, seen), rewritten(theirs, Side::Theirs, known, seen));
    let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let mut unexpected = Vec::new();
    for key in keys {
        let (ours, theirs) = (ours.get(key), theirs.get(key));
        if ours != theirs {
            unexpected.push(format!("{key}\n  through the gateway: {ours:?}\n  straight: {theirs:?}"));
        }
    }
    unexpected
}

fn series(prometheus: &Prometheus) -> Content {
    let data = prometheus.data("/api/v1/query", &[("query", r#"{__name__=~".+"}[1h]"#), ("time", &in_a_minute())]);
    let rows = data["result"].as_array().unwrap().iter();
    rows.map(|row| (row["metric"].to_string(), json!([row["values"], row["histograms"]]))).collect()
}

fn exemplars(prometheus: &Prometheus) -> Content {
    let start = (unix_nanos() / 1_000_000_000 - 3600).to_string();
    let query = [("query", r#"{__name__=~".+"}"#), ("start", &start), ("end", &in_a_minute())];
    let data = prometheus.data("/api/v1/query_exemplars", &query);
    data.as_array().unwrap().iter().map(|row| (row["seriesLabels"].to_string(), row["exemplars"].clone())).collect()
}

fn in_a_minute() -> String {
    (unix_nanos() / 1_000_000_000 + 60).to_string()
}

/// A few seconds ago, on a full second.
fn times() -> Times {
    let now = (unix_nanos() / 1_000_000_000 - 30) * 1_000_000_000;
    Times { start: now - 60_000_000_000, now }
}

/// A histogram in its classic and its native form, as while a source moves from one to the other.
fn in_both_forms(times: Times) -> ExportMetricsServiceRequest {
    let classic = histogram("both.forms", CUMULATIVE, vec![histogram_point(times, &[0.5, 1.0], &[1, 2, 3])]);
    let mut native =
        exponential("both.forms", CUMULATIVE, vec![exponential_point(times, 2, (3, &[1, 2]), (0, &[]), 1)]);
    native.unit.clone_from(&classic.unit);
    request(vec![of(CART, vec![classic, native])])
}

fn check(strategy: &str, nhcb: bool) {
    check_with(V2, strategy, nhcb);
}

fn check_with(message: &'static str, strategy: &str, nhcb: bool) {
    let pair = Pair::start_with(message, strategy, nhcb, ["", ""]);
    let times = times();
    let seed = times.now | 1;
    eprintln!("{strategy}: seed {seed}");
    for seconds in [0, 10] {
        assert_eq!(pair.send(&common(times.after(seconds), seed)), 200);
    }
    let (resources, mut list) = different(times);
    let mut sumless = histogram_point(times, &[0.5, 1.0], &[1, 1, 1]);
    sumless.sum = None;
    let sumless = histogram("sumless.duration", CUMULATIVE, vec![sumless]);
    assert_eq!(pair.send(&request(vec![of(CART, vec![sumless])])), 200);
    if nhcb {
        list.retain(|known| known.metric != "unsorted.exemplars");
        list.extend(without_sum());
    } else {
        let infinite = histogram_point(times, &[0.5, f64::INFINITY], &[1, 2, 0]);
        let infinite = histogram("infinite.bound", CUMULATIVE, vec![infinite]);
        assert_eq!(pair.send(&request(vec![of(CART, vec![infinite])])), 200);
        assert_eq!(pair.send(&in_both_forms(times)), 200);
    }
    assert_eq!(pair.send(&request(resources)), 200);
    let is_utf8 = ["NoUTF8EscapingWithSuffixes", "NoTranslation"].contains(&strategy);
    if !is_utf8 {
        list.push(sanitised_exemplar());
        let equal = gauge("equal.values", "", vec![number(times, 1.0, &[("foo.bar", "a"), ("foo_bar", "a")])]);
        assert_eq!(pair.send(&request(vec![of(CART, vec![equal])])), 200);
        list.push(equal_values());
    }
    pair.compare(times.start, &list);
}

#[test]
fn underscores_with_suffixes() {
    check("UnderscoreEscapingWithSuffixes", false);
}

#[test]
fn remote_write_1_0() {
    check_with(V1, "UnderscoreEscapingWithSuffixes", false);
}

#[test]
fn underscores_without_suffixes() {
    check("UnderscoreEscapingWithoutSuffixes", false);
}

#[test]
fn utf8_with_suffixes() {
    check("NoUTF8EscapingWithSuffixes", false);
}

#[test]
fn no_translation() {
    check("NoTranslation", false);
}

#[test]
fn custom_buckets() {
    check("UnderscoreEscapingWithSuffixes", true);
}

#[test]
fn target_info_differs_where_it_is_meant_to() {
    let pair = Pair::start("UnderscoreEscapingWithSuffixes", false);
    let by_default =
        GATEWAY.replace("@PROMETHEUS@", &pair.ours.write_url()).replace("target_info: {interval: 1ms}", "");
    let by_default =
        Gateway::start(&by_default.replace("@STRATEGY@", "''").replace("@MORE@", "").replace("@MESSAGE@", V2));
    let pair = Pair { gateway: by_default, ..pair };
    let times = times();
    let point = |seconds: u64| gauge("x", "", vec![number(times.after(seconds), 1.0, &[])]);
    let at_version = |version: &'static str| [("service.name", "moved"), ("service.version", version)];
    let mut far_apart = point(0);
    let Some(Data::Gauge(data)) = &mut far_apart.data else { unreachable!() };
    data.data_points
        .push(NumberDataPoint { time_unix_nano: times.now - 600_000_000_000, ..number(times, 1.0, &[("y", "z")]) });
    for resource in [
        of(&at_version("1"), vec![point(0)]),
        of(&at_version("2"), vec![point(10)]),
        of(&[("service.name", "late"), ("host.name", "h")], vec![far_apart]),
        of(&[("service.name", "steady"), ("host.name", "h")], vec![point(0)]),
        of(&[("service.name", "steady"), ("host.name", "h")], vec![point(10)]),
        of(&[("service.name", "steady"), ("host.name", "h")], vec![point(20)]),
    ] {
        assert_eq!(pair.send(&request(vec![resource])), 200);
    }
    for (query, ours, theirs, reason) in TARGETS {
        eprintln!("{reason}");
        pair.ours.wait_for(query, ours);
        pair.theirs.wait_for(query, theirs);
    }
}

/// Type, unit and help that a Prometheus keeps of each series, which it tells when it sends them on.
#[test]
fn metadata() {
    let sinks = [Sink::start(), Sink::start()];
    let sending = sinks.each_ref().map(|sink| {
        let (port, message) = (sink.port, "io.prometheus.write.v2.Request");
        format!(
            "remote_write: [{{url: 'http://127.0.0.1:{port}', protobuf_message: {message}, send_native_histograms: true}}]\n"
        )
    });
    let pair = Pair::start_with(V2, "UnderscoreEscapingWithSuffixes", false, sending.each_ref().map(String::as_str));
    // It sends on what is newer than itself.
    let times = times().after(60);
    assert_eq!(pair.send(&common(times, times.now | 1)), 200);
    let mut seen = BTreeSet::new();
    eventually("equal metadata", || {
        let [ours, theirs] = sinks.each_ref().map(Sink::metadata);
        let unexpected = differences(&ours, &theirs, &[], &mut seen);
        if unexpected.is_empty() && theirs.len() > 100 { Ok(()) } else { Err(unexpected.join("\n")) }
    });
    let theirs = sinks[1].metadata();
    let of =
        |name: &str| theirs.iter().find(|(labels, _)| letters(labels) == name).map(|(_, metadata)| metadata.clone());
    let counter = json!({"type": 1, "help": "What system.cpu.time is", "unit": "seconds"});
    assert_eq!(of("systemcputimesecondstotal"), Some(counter), "{theirs:#?}");
    assert!(of("targetinfo").is_some(), "{theirs:#?}");
}

/// Requests that Prometheus refuses as a whole, for one point or label of them: through the gateway
/// the rest arrives, and the loss is counted.
#[test]
fn neighbours_of_what_cannot_be_kept() {
    let pair = Pair::start("UnderscoreEscapingWithSuffixes", true);
    let times = times();
    let gauge_with = |name: &str, labels: &[(&str, &str)]| gauge(name, "", vec![number(times, 1.0, labels)]);
    let mut miscounted = exponential_point(times, 0, (0, &[1, 2]), (0, &[]), 0);
    miscounted.count = 99;
    let coarse = exponential_point(times, -5, (0, &[1]), (0, &[]), 0);
    let falling = histogram_point(times, &[1.0, 0.5], &[1, 2, 3]);
    let infinite = histogram_point(times, &[0.5, f64::INFINITY], &[1, 2, 0]);
    let cases = [
        (gauge_with("odd.label", &[("é", "1")]), "dropped_labels", ""),
        (gauge_with("日本", &[]), "dropped_points", "name"),
        (sum("unspecified", "", true, 0, vec![number(times, 1.0, &[])]), "dropped_points", "temporality"),
        (exponential("miscounted", CUMULATIVE, vec![miscounted]), "dropped_points", "count"),
        (exponential("coarse", CUMULATIVE, vec![coarse]), "dropped_points", "scale"),
        (histogram("falling", CUMULATIVE, vec![falling]), "dropped_points", "bounds"),
        (histogram("infinite", CUMULATIVE, vec![infinite]), "", ""),
    ];
    for (index, (bad, counter, reason)) in cases.iter().enumerate() {
        let neighbour = gauge_with("neighbour", &[("case", &index.to_string())]);
        let status = pair.send(&request(vec![of(CART, vec![bad.clone(), neighbour])]));
        assert!(status >= 400, "Prometheus takes {} now: compare it instead", bad.name);
        pair.ours.wait_for(&format!("count(last_over_time(neighbour{{case=\"{index}\"}}[5m]))"), 1.0);
        let name = format!("otelcol_exporter_prometheusremotewrite_{counter}");
        let labels: &[(&str, &str)] = if reason.is_empty() { &[] } else { &[("reason", reason)] };
        if !counter.is_empty() {
            assert_eq!(pair.gateway.metrics().sum(&name, labels), 1.0, "{}", bad.name);
        }
    }
    pair.ours.wait_for("count(last_over_time(odd_label[5m]))", 1.0);
    pair.ours.wait_for("histogram_count(last_over_time(infinite_seconds[5m]))", 3.0);
}

/// With `stale_after` a line ends when its source falls silent, not five minutes later, and also
/// when nobody else pushes.
#[test]
fn silent_series_end() {
    let prometheus = Prometheus::start();
    let config = GATEWAY.replace("@PROMETHEUS@", &prometheus.write_url());
    let gateway = Gateway::start(
        &config.replace("@STRATEGY@", "''").replace("@MORE@", "stale_after: 10s").replace("@MESSAGE@", V2),
    );
    let now = Times { start: 0, now: unix_nanos() };
    let histogram = histogram("h", CUMULATIVE, vec![histogram_point(now, &[1.0], &[1, 2])]);
    let native = exponential("e", CUMULATIVE, vec![exponential_point(now, 3, (0, &[1]), (0, &[]), 0)]);
    let metrics = vec![gauge("x", "", vec![number(now, 1.0, &[])]), histogram, native];
    assert_eq!(gateway.client().metrics(&request(vec![of(&[], metrics)])).status, 0);
    const ALL: &str = r#"{__name__=~"x|h_seconds.*|e_bytes"}"#;
    prometheus.wait_for(&format!("count(last_over_time({ALL}[5m]))"), 6.0);
    eventually("the series are tracked", || {
        match gateway.metrics().sum("otelcol_exporter_prometheusremotewrite_tracked_series", &[]) {
            3.0 => Ok(()),
            other => Err(other),
        }
    });
    eventually("all series have ended", || match prometheus.value(&format!("count({ALL})")) {
        None => Ok(()),
        left => Err(left),
    });
}
