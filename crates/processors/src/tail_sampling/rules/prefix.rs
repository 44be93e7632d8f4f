//! `latency` with an upper bound as the Collector sees it (`compat: otelcol`): it looks at the spans
//! in their order and stops as soon as those so far lie within the bounds.

use nyquist_core::wire::{Field, Fields, Value};

use super::Bits;

const NANOS_PER_MILLI: i128 = 1_000_000;

/// Bounds in whole milliseconds.
#[derive(Debug)]
pub(super) struct PrefixTest {
    pub(super) above: i64,
    pub(super) up_to: i64,
    pub(super) bit: u16,
}

/// Looks at a run of spans that comes after others: `start` is their earliest start (`u64::MAX` if
/// none is set), `end` their latest end.
pub(super) fn fold(tests: &[PrefixTest], run: &[u8], mut start: u64, mut end: u64, bits: &mut Bits) {
    for field in Fields::new(run) {
        let Field { number: 2, value: Value::Len(span) } = field else {
            continue;
        };
        for field in Fields::new(span) {
            match (field.number, field.value) {
                (7, Value::Fixed64(nanos)) if nanos > 0 => start = start.min(nanos),
                (8, Value::Fixed64(nanos)) => end = end.max(nanos),
                _ => {}
            }
        }
        let millis = if start == u64::MAX { 0 } else { (i128::from(end) - i128::from(start)) / NANOS_PER_MILLI };
        for test in tests {
            if millis > i128::from(test.above) && millis <= i128::from(test.up_to) {
                bits.set(test.bit);
            }
        }
    }
}
