//! What became of a trace, and why: what `nyquist explain` and `nyquist sample` show.
//!
//! Names of rules, numbers and times; nothing that a span says of itself.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::buffer::{Record, Shard, Why};
use super::rules::ballot::MAX_VOTES;
use super::sampler::{Sampler, nanos};
use super::tally::Trigger;

/// Decisions on one trace that are told of: its latest.
const MAX_DECISIONS: usize = 4;
/// Decisions that are looked through under one lock.
const SLICE: u64 = 4096;

/// Where a trace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its latest decision keeps it.
    Kept,
    /// Its latest decision does not keep it.
    Dropped,
    /// It waits for its decision.
    Undecided,
    /// It never arrived, or that is too long ago.
    Unknown,
}

/// What a sampler knows of one trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Where it stands.
    pub status: Status,
    /// What has arrived, if it is not decided.
    pub undecided: Option<Undecided>,
    /// The decisions on it that the log still has, the latest first. More than one means that
    /// spans came after its decision had been forgotten.
    pub decisions: Vec<Decided>,
    /// A span that came after a decision against it was an error: late spans are kept since
    /// (`late_errors: keep`).
    pub late_error: bool,
    /// What is remembered for late spans, if the log has forgotten the decision.
    pub remembered: Option<Remembered>,
    /// How far back the log goes.
    pub log: Coverage,
}

/// A trace that waits for its decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Undecided {
    /// Spans that have arrived.
    pub spans: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the root span is among them.
    pub has_root: bool,
    /// How long ago the first came.
    pub waiting_seconds: f64,
    /// It is decided by then, or earlier.
    pub decided_in_seconds: f64,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// The trace, in 32 hexadecimal digits.
    pub trace_id: String,
    /// `sampled`, `not_sampled`, or `dropped` (by a policy of type `drop`).
    pub decision: String,
    /// Whether the trace is kept.
    pub kept: bool,
    /// The rule or policy that decided.
    pub rule: Option<String>,
    /// ... and of a `composite` the sub-policy.
    #[serde(default)]
    pub sub_policy: Option<String>,
    /// Why it was decided then: one of [`triggers`].
    pub trigger: String,
    /// The rate of the rule that decided.
    pub sampling_percentage: Option<f64>,
    /// The trace is kept if its randomness is at least this, in 14 hexadecimal digits (15 at a rate of
    /// 0, which nothing reaches).
    pub threshold: Option<String>,
    /// Its randomness, in 14 hexadecimal digits.
    pub randomness: Option<String>,
    /// What each rule or policy says, in their order; the first 64.
    pub votes: Vec<Vote>,
    /// Spans that had arrived.
    pub spans: u64,
    /// Their bytes.
    pub bytes: u64,
    /// From the earliest start to the latest end.
    pub duration_ms: f64,
    /// How long after its first span it was decided.
    pub waited_seconds: f64,
    /// How long ago that was.
    pub seconds_ago: f64,
    /// When that was (RFC 3339), where there is a wall clock.
    pub decided_at: Option<String>,
}

/// What [`Decided::trigger`] may be.
pub fn triggers() -> impl Iterator<Item = &'static str> {
    Trigger::ALL.into_iter().map(Trigger::name)
}

/// What one rule or policy says of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Its name.
    pub rule: String,
    /// Whether it matches.
    pub matched: bool,
}

/// A decision that is remembered without its circumstances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// Whether late spans are kept.
    pub kept: bool,
    /// The rule or policy that decided.
    pub rule: Option<String>,
    /// ... and of a `composite` the sub-policy.
    #[serde(default)]
    pub sub_policy: Option<String>,
    /// The rules have changed since, in a restart: nobody knows the one that decided.
    #[serde(default)]
    pub rules_changed: bool,
    /// Why it was decided then, as in [`Decided::trigger`].
    pub trigger: Option<String>,
    /// As in [`Decided::sampling_percentage`].
    pub sampling_percentage: Option<f64>,
    /// As in [`Decided::threshold`].
    pub threshold: Option<String>,
}

/// How far back the log of decisions goes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// How many decisions it holds at present, of those that share this trace's shard.
    pub decisions: u64,
    /// How long ago the oldest of them was; 0 if there is none.
    pub seconds: f64,
    /// It is turned off (`decision_log.size: 0`).
    pub is_off: bool,
}

impl Explanation {
    /// The same with wall-clock times, given the present one.
    #[must_use]
    pub fn dated(mut self, unix_nanos: u64) -> Self {
        let now = Duration::from_nanos(unix_nanos);
        for decided in &mut self.decisions {
            let ago = Duration::try_from_secs_f64(decided.seconds_ago).unwrap_or_default();
            let at = UNIX_EPOCH + now.saturating_sub(ago);
            decided.decided_at = Some(humantime::format_rfc3339_millis(at).to_string());
        }
        self
    }
}

impl Sampler {
    /// What it knows of the trace `id`.
    #[must_use]
    pub fn explain(&self, id: &[u8; 16], now: Duration) -> Explanation {
        let (shard, tag) = self.settings.hash.of(id);
        let now = nanos(now);
        let mut explanation = Explanation {
            status: Status::Unknown,
            undecided: None,
            decisions: Vec::new(),
            late_error: false,
            remembered: None,
            log: Coverage { decisions: 0, seconds: 0.0, is_off: self.settings.decision_log == 0 },
        };
        let Some(shard) = self.shards.get(shard) else { return explanation };
        let mut end = {
            let shard = shard.lock();
            let wait = u64::from(self.settings.wait) * 1_000_000;
            explanation.undecided = shard.undecided(id, tag).map(|trace| Undecided {
                spans: u64::from(trace.spans),
                bytes: u64::from(trace.bytes),
                has_root: trace.marks.has_root(),
                waiting_seconds: seconds(0, trace.waited(now)),
                decided_in_seconds: seconds(trace.waited(now), wait),
            });
            let cached = shard.cached(id, tag);
            explanation.late_error = cached.is_some_and(|(kept, why)| kept && Shard::is_late_error(why.reason));
            explanation.remembered = cached.map(|(kept, why)| self.recall(kept, why));
            explanation.log.decisions = shard.decisions.len() as u64;
            explanation.log.seconds = shard.decisions.oldest().map_or(0.0, |record| seconds(record.at, now));
            Some(shard.decisions.next())
        };
        let mut found = Vec::new();
        while let Some(before) = end.filter(|_| found.len() < MAX_DECISIONS) {
            end = shard.lock().decisions.look_back(id, before, SLICE, &mut found);
        }
        found.truncate(MAX_DECISIONS);
        explanation.decisions = found.iter().map(|record| self.tell(record, now)).collect();
        if !found.is_empty() {
            explanation.remembered = None;
        }
        let late_error = explanation.late_error.then_some(true);
        let kept = explanation.decisions.first().map(|decided| decided.kept);
        let kept = late_error.or(kept).or(explanation.remembered.as_ref().map(|remembered| remembered.kept));
        explanation.status = match (&explanation.undecided, kept) {
            (Some(_), _) => Status::Undecided,
            (None, Some(true)) => Status::Kept,
            (None, Some(false)) => Status::Dropped,
            (None, None) => Status::Unknown,
        };
        explanation
    }

    /// The decisions of a shard from number `from` on, in order, and the number to go on with.
    #[must_use]
    pub fn decisions_since(&self, shard: usize, from: u64, now: Duration) -> (Vec<Decided>, u64) {
        let Some(shard) = self.shards.get(shard) else { return (Vec::new(), from) };
        let shard = shard.lock();
        (shard.decisions.since(from).map(|record| self.tell(record, nanos(now))).collect(), shard.decisions.next())
    }

    /// The rule or policy behind a reason, and the sub-policy.
    fn rule(&self, reason: Option<u16>) -> (Option<String>, Option<String>) {
        let Some(reason) = reason.and_then(|reason| self.settings.rules.reasons.get(usize::from(reason))) else {
            return (None, None);
        };
        (self.settings.rules.names.get(reason.name).cloned(), reason.member.clone())
    }

    fn recall(&self, kept: bool, why: Why) -> Remembered {
        let probability = self.settings.rules.probability(why.reason);
        let (rule, sub_policy) = self.rule(Some(why.reason));
        Remembered {
            kept,
            rule,
            sub_policy,
            rules_changed: why.is_of_earlier_rules(),
            trigger: why.trigger.map(|trigger| trigger.name().to_owned()),
            sampling_percentage: probability.map(percentage),
            threshold: probability.map(threshold).map(digits),
        }
    }

    fn tell(&self, record: &Record, now: u64) -> Decided {
        let rules = &self.settings.rules;
        let ballot = record.ballot;
        let (rule, sub_policy) = self.rule(record.reason);
        let vote = |(name, rule): (usize, &String)| Vote { rule: rule.clone(), matched: ballot.matches(name) };
        Decided {
            trace_id: hex::encode(record.id),
            decision: record.decision.name().to_owned(),
            kept: record.kept,
            rule,
            sub_policy,
            trigger: record.trigger.name().to_owned(),
            sampling_percentage: ballot.probability.map(percentage),
            threshold: ballot.probability.map(threshold).map(digits),
            randomness: ballot.probability.and(ballot.randomness).map(digits),
            votes: rules.names.iter().enumerate().take(MAX_VOTES).map(vote).collect(),
            spans: u64::from(record.spans),
            bytes: record.bytes,
            duration_ms: record.duration as f64 / 1e6,
            waited_seconds: record.waited as f64 / 1e9,
            seconds_ago: seconds(record.at, now),
            decided_at: None,
        }
    }
}

/// What randomness, 56 bits of it, must reach to be among this part of all traces. Exact: a part that was
/// computed from a threshold gives that threshold.
fn threshold(probability: f64) -> u64 {
    const ALL: u64 = 1 << 56;
    ALL - ((probability * ALL as f64) as u64).min(ALL)
}

/// Of a threshold, or of randomness.
fn digits(number: u64) -> String {
    format!("{number:014x}")
}

/// In percent, without what a threshold of 56 bits adds to a decimal fraction.
fn percentage(probability: f64) -> f64 {
    const DIGITS: f64 = 1e9;
    (probability * 100.0 * DIGITS).round() / DIGITS
}

fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}
