//! Repeated numbers, packed or not, and the buckets of exponential histograms.

use crate::wire::common::len_fields;
use crate::wire::cursor::{Field, Fields, Value};

/// The values of a repeated `fixed64` field, packed or not.
#[derive(Debug, Clone)]
pub struct Fixed64s<'a> {
    packed: &'a [u8],
    fields: Fields<'a>,
    number: u32,
}

impl<'a> Fixed64s<'a> {
    /// The values in field `number` of `message`.
    #[must_use]
    pub fn new(message: &'a [u8], number: u32) -> Self {
        Self { packed: &[], fields: Fields::new(message), number }
    }
}

impl Iterator for Fixed64s<'_> {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        loop {
            if let Some((value, rest)) = self.packed.split_first_chunk::<8>() {
                self.packed = rest;
                return Some(u64::from_le_bytes(*value));
            }
            let Field { number, value } = self.fields.next()?;
            match value {
                Value::Len(packed) if number == self.number => self.packed = packed,
                Value::Fixed64(value) if number == self.number => return Some(value),
                _ => {}
            }
        }
    }
}

/// The values of a repeated `double` field, packed or not.
#[derive(Debug, Clone)]
pub struct Doubles<'a>(Fixed64s<'a>);

impl<'a> Doubles<'a> {
    /// The values in field `number` of `message`.
    #[must_use]
    pub fn new(message: &'a [u8], number: u32) -> Self {
        Self(Fixed64s::new(message, number))
    }
}

impl Iterator for Doubles<'_> {
    type Item = f64;

    #[inline]
    fn next(&mut self) -> Option<f64> {
        self.0.next().map(f64::from_bits)
    }
}

/// The values of a repeated `uint64` field, packed or not.
#[derive(Debug, Clone)]
pub struct Varints<'a> {
    packed: Fields<'a>,
    fields: Fields<'a>,
    number: u32,
}

impl<'a> Varints<'a> {
    /// The values in field `number` of `message`.
    #[must_use]
    pub fn new(message: &'a [u8], number: u32) -> Self {
        Self { packed: Fields::new(&[]), fields: Fields::new(message), number }
    }
}

impl Iterator for Varints<'_> {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        loop {
            if let Some(value) = self.packed.next_packed_varint() {
                return Some(value);
            }
            let Field { number, value } = self.fields.next()?;
            match value {
                Value::Len(packed) if number == self.number => self.packed = Fields::new(packed),
                Value::Varint(value) if number == self.number => return Some(value),
                _ => {}
            }
        }
    }
}

/// The `Buckets` of an exponential histogram.
#[derive(Debug, Clone, Copy)]
pub struct BucketsView<'a> {
    point: &'a [u8],
    number: u32,
}

impl<'a> BucketsView<'a> {
    /// The `Buckets` in field `number` of `point`: 8 positive, 9 negative.
    pub(super) fn new(point: &'a [u8], number: u32) -> Self {
        Self { point, number }
    }

    /// `offset` (1): the index of the first bucket.
    #[must_use]
    pub fn offset(self) -> i32 {
        len_fields(self.point, self.number)
            .flat_map(Fields::new)
            .filter_map(|field| match field {
                Field { number: 1, value: Value::Varint(offset) } => Some(zigzag(offset)),
                _ => None,
            })
            .last()
            .unwrap_or_default()
    }

    /// `bucket_counts` (2).
    pub fn bucket_counts(self) -> impl Iterator<Item = u64> + use<'a> {
        len_fields(self.point, self.number).flat_map(|piece| Varints::new(piece, 2))
    }
}

/// The `sint32` in `value`.
pub(super) fn zigzag(value: u64) -> i32 {
    let value = value as u32;
    ((value >> 1) as i32) ^ -((value & 1) as i32)
}
