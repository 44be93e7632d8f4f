//! Past decisions with all that led to them, for people who ask.
//!
//! A ring of records of one size, made once: to remember a decision is to write over the oldest. It
//! belongs to its shard, like everything that a decision touches.

use super::decide::Judged;
use crate::tail_sampling::request::Run;
use crate::tail_sampling::rules::ballot::Ballot;
use crate::tail_sampling::rules::extra::Given;
use crate::tail_sampling::rules::verdict::Decision;
use crate::tail_sampling::tally::Trigger;

/// A decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) id: [u8; 16],
    pub(crate) decision: Decision,
    /// Is the trace kept?
    pub(crate) kept: bool,
    pub(crate) trigger: Trigger,
    /// As an index into the rule set's reasons, if a policy or rule decided.
    pub(crate) reason: Option<u16>,
    pub(crate) ballot: Ballot,
    /// What had arrived by then.
    pub(crate) spans: u32,
    pub(crate) bytes: u64,
    /// Nanoseconds from the earliest start to the latest end.
    pub(crate) duration: u64,
    /// Nanoseconds since the first span came.
    pub(crate) waited: u64,
    /// When it was decided, in nanoseconds of the sampler's clock.
    pub(crate) at: u64,
}

/// The latest decisions of a shard.
#[derive(Debug)]
pub(crate) struct DecisionLog {
    records: Vec<Record>,
    capacity: usize,
    /// How many decisions there have been: the number of the next.
    next: u64,
}

impl DecisionLog {
    /// Bytes of memory for each decision.
    pub(crate) const BYTES_EACH: usize = size_of::<Record>();

    /// A log of the last `capacity` decisions; 0 for none.
    pub(super) fn new(capacity: usize) -> Self {
        Self { records: Vec::with_capacity(capacity), capacity, next: 0 }
    }

    pub(super) fn is_off(&self) -> bool {
        self.capacity == 0
    }

    /// Bytes of memory that it takes, used or not.
    pub(super) fn bytes(&self) -> usize {
        self.capacity * Self::BYTES_EACH
    }

    pub(super) fn push(&mut self, record: Record) {
        let place = self.next.checked_rem(self.capacity as u64).map(|place| place as usize);
        let Some(place) = place else { return };
        self.next += 1;
        match self.records.get_mut(place) {
            Some(oldest) => *oldest = record,
            // Within what was reserved.
            None => self.records.push(record),
        }
    }

    /// The number that the next decision gets.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many decisions it covers.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    fn first(&self) -> u64 {
        self.next - self.records.len() as u64
    }

    /// The oldest decision that it covers.
    pub(crate) fn oldest(&self) -> Option<&Record> {
        self.get(self.first())
    }

    fn get(&self, number: u64) -> Option<&Record> {
        let place = number.checked_rem(self.capacity as u64)?;
        self.records.get(place as usize)
    }

    /// The decisions from number `from` on that are still there, in order.
    pub(crate) fn since(&self, from: u64) -> impl Iterator<Item = &Record> {
        (from.max(self.first())..self.next).filter_map(|number| self.get(number))
    }

    /// Looks through at most `count` decisions before number `end`, the latest first, for those on
    /// `id`, and returns where to go on; `None` at the beginning.
    pub(crate) fn look_back(&self, id: &[u8; 16], end: u64, count: u64, found: &mut Vec<Record>) -> Option<u64> {
        let begin = end.saturating_sub(count).max(self.first());
        for number in (begin..end).rev() {
            found.extend(self.get(number).filter(|record| record.id == *id));
        }
        (begin > self.first()).then_some(begin)
    }
}

impl super::shard::Shard {
    /// Remembers a decision, before the trace goes.
    pub(super) fn remember(&mut self, slot: u32, trigger: Trigger, judged: Judged, now: u64) {
        if self.decisions.is_off() {
            return;
        }
        let Some(trace) = self.traces.get(slot) else { return };
        self.decisions.push(Record {
            id: trace.id,
            decision: judged.verdict.decision,
            kept: judged.verdict.keeps(),
            trigger,
            reason: judged.verdict.reason,
            ballot: judged.ballot,
            spans: trace.spans,
            bytes: u64::from(trace.bytes),
            duration: u64::try_from(trace.facts(&self.extras).duration()).unwrap_or(0),
            waited: trace.waited(now),
            at: now,
        });
    }
}

impl super::shard::Shard {
    /// Remembers a trace that was decided by its id, at its first spans.
    pub(super) fn remember_stress(&mut self, run: &Run, given: Given, decision: Decision, now: u64) {
        if self.decisions.is_off() {
            return;
        }
        let probability = Some(self.settings.stress_percentage / 100.0);
        let randomness = Some(self.settings.randomness.of(&run.id, given));
        self.decisions.push(Record {
            id: run.id,
            decision,
            kept: decision == Decision::Sampled,
            trigger: Trigger::Stress,
            reason: None,
            ballot: Ballot { matched: 0, probability, randomness },
            spans: u32::from(run.contents.spans),
            bytes: u64::from(run.size),
            duration: if run.start == u64::MAX { 0 } else { run.end.saturating_sub(run.start) },
            waited: 0,
            at: now,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64) -> Record {
        let id = [(number % 7) as u8; 16];
        let (decision, trigger) = (Decision::Sampled, Trigger::Wait);
        let ballot = Ballot::EMPTY;
        let (reason, kept) = (None, true);
        Record { id, decision, kept, trigger, reason, ballot, spans: 1, bytes: 1, duration: 0, waited: 0, at: number }
    }

    /// Whatever its size, the log holds the last decisions, in order, and never more memory than at
    /// the start.
    #[test]
    fn it_holds_the_last_decisions() {
        for capacity in [1, 2, 5, 8, 100] {
            let mut log = DecisionLog::new(capacity);
            for number in 0..40u64 {
                let kept = (capacity as u64).min(number);
                let held: Vec<u64> = log.since(0).map(|record| record.at).collect();
                assert_eq!(held, (number - kept..number).collect::<Vec<_>>());
                assert_eq!(log.oldest().map(|record| record.at), held.first().copied());
                assert_eq!((log.len() as u64, log.next()), (kept, number));
                let late: Vec<u64> = log.since(number.saturating_sub(1)).map(|record| record.at).collect();
                assert_eq!(late, Vec::from_iter(number.checked_sub(1)));
                log.push(record(number));
            }
            assert_eq!(log.records.capacity(), capacity);
        }
    }

    /// A search in slices finds all decisions on an id that the log holds, the latest first.
    #[test]
    fn a_search_finds_every_decision_on_a_trace() {
        for (capacity, slice) in [(1, 1), (20, 3), (20, 64), (64, 1)] {
            let mut log = DecisionLog::new(capacity);
            (0..50).for_each(|number| log.push(record(number)));
            let mut found = Vec::new();
            let mut end = Some(log.next());
            while let Some(before) = end {
                end = log.look_back(&[3; 16], before, slice, &mut found);
            }
            let wanted: Vec<u64> =
                (50u64.saturating_sub(capacity as u64)..50).rev().filter(|number| number % 7 == 3).collect();
            assert_eq!(found.iter().map(|record| record.at).collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn a_log_of_no_size_is_off() {
        let mut log = DecisionLog::new(0);
        log.push(record(1));
        assert_eq!((log.len(), log.next(), log.bytes()), (0, 0, 0));
        assert_eq!(log.look_back(&[1; 16], 5, 9, &mut Vec::new()), None);
    }
}
