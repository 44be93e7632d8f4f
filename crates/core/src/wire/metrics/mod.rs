//! `opentelemetry.proto.metrics.v1`, read in place.

mod arrays;
mod points;

pub use arrays::{BucketsView, Doubles, Fixed64s, Varints};
pub use points::{
    DataPoint, ExemplarFields, ExemplarView, ExponentialHistogramDataPointView, ExponentialHistogramFields,
    HistogramDataPointView, HistogramFields, Number, NumberDataPointView, NumberFields, SummaryDataPointView,
    SummaryFields, ValueAtQuantile,
};

use super::common::Attributes;
use super::cursor::{Field, Fields, Value};
use super::envelope::envelope_views;
use super::view::view;

envelope_views! {
    /// An `ExportMetricsServiceRequest` (equally a `MetricsData`).
    MetricsView.resource_metrics,
    /// A `ResourceMetrics`.
    ResourceMetricsView.scope_metrics,
    /// A `ScopeMetrics`.
    ScopeMetricsView.metrics,
    MetricView
}

/// An `AggregationTemporality`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Temporality {
    /// 0, or a number that is none of the others.
    #[default]
    Unspecified,
    /// 1: what happened since the last report.
    Delta,
    /// 2: what happened since the start time.
    Cumulative,
}

impl From<i32> for Temporality {
    fn from(number: i32) -> Self {
        match number {
            1 => Self::Delta,
            2 => Self::Cumulative,
            _ => Self::Unspecified,
        }
    }
}

/// Which kind of data a metric holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// `gauge` (5).
    Gauge,
    /// `sum` (7).
    Sum {
        /// `aggregation_temporality` (2).
        temporality: Temporality,
        /// `is_monotonic` (3).
        monotonic: bool,
    },
    /// `histogram` (9).
    Histogram {
        /// `aggregation_temporality` (2).
        temporality: Temporality,
    },
    /// `exponential_histogram` (10).
    ExponentialHistogram {
        /// `aggregation_temporality` (2).
        temporality: Temporality,
    },
    /// `summary` (11).
    Summary,
}

impl MetricKind {
    /// The number of the field of `Metric` that holds this kind of data.
    #[must_use]
    pub fn field_number(self) -> u32 {
        match self {
            Self::Gauge => 5,
            Self::Sum { .. } => 7,
            Self::Histogram { .. } => 9,
            Self::ExponentialHistogram { .. } => 10,
            Self::Summary => 11,
        }
    }

    fn new(number: u32, temporality: Temporality, monotonic: bool) -> Option<Self> {
        match number {
            5 => Some(Self::Gauge),
            7 => Some(Self::Sum { temporality, monotonic }),
            9 => Some(Self::Histogram { temporality }),
            10 => Some(Self::ExponentialHistogram { temporality }),
            11 => Some(Self::Summary),
            _ => None,
        }
    }
}

view! {
    /// A `Metric`. Read it once with [`MetricView::fields`].
    MetricView
}

/// The fields of a `Metric`, from one scan.
#[derive(Debug, Clone)]
pub struct MetricFields<'a> {
    /// `name` (1).
    pub name: &'a [u8],
    /// `description` (2).
    pub description: &'a [u8],
    /// `unit` (3).
    pub unit: &'a [u8],
    /// What kind of data it holds, if any.
    pub kind: Option<MetricKind>,
    points: PointBytes<'a>,
}

impl<'a> MetricFields<'a> {
    /// Its data points.
    pub fn data_points(&self) -> impl Iterator<Item = DataPoint<'a>> + use<'a> {
        let number = self.points.number;
        self.points.clone().map(move |bytes| DataPoint::new(number, bytes))
    }

    /// The messages of its data points: what they are is told by `kind`.
    #[must_use]
    pub fn point_bytes(&self) -> PointBytes<'a> {
        self.points.clone()
    }
}

impl<'a> MetricView<'a> {
    /// Name, description, unit, kind and the place of the points, in one scan of the metric.
    ///
    /// `data` is a oneof: the last member wins, and consecutive pieces of one member merge.
    #[must_use]
    pub fn fields(self) -> MetricFields<'a> {
        let mut fields = Fields::new(self.0);
        let (mut name, mut description, mut unit): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let mut data = Data::default();
        let mut points = PointBytes { pieces: Fields::new(&[]), number: 0, points: Fields::new(&[]) };
        loop {
            let before = fields.clone();
            let Some(Field { number, value }) = fields.next() else { break };
            let Value::Len(bytes) = value else { continue };
            match number {
                1 => name = bytes,
                2 => description = bytes,
                3 => unit = bytes,
                5 | 7 | 9 | 10 | 11 => {
                    if number != points.number {
                        data = Data::default();
                        points = PointBytes { pieces: before, number, points: Fields::new(&[]) };
                    }
                    data.merge(bytes);
                }
                _ => {}
            }
        }
        let kind = MetricKind::new(points.number, data.temporality, data.monotonic);
        MetricFields { name, description, unit, kind, points }
    }

    /// `name` (1).
    #[must_use]
    pub fn name(self) -> &'a [u8] {
        super::common::last_len(self.0, 1)
    }

    /// `metadata` (12).
    #[must_use]
    pub fn metadata(self) -> Attributes<'a> {
        Attributes::new(self.0, 12)
    }
}

/// What a `Gauge`, `Sum`, ... says beside its points.
#[derive(Default)]
struct Data {
    temporality: Temporality,
    monotonic: bool,
}

impl Data {
    fn merge(&mut self, bytes: &[u8]) {
        for Field { number, value } in Fields::new(bytes) {
            match (number, value) {
                (2, Value::Varint(temporality)) => self.temporality = Temporality::from(temporality as i32),
                (3, Value::Varint(monotonic)) => self.monotonic = monotonic != 0,
                _ => {}
            }
        }
    }
}

/// The data points of a metric, as messages.
#[derive(Debug, Clone)]
pub struct PointBytes<'a> {
    /// The metric, from the first piece of its data on.
    pieces: Fields<'a>,
    /// The field number of its data; 0 if it has none.
    number: u32,
    /// The rest of the current piece.
    points: Fields<'a>,
}

impl<'a> Iterator for PointBytes<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            for field in self.points.by_ref() {
                if let Field { number: 1, value: Value::Len(point) } = field {
                    return Some(point);
                }
            }
            loop {
                match self.pieces.next()? {
                    Field { number, value: Value::Len(piece) } if number == self.number => {
                        self.points = Fields::new(piece);
                        break;
                    }
                    _ => {}
                }
            }
        }
    }
}
