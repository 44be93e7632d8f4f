//! Native histograms, and what they become.

use nyquist_core::proto::common::v1::KeyValue;
use nyquist_core::proto::metrics::v1::exponential_histogram_data_point::Buckets;
use nyquist_core::proto::metrics::v1::{ExponentialHistogramDataPoint, HistogramDataPoint};
use nyquist_core::wire::{Fields, Value};

use super::packed::{malformed, varints};

/// Buckets of one sign are written one after the other, gaps included: more than this many are merged to a
/// lower resolution.
const MAX_WIDTH: i64 = 4096;

/// The schema whose buckets have bounds of their own.
const CUSTOM: i32 = -53;

/// A gauge histogram's `reset_hint`.
const GAUGE: u64 = 3;

/// A native histogram.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Histogram {
    count: u64,
    pub(crate) sum: f64,
    schema: i32,
    zero_threshold: f64,
    zero_count: u64,
    negative: Side,
    positive: Side,
    reset_hint: u64,
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
    /// Milliseconds since 1970; 0 if nothing is said.
    pub(crate) start: i64,
    bounds: Vec<f64>,
    is_float: bool,
}

/// Buckets of one sign: spans of them, and the differences of their counts.
#[derive(Debug, Clone, Default, PartialEq)]
struct Side {
    spans: Vec<(i32, u32)>,
    deltas: Vec<i64>,
}

/// Where the fields of a histogram stand: remote write's numbers are not those of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `prometheus.Histogram` and `io.prometheus.write.v2.Histogram`.
    RemoteWrite,
    /// `io.prometheus.client.Histogram`.
    Page,
}

/// How many values, in both dialects.
const COUNT: u32 = 1;

/// The numbers of pages, and those of remote write.
const PAGE: [(u32, u32); 15] = [
    (1, COUNT),
    (2, 3),
    // Counts that are no integers.
    (4, 2),
    (5, 4),
    (6, 5),
    (7, 6),
    (8, 7),
    (9, 8),
    (10, 9),
    (11, 10),
    (12, 11),
    (13, 12),
    (14, 13),
    // Classic buckets and exemplars are for others to read.
    (3, 0),
    (16, 0),
];

impl Dialect {
    /// The number of remote write for `number`; 0 for what is none of it.
    fn translated(self, number: u32) -> u32 {
        match self {
            Self::RemoteWrite => number,
            Self::Page => PAGE.iter().find(|(own, _)| *own == number).map_or(0, |(_, other)| *other),
        }
    }
}

impl Histogram {
    /// Reads one.
    pub(crate) fn read(message: &[u8], dialect: Dialect) -> Result<Self, String> {
        let mut own = Self::default();
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field().map_err(malformed)? {
            match (dialect.translated(field.number), field.value) {
                (COUNT, Value::Varint(count)) => own.count = count,
                (2 | 7, Value::Fixed64(bits)) => {
                    // On pages, a 0 says nothing.
                    own.is_float |= dialect == Dialect::RemoteWrite || f64::from_bits(bits) != 0.0;
                }
                (3, Value::Fixed64(bits)) => own.sum = f64::from_bits(bits),
                (4, Value::Varint(schema)) => own.schema = zigzag(schema) as i32,
                (5, Value::Fixed64(bits)) => own.zero_threshold = f64::from_bits(bits),
                (6, Value::Varint(count)) => own.zero_count = count,
                (8, Value::Len(span)) => own.negative.span(span)?,
                (9, value) => own.negative.deltas(value)?,
                (11, Value::Len(span)) => own.positive.span(span)?,
                (12, value) => own.positive.deltas(value)?,
                (10 | 13, Value::Len([_, ..]) | Value::Fixed64(_)) => own.is_float = true,
                (14, Value::Varint(hint)) => own.reset_hint = hint,
                (15, Value::Varint(time)) => own.timestamp = time as i64,
                (16, Value::Fixed64(bits)) => own.bounds.push(f64::from_bits(bits)),
                (16, Value::Len(packed)) => {
                    let (bounds, _) = packed.as_chunks::<8>();
                    own.bounds.extend(bounds.iter().map(|bytes| f64::from_le_bytes(*bytes)));
                }
                (17, Value::Varint(start)) => own.start = start as i64,
                _ => {}
            }
        }
        Ok(own)
    }

    /// Of a page: whether there is a native histogram beside the classic one.
    pub(crate) fn is_native(&self) -> bool {
        let has_spans = !self.positive.spans.is_empty() || !self.negative.spans.is_empty();
        has_spans || self.zero_threshold > 0.0 || self.zero_count > 0
    }

    /// Of a page: its values may fall.
    pub(crate) fn set_gauge(&mut self) {
        self.reset_hint = GAUGE;
    }

    /// How many values.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Whether it has bounds of its own, and becomes a histogram with explicit bounds.
    pub(crate) fn is_custom(&self) -> bool {
        self.schema == CUSTOM
    }

    /// What OTLP has no place for.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.is_float {
            return Err("a native histogram with counts that are no integers is not supported".to_owned());
        }
        if self.reset_hint == GAUGE {
            return Err("a native gauge histogram is not supported".to_owned());
        }
        if !self.is_custom() && !(-4..=8).contains(&self.schema) {
            return Err(format!("a native histogram of the unknown schema {}", self.schema));
        }
        Ok(())
    }

    /// As a point of an exponential histogram.
    pub(crate) fn exponential(
        &self,
        attributes: Vec<KeyValue>,
        start: u64,
        time: u64,
    ) -> Result<ExponentialHistogramDataPoint, String> {
        let (positive, negative) = (self.positive.buckets()?, self.negative.buckets()?);
        let mut shift = 0;
        while width(&positive, shift).max(width(&negative, shift)) > MAX_WIDTH {
            shift += 1;
        }
        Ok(ExponentialHistogramDataPoint {
            attributes,
            start_time_unix_nano: start,
            time_unix_nano: time,
            count: self.count,
            sum: Some(self.sum),
            scale: self.schema - shift,
            zero_count: self.zero_count,
            zero_threshold: self.zero_threshold,
            positive: dense(&positive, shift),
            negative: dense(&negative, shift),
            ..ExponentialHistogramDataPoint::default()
        })
    }

    /// As a point of a histogram with explicit bounds.
    pub(crate) fn explicit(
        self,
        attributes: Vec<KeyValue>,
        start: u64,
        time: u64,
    ) -> Result<HistogramDataPoint, String> {
        if !self.bounds.is_sorted_by(|left, right| left < right) || self.bounds.iter().any(|bound| !bound.is_finite()) {
            return Err("the bounds of a native histogram must be finite and rise".to_owned());
        }
        let mut bucket_counts = vec![0; self.bounds.len() + 1];
        // Prometheus numbers these from 0; the others are numbered from their upper bound.
        for (index, count) in self.positive.buckets()? {
            let place = usize::try_from(index + 1).ok().and_then(|index| bucket_counts.get_mut(index));
            *place.ok_or("a bucket of a native histogram is beyond its bounds")? = count;
        }
        Ok(HistogramDataPoint {
            attributes,
            start_time_unix_nano: start,
            time_unix_nano: time,
            count: self.count,
            sum: Some(self.sum),
            bucket_counts,
            explicit_bounds: self.bounds,
            ..HistogramDataPoint::default()
        })
    }
}

impl Side {
    fn span(&mut self, message: &[u8]) -> Result<(), String> {
        let mut span = (0, 0);
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field().map_err(malformed)? {
            match (field.number, field.value) {
                (1, Value::Varint(offset)) => span.0 = zigzag(offset) as i32,
                (2, Value::Varint(length)) => span.1 = length as u32,
                _ => {}
            }
        }
        self.spans.push(span);
        Ok(())
    }

    fn deltas(&mut self, value: Value<'_>) -> Result<(), String> {
        match value {
            Value::Varint(delta) => self.deltas.push(zigzag(delta)),
            Value::Len(packed) => {
                for delta in varints(packed) {
                    self.deltas.push(zigzag(delta?));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The buckets, as OTLP numbers them (by their lower bound), and their counts.
    fn buckets(&self) -> Result<Vec<(i64, u64)>, String> {
        let claimed: u64 = self.spans.iter().map(|(_, length)| u64::from(*length)).sum();
        if claimed != self.deltas.len() as u64 {
            let given = self.deltas.len();
            return Err(format!("the spans of a native histogram have {claimed} buckets, but {given} are given"));
        }
        let mut buckets = Vec::with_capacity(self.deltas.len());
        let mut deltas = self.deltas.iter();
        let (mut index, mut count) = (0i64, 0i64);
        for (position, (offset, length)) in self.spans.iter().enumerate() {
            if position > 0 && *offset < 0 {
                return Err("a span of a native histogram goes backwards".to_owned());
            }
            index += i64::from(*offset);
            for delta in deltas.by_ref().take(*length as usize) {
                count = count.wrapping_add(*delta);
                let count = u64::try_from(count).map_err(|_| "a bucket of a native histogram is below 0")?;
                buckets.push((index - 1, count));
                index += 1;
            }
        }
        Ok(buckets)
    }
}

/// How many buckets there are from the first to the last, when so many bits are merged.
fn width(buckets: &[(i64, u64)], shift: i32) -> i64 {
    match (buckets.first(), buckets.last()) {
        (Some((first, _)), Some((last, _))) => (last >> shift) - (first >> shift) + 1,
        _ => 0,
    }
}

/// All buckets from the first to the last.
fn dense(buckets: &[(i64, u64)], shift: i32) -> Option<Buckets> {
    let (first, _) = buckets.first()?;
    let offset = first >> shift;
    let mut bucket_counts = vec![0u64; usize::try_from(width(buckets, shift)).ok()?];
    for (index, count) in buckets {
        let place = usize::try_from((index >> shift) - offset).ok();
        if let Some(own) = place.and_then(|place| bucket_counts.get_mut(place)) {
            *own = own.saturating_add(*count);
        }
    }
    Some(Buckets { offset: i32::try_from(offset).ok()?, bucket_counts })
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
