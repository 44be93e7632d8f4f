//! `keep: top_k`: which values of a label deserve its slots.
//!
//! Values with a slot are counted exactly. The others are counted by Misra and Gries (1982) with the
//! purge by the median of Anderson et al. (2017): three counters a slot; when all are taken, the
//! median is taken off all, and those that are left with nothing go. A count is never more than was
//! seen, and less by no more than 2/m of all that was seen. Who has half as much again as the
//! smallest of those with a slot, takes its place. Every quarter of `idle_ttl` all counts are
//! halved, and a tenth of the slots may change hands, so that series do not flap.

use super::hash::Table;

/// A value's slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// Points, halved with time; only counted where slots are contested.
    pub(super) count: u32,
    /// When it was last seen.
    pub(super) seen: u16,
}

/// Who would like to have a slot.
#[derive(Debug)]
pub(super) struct Contest {
    challengers: Table<u32>,
    /// The most challengers.
    most: usize,
    /// No slot has a smaller count.
    floor: u32,
    /// How many slots may change hands until the counts are halved.
    changes: usize,
    /// When the counts were last halved.
    halved: u16,
}

impl Contest {
    /// A contest for `slots` slots.
    pub(super) fn new(slots: usize, now: u16) -> Self {
        let most = slots.saturating_mul(3).max(64);
        Self { challengers: Table::default(), most, floor: 0, changes: changes(slots), halved: now }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.challengers.allocation_size()
    }

    /// Counts a point of `value`, which has no slot. If it deserves one more than the value that has
    /// the smallest count, that one is returned: it is to make room.
    pub(super) fn challenge(&mut self, value: u64, slots: &Table<Slot>, may_grow: bool) -> Option<u64> {
        let count = self.see(value, may_grow);
        if self.changes == 0 || !wins(count, self.floor) {
            return None;
        }
        let (weakest, slot) = slots.iter().min_by_key(|(_, slot)| slot.count)?;
        // Counts only grow until they are halved, so this need not be looked for before that.
        self.floor = slot.count;
        if !wins(count, slot.count) {
            return None;
        }
        self.changes -= 1;
        Some(*weakest)
    }

    /// The count of `value`, which gets a slot.
    pub(super) fn admit(&mut self, value: u64) -> u32 {
        let count = self.challengers.remove(&value).unwrap_or(1);
        self.floor = self.floor.min(count);
        count
    }

    /// `value` has lost its slot, in which it had `count`.
    pub(super) fn dismiss(&mut self, value: u64, count: u32) {
        if self.challengers.len() < self.most && count > 0 {
            self.challengers.insert(value, count);
        }
    }

    /// Halves all counts once in `quarter` epochs.
    pub(super) fn age(&mut self, slots: &mut Table<Slot>, now: u16, quarter: u16) {
        if now.wrapping_sub(self.halved) < quarter.max(1) {
            return;
        }
        self.halved = now;
        self.changes = changes(slots.len());
        self.floor /= 2;
        slots.values_mut().for_each(|slot| slot.count /= 2);
        self.challengers.retain(|_, count| {
            *count /= 2;
            *count > 0
        });
    }

    fn see(&mut self, value: u64, may_grow: bool) -> u32 {
        if let Some(count) = self.challengers.get_mut(&value) {
            *count = count.saturating_add(1);
            return *count;
        }
        let is_full = self.challengers.len() >= self.most;
        let grows = self.challengers.len() == self.challengers.capacity();
        if is_full || (grows && !may_grow) {
            self.purge();
        }
        if self.challengers.len() < self.challengers.capacity() || may_grow {
            self.challengers.insert(value, 1);
        }
        1
    }

    fn purge(&mut self) {
        let mut counts: Vec<u32> = self.challengers.values().copied().collect();
        if counts.is_empty() {
            return;
        }
        let middle = counts.len() / 2;
        let (_, median, _) = counts.select_nth_unstable(middle);
        let median = *median;
        self.challengers.retain(|_, count| {
            *count = count.saturating_sub(median);
            *count > 0
        });
    }
}

/// Half as much again.
fn wins(challenger: u32, resident: u32) -> bool {
    u64::from(challenger) * 2 > u64::from(resident) * 3
}

fn changes(slots: usize) -> usize {
    (slots / 10).max(1)
}
