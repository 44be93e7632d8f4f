//! What is known of a series that has a slot.

/// In [`Series::output`]: the series passes as it is.
pub(super) const INDIVIDUAL: u32 = u32::MAX;
/// In [`Series::output`]: a collapsed series that has its slot, but nothing in it yet.
pub(super) const EMPTY: u32 = u32::MAX - 1;

/// A series that has a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Series {
    /// The index of its output, [`INDIVIDUAL`] or [`EMPTY`].
    pub(super) output: u32,
    /// When it was last seen.
    pub(super) epoch: u16,
    /// Of which labels it carries a value of its own.
    pub(super) carries: LabelSet,
    pub(super) role: Role,
}

impl Series {
    pub(super) fn is_overflow(&self) -> bool {
        self.role == Role::Overflow
    }
}

// There are a million of these.
const _: () = assert!(size_of::<Series>() == 8);

/// What is special about a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Usual,
    /// It has its slot beside the budget.
    Overflow,
    /// A sender reported it on its own before others were collapsed to it.
    WasIndividual,
}

/// The sets of labels, as bits, of which series of a metric carry values: few, so that a series needs one
/// byte for its own.
#[derive(Debug, Default)]
pub(super) struct LabelSets(Vec<u64>);

/// The index of a set; the last one stands for all labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct LabelSet(u8);

impl LabelSets {
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<u64>()
    }

    pub(super) fn index(&mut self, labels: u64) -> LabelSet {
        let known = self.0.iter().position(|set| *set == labels);
        let index = known.unwrap_or_else(|| {
            if self.0.len() < usize::from(u8::MAX) {
                self.0.push(labels);
                self.0.len() - 1
            } else {
                usize::from(u8::MAX)
            }
        });
        LabelSet(index as u8)
    }

    pub(super) fn labels(&self, set: LabelSet) -> u64 {
        self.0.get(usize::from(set.0)).copied().unwrap_or(u64::MAX)
    }
}
