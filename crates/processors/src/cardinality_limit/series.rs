//! What is known of a series that has a slot.

/// In [`Series::place`]: a collapsed series that has its slot, but nothing in it yet.
const EMPTY: u32 = u32::MAX;

/// A series that has a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Series {
    /// Of a collapsed series the index of its output, or [`EMPTY`]; of one that passes as it is, the time of
    /// its newest point (a [`Stamp`]).
    place: u32,
    /// When it was last seen.
    pub(super) epoch: u16,
    /// Of which labels it carries a value of its own.
    pub(super) carries: LabelSet,
    pub(super) role: Role,
}

impl Series {
    /// A collapsed series with nothing in it yet.
    pub(super) fn collapsed(role: Role, carries: LabelSet, epoch: u16) -> Self {
        Self { place: EMPTY, epoch, carries, role }
    }

    /// A series that passes as it is, up to now to `newest`.
    pub(super) fn individual(newest: Stamp, carries: LabelSet, epoch: u16) -> Self {
        Self { place: newest.0, epoch, carries, role: Role::Individual }
    }

    pub(super) fn is_individual(&self) -> bool {
        self.role == Role::Individual
    }

    pub(super) fn is_overflow(&self) -> bool {
        self.role == Role::Overflow
    }

    /// The index of its output, if it is a collapsed series and has one.
    pub(super) fn output(&self) -> Option<u32> {
        (!self.is_individual() && self.place != EMPTY).then_some(self.place)
    }

    /// It is a collapsed series, of output `index`.
    pub(super) fn has_output(&mut self, index: u32) {
        self.place = index;
    }

    /// The newest point of one that passes as it is.
    pub(super) fn newest(&self) -> Stamp {
        if self.is_individual() { Stamp(self.place) } else { Stamp::UNKNOWN }
    }

    /// A point of `time` passes.
    pub(super) fn passes(&mut self, time: Stamp) {
        if self.newest().is_before(time) {
            self.place = time.0;
        }
    }

    /// From now on others are collapsed to it.
    pub(super) fn becomes_collapsed(&mut self) {
        self.place = EMPTY;
        self.role = Role::WasIndividual;
    }
}

// There are a million of these.
const _: () = assert!(size_of::<Series>() == 8);

/// The time of a point, for comparing: milliseconds, as many as 32 bits hold, so that times 24 days apart are
/// told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u32);

impl Stamp {
    pub(super) const UNKNOWN: Self = Self(0);

    /// That of `time` (Unix nanoseconds).
    pub(super) fn of(time: u64) -> Self {
        Self(((time / 1_000_000) as u32).max(1))
    }

    /// Is it certainly earlier than `other`? Nothing is before a time that is not known; that itself is before all.
    pub(super) fn is_before(self, other: Self) -> bool {
        other != Self::UNKNOWN && (self == Self::UNKNOWN || (self.0.wrapping_sub(other.0) as i32) < 0)
    }
}

/// What is special about a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It passes as it is.
    Individual,
    /// Others are collapsed to it.
    Collapsed,
    /// As that, and it has its slot beside the budget.
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
