//! Conditions over the folded state of a trace.

use std::sync::Arc;

use super::Bits;
use super::extra::{Extra, Given};
use super::limits::{Bucket, Composite};
use super::marks::Marks;
use super::random::{Fnv, low_bits};
use super::sieves::Sieve;

/// What is known of a trace when it is decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) id: &'a [u8; 16],
    pub(crate) bits: &'a Bits,
    /// The earliest start that is set; `u64::MAX` if none is.
    pub(crate) start: u64,
    /// The latest end.
    pub(crate) end: u64,
    pub(crate) spans: u64,
    pub(crate) bytes: u64,
    /// [`Extra::NONE`] for most.
    pub(crate) extra: &'a Extra,
    /// What adaptive rates know the trace by.
    pub(crate) marks: Marks,
}

impl Facts<'_> {
    /// From the earliest start to the latest end, in nanoseconds; 0 if no start is known.
    pub(crate) fn duration(&self) -> i64 {
        if self.start == u64::MAX {
            return 0;
        }
        nanos_between(self.start, self.end)
    }
}

/// From `start` to `end`, in nanoseconds; less than 0 if it ends before it starts.
pub(super) fn nanos_between(start: u64, end: u64) -> i64 {
    let furthest = if end < start { i64::MIN } else { i64::MAX };
    i64::try_from(i128::from(end) - i128::from(start)).unwrap_or(furthest)
}

/// One evaluation.
#[derive(Debug)]
pub(crate) struct Look {
    /// Nanoseconds of the sampler's clock.
    pub(crate) now: u64,
    /// Nothing is taken from limiters.
    pub(crate) only_ask: bool,
    /// The sub-policy of a composite that said yes.
    pub(crate) member: Option<u16>,
    /// Of the limits by randomness that let it through, the strictest: its level.
    pub(crate) level: u16,
    /// A condition could not be evaluated on some span; then nothing that asked it holds.
    pub(crate) failed: bool,
}

impl Look {
    /// To decide a trace at `now`.
    pub(crate) const fn at(now: u64) -> Self {
        Self { now, only_ask: false, member: None, level: 0, failed: false }
    }

    /// To tell how a trace would be decided at `now`.
    pub(crate) const fn ask(now: u64) -> Self {
        Self { now, only_ask: true, member: None, level: 0, failed: false }
    }
}

/// A condition.
#[derive(Debug)]
pub(super) enum Expr {
    /// Always, or never.
    Const(bool),
    /// Some span has this bit; for a span: it has.
    Bit(u16),
    /// Some span has the bit; if one has the bit `failed`, nobody knows.
    Fallible { bit: u16, failed: u16 },
    /// All hold; asks until one does not.
    All(Vec<Expr>),
    /// One holds; asks until one does.
    Any(Vec<Expr>),
    /// Does not hold.
    Not(Box<Expr>),
    /// The trace took more than `above` and at most `up_to` units.
    Latency { unit_nanos: i64, above: i64, up_to: Option<i64> },
    /// Inclusive bounds.
    SpanCount { min: u64, max: u64 },
    /// The Collector's hash of the id is at most the threshold.
    Probabilistic { salt: Fnv, threshold: u64 },
    /// The same where `tracestate` says nothing; where it does, its randomness or the low 56 bits of
    /// the id are not below `rejected`.
    Consistent { salt: Fnv, threshold: u64, rejected: u64 },
    /// There are tokens for all spans.
    SpanRate(Arc<Bucket>),
    /// There are tokens for all bytes.
    ByteRate(Arc<Bucket>),
    /// It is one of those that a limit of spans a second lets through, by their randomness.
    SpanSieve(Arc<Sieve>),
    /// The same of bytes.
    ByteSieve(Arc<Sieve>),
    /// A sub-policy samples it within its budget.
    Composite(Arc<Composite>),
}

impl Expr {
    pub(super) fn holds(&self, facts: &Facts<'_>, look: &mut Look) -> bool {
        match self {
            Self::Const(value) => *value,
            Self::Bit(bit) => facts.bits.get(*bit),
            Self::Fallible { bit, failed } => {
                look.failed |= facts.bits.get(*failed);
                facts.bits.get(*bit) && !look.failed
            }
            Self::All(parts) => parts.iter().all(|part| part.holds(facts, look)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(facts, look)) && !look.failed,
            Self::Not(part) => !part.holds(facts, look) && !look.failed,
            Self::Latency { unit_nanos, above, up_to } => {
                let duration = facts.duration() / unit_nanos;
                duration > *above && up_to.is_none_or(|up_to| duration <= up_to)
            }
            Self::SpanCount { min, max } => (*min..=*max).contains(&facts.spans),
            Self::Probabilistic { salt, threshold } => salt.hash(facts.id) <= *threshold,
            Self::Consistent { salt, threshold, rejected } => match facts.extra.given {
                Given::NOTHING => salt.hash(facts.id) <= *threshold,
                given => given.rv().unwrap_or_else(|| low_bits(facts.id)) >= *rejected,
            },
            Self::SpanRate(bucket) => bucket.take(facts.spans, look),
            Self::ByteRate(bucket) => bucket.take(facts.bytes, look),
            Self::SpanSieve(sieve) => sieve.take(facts, facts.spans, look),
            Self::ByteSieve(sieve) => sieve.take(facts, facts.bytes, look),
            Self::Composite(composite) => {
                look.member = composite.choose(facts, look);
                look.member.is_some()
            }
        }
    }

    /// For conditions on one span, which have only bits.
    #[inline]
    pub(super) fn holds_for_span(&self, bits: &Bits) -> bool {
        match self {
            Self::Const(value) => *value,
            Self::Bit(bit) => bits.get(*bit),
            Self::All(parts) => parts.iter().all(|part| part.holds_for_span(bits)),
            Self::Any(parts) => parts.iter().any(|part| part.holds_for_span(bits)),
            Self::Not(part) => !part.holds_for_span(bits),
            _ => false,
        }
    }
}
