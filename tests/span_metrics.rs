//! Dashboards that sampling does not blind: span_metrics in front of a sampler that keeps 1 %.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use support::otlp::{attribute, trace, traces_request};
use support::{Backend, Gateway, Prometheus, eventually};

const CONFIG: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
connectors:
  spanmetrics:
    dimensions: [{name: http.route}, {name: zone, default: none}]
    histogram: {explicit: {buckets: [10ms, 100ms, 1s]}}
    metrics_flush_interval: 500ms
  spanmetrics/kept:
    namespace: kept
    exemplars: {enabled: true}
    metrics_flush_interval: 500ms
  forward:
processors:
  tail_sampling:
    decision_wait: 1s
    rules: [{name: rest, sampling_percentage: 1}]
exporters:
  otlp/traces: {endpoint: 127.0.0.1:@TRACES@, tls: {insecure: true}}
  otlp/metrics: {endpoint: 127.0.0.1:@RED@, tls: {insecure: true}}
  otlp/kept: {endpoint: 127.0.0.1:@KEPT@, tls: {insecure: true}}
  prometheus_remote_write: {endpoint: '@PROMETHEUS@'}
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    traces/in: {receivers: [otlp], exporters: [spanmetrics, forward]}
    traces/sampled: {receivers: [forward], processors: [tail_sampling], exporters: [otlp/traces, spanmetrics/kept]}
    metrics/kept: {receivers: [spanmetrics/kept], exporters: [otlp/kept]}
    metrics: {receivers: [spanmetrics], exporters: [otlp/metrics, prometheus_remote_write]}
";

const TRACES: u64 = 3000;
const SPANS: u64 = 4;
const ROUTES: [&str; 3] = ["/cart", "/pay", "/search"];

/// Service, span name, status, route.
type Key = [String; 4];

/// Requests, sum of durations in milliseconds, and the buckets.
#[derive(Debug, Clone, Default, PartialEq)]
struct Red {
    calls: u64,
    count: u64,
    sum: f64,
    buckets: Vec<u64>,
}

/// The spans of trace `number`, of which one in ten has failed and the durations vary.
fn spans(number: u64) -> Vec<Span> {
    let mut spans = trace(number, SPANS);
    for (index, span) in spans.iter_mut().enumerate() {
        let millis = (number * 7 + index as u64 * 13) % 2000;
        span.start_time_unix_nano = span.end_time_unix_nano - millis * 1_000_000;
        span.status = Some(Status { code: if number.is_multiple_of(10) { 2 } else { 0 }, ..Status::default() });
        span.attributes.push(attribute("http.route", ROUTES[number as usize % ROUTES.len()]));
    }
    spans
}

fn count(expected: &mut BTreeMap<Key, Red>, service: &str, spans: &[Span]) {
    for span in spans {
        let millis = (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000_000;
        let route = span.attributes.iter().find(|attribute| attribute.key == "http.route").unwrap();
        let status = if span.status.as_ref().unwrap().code == 2 { "STATUS_CODE_ERROR" } else { "STATUS_CODE_UNSET" };
        let key = [service.to_owned(), span.name.clone(), status.to_owned(), text(route)];
        let red = expected.entry(key).or_insert_with(|| Red { buckets: vec![0; 4], ..Red::default() });
        red.calls += 1;
        red.count += 1;
        red.sum += millis as f64;
        red.buckets[[10, 100, 1000].iter().filter(|bound| millis > **bound).count()] += 1;
    }
}

fn text(attribute: &KeyValue) -> String {
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

fn key(attributes: &[KeyValue]) -> Key {
    let get = |key: &str| attributes.iter().find(|attribute| attribute.key == key).map(text).unwrap_or_default();
    assert_eq!((get("zone").as_str(), get("span.kind").as_str()), ("none", "SPAN_KIND_SERVER"));
    ["service.name", "span.name", "status.code", "http.route"].map(get)
}

/// What the backend knows of each series: its newest point.
fn newest(requests: &[ExportMetricsServiceRequest]) -> BTreeMap<Key, Red> {
    let mut found: BTreeMap<Key, Red> = BTreeMap::new();
    let resources = requests.iter().flat_map(|request| &request.resource_metrics);
    for metric in resources.flat_map(|resource| &resource.scope_metrics).flat_map(|scope| &scope.metrics) {
        match (metric.name.as_str(), metric.data.as_ref().unwrap()) {
            ("traces.span.metrics.calls", Data::Sum(sum)) => {
                for point in &sum.data_points {
                    let Some(Number::AsInt(calls)) = point.value else { panic!("{point:?}") };
                    let red = found.entry(key(&point.attributes)).or_default();
                    assert!(calls as u64 >= red.calls, "a total that falls: {point:?}");
                    red.calls = calls as u64;
                }
            }
            ("traces.span.metrics.duration", Data::Histogram(histogram)) => {
                assert_eq!(metric.unit, "ms");
                for point in &histogram.data_points {
                    assert_eq!(point.explicit_bounds, [10.0, 100.0, 1000.0]);
                    let red = found.entry(key(&point.attributes)).or_default();
                    (red.count, red.sum) = (point.count, point.sum.unwrap());
                    red.buckets.clone_from(&point.bucket_counts);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    found
}

/// The traces of all exemplars of durations.
fn exemplified(requests: &[ExportMetricsServiceRequest]) -> BTreeSet<Vec<u8>> {
    let resources = requests.iter().flat_map(|request| &request.resource_metrics);
    let metrics = resources.flat_map(|resource| &resource.scope_metrics).flat_map(|scope| &scope.metrics);
    let points = metrics.flat_map(|metric| match metric.data.as_ref().unwrap() {
        Data::Histogram(histogram) => histogram.data_points.as_slice(),
        _ => &[],
    });
    points.flat_map(|point| &point.exemplars).map(|exemplar| exemplar.trace_id.clone()).collect()
}

/// Two services send 24,000 spans over several connections. Requests, errors and durations arrive exactly
/// as they were sent, over OTLP and in a real Prometheus, while the sampler keeps 1 % of the traces; and
/// every account balances. Exemplars of a connector behind the sampler are of traces that were kept.
#[test]
fn red_metrics_are_exact_although_the_sampler_keeps_one_percent() {
    let (traces, red, prometheus) = (Backend::start(), Backend::start(), Prometheus::start());
    let behind = Backend::start();
    let config = CONFIG
        .replace("@TRACES@", &traces.port.to_string())
        .replace("@RED@", &red.port.to_string())
        .replace("@KEPT@", &behind.port.to_string())
        .replace("@PROMETHEUS@", &prometheus.write_url());
    let gateway = Gateway::start(&config);
    let mut expected = BTreeMap::new();
    std::thread::scope(|scope| {
        for (half, service) in [(0, "shop"), (1, "stock")] {
            let numbers = half * TRACES..(half + 1) * TRACES;
            for number in numbers.clone() {
                count(&mut expected, service, &spans(number));
            }
            for part in 0..2 {
                let (gateway, numbers) = (&gateway, numbers.clone());
                scope.spawn(move || {
                    let mut client = gateway.client();
                    let own: Vec<u64> = numbers.filter(|number| number % 2 == part).collect();
                    for chunk in own.chunks(25) {
                        let spans = chunk.iter().flat_map(|&number| spans(number)).collect();
                        client.traces_with_retry(&traces_request(service, spans));
                    }
                });
            }
        }
    });
    eventually("the metrics have all spans", || {
        let found = newest(&red.metrics());
        if found == expected { Ok(()) } else { Err(format!("{} series of {}", found.len(), expected.len())) }
    });
    let calls = |matchers: &str| format!("sum(traces_span_metrics_calls_total{{{matchers}}})");
    prometheus.wait_for(&calls("service_name=\"shop\""), (TRACES * SPANS) as f64);
    prometheus.wait_for(&calls("status_code=\"STATUS_CODE_ERROR\""), (2 * TRACES * SPANS / 10) as f64);
    let slow = expected.values().map(|red| red.buckets[3]).sum::<u64>() as f64;
    let buckets = "sum(traces_span_metrics_duration_milliseconds_bucket{le=\"+Inf\"})";
    let below = "sum(traces_span_metrics_duration_milliseconds_bucket{le=\"1000\"})";
    prometheus.wait_for(&format!("{buckets} - {below}"), slow);

    eventually("the sampler is done and every account balances", || {
        let samples = gateway.metrics();
        let open: Vec<_> = samples.ledger().into_iter().filter(|account| account.difference() != 0.0).collect();
        let sampler = samples.account("pipeline/traces/sampled", "traces");
        if open.is_empty() && sampler.held == 0.0 { Ok(()) } else { Err((open, sampler)) }
    });
    let samples = gateway.metrics();
    let spans = (2 * TRACES * SPANS) as f64;
    let connector = samples.account("connector/spanmetrics", "traces");
    assert_eq!((connector.accepted, connector.merged), (spans, spans));
    let forward = samples.account("connector/forward", "traces");
    assert_eq!((forward.accepted, forward.emitted), (spans, spans));
    let kept = eventually("what was kept has arrived", || {
        let kept = samples.account("pipeline/traces/sampled", "traces").emitted as usize;
        if traces.span_count() == kept { Ok(kept) } else { Err((kept, traces.span_count())) }
    });
    // 60 traces of 6000 on average; five standard deviations are 39.
    let ids: BTreeSet<Vec<u8>> = traces.spans().into_keys().map(|(trace, _)| trace).collect();
    let exemplified = eventually("there are exemplars of what was kept", || {
        let found = exemplified(&behind.metrics());
        if found.is_empty() { Err("none") } else { Ok(found) }
    });
    assert!(exemplified.is_subset(&ids), "exemplars of traces that nobody finds");
    let kept = kept / SPANS as usize;
    assert!((21..=99).contains(&kept), "{kept} traces were kept");
}
