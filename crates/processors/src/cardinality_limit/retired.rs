//! Series that lose their slots: to a collapsed one, to a value that has earned it, or because others are collapsed
//! to them.
//!
//! What such a series has reported on its own must not be counted once more with the others. So its newest point is
//! known while it has a slot, and after that until it comes again: only a later one can be a baseline.

use super::hash::put;
use super::metric::Metric;
use super::report::Eviction;
use super::series::{Series, Stamp};
use super::shared::Shared;
use super::sweep::cutoff;

/// A series that has lost its slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retired {
    pub(super) seen: u16,
    /// Its newest point: those up to then it has reported itself.
    pub(super) newest: Stamp,
    /// Whoever reads it is to learn that it has ended.
    pub(super) ends: bool,
}

impl Metric {
    /// Takes the slots of the series that were least recently seen and carry a value of a label
    /// in `collapsed`, a twentieth of the budget at once. False if there are none.
    pub(super) fn retire(&mut self, shared: &Shared, collapsed: u64, dirty: &mut Vec<u32>) -> bool {
        let now = self.seen;
        let sets = std::mem::take(&mut self.label_sets);
        let is_candidate = |series: &Series| sets.labels(series.carries) & collapsed != 0 && !series.is_overflow();
        let candidates = self.series.values().filter(|series| is_candidate(series)).count();
        let mut quota = (self.used.min(self.limits.max_series) / 20).max(1).min(candidates);
        if quota == 0 {
            self.label_sets = sets;
            return false;
        }
        let ages = self.series.values().filter(|series| is_candidate(series));
        let cutoff = cutoff(ages.map(|series| now.wrapping_sub(series.epoch)), quota);
        let gone: Vec<(u64, Series)> = self
            .series
            .extract_if(|_, series| {
                let goes = quota > 0 && is_candidate(series) && now.wrapping_sub(series.epoch) >= cutoff;
                quota -= usize::from(goes);
                goes
            })
            .collect();
        self.label_sets = sets;
        shared.report.evicted(Eviction::Retired, gone.len());
        for (fingerprint, series) in gone {
            self.lose(shared, fingerprint, series, dirty);
        }
        true
    }

    /// Remembers of a series that has lost its slot what matters once it comes again.
    pub(super) fn retire_one(&mut self, shared: &Shared, fingerprint: u64, retired: Retired) {
        let grows = self.retired.len() == self.retired.capacity();
        let bytes = if grows { 2 * self.retired.allocation_size() + 256 } else { 0 };
        // Those that never come again stay until they are idle, so there is a bound.
        if self.retired.len() < 2 * self.limits.max_series && shared.fits(self.unbooked() + bytes) {
            put(&mut self.retired, fingerprint, retired);
        }
    }

    /// The series, which is no longer in the table, has lost its slot.
    pub(super) fn lose(&mut self, shared: &Shared, fingerprint: u64, series: Series, dirty: &mut Vec<u32>) {
        if series.is_individual() {
            let retired = Retired { seen: self.seen, newest: series.newest(), ends: true };
            self.retire_one(shared, fingerprint, retired);
        } else if let Some(index) = series.output() {
            self.close_output(shared, index, dirty);
        }
        if !series.is_overflow() {
            self.used -= 1;
            shared.give_slots(&self.tenant, 1);
        }
        shared.forget_slots([fingerprint].into_iter());
    }

    /// A series that passed as it is loses that, and others are collapsed to it. True if it was one.
    pub(super) fn becomes_collapsed(&mut self, shared: &Shared, fingerprint: u64) -> bool {
        let Some(series) = self.series.get_mut(&fingerprint).filter(|series| series.is_individual()) else {
            return false;
        };
        let newest = series.newest();
        series.becomes_collapsed();
        // What it has reported on its own is not to be counted again.
        self.retire_one(shared, fingerprint, Retired { seen: self.seen, newest, ends: false });
        shared.forget_slots([fingerprint].into_iter());
        true
    }

    /// Did the series that has lost its slot report points of `time` itself?
    pub(super) fn has_reported(&self, fingerprint: u64, time: u64) -> bool {
        self.retired.get(&fingerprint).is_some_and(|retired| Stamp::of(time).is_before(retired.newest))
    }

    /// Is the series one that has lost its slot, and whoever reads it is to learn that with its point of `time`?
    pub(super) fn ends_now(&self, fingerprint: u64, time: u64) -> bool {
        self.retired.get(&fingerprint).is_some_and(|retired| retired.ends) && !self.has_reported(fingerprint, time)
    }
}
