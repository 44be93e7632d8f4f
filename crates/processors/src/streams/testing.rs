//! What the tests of both processors share: points made by hand, and a rig around a processor.

use std::sync::Arc;

use nyquist_core::batch::{Batch, Refusal, Signal};
use nyquist_core::clock::{Clock, ManualClock};
use nyquist_core::component::{Consumer, Extensions, Processor, ProcessorConfig};
use nyquist_core::config::Validate;
use nyquist_core::telemetry::{Ledger, Telemetry};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric, MetricsData,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde::de::DeserializeOwned;

use crate::test_util::{Sink, config, context};

pub(crate) const DELTA: i32 = 1;
pub(crate) const CUMULATIVE: i32 = 2;
/// When the clock of a rig begins, in seconds.
pub(crate) const BEGAN: u64 = 1000;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// A processor in front of a sink.
pub(crate) struct Rig {
    pub(crate) sink: Arc<Sink>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) ledger: Ledger,
    pub(crate) processor: Arc<dyn Processor>,
}

impl Rig {
    pub(crate) fn new<C: ProcessorConfig + DeserializeOwned + Validate>(yaml: &str) -> Self {
        Self::shown_in::<C>(yaml, Telemetry::new())
    }

    /// One whose metrics are among those in `telemetry`.
    pub(crate) fn shown_in<C: ProcessorConfig + DeserializeOwned + Validate>(
        yaml: &str,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let (sink, clock) = (Arc::new(Sink::default()), ManualClock::new(BEGAN * SECOND));
        let next = Arc::clone(&sink) as Arc<dyn Consumer>;
        let extensions = Extensions::default();
        let context = context(Signal::Metrics, next, &extensions, &telemetry, clock as Arc<dyn Clock>);
        let ledger = context.ledger.clone();
        let processor = config::<C>(yaml).build(context).unwrap();
        Self { sink, telemetry, ledger, processor }
    }

    /// What comes out when `metrics` go in.
    pub(crate) async fn send(&self, metrics: Vec<Metric>) -> Vec<Metric> {
        self.try_send(metrics).await.unwrap();
        self.taken()
    }

    pub(crate) async fn try_send(&self, metrics: Vec<Metric>) -> Result<(), Refusal> {
        self.processor.consume(Batch::from_metrics(request(metrics))).await
    }

    pub(crate) fn taken(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        for mut batch in self.sink.take() {
            let items = batch.items();
            let data = batch.metrics_mut().unwrap().clone();
            assert_eq!(items, Batch::from_metrics(data.clone()).items());
            for resource in data.resource_metrics {
                assert_eq!(resource.resource, Some(resource_of("shop")));
                metrics.extend(resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics));
            }
        }
        metrics
    }

    /// One line of a table: a point of the counter `c`, and the one that comes out.
    pub(crate) async fn number(&self, temporality: i32, point: NumberDataPoint) -> Option<NumberDataPoint> {
        let metrics = self.send(vec![sum("c", temporality, vec![point])]).await;
        metrics.into_iter().next().map(|metric| match metric.data {
            Some(Data::Sum(sum)) => {
                assert_ne!(sum.aggregation_temporality, temporality);
                assert!(sum.is_monotonic);
                sum.data_points.into_iter().next().unwrap()
            }
            other => panic!("{other:?}"),
        })
    }

    pub(crate) async fn histogram(&self, temporality: i32, point: HistogramDataPoint) -> Option<HistogramDataPoint> {
        let metrics = self.send(vec![histogram("h", temporality, vec![point])]).await;
        metrics.into_iter().next().map(|metric| match metric.data {
            Some(Data::Histogram(histogram)) => histogram.data_points.into_iter().next().unwrap(),
            other => panic!("{other:?}"),
        })
    }

    pub(crate) async fn exponential(
        &self,
        temporality: i32,
        point: ExponentialHistogramDataPoint,
    ) -> Option<ExponentialHistogramDataPoint> {
        let metrics = self.send(vec![exponential("e", temporality, vec![point])]).await;
        metrics.into_iter().next().map(|metric| match metric.data {
            Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.into_iter().next().unwrap(),
            other => panic!("{other:?}"),
        })
    }
}

pub(crate) fn request(metrics: Vec<Metric>) -> MetricsData {
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource = Some(resource_of("shop"));
    MetricsData { resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }] }
}

fn resource_of(service: &str) -> Resource {
    Resource { attributes: vec![text("service.name", service)], ..Resource::default() }
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn metric(name: &str, data: Data) -> Metric {
    let (description, unit) = ("what it counts".to_owned(), "{things}".to_owned());
    Metric { name: name.to_owned(), description, unit, data: Some(data), ..Metric::default() }
}

pub(crate) fn sum(name: &str, temporality: i32, data_points: Vec<NumberDataPoint>) -> Metric {
    metric(name, Data::Sum(Sum { data_points, aggregation_temporality: temporality, is_monotonic: true }))
}

pub(crate) fn gauge(name: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    metric(name, Data::Gauge(Gauge { data_points }))
}

pub(crate) fn histogram(name: &str, temporality: i32, data_points: Vec<HistogramDataPoint>) -> Metric {
    metric(name, Data::Histogram(Histogram { data_points, aggregation_temporality: temporality }))
}

pub(crate) fn exponential(name: &str, temporality: i32, data_points: Vec<ExponentialHistogramDataPoint>) -> Metric {
    metric(name, Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality: temporality }))
}

/// A number over the seconds from `start` to `time`, counted from when the clock begins.
pub(crate) fn number(start: u64, time: u64, value: Number) -> NumberDataPoint {
    NumberDataPoint {
        attributes: vec![text("a", "1"), text("b", "2")],
        start_time_unix_nano: seconds(start),
        time_unix_nano: seconds(time),
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

pub(crate) fn int(start: u64, time: u64, value: i64) -> NumberDataPoint {
    number(start, time, Number::AsInt(value))
}

/// Start, time and value of a number that came out.
pub(crate) fn read(point: Option<NumberDataPoint>) -> Option<(u64, u64, f64)> {
    let point = point?;
    let value = match point.value.unwrap() {
        Number::AsInt(value) => value as f64,
        Number::AsDouble(value) => value,
    };
    Some((since(point.start_time_unix_nano), since(point.time_unix_nano), value))
}

/// A histogram with the bounds 1, 2, 3, ..., one less than there are `buckets`.
pub(crate) fn buckets(start: u64, time: u64, buckets: &[u64]) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: vec![text("a", "1")],
        start_time_unix_nano: seconds(start),
        time_unix_nano: seconds(time),
        count: buckets.iter().sum(),
        sum: Some(buckets.iter().enumerate().map(|(index, count)| (index as u64 * count) as f64).sum()),
        bucket_counts: buckets.to_vec(),
        explicit_bounds: (1..buckets.len()).map(|bound| bound as f64).collect(),
        ..HistogramDataPoint::default()
    }
}

/// An exponential histogram with these positive buckets.
pub(crate) fn powers(start: u64, time: u64, scale: i32, offset: i32, counts: &[u64]) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        attributes: vec![text("a", "1")],
        start_time_unix_nano: seconds(start),
        time_unix_nano: seconds(time),
        count: counts.iter().sum(),
        sum: Some(counts.iter().sum::<u64>() as f64),
        scale,
        positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
        ..ExponentialHistogramDataPoint::default()
    }
}

/// `second` after the clock begins; 0 is not known.
pub(crate) fn seconds(second: u64) -> u64 {
    if second == 0 { 0 } else { (BEGAN + second) * SECOND }
}

pub(crate) fn since(time: u64) -> u64 {
    if time == 0 { 0 } else { time / SECOND - BEGAN }
}
