//! What few traces have, and few configurations ask for.

use super::marks::{MAX_KEYS, Marks};

/// What the spans of a trace say about its sampling in their `tracestate`: explicit randomness of 56
/// bits, or just that a sampler has been there, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given(u64);

impl Given {
    pub(crate) const NOTHING: Self = Self(u64::MAX);
    /// A threshold, without explicit randomness.
    pub(crate) const THRESHOLD: Self = Self(u64::MAX - 1);

    /// Explicit randomness.
    pub(crate) fn randomness(rv: u64) -> Self {
        Self(rv)
    }

    /// The explicit randomness.
    pub(crate) fn rv(self) -> Option<u64> {
        (self.0 < Self::THRESHOLD.0).then_some(self.0)
    }

    /// The randomness that is found first counts.
    pub(crate) fn merge(&mut self, other: Self) {
        if self.rv().is_none() {
            self.0 = self.0.min(other.0);
        }
    }
}

/// Kept beside the state of a trace, for those that need it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extra {
    pub(crate) given: Given,
    /// The values that adaptive rates go by.
    pub(crate) marks: Marks,
    /// What a rule that only tries would have decided: an index into the reasons.
    pub(crate) tried: Option<u16>,
    /// For whoever keeps extras, while this one is not in use.
    pub(crate) link: u32,
}

impl Extra {
    pub(crate) const NONE: Self = Self { given: Given::NOTHING, marks: [0; MAX_KEYS], tried: None, link: 0 };

    pub(crate) fn merge(&mut self, other: &Self) {
        self.given.merge(other.given);
        self.add_marks(&other.marks);
    }

    pub(crate) fn add_marks(&mut self, marks: &Marks) {
        for (mark, more) in self.marks.iter_mut().zip(marks) {
            *mark |= more;
        }
    }
}

/// No extra.
pub(crate) const NO_EXTRA: u32 = u32::MAX;

/// The extras of a request's runs.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    entries: Vec<Extra>,
}

impl Extras {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What is kept at `place`, which may be [`NO_EXTRA`].
    pub(crate) fn get(&self, place: u32) -> &Extra {
        self.entries.get(place as usize).unwrap_or(&Extra::NONE)
    }

    /// Adds to what is kept at `place`, and takes a place first if that is [`NO_EXTRA`].
    pub(crate) fn at(&mut self, place: &mut u32) -> Option<&mut Extra> {
        if *place == NO_EXTRA {
            self.entries.push(Extra::NONE);
            *place = (self.entries.len() - 1) as u32;
        }
        self.entries.get_mut(*place as usize)
    }

    /// Forgets everything; keeps room for `keep`.
    pub(crate) fn clear(&mut self, keep: usize) {
        self.entries.clear();
        if self.entries.capacity() > keep {
            self.entries.shrink_to(keep);
        }
    }
}
