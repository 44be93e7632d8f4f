//! Deltas that arrive in a real Prometheus as totals, and totals that leave as deltas.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Histogram, HistogramDataPoint, Metric};
use support::otlp::{attribute, sum_request};
use support::otlp_client::OK;
use support::{Backend, Gateway, Prometheus, eventually, unix_nanos};

const CONFIG: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
processors:
  deltatocumulative: {max_stale: 10m}
  cumulativetodelta: {initial_value: keep}
connectors: {forward: }
exporters:
  prometheus_remote_write: {endpoint: '@PROMETHEUS@'}
  otlp: {endpoint: 127.0.0.1:@OTLP@, tls: {insecure: true}}
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    metrics/totals: {receivers: [otlp], processors: [deltatocumulative], exporters: [prometheus_remote_write, forward]}
    metrics/deltas: {receivers: [forward], processors: [cumulativetodelta], exporters: [otlp]}
";

/// Window `number` of a counter and of a histogram, which follow one another without gaps.
fn window(number: u64, began: u64) -> ExportMetricsServiceRequest {
    let (start, time) = (began + number * 1_000_000_000, began + (number + 1) * 1_000_000_000);
    let points = vec![(vec![attribute("region", "eu")], number as i64), (vec![attribute("region", "us")], 2)];
    let mut request = sum_request("shop", "orders", start, &points);
    let metrics = &mut request.resource_metrics[0].scope_metrics[0].metrics;
    let Some(Data::Sum(sum)) = &mut metrics[0].data else { unreachable!() };
    sum.aggregation_temporality = AggregationTemporality::Delta.into();
    sum.data_points.iter_mut().for_each(|point| point.time_unix_nano = time);
    let point = HistogramDataPoint {
        start_time_unix_nano: start,
        time_unix_nano: time,
        count: 3,
        sum: Some(1.5),
        explicit_bounds: vec![0.5],
        bucket_counts: vec![2, 1],
        ..HistogramDataPoint::default()
    };
    let data = Histogram { data_points: vec![point], aggregation_temporality: AggregationTemporality::Delta.into() };
    metrics.push(Metric {
        name: "wait".into(),
        unit: "s".into(),
        data: Some(Data::Histogram(data)),
        ..Metric::default()
    });
    request
}

#[test]
fn deltas_become_totals_and_deltas_again() {
    const WINDOWS: u64 = 20;
    let (prometheus, backend) = (Prometheus::start(), Backend::start());
    let config = CONFIG.replace("@PROMETHEUS@", &prometheus.write_url()).replace("@OTLP@", &backend.port.to_string());
    let gateway = Gateway::start(&config);
    let mut client = gateway.client();
    let began = unix_nanos() - (WINDOWS + 1) * 1_000_000_000;
    for number in 0..WINDOWS {
        assert_eq!(client.metrics(&window(number, began)).status, OK);
    }
    let orders = (0..WINDOWS).sum::<u64>() as f64;
    prometheus.wait_for("orders_total{region=\"eu\"}", orders);
    prometheus.wait_for("orders_total{region=\"us\"}", 2.0 * WINDOWS as f64);
    prometheus.wait_for("wait_seconds_count", 3.0 * WINDOWS as f64);
    prometheus.wait_for("wait_seconds_bucket{le=\"0.5\"}", 2.0 * WINDOWS as f64);
    prometheus.wait_for("wait_seconds_sum", 1.5 * WINDOWS as f64);

    eventually("each difference has arrived as it was sent", || {
        let (mut ints, mut counts) = (Vec::new(), Vec::new());
        let requests = backend.metrics();
        let scopes = requests.iter().flat_map(|request| &request.resource_metrics).flat_map(|one| &one.scope_metrics);
        for metric in scopes.flat_map(|scope| &scope.metrics) {
            match metric.data.as_ref().unwrap() {
                Data::Sum(sum) => {
                    assert_eq!(sum.aggregation_temporality, AggregationTemporality::Delta as i32);
                    ints.extend(sum.data_points.iter().map(|point| match point.value {
                        Some(Number::AsInt(value)) => value as u64,
                        other => panic!("{other:?}"),
                    }));
                }
                Data::Histogram(histogram) => {
                    assert_eq!(histogram.aggregation_temporality, AggregationTemporality::Delta as i32);
                    counts.extend(histogram.data_points.iter().map(|point| (point.count, point.bucket_counts.clone())));
                }
                other => panic!("{other:?}"),
            }
        }
        let mut expected: Vec<u64> = (0..WINDOWS).chain((0..WINDOWS).map(|_| 2)).collect();
        ints.sort_unstable();
        expected.sort_unstable();
        let is_complete = ints == expected && counts == vec![(3, vec![2, 1]); WINDOWS as usize];
        if is_complete { Ok(()) } else { Err((ints, counts)) }
    });
    eventually("every account balances", || {
        let ledger = gateway.metrics().ledger();
        let open: Vec<_> = ledger.into_iter().filter(|one| one.difference() != 0.0 || one.held != 0.0).collect();
        if open.is_empty() { Ok(()) } else { Err(open) }
    });
}
