//! What happened while shards were locked, counted after that.
//!
//! It is written down in memory of the thread that visits them, and added to what all threads share once for a whole
//! request, or a slice of decisions.

use std::time::Duration;

use super::rules::verdict::Votes;

/// Why a trace was decided when it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// `decision_wait` was over.
    Wait,
    /// `decision_wait_after_root_received` was over.
    Root,
    /// `decision_wait_after_last_span` was over.
    Idle,
    /// The buffer was nearly full.
    Memory,
    /// There were more than `num_traces`.
    Count,
    /// The trace grew beyond `maximum_trace_size_bytes`.
    Size,
    /// The trace reached `span_limit`.
    Spans,
    /// The buffer was overloaded: decided by the trace id.
    Stress,
    /// The gateway shut down.
    Shutdown,
    /// A batch of it alone was enough (`span-ingest`).
    Ingest,
}

impl Trigger {
    pub(super) const ALL: [Self; 10] = [
        Self::Wait,
        Self::Root,
        Self::Idle,
        Self::Memory,
        Self::Count,
        Self::Size,
        Self::Spans,
        Self::Stress,
        Self::Shutdown,
        Self::Ingest,
    ];

    /// Was the trace decided before its time?
    pub(super) fn is_early(self) -> bool {
        !matches!(self, Self::Wait | Self::Root | Self::Idle | Self::Ingest)
    }

    /// The label value.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Root => "root",
            Self::Idle => "idle",
            Self::Memory => "memory",
            Self::Count => "count",
            Self::Size => "size",
            Self::Spans => "spans",
            Self::Stress => "stress",
            Self::Shutdown => "shutdown",
            Self::Ingest => "ingest",
        }
    }
}

/// Times of a list that are kept allocated.
const KEEP_TIMES: usize = 1024;

/// Decisions of one policy or rule (or of none), by trigger and decision.
pub(super) type Decisions = [[u64; 3]; Trigger::ALL.len()];

/// Counts of visits to shards by one thread.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) votes: Votes,
    /// By policy or rule; the last is for traces that none decided.
    pub(super) decisions: Vec<Decisions>,
    pub(super) decided: u64,
    pub(super) new_traces: u64,
    pub(super) too_large: u64,
    /// Spans of traces that were not kept.
    pub(super) sampled_out: usize,
    /// Late spans of kept traces.
    pub(super) late_sampled: u64,
    /// Late spans of other traces; they are in `sampled_out` too.
    pub(super) late_not_sampled: u64,
    /// Spans that found no room at all.
    pub(super) no_room: usize,
    /// Spans of pending traces that were discarded on shutdown.
    pub(super) discarded: usize,
    /// Change of spans held.
    pub(super) held: i64,
    /// Change of traces in the buffer.
    pub(super) traces: i64,
    /// Change of those that are undecided.
    pub(super) pending: isize,
    /// Change of bytes of memory.
    pub(super) bytes: i64,
    /// Traces that were decided against, and are kept from a late error on.
    pub(super) late_errors: u64,
    /// Past decisions that were forgotten for newer ones: to keep, and others.
    pub(super) forgotten: [u64; 2],
    /// Traces that were decided in time: without, and with a root span.
    pub(super) roots: [u64; 2],
    /// What the asking of policies or rules took.
    pub(super) judging: Duration,
    /// Ages in seconds of traces that left the buffer.
    pub(super) ages: Vec<f64>,
    /// Seconds from when a trace was due until it was decided.
    pub(super) delays: Vec<f64>,
    /// Seconds from decisions until late spans.
    pub(super) late_ages: Vec<f64>,
}

impl Tally {
    /// Makes an empty one fit so many policies or rules.
    pub(super) fn fit(&mut self, names: usize) {
        if self.decisions.len() != names + 1 {
            self.votes = Votes::new(names);
            self.decisions = vec![Decisions::default(); names + 1];
        }
    }

    pub(super) fn count_root(&mut self, has_root: bool) {
        self.roots[usize::from(has_root)] += 1;
    }

    /// Spans have come so many seconds after the decision.
    pub(super) fn late(&mut self, age: f64) {
        self.late_ages.push(age);
    }

    pub(super) fn clear(&mut self) {
        let mut old = std::mem::take(self);
        old.votes.clear();
        old.decisions.fill(Decisions::default());
        for list in [&mut old.ages, &mut old.delays, &mut old.late_ages] {
            list.clear();
            list.shrink_to(KEEP_TIMES);
        }
        let Self { votes, decisions, ages, delays, late_ages, .. } = old;
        *self = Self { votes, decisions, ages, delays, late_ages, ..Self::default() };
    }
}
