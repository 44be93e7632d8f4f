//! The limiter in front of remote write: what a receiver sees of a collapsed series.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use support::otlp::{attribute, sum_request};
use support::otlp_client::OK;
use support::{Backend, Gateway, eventually, unix_nanos};

/// The receiver is the gateway's own: it hands on what remote write 2.0 said.
const CONFIG: &str = "
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}
  prometheus_remote_write: {endpoint: 127.0.0.1:@HTTP@}
processors:
  cardinality_limit: {flush_interval: 200ms, rules: [{metrics: [c], labels: {u: 2}}]}
exporters:
  prometheus_remote_write:
    endpoint: http://127.0.0.1:@HTTP@/api/v1/write
    protobuf_message: io.prometheus.write.v2.Request
  otlp: {endpoint: 127.0.0.1:@OTLP@, tls: {insecure: true}}
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    metrics/limited: {receivers: [otlp], processors: [cardinality_limit], exporters: [prometheus_remote_write]}
    metrics/received: {receivers: [prometheus_remote_write], exporters: [otlp]}
";

/// Start, time and value of the points of `c{u="other"}` that have arrived.
fn collapsed(backend: &Backend) -> Vec<(u64, u64, f64)> {
    let is_other = |point: &&NumberDataPoint| {
        let value = |key: &str| point.attributes.iter().find(|pair| pair.key == key)?.value.clone()?.value;
        value("u") == Some(Value::StringValue("other".to_owned()))
    };
    let mut found = Vec::new();
    let requests = backend.metrics();
    let scopes = requests.iter().flat_map(|request| &request.resource_metrics).flat_map(|one| &one.scope_metrics);
    for metric in scopes.flat_map(|scope| &scope.metrics) {
        let Some(Data::Sum(sum)) = &metric.data else { continue };
        for point in sum.data_points.iter().filter(is_other) {
            let value = match point.value {
                Some(Number::AsInt(value)) => value as f64,
                Some(Number::AsDouble(value)) => value,
                None => panic!("{point:?}"),
            };
            found.push((point.start_time_unix_nano, point.time_unix_nano, value));
        }
    }
    found
}

/// Case L34 of the test plan: a series that others are collapsed to, in remote write 2.0. Guarantee: its value rises over new
/// contributors and over one that begins anew, its times rise, and its start stays.
#[test]
fn a_collapsed_series_rises_at_the_receiver() {
    let backend = Backend::start();
    let gateway = Gateway::start(&CONFIG.replace("@OTLP@", &backend.port.to_string()));
    let mut client = gateway.client();
    let mut send = |start: u64, values: &[(&str, i64)]| {
        let points: Vec<_> = values.iter().map(|(user, value)| (vec![attribute("u", user)], *value)).collect();
        assert_eq!(client.metrics(&sum_request("shop", "c", start, &points)).status, OK);
    };
    let begins = unix_nanos();
    let expect = |value: f64| {
        eventually(&format!("the sum of the others is {value}"), || {
            let found = collapsed(&backend);
            if found.last().is_some_and(|(.., last)| *last == value) { Ok(()) } else { Err(found) }
        });
    };
    send(begins, &[("a", 1), ("b", 2), ("c", 5), ("d", 7)]);
    expect(12.0);
    send(begins, &[("c", 8), ("d", 7), ("e", 1)]);
    expect(16.0);
    send(unix_nanos() - 1_000_000, &[("c", 2)]);
    expect(18.0);
    let found = collapsed(&backend);
    for pair in found.windows(2) {
        let [(start, time, value), (next_start, next_time, next_value)] = pair else { unreachable!() };
        assert!(start == next_start && time < next_time && value <= next_value, "{found:?}");
    }
    assert_eq!(found[0].0 / 1_000_000, begins / 1_000_000, "it began with its first contributors");
}
