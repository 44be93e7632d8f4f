//! The votes on one trace in a few bytes, for the log of decisions.

/// So many votes are remembered; those of later policies or rules are not.
pub(crate) const MAX_VOTES: usize = u64::BITS as usize;

/// Who matched a trace, and by what rate it was decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ballot {
    /// A bit for each policy or rule that matches, by its place in the list of names.
    pub(crate) matched: u64,
    /// How much of what it matches the decider keeps, from 0 to 1, where that is by the trace id.
    pub(crate) probability: Option<f64>,
    /// The randomness that its rate goes by.
    pub(crate) randomness: Option<u64>,
}

impl Ballot {
    pub(crate) const EMPTY: Self = Self { matched: 0, probability: None, randomness: None };

    /// The policy or rule `name` matches.
    pub(super) fn add(&mut self, name: usize) {
        self.matched |= bit(name);
    }

    /// Does the policy or rule `name` match?
    pub(crate) fn matches(self, name: usize) -> bool {
        self.matched & bit(name) != 0
    }
}

/// The bit of a policy or rule; none for those whose votes are not remembered.
fn bit(name: usize) -> u64 {
    u32::try_from(name).ok().and_then(|name| 1u64.checked_shl(name)).unwrap_or(0)
}
