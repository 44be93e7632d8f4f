//! One shard: deciding, and giving memory back.

use nyquist_core::wire::{Field, Fields, Value};

use super::log::{self, Addr, Log};
use super::shard::{Shard, Timer};
use super::slab::State;
use crate::tail_sampling::rules::verdict::Verdict;
use crate::tail_sampling::tally::Trigger;

const NANOS: f64 = 1e9;
/// No policy or rule is the reason.
const NO_REASON: u16 = u16::MAX;
/// Traces that one call decides early, at most.
const MAX_RELIEF: usize = 4096;

/// Reused from call to call.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    due: Vec<(Timer, Trigger)>,
    verdicts: Vec<(u32, Trigger, Verdict)>,
}

impl Shard {
    /// Decides up to `limit` traces that are due at `now`. True if more may be.
    pub(crate) fn decide_due(&mut self, now: u64, limit: usize) -> bool {
        let mut due = std::mem::take(&mut self.scratch.due);
        for (timers, trigger) in [(&mut self.rooted, Trigger::Root), (&mut self.waiting, Trigger::Wait)] {
            while due.len() < limit
                && let Some(timer) = timers.front().filter(|timer| timer.due <= now)
            {
                timers.pop();
                due.push((timer, trigger));
            }
        }
        let more = due.len() >= limit;
        self.decide_timers(&mut due, now);
        self.scratch.due = due;
        self.tidy();
        more
    }

    /// Decides up to `limit` of all traces, or discards them. True if there may be more.
    pub(crate) fn decide_all(&mut self, now: u64, limit: usize, discard: bool) -> bool {
        let mut due = std::mem::take(&mut self.scratch.due);
        while due.len() < limit
            && let Some(timer) = self.waiting.pop()
        {
            due.push((timer, Trigger::Shutdown));
        }
        let more = due.len() >= limit;
        if discard {
            for (timer, _) in due.drain(..) {
                self.discard(timer);
            }
        }
        self.decide_timers(&mut due, now);
        self.scratch.due = due;
        self.tidy();
        more
    }

    /// Decides the oldest traces until those that held `bytes` are decided.
    pub(crate) fn relieve(&mut self, now: u64, bytes: usize) {
        let before = self.undecided_bytes();
        for _ in 0..MAX_RELIEF {
            let decided = before.saturating_sub(self.undecided_bytes());
            if decided >= bytes as u64 || !self.decide_oldest(Trigger::Memory, now) {
                break;
            }
        }
        self.tidy();
    }

    fn undecided_bytes(&self) -> u64 {
        self.live_bytes.saturating_sub(self.kept_bytes)
    }

    /// Decides the oldest undecided trace; false if there is none.
    pub(super) fn decide_oldest(&mut self, trigger: Trigger, now: u64) -> bool {
        while let Some(timer) = self.waiting.pop() {
            if self.is_pending(timer) {
                let verdict = self.judge(timer.slot, now);
                self.apply(timer.slot, trigger, verdict, now);
                return true;
            }
        }
        false
    }

    /// Decides a trace that has just grown beyond the limit: rules decide as always; the
    /// Collector's policies are not asked.
    pub(super) fn decide_too_large(&mut self, slot: u32, now: u64) {
        self.tally.too_large += 1;
        if self.settings.rules.ordered || self.settings.rules.dry_run.is_some() {
            let verdict = self.judge(slot, now);
            self.apply(slot, Trigger::Size, verdict, now);
        } else {
            self.drop_trace(slot, NO_REASON, now);
        }
    }

    fn is_pending(&self, timer: Timer) -> bool {
        self.slab
            .get(timer.slot)
            .is_some_and(|trace| trace.generation == timer.generation && trace.state == State::Pending)
    }

    /// In three passes, so that the cache misses of one trace do not wait for those of another.
    fn decide_timers(&mut self, due: &mut Vec<(Timer, Trigger)>, now: u64) {
        due.retain(|(timer, _)| self.is_pending(*timer));
        let mut verdicts = std::mem::take(&mut self.scratch.verdicts);
        for (timer, trigger) in due.drain(..) {
            verdicts.push((timer.slot, trigger, self.judge(timer.slot, now)));
        }
        for (slot, trigger, verdict) in verdicts.drain(..) {
            // Both of a trace's timers may have been due.
            if self.slab.get(slot).is_some_and(|trace| trace.state == State::Pending) {
                self.apply(slot, trigger, verdict, now);
            }
        }
        self.scratch.verdicts = verdicts;
    }

    fn judge(&mut self, slot: u32, now: u64) -> Verdict {
        match self.slab.get(slot) {
            // They were asked as its spans came.
            Some(_) if self.settings.rules.span_ingest => self.settings.rules.nothing_matched(),
            Some(trace) => self.settings.rules.decide(&trace.facts(&self.extras), now, &mut self.tally.votes),
            None => Verdict::NONE,
        }
    }

    pub(super) fn apply(&mut self, slot: u32, trigger: Trigger, verdict: Verdict, now: u64) {
        self.count(trigger, verdict);
        let reason = verdict.reason.unwrap_or(NO_REASON);
        if !verdict.keeps() {
            self.drop_trace(slot, reason, now);
            return;
        }
        if let Some(trace) = self.slab.get_mut(slot) {
            trace.state = State::Kept;
            trace.reason = reason;
            trace.trigger = trigger as u8;
            if verdict.tried.is_some()
                && let Some(extra) = self.extras.at(&mut trace.extra)
            {
                extra.tried = verdict.tried;
            }
            self.kept_bytes += trace.bytes;
            self.kept_count += 1;
            self.kept.push(slot);
        }
    }

    fn count(&mut self, trigger: Trigger, verdict: Verdict) {
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
    fn drop_trace(&mut self, slot: u32, reason: u16, now: u64) {
        let Some(trace) = self.slab.get(slot) else {
            return;
        };
        self.tally.sampled_out += trace.spans as usize;
        self.tally.held -= i64::from(trace.spans);
        self.tally.ages.push(now.saturating_sub(trace.arrival) as f64 / NANOS);
        self.not_sampled.insert(trace.tag, &trace.id, reason);
        self.remove(slot);
    }

    fn discard(&mut self, timer: Timer) {
        if !self.is_pending(timer) {
            return;
        }
        if let Some(trace) = self.slab.get(timer.slot) {
            self.tally.discarded += trace.spans as usize;
            self.tally.held -= i64::from(trace.spans);
        }
        self.remove(timer.slot);
    }

    /// Discards everything: what is left after the deadline of a shutdown.
    pub(crate) fn abandon(&mut self) {
        while self.kept.pop().is_some() {}
        for slot in self.slab.slots() {
            let Some(trace) = self.slab.get(slot).filter(|trace| trace.state != State::Free) else {
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
        let Some(trace) = self.slab.get(slot) else {
            return;
        };
        self.index.remove(trace.tag, slot);
        self.live_bytes = self.live_bytes.saturating_sub(trace.footprint);
        if trace.first != Addr::NONE {
            self.log.remove_first(trace.first);
        }
        self.tally.traces -= 1;
        self.extras.remove(trace.extra);
        self.slab.give_back(slot);
    }

    /// Frees blocks; if more than half of what is held is dead, makes the oldest block free.
    pub(crate) fn tidy(&mut self) {
        const FEW: usize = 4;
        self.log.free_unused();
        let half_dead = self.live_bytes.saturating_mul(2) < self.log.bytes() as u64;
        if self.log.blocks() > FEW && half_dead {
            self.compact();
        }
    }

    /// Copies what lives in the oldest block to the end of the log.
    fn compact(&mut self) {
        let data = self.log.take_oldest();
        let mut offset = 0;
        while let Some((record, bytes)) = log::read(&data, offset) {
            offset += Log::footprint(record.len);
            let Some(id) = first_trace_id(bytes) else {
                continue;
            };
            let (_, tag) = self.settings.hash.of(&id);
            let slab = &self.slab;
            if let Some(slot) = self.index.find(tag, |slot| slab.get(slot).is_some_and(|trace| trace.id == id)) {
                self.move_forward(slot, &data);
            }
        }
        self.log.recycle(data);
        self.log.free_unused();
    }

    /// Moves those records of a trace that are in the oldest block, whose bytes are `data`.
    fn move_forward(&mut self, slot: u32, data: &[u8]) {
        let Some(trace) = self.slab.get(slot) else {
            return;
        };
        let old_first = trace.first;
        let mut next = old_first;
        let (mut first_copy, mut last_copy) = (Addr::NONE, Addr::NONE);
        while self.log.in_oldest(next) {
            let Some((record, bytes)) = log::read(data, next.offset()) else {
                break;
            };
            let Some(copy) = self.log.append(bytes, record.scope, record.spans, record.root) else {
                break;
            };
            self.headers.touch(record.scope, self.log.current());
            if first_copy == Addr::NONE {
                first_copy = copy;
            } else {
                self.log.link(last_copy, copy);
            }
            last_copy = copy;
            next = record.next;
        }
        if first_copy == Addr::NONE {
            return;
        }
        let Some(trace) = self.slab.get_mut(slot) else {
            return;
        };
        let last = std::mem::replace(&mut trace.last, last_copy);
        trace.first = if next == Addr::NONE { first_copy } else { next };
        let first = trace.first;
        if next != Addr::NONE {
            self.log.link(last, first_copy);
        }
        self.log.remove_first(old_first);
        self.log.add_first(first);
    }
}

/// The trace id of the first span of a run.
fn first_trace_id(run: &[u8]) -> Option<[u8; 16]> {
    let span = Fields::new(run).find_map(|field| match field {
        Field { number: 2, value: Value::Len(span) } => Some(span),
        _ => None,
    })?;
    let id = Fields::new(span).filter_map(|field| match field {
        Field { number: 1, value: Value::Len(id) } => Some(id),
        _ => None,
    });
    id.last()?.try_into().ok()
}
