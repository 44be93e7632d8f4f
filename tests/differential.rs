//! The same OTLP metrics on several ways into a real Prometheus: through the gateway's remote write, through
//! the page of its `prometheus` exporter, and straight into Prometheus' own OTLP endpoint. Series, values, buckets, exemplars, `target_info`,
//! types, units, help and start times are equal, or the difference is listed here with its reason (and the list may hold nothing that is not
//! seen).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

#[path = "support/prompb.rs"]
mod prompb;
#[path = "differential/pushes.rs"]
mod pushes;
#[path = "differential/sink.rs"]
mod sink;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, ResourceMetrics};
use prost::Message;
use pushes::*;
use serde_json::{Value, json};
use sink::Sink;
use support::otlp::attribute;
use support::ports::free_port;
use support::{Gateway, Prometheus, eventually, http, unix_nanos};

const GATEWAY: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
exporters:
  prometheus_remote_write:
    endpoint: '@PROMETHEUS@'
    protobuf_message: io.prometheus.write.v2.Request
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

/// Start times show as a zero that Prometheus puts where each stream begins.
const FEATURES: &str =
    "--enable-feature=exemplar-storage,otlp-deltatocumulative,created-timestamp-zero-ingestion,metadata-wal-records";

/// Both ways.
struct Pair {
    gateway: Gateway,
    /// Behind the gateway.
    ours: Prometheus,
    /// Takes OTLP itself.
    theirs: Prometheus,
}

impl Pair {
    fn start(strategy: &str, nhcb: bool) -> Self {
        Self::start_with(strategy, nhcb, ["", ""])
    }

    /// With more in the configurations of both.
    fn start_with(strategy: &str, nhcb: bool, more: [&str; 2]) -> Self {
        let config = PROMETHEUS.replace("@STRATEGY@", strategy).replace("@NHCB@", &nhcb.to_string());
        let [ours, theirs] = more
            .map(|more| Prometheus::start_with(&format!("{config}{more}"), &["--web.enable-otlp-receiver", FEATURES]));
        let more = if nhcb { "convert_explicit_histograms_to_nhcb: true" } else { "" };
        let config = GATEWAY.replace("@PROMETHEUS@", &ours.write_url());
        let gateway = Gateway::start(&config.replace("@STRATEGY@", strategy).replace("@MORE@", more));
        Self { gateway, ours, theirs }
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
        for (index, known) in known.iter().enumerate() {
            assert!(seen.contains(&index), "no such difference any more: {} ({})", known.metric, known.reason);
        }
        assert_eq!(zeroed, BTreeSet::from(ZEROED), "gauges that Prometheus begins with a zero");
        assert!(series(&self.theirs).len() > 100, "there was something to compare");
    }
}

/// Gauges and sums that can fall, by the letters and digits that their names begin with. They have start times in OTLP, and Prometheus puts
/// a zero there as it does for counters: a value that they never had. Through the gateway they have no start time.
const ZEROED: [&str; 20] = [
    "5xx",
    "berall",
    "bigint",
    "colliding",
    "deltaupdown",
    "endedgauge",
    "gaugeexemplar",
    "job:rate",
    "memutil",
    "nobody",
    "oddlabels",
    "oddvalues",
    "onlyinstance",
    "queuesize",
    "scoped",
    "scopeattribute",
    "speed",
    "systemmemory",
    "temperature",
    "typedlabels",
];

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

/// A difference that is meant to be.
struct Known {
    /// The beginning of the metric's name, punctuation aside.
    metric: &'static str,
    reason: &'static str,
}

fn known(metric: &'static str, reason: &'static str) -> Known {
    Known { metric, reason }
}

/// What a Prometheus has, by labels: samples and native histograms; or exemplars.
type Content = BTreeMap<String, Value>;

fn differences(ours: &Content, theirs: &Content, known: &[Known], seen: &mut BTreeSet<usize>) -> Vec<String> {
    let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let mut unexpected = Vec::new();
    for key in keys {
        let (ours, theirs) = (ours.get(key), theirs.get(key));
        if ours == theirs {
            continue;
        }
        let labels: Value = serde_json::from_str(key).unwrap();
        let name = labels["__name__"].as_str().unwrap_or_default().replace(['.', '_'], "");
        match known.iter().position(|known| name.starts_with(&known.metric.replace(['.', '_'], ""))) {
            Some(index) => drop(seen.insert(index)),
            None => unexpected.push(format!("{key}\n  through the gateway: {ours:?}\n  straight: {theirs:?}")),
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

/// Metrics that the two ways treat in different ways: what, and why.
fn different(times: Times) -> (Vec<ResourceMetrics>, Vec<Known>) {
    let x = |name: &str, labels: &[(&str, &str)]| gauge(name, "", vec![number(times, 1.0, labels)]);
    let mut thresholded = exponential_point(times, 0, (0, &[1]), (0, &[]), 2);
    thresholded.zero_threshold = 0.25;
    let mut sumless = exponential_point(times, 0, (0, &[1]), (0, &[]), 2);
    sumless.sum = None;
    let mut exemplified = number(times, 8.0, &[]);
    exemplified.exemplars = vec![exemplar(times, 2.0, &[("user.id", "7")])];
    let mut unsorted = histogram_point(times, &[0.5, 1.0], &[1, 1, 1]);
    unsorted.exemplars = vec![exemplar(times, 0.7, &[]), exemplar(times.after(1), 0.1, &[])];
    let mut own_le = histogram_point(times, &[0.5, 1.0], &[1, 1, 1]);
    own_le.attributes = vec![attribute("le", "mine")];
    let nameless = InstrumentationScope { version: "1".to_owned(), ..InstrumentationScope::default() };
    let mut scoped = of(CART, vec![x("nameless.scope", &[])]);
    scoped.scope_metrics[0].scope = Some(nameless);
    let named = InstrumentationScope {
        name: "lib".to_owned(),
        attributes: vec![attribute("name", "q")],
        ..InstrumentationScope::default()
    };
    let mut own_name = of(CART, vec![x("scope.attribute.name", &[])]);
    own_name.scope_metrics[0].scope = Some(named);
    let metrics = vec![
        exponential("wide.zero", CUMULATIVE, vec![thresholded]),
        exponential("sumless.exponential", CUMULATIVE, vec![sumless]),
        sum("sanitised.exemplar", "", true, CUMULATIVE, vec![exemplified]),
        histogram("unsorted.exemplars", CUMULATIVE, vec![unsorted]),
        histogram("own.le", CUMULATIVE, vec![own_le]),
    ];
    let empty = [("service.namespace", ""), ("service.name", "cart")];
    let resources = vec![of(CART, metrics), scoped, own_name, of(&empty, vec![x("empty.namespace", &[])])];
    let list = vec![
        known("wide.zero", "Prometheus ignores the zero threshold that OTLP has"),
        known("sumless.exponential", "the specification drops native histograms without a sum; Prometheus makes it 0"),
        known("unsorted.exemplars", "each is at its bucket; Prometheus expects them in the order of their values"),
        known(
            "own.le",
            "an attribute called le is overwritten in all series; in Prometheus it stays in _sum and _count",
        ),
        known("nameless.scope", "Prometheus leaves out scopes without a name, versions and attributes included"),
        known("empty.namespace", "an empty service.namespace counts as none; Prometheus begins the job with a slash"),
    ];
    (resources, list)
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
    let pair = Pair::start(strategy, nhcb);
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
        list.push(known("sumless.duration", "classic if there is no sum; Prometheus makes it 0"));
    } else {
        let infinite = histogram_point(times, &[0.5, f64::INFINITY], &[1, 2, 0]);
        let infinite = histogram("infinite.bound", CUMULATIVE, vec![infinite]);
        assert_eq!(pair.send(&request(vec![of(CART, vec![infinite])])), 200);
        assert_eq!(pair.send(&in_both_forms(times)), 200);
    }
    assert_eq!(pair.send(&request(resources)), 200);
    let is_utf8 = ["NoUTF8EscapingWithSuffixes", "NoTranslation"].contains(&strategy);
    if !is_utf8 {
        list.push(known("sanitised.exemplar", "Prometheus keeps dots in the labels of exemplars"));
        let equal = gauge("equal.values", "", vec![number(times, 1.0, &[("foo.bar", "a"), ("foo_bar", "a")])]);
        assert_eq!(pair.send(&request(vec![of(CART, vec![equal])])), 200);
        list.push(known("equal.values", "colliding labels with equal values are not repeated, as in the Collector"));
    }
    pair.compare(times.start, &list);
}

#[test]
fn underscores_with_suffixes() {
    check("UnderscoreEscapingWithSuffixes", false);
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

/// Where the two differ in `target_info`, which is equal in labels, values and times otherwise: a query, what it gives through the gateway, what
/// straight, and why.
const TARGETS: [(&str, f64, f64, &str); 3] = [
    (
        "count(target_info{job=\"moved\"})",
        1.0,
        2.0,
        "when the attributes of a resource change, the old series ends; in Prometheus it stays for five minutes, and joins find both",
    ),
    (
        "count_over_time(target_info{job=\"late\"}[1h])",
        1.0,
        5.0,
        "of points of one push that lie far apart the newest one counts; Prometheus fills the time between every 2.5 minutes",
    ),
    (
        "count_over_time(target_info{job=\"steady\"}[1h])",
        1.0,
        3.0,
        "by default again after a minute (`target_info.interval`), enough for joins; Prometheus sends it with every push",
    ),
];

#[test]
fn target_info_differs_where_it_is_meant_to() {
    let pair = Pair::start("UnderscoreEscapingWithSuffixes", false);
    let by_default =
        GATEWAY.replace("@PROMETHEUS@", &pair.ours.write_url()).replace("target_info: {interval: 1ms}", "");
    let by_default = Gateway::start(&by_default.replace("@STRATEGY@", "''").replace("@MORE@", ""));
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
    let pair = Pair::start_with("UnderscoreEscapingWithSuffixes", false, sending.each_ref().map(String::as_str));
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
    let gateway = Gateway::start(&config.replace("@STRATEGY@", "''").replace("@MORE@", "stale_after: 10s"));
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

const PAGE: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
exporters:
  prometheus:
    endpoint: 127.0.0.1:@PAGE@
    send_timestamps: true
    enable_open_metrics: true
    translation_strategy: @STRATEGY@
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    metrics: {receivers: [otlp], exporters: [prometheus]}
";

const SCRAPER: &str = "
global: {}
storage: {exemplars: {max_exemplars: 10000}}
scrape_configs:
  - job_name: gateway
    honor_labels: true
    scrape_interval: 1s
    scrape_protocols: [@PROTOCOL@]
    scrape_native_histograms: true
    static_configs: [{targets: ['127.0.0.1:@PAGE@']}]
";

/// Compares what a Prometheus scrapes off the page with what another one takes in itself.
fn scrape(protocol: &str, strategy: &str, more: &[Known]) {
    let page = free_port().to_string();
    let gateway = Gateway::start(&PAGE.replace("@PAGE@", &page).replace("@STRATEGY@", strategy));
    let times = times();
    let mut pushed = common(times, times.now | 1);
    pushed.resource_metrics.extend(in_both_forms(times).resource_metrics);
    assert_eq!(gateway.client().metrics(&pushed).status, 0);
    let scraper = SCRAPER.replace("@PAGE@", &page).replace("@PROTOCOL@", protocol);
    let ours = Prometheus::start_with(&scraper, &["--enable-feature=exemplar-storage"]);
    let config = PROMETHEUS.replace("@STRATEGY@", strategy).replace("@NHCB@", "false");
    let features = "--enable-feature=exemplar-storage,otlp-deltatocumulative";
    let theirs = Prometheus::start_with(&config, &["--web.enable-otlp-receiver", features]);
    let kind = "application/x-protobuf";
    let answer = http::post(theirs.port, "/api/v1/otlp/v1/metrics", kind, "", pushed.encode_to_vec());
    assert_eq!(answer.expect("Prometheus answers").status, 200);
    let mut list = vec![
        known("up", "of the scrape"),
        known("scrape_", "of the scrape"),
        known("nobody", "the scraper fills in job and instance"),
        known("only.instance", "the scraper fills in job and instance"),
        known("visits", "the scraper fills in the instance"),
        known("target_info", "the scraper fills in job or instance"),
    ];
    list.extend(more.iter().map(|known| Known { ..*known }));
    let mut seen = BTreeSet::new();
    eventually("what is scraped is what is taken in", || {
        seen.clear();
        let (ours, theirs) = (with_plain_bounds(series(&ours)), with_plain_bounds(series(&theirs)));
        let unexpected = differences(&ours, &theirs, &list, &mut seen);
        if unexpected.is_empty() { Ok(()) } else { Err(unexpected.join("\n")) }
    });
    for (index, known) in list.iter().enumerate() {
        assert!(seen.contains(&index), "no such difference any more: {} ({})", known.metric, known.reason);
    }
    let exemplified = exemplars(&ours);
    assert!(protocol.starts_with("PrometheusText") || exemplified.len() > 3, "{exemplified:#?}");
    assert_eq!(ours.value("count(up == 1)"), Some(1.0));
}

/// A scraping Prometheus writes bounds as `1.0`, and one that takes in OTLP as `1`.
fn with_plain_bounds(content: Content) -> Content {
    let plain = |(key, value): (String, Value)| {
        let mut labels: Value = serde_json::from_str(&key).unwrap();
        for name in ["le", "quantile"] {
            if let Some(bound) = labels[name].as_str().and_then(|text| text.parse::<f64>().ok()) {
                labels[name] = json!(bound.to_string());
            }
        }
        let present: serde_json::Map<_, _> = labels
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        (Value::Object(present).to_string(), value)
    };
    content.into_iter().map(plain).collect()
}

/// Exponential histograms in `common`, and why a text page does not have them.
fn without_native_histograms() -> Vec<Known> {
    const NAMES: [&str; 10] = [
        "both.forms",
        "bytes.sent",
        "down.scaled",
        "high.scale",
        "both.signs",
        "only.zeros",
        "nothing.yet",
        "exemplified.bytes",
        "delta.bytes",
        "many",
    ];
    NAMES.map(|name| known(name, "the text formats have no native histograms")).into()
}

#[test]
fn scraped_as_protobuf() {
    scrape("PrometheusProto", "UnderscoreEscapingWithSuffixes", &[]);
}

#[test]
fn scraped_as_protobuf_with_utf8_names() {
    scrape("PrometheusProto, PrometheusText1.0.0", "NoTranslation", &[]);
}

#[test]
fn scraped_as_open_metrics() {
    scrape("OpenMetricsText1.0.0", "UnderscoreEscapingWithSuffixes", &without_native_histograms());
}

#[test]
fn scraped_as_text() {
    scrape("PrometheusText0.0.4", "UnderscoreEscapingWithSuffixes", &without_native_histograms());
}

#[test]
fn scraped_as_text_with_utf8_names() {
    scrape("PrometheusText1.0.0", "NoUTF8EscapingWithSuffixes", &without_native_histograms());
}
