//! From conditions to a decision.

use std::sync::Arc;

use super::adaptive::{self, Adaptive};
use super::ballot::Ballot;
use super::budgets::Budgets;
use super::expr::{Expr, Facts, Look};
use super::extra::Given;
use super::random::{Randomness, independent, probability, rejection_threshold};

/// What becomes of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is kept.
    Sampled,
    /// Nothing kept it.
    NotSampled,
    /// A `drop` policy matched it.
    Dropped,
}

impl Decision {
    pub(crate) const ALL: [Self; 3] = [Self::Sampled, Self::NotSampled, Self::Dropped];

    /// The label value.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::NotSampled => "not_sampled",
            Self::Dropped => "dropped",
        }
    }
}

/// A decision, and the reason (an index into the rule set's reasons) if one policy or rule made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) decision: Decision,
    pub(crate) reason: Option<u16>,
    /// What the first matching rule that only tries would have decided, also an index into the reasons.
    pub(crate) tried: Option<u16>,
    /// It is kept, whatever the decision: that is only recorded.
    pub(crate) dry_run: bool,
}

impl Verdict {
    pub(crate) const NONE: Self = Self { decision: Decision::NotSampled, reason: None, tried: None, dry_run: false };

    /// Is the trace kept?
    pub(crate) fn keeps(self) -> bool {
        self.dry_run || self.decision == Decision::Sampled
    }
}

/// A policy of the Collector.
#[derive(Debug)]
pub(super) struct Policy {
    /// Its place in the list of names.
    pub(super) index: usize,
    pub(super) expr: Expr,
    /// The first of its reasons; the sub-policies of a composite follow.
    pub(super) reason: u16,
    /// Among policies that sample a trace, the smallest names it; 0 for those without a rate.
    pub(super) threshold: u64,
    /// It has limits that pick by randomness, and so a reason for each level of them; with a rate of its own,
    /// as many again for traces that the rate picks by another randomness.
    pub(super) is_leveled: bool,
}

impl Policy {
    /// Why a trace was let through, and the threshold.
    fn outcome(&self, facts: &Facts<'_>, look: &Look) -> (u16, u64) {
        if !self.is_leveled {
            return (self.reason + look.member.map_or(0, |member| member + 1), self.threshold);
        }
        let apart = self.threshold > 0 && facts.extra.given == Given::NOTHING;
        let reason = self.reason + look.level + if apart { adaptive::LEVELS } else { 0 };
        (reason, leveled_threshold(self.threshold, look.level, apart))
    }
}

/// The threshold of a rate and a limit together; `apart`: they go by different randomness.
pub(super) fn leveled_threshold(threshold: u64, level: u16, apart: bool) -> u64 {
    let limit = rejection_threshold(100.0 * adaptive::probability(level));
    if apart { independent(threshold, limit) } else { threshold.max(limit) }
}

/// A rule of ours.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) when: Expr,
    pub(super) rate: Rate,
    /// The first of its reasons.
    pub(super) reason: u16,
    /// It only tries: the first of two reasons, for what it would keep and what not.
    pub(super) tried: Option<u16>,
}

/// How much a rule keeps of what it matches. Thresholds are those of randomness.
#[derive(Debug)]
pub(super) enum Rate {
    Fixed(u64),
    Adaptive(Arc<Adaptive>),
    Budget { threshold: u64, budgets: Arc<Budgets>, member: usize },
}

impl Rule {
    /// Is the trace of this randomness kept, and the reason.
    fn roll(&self, facts: &Facts<'_>, look: &Look, randomness: u64) -> (bool, u16) {
        let above = |threshold: u64| randomness >= threshold;
        match &self.rate {
            Rate::Fixed(threshold) => (above(*threshold), self.reason),
            Rate::Adaptive(adaptive) => {
                let level = adaptive.level(facts, look);
                (above(rejection_threshold(100.0 * adaptive::probability(level))), self.reason + level)
            }
            Rate::Budget { threshold, budgets, member } => {
                (above(*threshold) && budgets.take(*member, facts.spans, look), self.reason)
            }
        }
    }

    /// Is this one of its reasons for a decision?
    fn has(&self, reason: u16) -> bool {
        let levels = if matches!(self.rate, Rate::Adaptive(_)) { adaptive::LEVELS } else { 1 };
        reason.checked_sub(self.reason).is_some_and(|level| level < levels)
    }

    /// The part of what it matches that is kept, where that is by the trace id.
    fn probability(&self, reason: u16) -> Option<f64> {
        match &self.rate {
            Rate::Fixed(threshold) => Some(probability(*threshold)),
            Rate::Adaptive(_) => Some(adaptive::probability(reason - self.reason)),
            Rate::Budget { .. } => None,
        }
    }
}

/// How decisions are made.
#[derive(Debug)]
pub(super) enum Judge {
    Policies { drops: Vec<Policy>, others: Vec<Policy>, first_match: bool },
    Rules { rules: Vec<Rule>, randomness: Randomness },
}

/// How policies voted: per policy, votes to sample (or drop), and others; and how many policies could
/// not be evaluated, which is no vote.
#[derive(Debug, Default)]
pub(crate) struct Votes(pub(crate) Vec<[u64; 2]>, pub(crate) u64);

impl Votes {
    /// None yet, of so many policies.
    pub(crate) fn new(policies: usize) -> Self {
        Self(vec![[0; 2]; policies], 0)
    }

    /// Forgets what was counted.
    pub(crate) fn clear(&mut self) {
        self.0.fill([0; 2]);
        self.1 = 0;
    }

    fn count(&mut self, policy: usize, yes: bool) {
        if let Some(votes) = self.0.get_mut(policy) {
            votes[usize::from(!yes)] += 1;
        }
    }
}

impl Judge {
    /// The randomness that rules go by, where it is not that of the trace id.
    pub(super) fn derived_randomness(&self, id: &[u8; 16]) -> Option<u64> {
        match self {
            Self::Policies { .. } => None,
            Self::Rules { randomness, .. } => randomness.derived(id),
        }
    }

    /// As [`super::RuleSet::probability`].
    pub(super) fn probability(&self, reason: u16) -> Option<f64> {
        match self {
            Self::Policies { .. } => None,
            Self::Rules { rules, .. } => rules.iter().find(|rule| rule.has(reason))?.probability(reason),
        }
    }

    /// The rules with a rate that adapts, by index, and how many keys each of them knows.
    pub(super) fn adaptive_keys(&self) -> impl Iterator<Item = (usize, usize)> {
        let rules = if let Self::Rules { rules, .. } = self { rules.as_slice() } else { &[] };
        rules.iter().enumerate().filter_map(|(index, rule)| match &rule.rate {
            Rate::Adaptive(adaptive) => Some((index, adaptive.keys())),
            _ => None,
        })
    }

    /// What the tables of rates that adapt may take, in bytes.
    pub(super) fn adaptive_bytes(&self) -> usize {
        let rules = if let Self::Rules { rules, .. } = self { rules.as_slice() } else { &[] };
        let bytes = |rule: &Rule| if let Rate::Adaptive(adaptive) = &rule.rate { adaptive.most_bytes() } else { 0 };
        rules.iter().map(bytes).sum()
    }

    /// Are there rules that only try?
    pub(super) fn tries(&self) -> bool {
        matches!(self, Self::Rules { rules, .. } if rules.iter().any(|rule| rule.tried.is_some()))
    }

    pub(super) fn is_drop(&self, name: usize) -> bool {
        match self {
            Self::Policies { drops, .. } => drops.iter().any(|policy| policy.index == name),
            Self::Rules { .. } => false,
        }
    }

    /// Decides a trace. With a `ballot`, the policies and rules after the one that decides are asked too;
    /// that spends nothing from limits.
    pub(super) fn decide(
        &self,
        facts: &Facts<'_>,
        now: u64,
        votes: &mut Votes,
        ballot: Option<&mut Ballot>,
    ) -> Verdict {
        match self {
            Self::Policies { drops, others, first_match } => {
                by_policies(drops, others, *first_match, facts, now, votes, ballot)
            }
            Self::Rules { rules, randomness } => by_rules(rules, *randomness, facts, now, votes, ballot),
        }
    }
}

fn by_rules(
    rules: &[Rule],
    randomness: Randomness,
    facts: &Facts<'_>,
    now: u64,
    votes: &mut Votes,
    mut ballot: Option<&mut Ballot>,
) -> Verdict {
    let mut verdict = Verdict::NONE;
    let randomness = randomness.of(facts.id, facts.extra.given);
    let mut rules = rules.iter().enumerate();
    for (index, rule) in rules.by_ref() {
        let mut look = Look::at(now);
        if !rule.when.holds(facts, &mut look) {
            continue;
        }
        let (kept, reason) = rule.roll(facts, &look, randomness);
        votes.count(index, kept);
        if let Some(ballot) = ballot.as_deref_mut() {
            ballot.add(index);
        }
        if let Some(tried) = rule.tried {
            verdict.tried = verdict.tried.or(Some(tried + u16::from(!kept)));
            continue;
        }
        verdict.decision = if kept { Decision::Sampled } else { Decision::NotSampled };
        verdict.reason = Some(reason);
        if let Some(ballot) = ballot.as_deref_mut() {
            ballot.probability = rule.probability(reason);
        }
        break;
    }
    if let Some(ballot) = ballot {
        ballot.randomness = Some(randomness);
        for (index, rule) in rules {
            if rule.when.holds(facts, &mut Look::ask(now)) {
                ballot.add(index);
            }
        }
    }
    verdict
}

fn by_policies(
    drops: &[Policy],
    others: &[Policy],
    first_match: bool,
    facts: &Facts<'_>,
    now: u64,
    votes: &mut Votes,
    mut ballot: Option<&mut Ballot>,
) -> Verdict {
    let mut verdict = None;
    // A vote of a policy that decides; none where it cannot be evaluated.
    let mut vote = |policy: &Policy, look: &mut Look| {
        let says_yes = policy.expr.holds(facts, look);
        if look.failed {
            votes.1 += 1;
            return None;
        }
        votes.count(policy.index, says_yes);
        Some(says_yes)
    };
    let (mut drops, mut others) = (drops.iter(), others.iter());
    for policy in drops.by_ref() {
        if vote(policy, &mut Look::at(now)) == Some(true) {
            if let Some(ballot) = ballot.as_deref_mut() {
                ballot.add(policy.index);
            }
            verdict = Some(Verdict { decision: Decision::Dropped, reason: Some(policy.reason), ..Verdict::NONE });
            break;
        }
    }
    let mut winner: Option<(u16, u64)> = None;
    while verdict.is_none()
        && !(first_match && winner.is_some())
        && let Some(policy) = others.next()
    {
        let mut look = Look::at(now);
        if vote(policy, &mut look) != Some(true) {
            continue;
        }
        if let Some(ballot) = ballot.as_deref_mut() {
            ballot.add(policy.index);
        }
        let (reason, threshold) = policy.outcome(facts, &look);
        if winner.is_none_or(|(_, least)| threshold < least) {
            winner = Some((reason, threshold));
        }
    }
    if let Some(ballot) = ballot {
        for policy in drops.chain(others) {
            if policy.expr.holds(facts, &mut Look::ask(now)) {
                ballot.add(policy.index);
            }
        }
    }
    let sampled = |(reason, _)| Verdict { decision: Decision::Sampled, reason: Some(reason), ..Verdict::NONE };
    verdict.or(winner.map(sampled)).unwrap_or(Verdict::NONE)
}
