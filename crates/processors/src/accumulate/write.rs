//! Writing points, as fields of the OTLP messages.

use nyquist_core::wire::{MetricKind, Number, Temporality, put_tag, put_varint};

use super::distribution::Explicit;
use super::exponential::{Buckets, Exponential};
use crate::attributes::put_nested;

/// Do points of `kind` report what came since the last one?
pub(crate) fn is_delta(kind: MetricKind) -> bool {
    match kind {
        MetricKind::Sum { temporality, .. }
        | MetricKind::Histogram { temporality }
        | MetricKind::ExponentialHistogram { temporality } => temporality == Temporality::Delta,
        MetricKind::Gauge | MetricKind::Summary => false,
    }
}

/// The field in which points of `kind` have their attributes.
pub(crate) fn attributes_field(kind: MetricKind) -> u32 {
    match kind {
        MetricKind::Gauge | MetricKind::Sum { .. } | MetricKind::Summary => 7,
        MetricKind::Histogram { .. } => 9,
        MetricKind::ExponentialHistogram { .. } => 1,
    }
}

/// Appends the flag "no recorded value".
pub(crate) fn put_no_recorded_value(out: &mut Vec<u8>, kind: MetricKind) {
    let number = match kind {
        MetricKind::Histogram { .. } | MetricKind::ExponentialHistogram { .. } => 10,
        _ => 8,
    };
    put_tag(out, number, 0);
    put_varint(out, 1);
}

/// Appends start and time, which have the same fields in all kinds of points.
pub(crate) fn put_times(out: &mut Vec<u8>, start: u64, time: u64) {
    put_fixed(out, 2, start);
    put_fixed(out, 3, time);
}

/// Appends a field of 64 bits.
pub(crate) fn put_fixed(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends the value of a sum or gauge.
pub(crate) fn put_number(out: &mut Vec<u8>, number: Number) {
    match number {
        Number::Double(number) => put_fixed(out, 4, number.to_bits()),
        Number::Int(number) => put_fixed(out, 6, number as u64),
    }
}

/// Appends what a histogram point has beside attributes and times.
pub(crate) fn put_explicit(out: &mut Vec<u8>, own: &Explicit) {
    put_fixed(out, 4, own.count);
    for (number, value) in [(5, own.sum), (11, own.min), (12, own.max)] {
        if let Some(value) = value {
            put_fixed(out, number, value.to_bits());
        }
    }
    if own.bounds.is_empty() {
        // Without bounds the one bucket says nothing that the count does not.
        return;
    }
    put_nested(out, 6, |out| own.buckets.iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes())));
    put_nested(out, 7, |out| own.bounds.iter().for_each(|bound| out.extend_from_slice(&bound.to_le_bytes())));
}

/// The same of an exponential histogram.
pub(crate) fn put_exponential(out: &mut Vec<u8>, own: &Exponential) {
    put_fixed(out, 4, own.count);
    for (number, value) in [(5, own.sum), (12, own.min), (13, own.max), (14, Some(own.zero_threshold))] {
        if let Some(value) = value {
            put_fixed(out, number, value.to_bits());
        }
    }
    put_tag(out, 6, 0);
    put_varint(out, zigzag(own.scale));
    put_fixed(out, 7, own.zero_count);
    for (number, side) in [(8, &own.positive), (9, &own.negative)] {
        put_nested(out, number, |out| put_buckets(out, side));
    }
}

fn put_buckets(out: &mut Vec<u8>, side: &Buckets) {
    put_tag(out, 1, 0);
    put_varint(out, zigzag(side.offset.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32));
    put_nested(out, 2, |out| side.counts.iter().for_each(|&count| put_varint(out, count)));
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}
