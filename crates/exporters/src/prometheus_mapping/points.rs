//! Data points, read from the wire in one scan each.

use nyquist_core::wire::{Field, Fields, KeyValue, Value};

/// A `NumberDataPoint`'s value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    /// None was set.
    Unset,
    /// A double.
    Double(f64),
    /// An integer.
    Int(i64),
}

/// What all kinds of points have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Head {
    /// Start of the stream, in nanoseconds since the epoch; 0 if unknown.
    pub(super) start: u64,
    /// Time of the value, in nanoseconds since the epoch.
    pub(super) time: u64,
    flags: u64,
    /// Is there at least one exemplar?
    pub(super) has_exemplars: bool,
}

impl Head {
    /// Does the point say that there is no value any more?
    pub(super) fn is_no_recorded_value(&self) -> bool {
        self.flags & 1 != 0
    }
}

pub(super) const NUMBER_EXEMPLARS: u32 = 5;
pub(super) const HISTOGRAM_EXEMPLARS: u32 = 8;
pub(super) const EXPONENTIAL_EXEMPLARS: u32 = 11;

/// Reads a `NumberDataPoint`; attributes go to `attribute`.
#[inline]
pub(super) fn number<'a>(bytes: &'a [u8], mut attribute: impl FnMut(KeyValue<'a>)) -> (Head, Number) {
    let mut head = Head::default();
    let mut number = Number::Unset;
    for Field { number: field, value } in Fields::new(bytes) {
        match (field, value) {
            (7, Value::Len(bytes)) => attribute(KeyValue::new(bytes)),
            (2, Value::Fixed64(nanos)) => head.start = nanos,
            (3, Value::Fixed64(nanos)) => head.time = nanos,
            (4, Value::Fixed64(bits)) => number = Number::Double(f64::from_bits(bits)),
            (6, Value::Fixed64(bits)) => number = Number::Int(bits as i64),
            (NUMBER_EXEMPLARS, Value::Len(_)) => head.has_exemplars = true,
            (8, Value::Varint(flags)) => head.flags = flags,
            _ => {}
        }
    }
    (head, number)
}

/// A histogram with explicit bounds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Histogram<'a> {
    /// How many values.
    pub count: u64,
    /// Their sum, if known.
    pub sum: Option<f64>,
    /// Upper bounds of the buckets but the last: they rise, and none is +Inf.
    pub bounds: &'a [f64],
    /// Counts of the buckets; the last one has no upper bound.
    pub counts: &'a [u64],
}

/// Arrays of the point that is being read.
#[derive(Debug, Default)]
pub(super) struct Arrays {
    bounds: Vec<f64>,
    counts: Vec<u64>,
    quantiles: Vec<(f64, f64)>,
}

impl Arrays {
    /// Bounds have to rise, and the last bucket is the one without a bound: a bound of +Inf and
    /// repeated bounds, whose buckets are empty, are merged. `false`: not numbers in rising order.
    fn tidy(&mut self) -> bool {
        let ends_well = self.bounds.last().is_none_or(|last| *last < f64::INFINITY);
        if ends_well && self.bounds.is_sorted_by(|left, right| left < right) {
            return true;
        }
        let are_numbers = self.bounds.iter().all(|bound| !bound.is_nan());
        if !are_numbers || !self.bounds.is_sorted_by(|left, right| left <= right) {
            return false;
        }
        self.merge_empty_buckets();
        true
    }

    #[cold]
    fn merge_empty_buckets(&mut self) {
        let (bounds, counts) = (std::mem::take(&mut self.bounds), std::mem::take(&mut self.counts));
        let mut carried = 0u64;
        for (index, &bound) in bounds.iter().enumerate() {
            carried = carried.saturating_add(counts.get(index).copied().unwrap_or_default());
            let is_repeated = bounds.get(index + 1) == Some(&bound);
            if !is_repeated && bound < f64::INFINITY {
                self.bounds.push(bound);
                self.counts.push(std::mem::take(&mut carried));
            }
        }
        let rest = counts.get(bounds.len()..).unwrap_or_default();
        self.counts.push(rest.iter().fold(carried, |sum, count| sum.saturating_add(*count)));
    }
}

/// Reads a `HistogramDataPoint`; `None` instead of a histogram whose bounds do not rise.
pub(super) fn histogram<'a, 's>(
    bytes: &'a [u8],
    arrays: &'s mut Arrays,
    mut attribute: impl FnMut(KeyValue<'a>),
) -> (Head, Option<Histogram<'s>>) {
    arrays.bounds.clear();
    arrays.counts.clear();
    let mut head = Head::default();
    let (mut count, mut sum) = (0, None);
    for Field { number: field, value } in Fields::new(bytes) {
        match (field, value) {
            (9, Value::Len(bytes)) => attribute(KeyValue::new(bytes)),
            (2, Value::Fixed64(nanos)) => head.start = nanos,
            (3, Value::Fixed64(nanos)) => head.time = nanos,
            (4, Value::Fixed64(bits)) => count = bits,
            (5, Value::Fixed64(bits)) => sum = Some(f64::from_bits(bits)),
            (6, Value::Len(packed)) => arrays.counts.extend(fixed64s(packed)),
            (6, Value::Fixed64(bits)) => arrays.counts.push(bits),
            (7, Value::Len(packed)) => arrays.bounds.extend(fixed64s(packed).map(f64::from_bits)),
            (7, Value::Fixed64(bits)) => arrays.bounds.push(f64::from_bits(bits)),
            (HISTOGRAM_EXEMPLARS, Value::Len(_)) => head.has_exemplars = true,
            (10, Value::Varint(flags)) => head.flags = flags,
            _ => {}
        }
    }
    let has_rising_bounds = arrays.tidy();
    let histogram = Histogram { count, sum, bounds: &arrays.bounds, counts: &arrays.counts };
    (head, has_rising_bounds.then_some(histogram))
}

fn fixed64s(packed: &[u8]) -> impl Iterator<Item = u64> {
    packed.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Buckets of an exponential histogram, of one sign.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Buckets<'a> {
    pub(super) offset: i32,
    /// The field of the point that holds them, which may come in several pieces.
    field: u32,
    point: &'a [u8],
}

impl<'a> Buckets<'a> {
    /// The counts, in order.
    pub(super) fn counts(&self) -> impl Iterator<Item = u64> {
        let field = self.field;
        pieces(self.point, field).flat_map(Fields::new).filter(|field| field.number == 2).flat_map(|field| {
            let (packed, single) = match field.value {
                Value::Len(packed) => (packed, None),
                Value::Varint(count) => (&[][..], Some(count)),
                _ => (&[][..], None),
            };
            Varints(packed).chain(single)
        })
    }

    fn new(point: &'a [u8], field: u32) -> Self {
        let mut offset = 0;
        for Field { number, value } in pieces(point, field).flat_map(Fields::new) {
            if let (1, Value::Varint(zigzag)) = (number, value) {
                offset = unzigzag(zigzag);
            }
        }
        Self { offset, field, point }
    }
}

fn pieces(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    Fields::new(message).filter_map(move |field| match field.value {
        Value::Len(bytes) if field.number == number => Some(bytes),
        _ => None,
    })
}

fn unzigzag(zigzag: u64) -> i32 {
    let zigzag = zigzag as u32;
    ((zigzag >> 1) as i32) ^ -((zigzag & 1) as i32)
}

/// Packed varints; ends at the first malformed one.
struct Varints<'a>(&'a [u8]);

impl Iterator for Varints<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (index, &byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (index * 7);
            if byte < 0x80 {
                self.0 = self.0.get(index + 1..).unwrap_or_default();
                return Some(value);
            }
        }
        self.0 = &[];
        None
    }
}

/// An exponential histogram.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Exponential<'a> {
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    pub(super) scale: i32,
    pub(super) zero_count: u64,
    pub(super) zero_threshold: f64,
    pub(super) positive: Buckets<'a>,
    pub(super) negative: Buckets<'a>,
}

/// Reads an `ExponentialHistogramDataPoint`.
pub(super) fn exponential<'a>(bytes: &'a [u8], mut attribute: impl FnMut(KeyValue<'a>)) -> (Head, Exponential<'a>) {
    let mut head = Head::default();
    let mut found = Exponential::default();
    for Field { number: field, value } in Fields::new(bytes) {
        match (field, value) {
            (1, Value::Len(bytes)) => attribute(KeyValue::new(bytes)),
            (2, Value::Fixed64(nanos)) => head.start = nanos,
            (3, Value::Fixed64(nanos)) => head.time = nanos,
            (4, Value::Fixed64(bits)) => found.count = bits,
            (5, Value::Fixed64(bits)) => found.sum = Some(f64::from_bits(bits)),
            (6, Value::Varint(zigzag)) => found.scale = unzigzag(zigzag),
            (7, Value::Fixed64(bits)) => found.zero_count = bits,
            (10, Value::Varint(flags)) => head.flags = flags,
            (EXPONENTIAL_EXEMPLARS, Value::Len(_)) => head.has_exemplars = true,
            (14, Value::Fixed64(bits)) => found.zero_threshold = f64::from_bits(bits),
            _ => {}
        }
    }
    found.positive = Buckets::new(bytes, 8);
    found.negative = Buckets::new(bytes, 9);
    (head, found)
}

/// A summary.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary<'a> {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Quantiles (0 to 1) and their values.
    pub quantiles: &'a [(f64, f64)],
}

/// Reads a `SummaryDataPoint`.
pub(super) fn summary<'a, 's>(
    bytes: &'a [u8],
    arrays: &'s mut Arrays,
    mut attribute: impl FnMut(KeyValue<'a>),
) -> (Head, Summary<'s>) {
    arrays.quantiles.clear();
    let mut head = Head::default();
    let (mut count, mut sum) = (0, 0.0);
    for Field { number: field, value } in Fields::new(bytes) {
        match (field, value) {
            (7, Value::Len(bytes)) => attribute(KeyValue::new(bytes)),
            (2, Value::Fixed64(nanos)) => head.start = nanos,
            (3, Value::Fixed64(nanos)) => head.time = nanos,
            (4, Value::Fixed64(bits)) => count = bits,
            (5, Value::Fixed64(bits)) => sum = f64::from_bits(bits),
            (6, Value::Len(bytes)) => arrays.quantiles.push(quantile(bytes)),
            (8, Value::Varint(flags)) => head.flags = flags,
            _ => {}
        }
    }
    (head, Summary { count, sum, quantiles: &arrays.quantiles })
}

fn quantile(bytes: &[u8]) -> (f64, f64) {
    let mut found = (0.0, 0.0);
    for Field { number, value } in Fields::new(bytes) {
        match (number, value) {
            (1, Value::Fixed64(bits)) => found.0 = f64::from_bits(bits),
            (2, Value::Fixed64(bits)) => found.1 = f64::from_bits(bits),
            _ => {}
        }
    }
    found
}
