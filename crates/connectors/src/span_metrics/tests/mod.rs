//! The connector with spans made by hand and a clock that the tests move.

mod bounds;
mod keys;
mod model;
mod reports;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, Refusal, Signal};
use nyquist_core::clock::{Clock, ManualClock};
use nyquist_core::component::{ConnectorContext, Consumer, Extensions};
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::telemetry::{Ledger, Telemetry};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Metric, MetricsData, ResourceMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use parking_lot::Mutex;
use prost::Message;

use super::{SpanMetrics, SpanMetricsConfig};

/// 2023-11-14, in nanoseconds.
const EPOCH: u64 = 1_700_000_000_000_000_000;
const MILLI: u64 = 1_000_000;

/// A stage that records reports, and answers from a list first.
#[derive(Default)]
struct Sink {
    reports: Mutex<Vec<MetricsData>>,
    refusals: Mutex<Vec<Refusal>>,
}

#[async_trait]
impl Consumer for Sink {
    async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        if let Some(refusal) = self.refusals.lock().pop() {
            return Err(refusal);
        }
        let report = MetricsData::decode(batch.wire().clone()).expect("what is written can be read");
        assert_eq!(batch.items(), Batch::from_metrics(report.clone()).items());
        self.reports.lock().push(report);
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

struct Rig {
    clock: Arc<ManualClock>,
    connector: SpanMetrics,
    sink: Arc<Sink>,
    telemetry: Arc<Telemetry>,
    spans: Ledger,
    points: Ledger,
}

impl Rig {
    fn new(yaml: &str) -> Self {
        let (config, _) = from_str::<SpanMetricsConfig>(yaml).unwrap_or_else(|errors| panic!("{errors}"));
        let (clock, sink, telemetry) = (ManualClock::new(EPOCH), Arc::new(Sink::default()), Telemetry::new());
        let spans = Ledger::new(&telemetry, "connector/span_metrics", Signal::Traces);
        let points = Ledger::new(&telemetry, "connector/span_metrics", Signal::Metrics);
        let context = ConnectorContext {
            id: ComponentId::of("span_metrics"),
            from: Signal::Traces,
            to: Signal::Metrics,
            next: Arc::clone(&sink) as Arc<dyn Consumer>,
            taken: spans.clone(),
            given: points.clone(),
            extensions: &Extensions::default(),
            telemetry: Arc::clone(&telemetry),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
        };
        let connector = SpanMetrics::new(&config, context).unwrap();
        Self { clock, connector, sink, telemetry, spans, points }
    }

    fn send(&self, data: &TracesData) {
        self.connector.reporter.state.take(&data.encode_to_vec());
    }

    /// Lets `time` pass, and then takes a report.
    async fn report(&self, time: Duration) -> Vec<MetricsData> {
        self.clock.advance(time);
        self.connector.reporter.report().await;
        std::mem::take(&mut self.sink.reports.lock())
    }

    /// `report`, as points.
    async fn points(&self, time: Duration) -> Vec<Point> {
        points(&self.report(time).await)
    }

    fn counter(&self, name: &str) -> u64 {
        self.telemetry.sum(&format!("otelcol_connector_span_metrics_{name}"), &[])
    }
}

impl Rig {
    fn gauge(&self, name: &str) -> u64 {
        let page = self.telemetry.render("");
        let wanted = format!("otelcol_connector_span_metrics_{name}{{");
        let line = page.lines().find(|line| line.starts_with(&wanted)).unwrap_or_else(|| panic!("{name}: {page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A server span without status that took `millis`.
fn span(name: &str, millis: u64) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: vec![9; 8],
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: EPOCH,
        end_time_unix_nano: EPOCH + millis * MILLI,
        ..Span::default()
    }
}

fn failed(mut span: Span) -> Span {
    span.status = Some(Status { code: 2, ..Status::default() });
    span
}

fn resource_spans(attributes: Vec<KeyValue>, scope: &str, spans: Vec<Span>) -> ResourceSpans {
    let scope = InstrumentationScope { name: scope.to_owned(), version: "1.2".to_owned(), ..Default::default() };
    ResourceSpans {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }
}

fn request(resource_spans: Vec<ResourceSpans>) -> TracesData {
    TracesData { resource_spans }
}

/// Spans of the service `shop`.
fn of_shop(spans: Vec<Span>) -> TracesData {
    request(vec![resource_spans(vec![text("service.name", "shop")], "lib", spans)])
}

/// A data point of any kind, with all that tells it apart.
#[derive(Debug, Clone, PartialEq)]
struct Point {
    resource: Attributes,
    metric: String,
    unit: String,
    attributes: Attributes,
    start: u64,
    time: u64,
    is_delta: bool,
    count: u64,
    sum: f64,
    /// Of an explicit histogram.
    buckets: Vec<u64>,
    bounds: Vec<f64>,
    /// Of an exponential histogram: scale, zero count, offset and counts.
    exponential: Option<(i32, u64, i32, Vec<u64>)>,
    exemplars: usize,
}

type Attributes = BTreeMap<String, String>;

impl Point {
    fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.get(key).map(String::as_str)
    }
}

fn map(attributes: &[KeyValue]) -> Attributes {
    let mut map = Attributes::new();
    for KeyValue { key, value, .. } in attributes {
        let text = match value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => format!("int {number}"),
            Some(Value::BoolValue(flag)) => format!("bool {flag}"),
            Some(Value::DoubleValue(number)) => format!("double {number}"),
            other => format!("{other:?}"),
        };
        assert!(map.insert(key.clone(), text).is_none(), "{key} twice in {attributes:?}");
    }
    map
}

fn points(reports: &[MetricsData]) -> Vec<Point> {
    let mut found = Vec::new();
    for resource in reports.iter().flat_map(|report| &report.resource_metrics) {
        for scope in &resource.scope_metrics {
            assert_eq!(scope.scope.as_ref().unwrap().name, "spanmetricsconnector");
            assert!(!scope.metrics.is_empty());
            for metric in &scope.metrics {
                add_points(&mut found, resource, metric);
            }
        }
    }
    found
}

fn add_points(found: &mut Vec<Point>, resource: &ResourceMetrics, metric: &Metric) {
    let attributes = resource.resource.as_ref().map(|resource| map(&resource.attributes)).unwrap_or_default();
    let blank = Point {
        resource: attributes,
        metric: metric.name.clone(),
        unit: metric.unit.clone(),
        attributes: Attributes::new(),
        start: 0,
        time: 0,
        is_delta: false,
        count: 0,
        sum: 0.0,
        buckets: Vec::new(),
        bounds: Vec::new(),
        exponential: None,
        exemplars: 0,
    };
    let before = found.len();
    match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => {
            assert!(sum.is_monotonic);
            for point in &sum.data_points {
                let Some(Number::AsInt(value)) = point.value else { panic!("{point:?}") };
                found.push(Point {
                    attributes: map(&point.attributes),
                    start: point.start_time_unix_nano,
                    time: point.time_unix_nano,
                    is_delta: sum.aggregation_temporality == 1,
                    count: value as u64,
                    exemplars: point.exemplars.len(),
                    ..blank.clone()
                });
            }
        }
        Data::Histogram(histogram) => {
            for point in &histogram.data_points {
                assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                found.push(Point {
                    attributes: map(&point.attributes),
                    start: point.start_time_unix_nano,
                    time: point.time_unix_nano,
                    is_delta: histogram.aggregation_temporality == 1,
                    count: point.count,
                    sum: point.sum.unwrap(),
                    buckets: point.bucket_counts.clone(),
                    bounds: point.explicit_bounds.clone(),
                    exemplars: point.exemplars.len(),
                    ..blank.clone()
                });
            }
        }
        Data::ExponentialHistogram(histogram) => {
            for point in &histogram.data_points {
                let positive = point.positive.clone().unwrap_or_default();
                assert_eq!(positive.bucket_counts.iter().sum::<u64>() + point.zero_count, point.count);
                found.push(Point {
                    attributes: map(&point.attributes),
                    start: point.start_time_unix_nano,
                    time: point.time_unix_nano,
                    is_delta: histogram.aggregation_temporality == 1,
                    count: point.count,
                    sum: point.sum.unwrap(),
                    exponential: Some((point.scale, point.zero_count, positive.offset, positive.bucket_counts)),
                    exemplars: point.exemplars.len(),
                    ..blank.clone()
                });
            }
        }
        other => panic!("{other:?}"),
    }
    assert!(found.len() > before, "a metric without points: {metric:?}");
}

/// The points of `metric` that say something: without the zeros at the start.
fn counted<'a>(points: &'a [Point], metric: &str) -> Vec<&'a Point> {
    points.iter().filter(|point| point.metric.ends_with(metric) && point.count > 0).collect()
}

/// The one of them.
fn the_one<'a>(points: &'a [Point], metric: &str) -> &'a Point {
    let [one] = counted(points, metric)[..] else { panic!("{metric}: {points:#?}") };
    one
}
