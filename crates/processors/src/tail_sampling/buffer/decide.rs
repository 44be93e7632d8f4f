//! One shard: deciding.

use std::hint::black_box;
use std::time::Instant;

use super::cache::Past;
use super::journal::Outcome;
use super::record::Addr;
use super::shard::{Shard, is_pending};
use super::timers::{Handle, Millis};
use super::trace::{NO_REASON, State, Why};
use super::work;
use crate::tail_sampling::rules::ballot::Ballot;
use crate::tail_sampling::rules::verdict::Verdict;
use crate::tail_sampling::tally::Trigger;

/// To decide a trace by eight rules, in units of [`work`].
const DECISION: u64 = 10;
/// For each trace that a call may decide, it looks at so many timers, at most.
const LOOKS: usize = 8;

/// A trace that is due.
#[derive(Debug, Clone, Copy)]
struct Due {
    slot: u32,
    trigger: Trigger,
    /// Since when, in milliseconds.
    late_by: u32,
}

/// Reused from call to call.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    due: Vec<Due>,
    verdicts: Vec<(Due, Judged)>,
}

impl Scratch {
    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.due.capacity() * size_of::<Due>() + self.verdicts.capacity() * size_of::<(Due, Judged)>()
    }
}

/// A verdict and the votes behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    /// Empty if the log of decisions is off.
    pub(super) ballot: Ballot,
}

impl Judged {
    /// A verdict on which nobody voted.
    pub(super) fn unasked(verdict: Verdict) -> Self {
        Self { verdict, ballot: Ballot::EMPTY }
    }
}

impl Shard {
    /// Decides up to `limit` traces that are due at `now`. True if more may be.
    pub(crate) fn decide_due(&mut self, now: u64, limit: usize) -> bool {
        let mut due = std::mem::take(&mut self.scratch.due);
        let mut looks = limit.saturating_mul(LOOKS);
        let time = Millis::of(now);
        self.find_rooted(time, limit, &mut looks, &mut due);
        self.find_silent(time, limit, &mut looks, &mut due);
        self.find_waiting(time, limit, &mut looks, &mut due);
        let more = due.len() >= limit || looks == 0;
        self.decide_found(&mut due, now);
        self.scratch.due = due;
        self.tidy();
        if !more {
            self.work += self.log.end_round() as u64 * work::BLOCK;
        }
        self.freeze_old(now) || more
    }

    /// Traces whose root came long enough ago.
    fn find_rooted(&mut self, now: Millis, limit: usize, looks: &mut usize, due: &mut Vec<Due>) {
        while due.len() < limit
            && *looks > 0
            && let Some(timer) = self.rooted.front()
            && let Some(late_by) = timer.due.late_by(now)
        {
            self.rooted.pop();
            *looks -= 1;
            if self.mark_due(timer.trace) {
                due.push(Due { slot: timer.trace.slot, trigger: Trigger::Root, late_by });
            }
        }
    }

    /// Traces whose last span came long enough ago. For the others the timer is set again.
    fn find_silent(&mut self, now: Millis, limit: usize, looks: &mut usize, due: &mut Vec<Due>) {
        while due.len() < limit
            && *looks > 0
            && let Some(handle) = self.silent.pop_due(now)
        {
            *looks -= 1;
            let Some(trace) = self.traces.get(handle.slot).filter(|_| self.is_pending(handle)) else {
                continue;
            };
            let at = trace.last_arrival().after(self.settings.wait_after_last);
            if let Some(late_by) = at.late_by(now) {
                self.mark_due(handle);
                due.push(Due { slot: handle.slot, trigger: Trigger::Idle, late_by });
            } else {
                self.silent.set(now, at.ahead_of(now), handle);
            }
        }
    }

    /// Traces whose first span came long enough ago.
    fn find_waiting(&mut self, now: Millis, limit: usize, looks: &mut usize, due: &mut Vec<Due>) {
        while due.len() < limit
            && *looks > 0
            && let Some(handle) = self.waiting.front()
        {
            if let Some(trace) = self.traces.get(handle.slot).filter(|_| self.is_pending(handle)) {
                let Some(late_by) = trace.arrival.after(self.settings.wait).late_by(now) else {
                    return;
                };
                self.mark_due(handle);
                due.push(Due { slot: handle.slot, trigger: Trigger::Wait, late_by });
            }
            self.waiting.pop();
            *looks -= 1;
        }
    }

    /// Claims an undecided trace for a decision; false if it has been decided or claimed.
    fn mark_due(&mut self, handle: Handle) -> bool {
        let pending = self.is_pending(handle);
        if pending && let Some(trace) = self.traces.get_mut(handle.slot) {
            trace.state = State::Due;
        }
        pending
    }

    /// Decides up to `limit` of all traces, or discards them. True if there may be more.
    pub(crate) fn decide_all(&mut self, now: u64, limit: usize, discard: bool) -> bool {
        let mut due = std::mem::take(&mut self.scratch.due);
        let mut looks = limit.saturating_mul(LOOKS);
        while due.len() < limit
            && looks > 0
            && let Some(handle) = self.waiting.pop()
        {
            looks -= 1;
            if self.mark_due(handle) {
                due.push(Due { slot: handle.slot, trigger: Trigger::Shutdown, late_by: 0 });
            }
        }
        let more = due.len() >= limit || looks == 0;
        if discard {
            for Due { slot, .. } in due.drain(..) {
                self.discard(slot);
            }
        }
        self.decide_found(&mut due, now);
        self.scratch.due = due;
        self.tidy();
        more
    }

    /// Decides an undecided trace before its time.
    pub(super) fn decide_now(&mut self, slot: u32, trigger: Trigger, now: u64) {
        let judged = self.judge(slot, now);
        self.apply(slot, trigger, judged, now);
    }

    /// Decides a trace that has just grown beyond the limit: rules decide as always; the
    /// Collector's policies are not asked.
    pub(super) fn decide_too_large(&mut self, slot: u32, now: u64) {
        self.tally.too_large += 1;
        if self.settings.rules.ordered || self.settings.rules.dry_run.is_some() {
            self.decide_now(slot, Trigger::Size, now);
        } else {
            let judged = Judged::unasked(Verdict::NONE);
            self.remember(slot, Trigger::Size, judged, now);
            self.drop_trace(slot, Why { reason: NO_REASON, trigger: Some(Trigger::Size) }, now);
        }
    }

    pub(super) fn is_pending(&self, handle: Handle) -> bool {
        is_pending(&self.traces, handle)
    }

    /// In passes, so that the cache misses of one trace do not wait for those of another.
    fn decide_found(&mut self, due: &mut Vec<Due>, now: u64) {
        if due.is_empty() {
            return;
        }
        for due in due.iter() {
            self.touch(due.slot);
        }
        let mut verdicts = std::mem::take(&mut self.scratch.verdicts);
        let begin = Instant::now();
        for due in due.drain(..) {
            verdicts.push((due, self.judge(due.slot, now)));
        }
        self.tally.judging += begin.elapsed();
        for (due, judged) in verdicts.drain(..) {
            if due.trigger != Trigger::Shutdown {
                self.tally.delays.push(f64::from(due.late_by) / 1e3);
                self.tally.count_root(self.traces.get(due.slot).is_some_and(|trace| trace.marks.has_root()));
            }
            self.apply(due.slot, due.trigger, judged, now);
        }
        self.scratch.verdicts = verdicts;
    }

    /// Has the processor read what dropping a trace reads first.
    fn touch(&self, slot: u32) {
        if let Some(trace) = self.traces.get(slot) {
            let (_, tag) = self.settings.hash.of(&trace.id);
            black_box(self.index.find(tag, |found| found == slot));
            self.not_sampled.touch_to_insert(tag);
        }
    }

    fn judge(&mut self, slot: u32, now: u64) -> Judged {
        if self.settings.rules.span_ingest {
            // They were asked as its spans came.
            return Judged::unasked(self.settings.rules.nothing_matched());
        }
        self.ask(slot, now)
    }

    /// Asks policies or rules about what is known of a trace.
    pub(super) fn ask(&mut self, slot: u32, now: u64) -> Judged {
        let Some(trace) = self.traces.get(slot) else {
            return Judged::unasked(Verdict::NONE);
        };
        let (facts, rules) = (trace.facts(&self.extras), &self.settings.rules);
        let mut ballot = Ballot::EMPTY;
        let wanted = (!self.decisions.is_off()).then_some(&mut ballot);
        let verdict = rules.decide(&facts, now, &mut self.tally.votes, wanted);
        Judged { verdict, ballot }
    }

    pub(super) fn apply(&mut self, slot: u32, trigger: Trigger, judged: Judged, now: u64) {
        self.work += DECISION;
        let verdict = judged.verdict;
        self.count(trigger, verdict);
        self.remember(slot, trigger, judged, now);
        let reason = verdict.reason.unwrap_or(NO_REASON);
        let why = Why { reason, trigger: Some(trigger) };
        if !verdict.keeps() {
            self.drop_trace(slot, why, now);
            return;
        }
        if let Some(id) = self.traces.get(slot).map(|trace| trace.id) {
            self.note(id, Outcome::Kept, why);
        }
        if let Some(trace) = self.traces.get_mut(slot) {
            trace.state = State::Kept;
            trace.reason = reason;
            trace.marks.set_trigger(trigger);
            if verdict.tried.is_some()
                && let Some(extra) = self.extras.at(&mut trace.extra)
            {
                extra.tried = verdict.tried;
            }
            self.kept_bytes += trace.footprint();
            self.kept_count += 1;
            self.kept.push(slot);
        }
    }

    pub(super) fn count(&mut self, trigger: Trigger, verdict: Verdict) {
        self.tally.decided += 1;
        let reason = verdict.reason.and_then(|reason| self.settings.rules.reasons.get(usize::from(reason)));
        let name = reason.map_or(self.settings.rules.names.len(), |reason| reason.name);
        if let Some(decisions) = self.tally.decisions.get_mut(name)
            && let Some(by_decision) = decisions.get_mut(trigger as usize)
        {
            by_decision[verdict.decision as usize] += 1;
        }
    }

    /// Counts a trace's spans out and forgets them.
    fn drop_trace(&mut self, slot: u32, why: Why, now: u64) {
        let Some(trace) = self.traces.get(slot) else {
            return;
        };
        self.tally.sampled_out += trace.spans as usize;
        self.tally.held -= i64::from(trace.spans);
        self.tally.ages.push(trace.age(now));
        let (_, tag) = self.settings.hash.of(&trace.id);
        let forgotten = self.not_sampled.insert(tag, &trace.id, Past::new(why, now));
        self.tally.forgotten[1] += u64::from(forgotten);
        let id = trace.id;
        self.note(id, Outcome::Dropped, why);
        self.remove(slot);
    }

    fn discard(&mut self, slot: u32) {
        if let Some(trace) = self.traces.get(slot) {
            self.tally.discarded += trace.spans as usize;
            self.tally.held -= i64::from(trace.spans);
        }
        self.remove(slot);
    }

    /// Discards everything: what is left after the deadline of a shutdown.
    pub(crate) fn abandon(&mut self) {
        while self.kept.pop().is_some() {}
        for slot in self.traces.slots() {
            let Some(trace) = self.traces.get(slot).filter(|trace| trace.state != State::Free) else {
                continue;
            };
            self.tally.discarded += trace.spans as usize;
            self.tally.held -= i64::from(trace.spans);
            self.remove(slot);
        }
        self.kept_bytes = 0;
        self.kept_count = 0;
        self.tidy();
    }

    /// Takes a trace out of all tables. Its records stay where they are until their blocks go.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(trace) = self.traces.get(slot) else {
            return;
        };
        let (_, tag) = self.settings.hash.of(&trace.id);
        self.index.remove(tag, slot);
        self.live_bytes = self.live_bytes.saturating_sub(trace.footprint());
        if trace.first != Addr::NONE {
            self.log.remove_first(trace.first);
        }
        if let Some(journal) = &mut self.journal {
            journal.exit(slot, trace.arrival);
        }
        self.tally.traces -= 1;
        self.extras.remove(trace.extra);
        self.traces.give_back(slot);
    }
}
