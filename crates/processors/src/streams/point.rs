//! A point as both processors read it.

use nyquist_core::wire::{DataPoint, Number};

use crate::accumulate::distribution::{Distribution, Explicit};
use crate::accumulate::exponential::Exponential;
use crate::accumulate::write::{put_explicit, put_exponential, put_number};

/// Times, flags and value of a point.
#[derive(Debug)]
pub(crate) struct Point {
    /// When its window, or its sequence, began; 0 if that is not known.
    pub(crate) start: u64,
    pub(crate) time: u64,
    flags: u32,
    pub(crate) value: Measured,
}

/// The value of a point.
#[derive(Debug, Clone)]
pub(crate) enum Measured {
    Number(Number),
    Distribution(Box<Distribution>),
}

impl Point {
    /// Reads a point of a sum or histogram; `None` of another kind.
    pub(crate) fn new(point: DataPoint<'_>) -> Option<Self> {
        Some(match point {
            DataPoint::Number(view) => {
                let fields = view.fields();
                let value = Measured::Number(fields.value.unwrap_or(Number::Int(0)));
                Self { start: fields.start_time, time: fields.time, flags: fields.flags, value }
            }
            DataPoint::Histogram(view) => {
                let fields = view.fields();
                let value = Measured::Distribution(Box::new(Distribution::Explicit(Explicit::new(view))));
                Self { start: fields.start_time, time: fields.time, flags: fields.flags, value }
            }
            DataPoint::ExponentialHistogram(view) => {
                let fields = view.fields();
                let value = Measured::Distribution(Box::new(Distribution::Exponential(Exponential::new(view))));
                Self { start: fields.start_time, time: fields.time, flags: fields.flags, value }
            }
            DataPoint::Summary(_) => return None,
        })
    }

    /// Does it only say that there is nothing to say?
    pub(crate) fn has_no_value(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// Appends a distribution, as the fields of its kind of point.
pub(crate) fn put_distribution(out: &mut Vec<u8>, distribution: &Distribution) {
    match distribution {
        Distribution::Explicit(own) => put_explicit(out, own),
        Distribution::Exponential(own) => put_exponential(out, own),
    }
}

impl Measured {
    /// Appends it, as the fields of its kind of point.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => put_number(out, *number),
            Self::Distribution(distribution) => put_distribution(out, distribution),
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap(&self) -> usize {
        match self {
            Self::Number(_) => 0,
            Self::Distribution(distribution) => size_of::<Distribution>() + distribution.bytes(),
        }
    }
}
