//! Giving state up: what is idle, and what memory is needed for.

use std::sync::Arc;

use super::hash::Table;
use super::metric::{DistributionInput, EMPTY, INDIVIDUAL, Input, Metric};
use super::report::{Eviction, sample};
use super::shared::Shared;
use crate::accumulate::distribution::Distribution;

/// A table with fewer entries is not worth evicting from.
const WORTH_EVICTING: usize = 64;

impl Metric {
    /// Gives up what has been idle for too long.
    pub(super) fn sweep(&mut self, shared: &Shared, dirty: &mut Vec<u32>) {
        self.sweep_inputs(shared, dirty);
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
        if is_relaxed && self.sketched.is_some() {
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
            let has_output = series.output != INDIVIDUAL && series.output != EMPTY;
            // Those with an output go when it goes.
            if has_output || !shared.is_idle(series.epoch, now) {
                return true;
            }
            slots += usize::from(!series.is_overflow);
            gone.push(*fingerprint);
            false
        });
        self.used -= slots;
        shared.give_slots(slots);
        shared.report.evicted(Eviction::Series, gone.len());
        if !gone.is_empty() {
            shared.forget(gone.into_iter().map(|fingerprint| (fingerprint, 0)));
        }
        self.retired.retain(|_, seen| !shared.is_idle(*seen, now));
    }

    fn sweep_labels(&mut self, shared: &Shared) {
        let now = self.seen;
        let is_relaxed = self.used * 10 < self.limits.max_series * 4;
        let mut gone = 0;
        for (label, name) in self.labels.iter_mut().zip(self.names.iter()) {
            let before = label.values.len();
            label.values.retain(|_, seen| !shared.is_idle(*seen, now));
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

    fn sweep_inputs(&mut self, shared: &Shared, dirty: &mut Vec<u32>) {
        let now = self.seen;
        let idle: Vec<(u64, Input)> = self.inputs.extract_if(|_, input| shared.is_idle(input.epoch, now)).collect();
        self.forget_inputs(shared, idle, dirty);
        let idle: Vec<(u64, DistributionInput)> =
            self.distributions.extract_if(|_, input| shared.is_idle(input.epoch, now)).collect();
        self.forget_distributions(shared, idle, dirty);
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

    fn forget_inputs(&mut self, shared: &Shared, inputs: Vec<(u64, Input)>, dirty: &mut Vec<u32>) {
        if inputs.is_empty() {
            return;
        }
        shared.report.evicted(Eviction::Input, inputs.len());
        let key = |fingerprint, start| (shared.hashes.mix(&[fingerprint, start]), start);
        shared.forget(inputs.iter().map(|(fingerprint, input)| key(*fingerprint, input.start)));
        for (_, input) in inputs {
            self.unlink(shared, input.link, Some(input.value()), dirty);
        }
    }

    fn forget_distributions(&mut self, shared: &Shared, inputs: Vec<(u64, DistributionInput)>, dirty: &mut Vec<u32>) {
        if inputs.is_empty() {
            return;
        }
        shared.report.evicted(Eviction::Input, inputs.len());
        let key = |fingerprint, start| (shared.hashes.mix(&[fingerprint, start]), start);
        shared.forget(inputs.iter().map(|(fingerprint, input)| key(*fingerprint, input.start)));
        for (_, input) in inputs {
            self.heap -= input.last.bytes();
            self.unlink(shared, input.link, None, dirty);
        }
    }

    /// Makes room for the last value of one more stream, at the cost of the oldest ones if there
    /// is no more memory. False if there are none.
    pub(super) fn make_room_for_input(&mut self, shared: &Shared, dirty: &mut Vec<u32>) -> bool {
        if self.inputs.len() < self.inputs.capacity() || shared.fits_input(2 * self.inputs.allocation_size() + 256) {
            return true;
        }
        if self.inputs.len() < WORTH_EVICTING {
            shared.starve();
            return false;
        }
        let keep = full_capacity(&self.inputs) * 3 / 8;
        self.evict_inputs(shared, keep, dirty);
        true
    }

    /// Evicts all but the `keep` youngest inputs, and makes their places free again.
    fn evict_inputs(&mut self, shared: &Shared, keep: usize, dirty: &mut Vec<u32>) {
        let now = self.seen;
        let excess = self.inputs.len().saturating_sub(keep);
        let cutoff = cutoff(self.inputs.values().map(|input| now.wrapping_sub(input.epoch)), excess);
        let mut quota = excess;
        let evicted: Vec<(u64, Input)> = self
            .inputs
            .extract_if(|_, input| {
                let goes = quota > 0 && now.wrapping_sub(input.epoch) >= cutoff;
                quota -= usize::from(goes);
                goes
            })
            .collect();
        self.forget_inputs(shared, evicted, dirty);
        tidy(&mut self.inputs);
    }

    /// As [`Metric::make_room_for_input`], for the last report of a histogram.
    pub(super) fn make_room_for_distribution(
        &mut self,
        shared: &Shared,
        wanted: &Distribution,
        dirty: &mut Vec<u32>,
    ) -> bool {
        let grows = self.distributions.len() == self.distributions.capacity();
        let table = if grows { 2 * self.distributions.allocation_size() + 256 } else { 0 };
        // What was added since the state was last measured is not booked yet.
        if shared.fits_input(table + wanted.bytes() + self.unbooked()) {
            return true;
        }
        if self.distributions.len() < WORTH_EVICTING {
            shared.starve();
            return false;
        }
        let keep = full_capacity(&self.distributions) * 3 / 8;
        self.evict_distributions(shared, keep.min(self.distributions.len() / 2), dirty);
        self.book(shared);
        true
    }

    fn evict_distributions(&mut self, shared: &Shared, keep: usize, dirty: &mut Vec<u32>) {
        let now = self.seen;
        let excess = self.distributions.len().saturating_sub(keep);
        let cutoff = cutoff(self.distributions.values().map(|input| now.wrapping_sub(input.epoch)), excess);
        let mut quota = excess;
        let evicted: Vec<(u64, DistributionInput)> = self
            .distributions
            .extract_if(|_, input| {
                let goes = quota > 0 && now.wrapping_sub(input.epoch) >= cutoff;
                quota -= usize::from(goes);
                goes
            })
            .collect();
        self.forget_distributions(shared, evicted, dirty);
        tidy(&mut self.distributions);
    }

    /// Gives up half of what can be given up, so that others have room.
    pub(super) fn relieve(&mut self, shared: &Shared, dirty: &mut Vec<u32>) {
        self.stop_sketching();
        if self.inputs.len() >= WORTH_EVICTING {
            self.evict_inputs(shared, self.inputs.len() / 2, dirty);
            self.inputs.shrink_to_fit();
        }
        if self.distributions.len() >= WORTH_EVICTING {
            self.evict_distributions(shared, self.distributions.len() / 2, dirty);
            self.distributions.shrink_to_fit();
        }
        self.series.shrink_to_fit();
        self.retired.shrink_to_fit();
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
fn cutoff(ages: impl Iterator<Item = u16>, excess: usize) -> u16 {
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
