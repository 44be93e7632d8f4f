//! Which thresholds policies may claim beside one another.

use std::collections::BTreeSet;
use std::ops::Range;

use super::compile::{Odds, Reason};

/// What a part of all traces is picked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Coin {
    /// The hash of the id with this salt, where `tracestate` says nothing.
    Hash(u64),
    /// The trace's randomness.
    Randomness,
}

/// How a policy keeps or drops a part of traces.
#[derive(Debug)]
pub(super) struct Shares<'a> {
    /// By a rate, or by a limit that goes by randomness.
    pub(super) is_rated: bool,
    /// Which part is known.
    pub(super) known: bool,
    /// What it goes by.
    pub(super) coins: &'a BTreeSet<Coin>,
}

/// Which thresholds are not true because of the other policies: a trace that a rate has let through may have had
/// another chance, or less of one, that this rate does not know of.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// The reasons of policies with a rate or a limit by randomness.
    rated: Vec<Range<usize>>,
    coins: BTreeSet<Coin>,
    /// A policy keeps a part of traces that nobody knows.
    others_unknown: bool,
    /// A part of traces is dropped, whatever keeps them.
    drops_part: bool,
    /// Where the reasons of the last policy end.
    end: usize,
}

impl Doubts {
    pub(super) fn add(&mut self, policy: &Shares<'_>, drop: bool, reasons: Range<usize>) {
        if drop {
            self.drops_part |= policy.is_rated || !policy.known;
            return;
        }
        self.end = reasons.end;
        self.others_unknown |= !policy.known;
        if policy.is_rated {
            self.rated.push(reasons);
            self.coins.extend(policy.coins);
        }
    }

    pub(super) fn settle(self, first_match: bool, reasons: &mut [Reason]) {
        if self.drops_part {
            reasons.iter_mut().for_each(|reason| reason.odds = Odds::Unknown);
        }
        // Two coins give a trace two chances; the same one twice does not.
        let chances_differ = self.others_unknown || self.rated.len() > 1 && self.coins.len() > 1;
        for range in self.rated {
            // Nobody asks the policies after it, which might have kept the trace for certain.
            let is_first_of_several = first_match && range.end < self.end;
            if chances_differ || is_first_of_several {
                reasons.get_mut(range).into_iter().flatten().for_each(|reason| reason.odds = Odds::Unknown);
            }
        }
    }
}
