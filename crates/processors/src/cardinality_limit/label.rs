//! The state of one label of one metric.

use nyquist_core::telemetry::Counter;

use super::contest::{Contest, Slot};
use super::hash::Table;
use super::shared::{LabelLimits, Shared};
use super::sketch::Distinct;

/// A label of a metric.
#[derive(Debug)]
pub(super) struct Label {
    pub(super) max_values: usize,
    /// The values that have a slot.
    pub(super) values: Table<Slot>,
    /// Who would like to have one, with `keep: top_k`.
    contest: Option<Box<Contest>>,
    /// Collapsed for the sake of the series budget, and since when.
    pub(super) collapsed: Option<u16>,
    /// Its own limit has been exceeded.
    pub(super) is_full: bool,
    /// The hash of the label with the replacement; 0 if it is removed.
    pub(super) replacement: u64,
    /// How many series there would be without this label.
    pub(super) without: Distinct,
    /// How many values it would have without limits, while that is sketched.
    pub(super) wanted: Distinct,
    /// The counter of its collapsed points, once there are any.
    pub(super) counter: Option<Counter>,
    /// Some of its values, for the log.
    pub(super) samples: Vec<String>,
    /// Values that got a slot since that was last reported.
    pub(super) new_values: u32,
}

impl Label {
    pub(super) fn new(limits: LabelLimits, replacement: u64, without: Distinct, now: u16) -> Self {
        let is_contested = limits.is_top_k && limits.max > 0;
        Self {
            max_values: limits.max,
            values: Table::default(),
            contest: is_contested.then(|| Box::new(Contest::new(limits.max, now))),
            collapsed: None,
            is_full: false,
            replacement,
            without,
            wanted: Distinct::default(),
            counter: None,
            samples: Vec::new(),
            new_values: 0,
        }
    }

    /// Bytes that it takes beside its place.
    pub(super) fn bytes(&self) -> usize {
        let samples = self.samples.iter().map(|sample| sample.capacity() + size_of::<String>()).sum::<usize>();
        self.values.allocation_size()
            + self.contest.as_ref().map_or(0, |contest| contest.bytes())
            + self.without.bytes()
            + self.wanted.bytes()
            + samples
    }

    pub(super) fn is_contested(&self) -> bool {
        self.contest.is_some()
    }

    /// Has `value` lost the right to be there, or never had it?
    pub(super) fn is_over(&self, value: u64) -> bool {
        self.max_values == 0
            || self.collapsed.is_some()
            || (self.values.len() >= self.max_values && !self.values.contains_key(&value))
    }

    /// Gives `value` a slot.
    pub(super) fn admit(&mut self, value: u64, now: u16) {
        let count = self.contest.as_mut().map_or(0, |contest| contest.admit(value));
        self.values.insert(value, Slot { count, seen: now });
        self.new_values = self.new_values.saturating_add(1);
    }

    /// Counts a point of `value` where slots are contested, and lets it have the weakest one's slot if
    /// it deserves it. True if the value has no slot, and all are taken.
    pub(super) fn watch(&mut self, value: u64, now: u16, may_grow: impl FnOnce(usize) -> bool) -> Watched {
        let Some(contest) = &mut self.contest else { return Watched::Inside };
        if value == self.replacement {
            return Watched::Inside;
        }
        if let Some(slot) = self.values.get_mut(&value) {
            slot.count = slot.count.saturating_add(1);
            slot.seen = now;
            return Watched::Inside;
        }
        if self.values.len() < self.max_values {
            // It gets one the usual way.
            return Watched::Inside;
        }
        let may_grow = may_grow(contest.bytes());
        let Some(weakest) = contest.challenge(value, &self.values, may_grow).filter(|_| self.collapsed.is_none())
        else {
            return Watched::Outside;
        };
        if let Some(slot) = self.values.remove(&weakest) {
            contest.dismiss(weakest, slot.count);
        }
        self.admit(value, now);
        Watched::Promoted
    }

    /// Halves the counts of contested slots when it is time.
    pub(super) fn age(&mut self, shared: &Shared, now: u16) {
        if let Some(contest) = &mut self.contest {
            contest.age(&mut self.values, now, shared.idle_epochs / 4);
        }
    }
}

/// What [`Label::watch`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// The value has a slot, or may get one.
    Inside,
    /// It has taken another value's slot.
    Promoted,
    /// It has none, and all are taken.
    Outside,
}
