//! Metrics in from the Prometheus world: a real Prometheus that sends remote write through the gateway, and a
//! gateway that scrapes a real Prometheus. What arrives is asked for in another real Prometheus.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Histogram, HistogramDataPoint};
use support::otlp::{attribute, sum_request};
use support::otlp_client::OK;
use support::{Gateway, Prometheus, eventually, http, unix_nanos};

/// Names and labels as they came: what leaves must be what arrived.
const GATEWAY: &str = "
extensions:
  health_check: {endpoint: 127.0.0.1:@HEALTH@}
receivers:
  @RECEIVER@
exporters:
  prometheus_remote_write:
    endpoint: '@PROMETHEUS@'
    translation_strategy: UnderscoreEscapingWithoutSuffixes
    disable_scope_info: true
    le_format: openmetrics
service:
  extensions: [health_check]
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    metrics: {receivers: [@NAME@], exporters: [prometheus_remote_write]}
";

fn gateway(name: &str, receiver: &str, backend: &Prometheus) -> Gateway {
    let config = GATEWAY.replace("@RECEIVER@", &format!("{name}: {receiver}")).replace("@NAME@", name);
    Gateway::start(&config.replace("@PROMETHEUS@", &backend.write_url()))
}

/// A Prometheus that scrapes itself and sends what it finds to `port`.
fn sender(port: u16, message: &str) -> Prometheus {
    let configuration = format!(
        "
global: {{scrape_interval: 1s, scrape_timeout: 1s, scrape_native_histograms: true}}
scrape_configs:
  - job_name: self
    always_scrape_classic_histograms: true
    static_configs: [{{targets: ['127.0.0.1:@PORT@'], labels: {{zone: eu}}}}]
remote_write:
  - url: http://127.0.0.1:{port}/api/v1/write
    protobuf_message: {message}
    send_exemplars: true
    send_native_histograms: true
    queue_config: {{max_samples_per_send: 500, batch_send_deadline: 200ms, max_backoff: 1s}}
    metadata_config: {{send: true, send_interval: 1s}}
"
    );
    Prometheus::start_with(&configuration, &[])
}

/// Every series that the sender has at one moment is there, with the same labels and the same value, native
/// histograms included.
fn every_series_arrives(message: &str) {
    let backend = Prometheus::start();
    let gateway = gateway("prometheus_remote_write", "{endpoint: 127.0.0.1:@HTTP@}", &backend);
    let sender = sender(gateway.http_port, message);
    let native = "histogram_count(prometheus_http_request_duration_seconds)";
    eventually("the sender has scraped itself a few times", || {
        let scrapes = sender.value("count_over_time(up{job=\"self\"}[1h])").filter(|scrapes| *scrapes >= 5.0);
        let native = sender.query(native).len();
        if scrapes.is_some() && native > 0 { Ok(()) } else { Err((scrapes, native)) }
    });
    let now = unix_nanos() as f64 / 1e9;
    for query in [
        "{job=\"self\"}",
        native,
        "histogram_sum(prometheus_http_request_duration_seconds)",
        "histogram_quantile(0.9, prometheus_http_request_duration_seconds)",
        "rate(prometheus_http_requests_total[1h]) >= 0",
    ] {
        let wanted = sender.series_at(query, now);
        assert!(!wanted.is_empty(), "{query} gives nothing at the sender");
        eventually(&format!("{query} gives the same at both"), || differences(&wanted, &backend.series_at(query, now)));
    }
    assert!(sender.series_at("{job=\"self\"}", now).len() > 300);
    let metrics = gateway.metrics();
    assert!(metrics.sum("otelcol_receiver_requests", &[("outcome", "success")]) >= 1.0);
    assert_eq!(metrics.sum("otelcol_receiver_requests", &[("outcome", "failure")]), 0.0);
    assert_eq!(metrics.sum("nyquist_ledger_dropped_items", &[]), 0.0);
}

/// Values may differ in their last digits where they are computed.
fn differences(wanted: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> Result<(), Vec<String>> {
    let is_same = |own: &str, other: &str| {
        let (own_value, other_value): (f64, f64) = (own.parse().unwrap(), other.parse().unwrap());
        own == other || (own_value - other_value).abs() <= 1e-9 * own_value.abs()
    };
    let mut differences = Vec::new();
    for (labels, value) in wanted {
        match found.get(labels) {
            Some(other) if is_same(value, other) => {}
            other => differences.push(format!("{labels}: {value} at the sender, {other:?} here")),
        }
    }
    let extra = found.keys().filter(|labels| !wanted.contains_key(*labels));
    differences.extend(extra.map(|labels| format!("{labels}: only here")));
    let count = differences.len();
    differences.truncate(5);
    if count == 0 { Ok(()) } else { Err(differences) }
}

#[test]
fn remote_write_1_arrives() {
    every_series_arrives("prometheus.WriteRequest");
}

#[test]
fn remote_write_2_arrives() {
    every_series_arrives("io.prometheus.write.v2.Request");
}

/// What the gateway scrapes is what the page says, and what a Prometheus makes of it that scrapes it itself: labels, bounds
/// and histograms in both forms. When the target goes, `up` is 0 and its series end.
#[test]
fn a_scraped_prometheus_arrives() {
    let target = Prometheus::start();
    let direct = format!(
        "
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: direct
    scrape_native_histograms: true
    always_scrape_classic_histograms: true
    static_configs: [{{targets: ['127.0.0.1:{}']}}]
",
        target.port
    );
    let backend = Prometheus::start_with(&direct, &[]);
    let receiver = format!(
        "
    config:
      global: {{scrape_interval: 1s, scrape_timeout: 1s}}
      scrape_configs:
        - job_name: scraped
          scrape_native_histograms: true
          always_scrape_classic_histograms: true
          static_configs: [{{targets: ['127.0.0.1:{}'], labels: {{zone: eu}}}}]
          metric_relabel_configs:
            - {{source_labels: [handler], regex: '/-/(.*)', target_label: short, replacement: 'is $$1'}}
            - {{source_labels: [__name__], regex: go_memstats_.*, action: drop}}",
        target.port
    );
    let gateway = gateway("prometheus", &receiver, &backend);
    let own = format!("job=\"scraped\", instance=\"127.0.0.1:{}\", zone=\"eu\"", target.port);
    backend.wait_for(&format!("up{{{own}}}"), 1.0);

    // What does not change any more once the target is ready and nobody asks it.
    let page = http::get(target.port, "/metrics").unwrap().text();
    let line = |start: &str| {
        let line = page.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start} in {page}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let ready = "handler=\"/-/ready\"";
    let counter = line(&format!("prometheus_http_requests_total{{code=\"200\",{ready}}}"));
    backend
        .wait_for(&format!("prometheus_http_requests_total{{code=\"200\",{ready},short=\"is ready\",{own}}}"), counter);
    let bucket = line(&format!("prometheus_http_response_size_bytes_bucket{{{ready},le=\"1000\"}}"));
    let count = line(&format!("prometheus_http_response_size_bytes_count{{{ready}}}"));
    backend.wait_for(&format!("prometheus_http_response_size_bytes_count{{{ready},{own}}}"), count);
    backend.wait_for(&format!("prometheus_http_response_size_bytes_bucket{{{ready},le=\"1000.0\",{own}}}"), bucket);
    backend.wait_for(&format!("prometheus_http_response_size_bytes_bucket{{{ready},le=\"+Inf\",{own}}}"), count);
    let size = line(&format!("prometheus_http_response_size_bytes_sum{{{ready}}}"));
    backend.wait_for(&format!("prometheus_http_response_size_bytes_sum{{{ready},{own}}}"), size);
    // A histogram in both forms.
    let bucket = line(&format!("prometheus_http_request_duration_seconds_bucket{{{ready},le=\"1\"}}"));
    backend.wait_for(&format!("prometheus_http_request_duration_seconds_bucket{{{ready},le=\"1.0\",{own}}}"), bucket);
    let seconds = format!("prometheus_http_request_duration_seconds{{{ready},{own}}}");
    backend.wait_for(&format!("histogram_count({seconds})"), count);
    let sum = line(&format!("prometheus_http_request_duration_seconds_sum{{{ready}}}"));
    backend.wait_for(&format!("histogram_sum({seconds})"), sum);
    let bounds = |job: &str| {
        let buckets =
            format!("count by (__name__, handler, le) ({{__name__=~\"prometheus_http_.*_bucket\", job=\"{job}\"}})");
        backend.query(&buckets).into_iter().map(|(labels, _)| labels.to_string()).collect::<BTreeSet<_>>()
    };
    eventually("bounds are those of a Prometheus that scrapes", || {
        let (direct, scraped) = (bounds("direct"), bounds("scraped"));
        if direct.len() > 20 && direct == scraped { Ok(()) } else { Err((direct, scraped)) }
    });
    // A summary.
    eventually("a quantile arrives", || {
        let found = backend.query(&format!("go_gc_duration_seconds{{quantile=\"0.5\",{own}}}"));
        if found.len() == 1 { Ok(()) } else { Err(found) }
    });
    assert_eq!(backend.query(&format!("{{__name__=~\"go_memstats_.*\",{own}}}")).len(), 0, "dropped by a rule");
    let scraped = backend.value(&format!("scrape_samples_scraped{{{own}}}")).unwrap();
    let kept = backend.value(&format!("scrape_samples_post_metric_relabeling{{{own}}}")).unwrap();
    assert!(kept > 300.0 && scraped > kept, "{scraped} scraped, {kept} kept");

    target.kill();
    backend.wait_for(&format!("up{{{own}}}"), 0.0);
    eventually("the target's series have ended", || {
        // Native histograms among them, which have no single value.
        match backend.value(&format!("count({{__name__=~\"prometheus_.*\",{own}}})")) {
            None => Ok(()),
            left => Err(left),
        }
    });
    let metrics = gateway.metrics();
    assert!(metrics.sum("nyquist_receiver_scrapes", &[("outcome", "success")]) >= 1.0);
    assert!(metrics.sum("nyquist_receiver_scrapes", &[("outcome", "failure")]) >= 1.0);
    assert_eq!(metrics.sum("nyquist_receiver_bad_samples", &[]), 0.0);
}

/// What senders write with remote write is limited, and written on with names and types as they are by default.
const LIMITED: &str = "
extensions:
  health_check: {endpoint: 127.0.0.1:@HEALTH@}
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}
  prometheus_remote_write: {endpoint: 127.0.0.1:@HTTP@}
processors:
  cardinality_limit: {flush_interval: 200ms, rules: [{metrics: [h_bucket, h_sum, h_count], labels: {u: 0}}]}
exporters:
  prometheus_remote_write/sender:
    endpoint: http://127.0.0.1:@HTTP@/api/v1/write
    protobuf_message: io.prometheus.write.v2.Request
  prometheus_remote_write: {endpoint: '@PROMETHEUS@', disable_scope_info: true}
service:
  extensions: [health_check]
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    metrics/sent: {receivers: [otlp], exporters: [prometheus_remote_write/sender]}
    metrics: {receivers: [prometheus_remote_write], processors: [cardinality_limit], exporters: [prometheus_remote_write]}
";

/// The histogram `h` of each user: how many values up to 1 and above, or its end.
fn histograms(start: u64, users: &[(&str, Option<[u64; 2]>)]) -> ExportMetricsServiceRequest {
    let time = unix_nanos();
    let point = |(user, buckets): &(&str, Option<[u64; 2]>)| HistogramDataPoint {
        attributes: vec![attribute("u", user)],
        start_time_unix_nano: start,
        time_unix_nano: time,
        count: buckets.map_or(0, |[low, high]| low + high),
        sum: Some(buckets.map_or(0.0, |[low, high]| low as f64 + 2.0 * high as f64)),
        bucket_counts: buckets.map_or(vec![0, 0], Vec::from),
        explicit_bounds: vec![1.0],
        flags: u32::from(buckets.is_none()),
        ..HistogramDataPoint::default()
    };
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    let histogram = Histogram { data_points: users.iter().map(point).collect(), aggregation_temporality };
    let mut request = sum_request("shop", "h", start, &[]);
    let metric = &mut request.resource_metrics[0].scope_metrics[0].metrics[0];
    metric.data = Some(Data::Histogram(histogram));
    request
}

/// Scenario: the series of classic histograms, limited; one of the senders ends, another begins anew. Guarantee: the
/// collapsed series add up what all of them have counted and never fall, under the names that came.
#[test]
fn limited_histograms_rise_when_a_sender_ends() {
    let backend = Prometheus::start();
    let gateway = Gateway::start(&LIMITED.replace("@PROMETHEUS@", &backend.write_url()));
    let mut client = gateway.client();
    let mut send = |start, users: &[(&str, Option<[u64; 2]>)]| {
        assert_eq!(client.metrics(&histograms(start, users)).status, OK);
    };
    let expect = |low: f64, high: f64| {
        backend.wait_for("h_bucket{u=\"other\",le=\"1\"}", low);
        backend.wait_for("h_bucket{u=\"other\",le=\"+Inf\"}", low + high);
        backend.wait_for("h_count{u=\"other\"}", low + high);
        backend.wait_for("h_sum{u=\"other\"}", low + 2.0 * high);
    };
    // Remote write tells milliseconds apart.
    let begins = unix_nanos() - 2_000_000;
    send(begins, &[("c", Some([1, 2])), ("d", Some([30, 40]))]);
    expect(31.0, 42.0);
    send(begins, &[("c", Some([2, 2])), ("d", None)]);
    expect(32.0, 42.0);
    send(unix_nanos() - 2_000_000, &[("c", Some([1, 1]))]);
    expect(33.0, 43.0);
    for name in ["h_bucket", "h_sum", "h_count"] {
        let falls = backend.query(&format!("resets({name}[1h])"));
        assert!(!falls.is_empty() && falls.iter().all(|(_, falls)| *falls == 0.0), "{name}: {falls:?}");
    }
    assert_eq!(backend.value("count({__name__=~\"h_.*\"})"), Some(4.0), "no others");
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("otelcol_processor_cardinality_limit_rebaselined_total", &[]), 0.0);
    assert_eq!(metrics.sum("nyquist_ledger_dropped_items", &[]), 0.0);
}
