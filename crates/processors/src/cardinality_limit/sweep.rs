//! Giving state up: what is idle, and what memory is needed for.

use std::sync::Arc;

use nyquist_core::wire::Number;

use super::hash::Table;
use super::metric::{DistributionInput, Input, Link, Metric};
use super::report::{Eviction, sample};
use super::shared::Shared;
use crate::skew::Capped;

/// Inputs that are forgotten at once.
const FORGOTTEN_TOGETHER: usize = 1024;
/// A table with fewer entries is not worth evicting from.
const WORTH_EVICTING: usize = if cfg!(test) { 8 } else { 64 };

/// What all last reports have. They do not contain it: apart, its fields take less of the memory of millions of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Baseline {
    /// 0 if unknown.
    pub(super) start: u64,
    pub(super) time: u64,
    pub(super) link: Link,
    pub(super) epoch: u16,
}

/// What is kept of a collapsed stream: its last report.
pub(super) trait Remembered: Sized {
    fn table(metric: &mut Metric) -> &mut Table<Self>;
    fn baseline(&self) -> Baseline;
    /// The value that counts until the next one comes.
    fn number(&self) -> Option<Number>;
    /// Bytes on the heap.
    fn heap(&self) -> usize;
}

impl Remembered for Input {
    fn table(metric: &mut Metric) -> &mut Table<Self> {
        &mut metric.inputs
    }

    fn baseline(&self) -> Baseline {
        let Self { start, time, link, epoch, .. } = *self;
        Baseline { start, time, link, epoch }
    }

    fn number(&self) -> Option<Number> {
        Some(self.value())
    }

    fn heap(&self) -> usize {
        0
    }
}

impl Remembered for DistributionInput {
    fn table(metric: &mut Metric) -> &mut Table<Self> {
        &mut metric.distributions
    }

    fn baseline(&self) -> Baseline {
        let Self { start, time, link, epoch, .. } = *self;
        Baseline { start, time, link, epoch }
    }

    fn number(&self) -> Option<Number> {
        None
    }

    fn heap(&self) -> usize {
        self.last.bytes()
    }
}

impl Metric {
    /// Gives up what has been idle for too long.
    pub(super) fn sweep(&mut self, shared: &Shared, dirty: &mut Vec<u32>) {
        self.sweep_inputs::<Input>(shared, dirty);
        self.sweep_inputs::<DistributionInput>(shared, dirty);
        self.sweep_outputs(shared, dirty);
        self.sweep_series(shared);
        self.sweep_labels(shared);
        let groups = &mut self.groups;
        let heap = &mut self.heap;
        groups.retain(|_, group| {
            let is_used = Arc::strong_count(group) > 1;
            if !is_used {
                *heap -= group.bytes();
            }
            is_used
        });
        let is_relaxed = self.used * 10 < self.limits.max_series * 4;
        let is_limited = self.labels.iter().any(|label| label.is_full || label.collapsed.is_some());
        // Begun anew from time to time, so that it tells what is there, not what ever was.
        let is_old = self.sketched.as_ref().is_some_and(|sketched| shared.is_idle(sketched.since, self.seen));
        if is_old || (is_relaxed && !is_limited) {
            self.stop_sketching();
        }
        if is_relaxed {
            self.overflowing = false;
        }
    }

    fn sweep_series(&mut self, shared: &Shared) {
        let now = self.seen;
        let mut gone = Vec::new();
        let mut slots = 0;
        self.series.retain(|fingerprint, series| {
            // Those with an output go when it goes.
            if series.output().is_some() || !shared.is_idle(series.epoch, now) {
                return true;
            }
            slots += usize::from(!series.is_overflow());
            gone.push(*fingerprint);
            false
        });
        self.used -= slots;
        shared.give_slots(&self.tenant, slots);
        shared.report.evicted(Eviction::Series, gone.len());
        if !gone.is_empty() {
            shared.forget_slots(gone.into_iter());
        }
        self.retired.retain(|_, retired| !shared.is_idle(retired.seen, now));
        let ended: Vec<(u64, Capped)> = self
            .ended
            .extract_if(|_, (_, seen)| shared.is_idle(*seen, now))
            .map(|(fingerprint, (time, _))| (fingerprint, time))
            .collect();
        if !ended.is_empty() {
            self.ended_before = ended.iter().fold(self.ended_before, |latest, (_, time)| latest.max(*time));
            shared.forget_ends(ended.into_iter().map(|(fingerprint, _)| fingerprint));
        }
    }

    fn sweep_labels(&mut self, shared: &Shared) {
        let now = self.seen;
        let is_relaxed = self.used * 10 < self.limits.max_series * 4;
        let mut gone = 0;
        for (label, name) in self.labels.iter_mut().zip(self.names.iter()) {
            let before = label.values.len();
            label.values.retain(|_, slot| !shared.is_idle(slot.seen, now));
            label.age(shared, now);
            gone += before - label.values.len();
            if label.is_full && label.values.len() < label.max_values {
                label.is_full = false;
                if shared.report.may_log() {
                    let (metric, label) = (sample(&self.name), sample(name));
                    tracing::info!(metric, label, "label has room for values again");
                }
            }
            let is_settled = label.collapsed.is_some_and(|since| shared.is_idle(since, now));
            if is_settled && is_relaxed {
                label.collapsed = None;
                if shared.report.may_log() {
                    let (metric, label) = (sample(&self.name), sample(name));
                    tracing::info!(metric, label, "series budget has room again: label is no longer collapsed");
                }
            }
        }
        shared.report.evicted(Eviction::Value, gone);
    }

    fn sweep_inputs<I: Remembered>(&mut self, shared: &Shared, dirty: &mut Vec<u32>) {
        let now = self.seen;
        self.forget_inputs::<I>(shared, |last| shared.is_idle(last.epoch, now), dirty);
    }

    fn sweep_outputs(&mut self, shared: &Shared, dirty: &mut Vec<u32>) {
        let now = self.seen;
        for index in 0..self.outputs.len() {
            let Some(output) = self.outputs.get_mut(index) else { continue };
            if output.is_active() && !output.is_dirty && output.live == 0 && shared.is_idle(output.epoch, now) {
                self.end_output(shared, index as u32, dirty);
                shared.report.evicted(Eviction::Output, 1);
            }
        }
    }

    /// Forgets the inputs that go, a few at a time: where memory is short, a list of them all would take too much of it.
    fn forget_inputs<I: Remembered>(
        &mut self,
        shared: &Shared,
        mut goes: impl FnMut(Baseline) -> bool,
        dirty: &mut Vec<u32>,
    ) {
        let mut table = std::mem::take(I::table(self));
        let mut newest = 0;
        let mut going = table.extract_if(|_, input| goes(input.baseline())).peekable();
        while going.peek().is_some() {
            let inputs: Vec<_> = going.by_ref().take(FORGOTTEN_TOGETHER).collect();
            shared.report.evicted(Eviction::Input, inputs.len());
            let key = |(fingerprint, input): &(u64, I)| {
                let Baseline { start, .. } = input.baseline();
                (shared.life(*fingerprint, start), start)
            };
            shared.forget_lives(inputs.iter().map(key));
            for (_, input) in inputs {
                self.heap -= input.heap();
                let Baseline { time, link, .. } = input.baseline();
                newest = newest.max(time);
                self.unlink(shared, link, input.number(), dirty);
            }
        }
        drop(going);
        *I::table(self) = table;
        self.forgot(shared, newest);
    }

    /// Streams that were counted at `time` at the latest are known no longer.
    pub(super) fn forgot(&mut self, shared: &Shared, time: u64) {
        self.forgotten_until = self.forgotten_until.max(shared.skew_limit().cap(time));
    }

    /// Makes room for `wanted`, the last report of one more stream, at the cost of the oldest ones if
    /// there is no more memory. False if there are none.
    pub(super) fn make_room<I: Remembered>(&mut self, shared: &Shared, wanted: usize, dirty: &mut Vec<u32>) -> bool {
        let table = I::table(self);
        let (len, full) = (table.len(), full_capacity(table));
        let grows = len == table.capacity();
        if !grows && wanted == 0 {
            return true;
        }
        let growth = if grows { 2 * table.allocation_size() + 256 } else { 0 };
        // What was added since the state was last measured is not booked yet.
        if shared.fits_input(growth + wanted + self.unbooked()) {
            return true;
        }
        if len < WORTH_EVICTING {
            shared.starve();
            return false;
        }
        self.evict::<I>(shared, (full * 3 / 8).min(len - len / 4), dirty);
        self.book(shared);
        true
    }

    /// Evicts all but the `keep` youngest inputs, and makes their places free again.
    fn evict<I: Remembered>(&mut self, shared: &Shared, keep: usize, dirty: &mut Vec<u32>) {
        let now = self.seen;
        let table = I::table(self);
        let mut quota = table.len().saturating_sub(keep);
        let cutoff = cutoff(table.values().map(|input| now.wrapping_sub(input.baseline().epoch)), quota);
        let goes = |last: Baseline| {
            let goes = quota > 0 && now.wrapping_sub(last.epoch) >= cutoff;
            quota -= usize::from(goes);
            goes
        };
        self.forget_inputs::<I>(shared, goes, dirty);
        tidy(I::table(self));
    }

    fn relieve_inputs<I: Remembered>(&mut self, shared: &Shared, dirty: &mut Vec<u32>) {
        let len = I::table(self).len();
        if len >= WORTH_EVICTING {
            self.evict::<I>(shared, len / 2, dirty);
            I::table(self).shrink_to_fit();
        }
    }

    /// Gives up half of what can be given up, so that others have room.
    pub(super) fn relieve(&mut self, shared: &Shared, dirty: &mut Vec<u32>) {
        self.stop_sketching();
        self.relieve_inputs::<Input>(shared, dirty);
        self.relieve_inputs::<DistributionInput>(shared, dirty);
        self.series.shrink_to_fit();
        self.retired.shrink_to_fit();
        self.ended.shrink_to_fit();
    }

    /// Frees the place of an output that has ended.
    pub(super) fn free_output(&mut self, index: u32) {
        let Some(output) = self.outputs.get_mut(index as usize) else { return };
        self.heap -= output.heap();
        output.free();
        // The last generation stays where it is, so that no link ever means another output.
        if output.generation < u8::MAX {
            self.free_outputs.push(index);
        }
    }
}

/// The age from which on entries go, so that the oldest `excess` of them do.
pub(super) fn cutoff(ages: impl Iterator<Item = u16>, excess: usize) -> u16 {
    let mut by_age = std::collections::BTreeMap::new();
    for age in ages {
        *by_age.entry(age).or_insert(0usize) += 1;
    }
    let mut counted = 0;
    for (age, count) in by_age.iter().rev() {
        counted += count;
        if counted >= excess {
            return *age;
        }
    }
    0
}

/// How many entries fit into the table as it is.
fn full_capacity<V>(table: &Table<V>) -> usize {
    let buckets = table.allocation_size().saturating_sub(16) / (size_of::<(u64, V)>() + 1);
    buckets / 8 * 7
}

/// Clears the places of removed entries without allocating: a table that is at most half full is
/// rehashed where it is.
fn tidy<V>(table: &mut Table<V>) {
    let free = table.capacity() - table.len();
    if table.len() + free < full_capacity(table) / 2 {
        table.reserve(free + 1);
    }
}
