//! From series to OTLP: what the scraping and the remote write receiver have in common.

mod exemplar;
mod key;
mod units;

use std::collections::HashMap;

use nyquist_core::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use nyquist_core::proto::metrics::v1::metric::Data;
use nyquist_core::proto::metrics::v1::summary_data_point::ValueAtQuantile;
use nyquist_core::proto::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
    number_data_point,
};
use nyquist_core::proto::resource::v1::Resource;

pub(crate) use exemplar::exemplar;
pub(crate) use key::SeriesKey;
use units::ucum;

use super::exposition::MetricType;

/// A series that has ended: its bits in Prometheus.
pub(crate) const STALE: u64 = 0x7ff0_0000_0000_0002;

/// The flag of a point that says that a series has ended.
const NO_RECORDED_VALUE: u32 = 1;

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// What kind of OTLP metric a family becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Gauge,
    /// A monotonic cumulative sum.
    Counter,
    /// A cumulative sum that may fall.
    UpDown,
    Histogram,
    Exponential,
    Summary,
}

/// What is said of a family beside its name and type.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Description<'a> {
    pub(crate) help: &'a str,
    pub(crate) unit: &'a str,
}

/// Where a metric stands in the model.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slot {
    resource: usize,
    scope: usize,
    metric: usize,
}

/// A data point.
#[derive(Debug, Clone)]
pub(crate) enum Point {
    Number(NumberDataPoint),
    Histogram(HistogramDataPoint),
    Exponential(ExponentialHistogramDataPoint),
    Summary(SummaryDataPoint),
}

/// Metrics that are being put together.
#[derive(Debug, Default)]
pub(crate) struct Model {
    resources: Vec<ResourceMetrics>,
    by_resource: HashMap<Box<[u8]>, usize>,
    by_scope: HashMap<Box<[u8]>, (usize, usize)>,
    by_metric: HashMap<Box<[u8]>, Slot>,
    /// What `target_info` said of resources.
    infos: HashMap<Box<[u8]>, Vec<KeyValue>>,
    /// The name of the scope of series that name none.
    scope_name: &'static str,
    points: usize,
}

impl Model {
    /// An empty model; `scope_name` is the scope of series that name none.
    pub(crate) fn new(scope_name: &'static str) -> Self {
        Self { scope_name, ..Self::default() }
    }

    /// How many points were pushed.
    pub(crate) fn points(&self) -> usize {
        self.points
    }

    /// The place of the metric that `key` belongs to; `resource` gives the attributes of a resource that is
    /// new, from job and instance.
    pub(crate) fn slot(
        &mut self,
        key: &SeriesKey,
        shape: Shape,
        kind: MetricType,
        description: Description<'_>,
        resource: impl FnOnce(&str, &str) -> Vec<KeyValue>,
    ) -> Slot {
        if let Some(slot) = self.by_metric.get(key.metric_key()) {
            return *slot;
        }
        let (resource, scope) = self.scope(key, resource);
        let metric = Metric {
            name: key.name().to_owned(),
            description: description.help.to_owned(),
            unit: ucum(description.unit).to_owned(),
            metadata: vec![text("prometheus.type", kind.name())],
            data: Some(shape.empty()),
        };
        let scopes = self.resources.get_mut(resource).map(|resource| &mut resource.scope_metrics);
        let Some(metrics) = scopes.and_then(|scopes| scopes.get_mut(scope)).map(|scope| &mut scope.metrics) else {
            return Slot::default();
        };
        metrics.push(metric);
        let slot = Slot { resource, scope, metric: metrics.len() - 1 };
        self.by_metric.insert(key.metric_key().into(), slot);
        slot
    }

    fn scope(&mut self, key: &SeriesKey, attributes: impl FnOnce(&str, &str) -> Vec<KeyValue>) -> (usize, usize) {
        if let Some(place) = self.by_scope.get(key.scope_key()) {
            return *place;
        }
        let index = match self.by_resource.get(key.resource_key()) {
            Some(index) => *index,
            None => {
                let mut texts = key.resource();
                let (job, instance) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
                let resource = Resource { attributes: attributes(job, instance), ..Resource::default() };
                self.resources.push(ResourceMetrics { resource: Some(resource), ..ResourceMetrics::default() });
                self.by_resource.insert(key.resource_key().into(), self.resources.len() - 1);
                self.resources.len() - 1
            }
        };
        let mut texts = key.scope();
        let mut next = || texts.next().unwrap_or_default().to_owned();
        let (mut name, mut version, schema_url) = (next(), next(), next());
        if name.is_empty() && version.is_empty() {
            self.scope_name.clone_into(&mut name);
            env!("CARGO_PKG_VERSION").clone_into(&mut version);
        }
        let scope = InstrumentationScope { name, version, attributes: pairs(texts), ..InstrumentationScope::default() };
        let scopes = self.resources.get_mut(index).map(|resource| &mut resource.scope_metrics);
        let place = scopes.map_or((index, 0), |scopes| {
            scopes.push(ScopeMetrics { scope: Some(scope), schema_url, ..ScopeMetrics::default() });
            (index, scopes.len() - 1)
        });
        self.by_scope.insert(key.scope_key().into(), place);
        place
    }

    /// Remembers what `target_info` says of the resource that `key` belongs to.
    pub(crate) fn target_info(&mut self, key: &SeriesKey) {
        self.infos.insert(key.resource_key().into(), pairs(key.attributes()));
    }

    /// The name of the metric at `slot`.
    pub(crate) fn name(&self, slot: Slot) -> &str {
        let resource = self.resources.get(slot.resource);
        let scope = resource.and_then(|resource| resource.scope_metrics.get(slot.scope));
        scope.and_then(|scope| scope.metrics.get(slot.metric)).map_or("", |metric| &metric.name)
    }

    /// Adds a point to the metric at `slot`.
    pub(crate) fn push(&mut self, slot: Slot, point: Point) {
        let scope =
            self.resources.get_mut(slot.resource).and_then(|resource| resource.scope_metrics.get_mut(slot.scope));
        let data = scope.and_then(|scope| scope.metrics.get_mut(slot.metric)).and_then(|metric| metric.data.as_mut());
        match (data, point) {
            (Some(Data::Gauge(gauge)), Point::Number(point)) => gauge.data_points.push(point),
            (Some(Data::Sum(sum)), Point::Number(point)) => sum.data_points.push(point),
            (Some(Data::Histogram(histogram)), Point::Histogram(point)) => histogram.data_points.push(point),
            (Some(Data::ExponentialHistogram(histogram)), Point::Exponential(point)) => {
                histogram.data_points.push(point);
            }
            (Some(Data::Summary(summary)), Point::Summary(point)) => summary.data_points.push(point),
            // A slot is asked for with the shape of what is pushed.
            _ => return,
        }
        self.points += 1;
    }

    /// What `target_info` said, by the resource's key.
    pub(crate) fn infos(&self) -> impl Iterator<Item = (&[u8], &[KeyValue])> {
        self.infos.iter().map(|(key, attributes)| (&**key, attributes.as_slice()))
    }

    /// The resources' keys.
    pub(crate) fn resource_keys(&self) -> impl Iterator<Item = &[u8]> {
        self.by_resource.keys().map(|key| &**key)
    }

    /// Remembers `attributes` for the resource with `key`, unless this model has a `target_info` for it.
    pub(crate) fn remember_info(&mut self, key: &[u8], attributes: Vec<KeyValue>) {
        self.infos.entry(key.into()).or_insert(attributes);
    }

    /// The message.
    pub(crate) fn finish(mut self) -> MetricsData {
        for (key, attributes) in self.infos {
            let resource = self.by_resource.get(&key).and_then(|index| self.resources.get_mut(*index));
            let Some(resource) = resource.and_then(|resource| resource.resource.as_mut()) else { continue };
            for attribute in attributes {
                match resource.attributes.iter_mut().find(|own| own.key == attribute.key) {
                    // What identifies the resource stays.
                    Some(own) if own.key.starts_with("service.") => {}
                    Some(own) => *own = attribute,
                    None => resource.attributes.push(attribute),
                }
            }
        }
        MetricsData { resource_metrics: self.resources }
    }
}

impl SeriesKey {
    /// The attributes of the series' points.
    pub(crate) fn key_values(&self) -> Vec<KeyValue> {
        pairs(self.attributes())
    }
}

impl Shape {
    fn empty(self) -> Data {
        match self {
            Self::Gauge => Data::Gauge(Gauge::default()),
            Self::Counter | Self::UpDown => Data::Sum(Sum {
                aggregation_temporality: CUMULATIVE,
                is_monotonic: self == Self::Counter,
                ..Sum::default()
            }),
            Self::Histogram => {
                Data::Histogram(Histogram { aggregation_temporality: CUMULATIVE, ..Histogram::default() })
            }
            Self::Exponential => Data::ExponentialHistogram(ExponentialHistogram {
                aggregation_temporality: CUMULATIVE,
                ..ExponentialHistogram::default()
            }),
            Self::Summary => Data::Summary(Summary::default()),
        }
    }

    /// The point that says that a series has ended at `time`, with the bounds or quantiles that it had, and a
    /// sum: each of them is a series in Prometheus.
    pub(crate) fn ended(self, attributes: Vec<KeyValue>, start: u64, time: u64, inner: &[f64]) -> Point {
        match self {
            Self::Gauge | Self::Counter | Self::UpDown => Point::Number(NumberDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: time,
                flags: NO_RECORDED_VALUE,
                ..NumberDataPoint::default()
            }),
            Self::Histogram => Point::Histogram(HistogramDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: time,
                flags: NO_RECORDED_VALUE,
                sum: Some(0.0),
                bucket_counts: if inner.is_empty() { Vec::new() } else { vec![0; finite(inner).count() + 1] },
                explicit_bounds: finite(inner).collect(),
                ..HistogramDataPoint::default()
            }),
            Self::Exponential => Point::Exponential(ExponentialHistogramDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: time,
                flags: NO_RECORDED_VALUE,
                sum: Some(0.0),
                ..ExponentialHistogramDataPoint::default()
            }),
            Self::Summary => Point::Summary(SummaryDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: time,
                flags: NO_RECORDED_VALUE,
                quantile_values: inner.iter().map(|&quantile| ValueAtQuantile { quantile, value: 0.0 }).collect(),
                ..SummaryDataPoint::default()
            }),
        }
    }
}

fn finite(bounds: &[f64]) -> impl Iterator<Item = f64> {
    bounds.iter().copied().filter(|bound| bound.is_finite())
}

/// A point of a gauge or sum.
pub(crate) fn number(attributes: Vec<KeyValue>, start: u64, time: u64, value: f64) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: start,
        time_unix_nano: time,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

/// An attribute that is text.
pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn pairs(mut texts: key::Texts<'_>) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    while let (Some(key), Some(value)) = (texts.next(), texts.next()) {
        attributes.push(text(key, value));
    }
    attributes
}

/// Nanoseconds of milliseconds since 1970; 0 for times before that.
pub(crate) fn nanos(millis: i64) -> u64 {
    u64::try_from(millis).unwrap_or_default().saturating_mul(1_000_000)
}
