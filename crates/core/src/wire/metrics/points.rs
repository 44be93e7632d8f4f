//! The four kinds of data points, and exemplars.

use super::super::view::view;
use super::arrays::{BucketsView, Doubles, Fixed64s, zigzag};
use crate::wire::common::{Attributes, KeyValue, len_fields};
use crate::wire::cursor::{Field, Fields, Value};

/// A data point of any kind.
#[derive(Debug, Clone, Copy)]
pub enum DataPoint<'a> {
    /// Of a gauge or a sum.
    Number(NumberDataPointView<'a>),
    /// Of a histogram.
    Histogram(HistogramDataPointView<'a>),
    /// Of an exponential histogram.
    ExponentialHistogram(ExponentialHistogramDataPointView<'a>),
    /// Of a summary.
    Summary(SummaryDataPointView<'a>),
}

impl<'a> DataPoint<'a> {
    /// The point in `bytes`, which belongs to the data in field `number` of a metric.
    pub(super) fn new(number: u32, bytes: &'a [u8]) -> Self {
        match number {
            9 => Self::Histogram(HistogramDataPointView(bytes)),
            10 => Self::ExponentialHistogram(ExponentialHistogramDataPointView(bytes)),
            11 => Self::Summary(SummaryDataPointView(bytes)),
            _ => Self::Number(NumberDataPointView(bytes)),
        }
    }

    /// The whole message.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Number(point) => point.0,
            Self::Histogram(point) => point.0,
            Self::ExponentialHistogram(point) => point.0,
            Self::Summary(point) => point.0,
        }
    }

    /// Its attributes.
    #[must_use]
    pub fn attributes(self) -> Attributes<'a> {
        match self {
            Self::Number(point) => point.attributes(),
            Self::Histogram(point) => point.attributes(),
            Self::ExponentialHistogram(point) => point.attributes(),
            Self::Summary(point) => point.attributes(),
        }
    }
}

/// The value of a number point or of an exemplar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// `as_int`.
    Int(i64),
    /// `as_double`.
    Double(f64),
}

/// Defines the view of a data point, with its `attributes` and `exemplars`.
macro_rules! point_view {
    ($(#[$doc:meta])* $View:ident { attributes: $attributes:literal $(, exemplars: $exemplars:literal)? }) => {
        view! {
            $(#[$doc])*
            $View
        }

        impl<'a> $View<'a> {
            /// Its attributes.
            #[must_use]
            pub fn attributes(self) -> Attributes<'a> {
                Attributes::new(self.0, $attributes)
            }

            $(/// Its exemplars.
            pub fn exemplars(self) -> impl Iterator<Item = ExemplarView<'a>> {
                len_fields(self.0, $exemplars).map(ExemplarView)
            })?
        }
    };
}

point_view! {
    /// A `NumberDataPoint`.
    NumberDataPointView { attributes: 7, exemplars: 5 }
}

/// The fields of a `NumberDataPoint`, from one scan.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NumberFields {
    /// `start_time_unix_nano` (2).
    pub start_time: u64,
    /// `time_unix_nano` (3).
    pub time: u64,
    /// `as_double` (4) or `as_int` (6), whichever comes last.
    pub value: Option<Number>,
    /// `flags` (8): bit 0 is "no recorded value".
    pub flags: u32,
}

impl NumberDataPointView<'_> {
    /// Everything but attributes and exemplars, in one scan.
    #[must_use]
    pub fn fields(self) -> NumberFields {
        let mut found = NumberFields::default();
        for Field { number, value } in Fields::new(self.0) {
            match (number, value) {
                (2, Value::Fixed64(time)) => found.start_time = time,
                (3, Value::Fixed64(time)) => found.time = time,
                (4, Value::Fixed64(bits)) => found.value = Some(Number::Double(f64::from_bits(bits))),
                (6, Value::Fixed64(bits)) => found.value = Some(Number::Int(bits as i64)),
                (8, Value::Varint(flags)) => found.flags = flags as u32,
                _ => {}
            }
        }
        found
    }
}

point_view! {
    /// A `HistogramDataPoint`.
    HistogramDataPointView { attributes: 9, exemplars: 8 }
}

/// The single fields of a `HistogramDataPoint`, from one scan.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct HistogramFields {
    /// `start_time_unix_nano` (2).
    pub start_time: u64,
    /// `time_unix_nano` (3).
    pub time: u64,
    /// `count` (4).
    pub count: u64,
    /// `sum` (5).
    pub sum: Option<f64>,
    /// `flags` (10): bit 0 is "no recorded value".
    pub flags: u32,
    /// `min` (11).
    pub min: Option<f64>,
    /// `max` (12).
    pub max: Option<f64>,
}

impl<'a> HistogramDataPointView<'a> {
    /// Everything that is not repeated, in one scan.
    #[must_use]
    pub fn fields(self) -> HistogramFields {
        let mut found = HistogramFields::default();
        for Field { number, value } in Fields::new(self.0) {
            match (number, value) {
                (2, Value::Fixed64(time)) => found.start_time = time,
                (3, Value::Fixed64(time)) => found.time = time,
                (4, Value::Fixed64(count)) => found.count = count,
                (5, Value::Fixed64(bits)) => found.sum = Some(f64::from_bits(bits)),
                (10, Value::Varint(flags)) => found.flags = flags as u32,
                (11, Value::Fixed64(bits)) => found.min = Some(f64::from_bits(bits)),
                (12, Value::Fixed64(bits)) => found.max = Some(f64::from_bits(bits)),
                _ => {}
            }
        }
        found
    }

    /// `bucket_counts` (6).
    #[must_use]
    pub fn bucket_counts(self) -> Fixed64s<'a> {
        Fixed64s::new(self.0, 6)
    }

    /// `explicit_bounds` (7).
    #[must_use]
    pub fn explicit_bounds(self) -> Doubles<'a> {
        Doubles::new(self.0, 7)
    }
}

point_view! {
    /// An `ExponentialHistogramDataPoint`.
    ExponentialHistogramDataPointView { attributes: 1, exemplars: 11 }
}

/// The single fields of an `ExponentialHistogramDataPoint`, from one scan.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ExponentialHistogramFields {
    /// `start_time_unix_nano` (2).
    pub start_time: u64,
    /// `time_unix_nano` (3).
    pub time: u64,
    /// `count` (4).
    pub count: u64,
    /// `sum` (5).
    pub sum: Option<f64>,
    /// `scale` (6).
    pub scale: i32,
    /// `zero_count` (7).
    pub zero_count: u64,
    /// `flags` (10): bit 0 is "no recorded value".
    pub flags: u32,
    /// `min` (12).
    pub min: Option<f64>,
    /// `max` (13).
    pub max: Option<f64>,
    /// `zero_threshold` (14).
    pub zero_threshold: f64,
}

impl<'a> ExponentialHistogramDataPointView<'a> {
    /// Everything that is neither repeated nor a message, in one scan.
    #[must_use]
    pub fn fields(self) -> ExponentialHistogramFields {
        let mut found = ExponentialHistogramFields::default();
        for Field { number, value } in Fields::new(self.0) {
            match (number, value) {
                (2, Value::Fixed64(time)) => found.start_time = time,
                (3, Value::Fixed64(time)) => found.time = time,
                (4, Value::Fixed64(count)) => found.count = count,
                (5, Value::Fixed64(bits)) => found.sum = Some(f64::from_bits(bits)),
                (6, Value::Varint(scale)) => found.scale = zigzag(scale),
                (7, Value::Fixed64(count)) => found.zero_count = count,
                (10, Value::Varint(flags)) => found.flags = flags as u32,
                (12, Value::Fixed64(bits)) => found.min = Some(f64::from_bits(bits)),
                (13, Value::Fixed64(bits)) => found.max = Some(f64::from_bits(bits)),
                (14, Value::Fixed64(bits)) => found.zero_threshold = f64::from_bits(bits),
                _ => {}
            }
        }
        found
    }

    /// `positive` (8).
    #[must_use]
    pub fn positive(self) -> BucketsView<'a> {
        BucketsView::new(self.0, 8)
    }

    /// `negative` (9).
    #[must_use]
    pub fn negative(self) -> BucketsView<'a> {
        BucketsView::new(self.0, 9)
    }
}

point_view! {
    /// A `SummaryDataPoint`.
    SummaryDataPointView { attributes: 7 }
}

/// The single fields of a `SummaryDataPoint`, from one scan.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SummaryFields {
    /// `start_time_unix_nano` (2).
    pub start_time: u64,
    /// `time_unix_nano` (3).
    pub time: u64,
    /// `count` (4).
    pub count: u64,
    /// `sum` (5).
    pub sum: f64,
    /// `flags` (8): bit 0 is "no recorded value".
    pub flags: u32,
}

/// A `ValueAtQuantile`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ValueAtQuantile {
    /// `quantile` (1): 0 to 1.
    pub quantile: f64,
    /// `value` (2).
    pub value: f64,
}

impl<'a> SummaryDataPointView<'a> {
    /// Everything that is not repeated, in one scan.
    #[must_use]
    pub fn fields(self) -> SummaryFields {
        let mut found = SummaryFields::default();
        for Field { number, value } in Fields::new(self.0) {
            match (number, value) {
                (2, Value::Fixed64(time)) => found.start_time = time,
                (3, Value::Fixed64(time)) => found.time = time,
                (4, Value::Fixed64(count)) => found.count = count,
                (5, Value::Fixed64(bits)) => found.sum = f64::from_bits(bits),
                (8, Value::Varint(flags)) => found.flags = flags as u32,
                _ => {}
            }
        }
        found
    }

    /// `quantile_values` (6).
    pub fn quantile_values(self) -> impl Iterator<Item = ValueAtQuantile> + use<'a> {
        len_fields(self.0, 6).map(|bytes| {
            let mut found = ValueAtQuantile::default();
            for Field { number, value } in Fields::new(bytes) {
                match (number, value) {
                    (1, Value::Fixed64(bits)) => found.quantile = f64::from_bits(bits),
                    (2, Value::Fixed64(bits)) => found.value = f64::from_bits(bits),
                    _ => {}
                }
            }
            found
        })
    }
}

view! {
    /// An `Exemplar`.
    ExemplarView
}

/// The fields of an `Exemplar`, from one scan.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ExemplarFields<'a> {
    /// `time_unix_nano` (2).
    pub time: u64,
    /// `as_double` (3) or `as_int` (6), whichever comes last.
    pub value: Option<Number>,
    /// `span_id` (4): empty if there is none; not checked.
    pub span_id: &'a [u8],
    /// `trace_id` (5): empty if there is none; not checked.
    pub trace_id: &'a [u8],
}

impl<'a> ExemplarView<'a> {
    /// Everything but the attributes, in one scan.
    #[must_use]
    pub fn fields(self) -> ExemplarFields<'a> {
        let mut found = ExemplarFields::default();
        for Field { number, value } in Fields::new(self.0) {
            match (number, value) {
                (2, Value::Fixed64(time)) => found.time = time,
                (3, Value::Fixed64(bits)) => found.value = Some(Number::Double(f64::from_bits(bits))),
                (4, Value::Len(id)) => found.span_id = id,
                (5, Value::Len(id)) => found.trace_id = id,
                (6, Value::Fixed64(bits)) => found.value = Some(Number::Int(bits as i64)),
                _ => {}
            }
        }
        found
    }

    /// `filtered_attributes` (7): what the point's own attributes left out.
    pub fn filtered_attributes(self) -> impl Iterator<Item = KeyValue<'a>> {
        Attributes::new(self.0, 7)
    }
}
