//! What happened under a lock, counted after it.

use super::rules::verdict::Votes;

/// Why a trace was decided when it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// `decision_wait` was over.
    Wait,
    /// `decision_wait_after_root_received` was over.
    Root,
    /// The buffer was nearly full.
    Memory,
    /// There were more than `num_traces`.
    Count,
    /// The trace grew beyond `maximum_trace_size_bytes`.
    Size,
    /// The gateway shut down.
    Shutdown,
    /// A batch of it alone was enough (`span-ingest`).
    Ingest,
}

impl Trigger {
    pub(super) const ALL: [Self; 7] =
        [Self::Wait, Self::Root, Self::Memory, Self::Count, Self::Size, Self::Shutdown, Self::Ingest];

    /// The label value.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Root => "root",
            Self::Memory => "memory",
            Self::Count => "count",
            Self::Size => "size",
            Self::Shutdown => "shutdown",
            Self::Ingest => "ingest",
        }
    }
}

/// Decisions of one policy or rule (or of none), by trigger and decision.
pub(super) type Decisions = [[u64; 3]; Trigger::ALL.len()];

/// Counts of one visit to a shard.
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
    /// Change of undecided traces.
    pub(super) traces: i64,
    /// Ages in seconds of traces that left the buffer.
    pub(super) ages: Vec<f64>,
}

impl Tally {
    pub(super) fn new(names: usize) -> Self {
        Self { votes: Votes::new(names), decisions: vec![Decisions::default(); names + 1], ..Self::default() }
    }

    pub(super) fn clear(&mut self) {
        self.votes.0.fill([0; 2]);
        self.votes.1 = 0;
        self.decisions.fill(Decisions::default());
        self.ages.clear();
        let (votes, decisions) = (std::mem::take(&mut self.votes), std::mem::take(&mut self.decisions));
        let ages = std::mem::take(&mut self.ages);
        *self = Self { votes, decisions, ages, ..Self::default() };
    }
}
