//! From configuration to [`RuleSet`]; every mistake is reported, with its place.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nyquist_core::wire::{put_len_field, put_tag};

use super::ballot::Ballot;
use super::bits::{Bits, CAPACITY};
use super::expr::{Expr, Facts};
use super::keys::KeyTable;
use super::lists::List;
use super::matchers::{TextMatcher, ValueMatcher};
use super::plan::{AttributeTest, DurationTest, Places, Plan, Wanted};
use super::prefix::PrefixTest;
use super::trace_state::{Change, TraceStateTest};
use super::verdict::{Decision, Judge, Verdict, Votes};
use super::{compile_policies, compile_rules};
use crate::tail_sampling::config::{LateErrors, SPAN_INGEST, TailSamplingConfig, ZeroTraceIds};

/// Something wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where, below the component's section.
    pub(crate) path: Vec<String>,
    /// What, and what to do.
    pub(crate) message: String,
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub(crate) list: Vec<Problem>,
}

impl Problems {
    pub(crate) fn add(&mut self, path: &[&str], message: impl Into<String>) {
        let path = path.iter().map(ToString::to_string).collect();
        self.list.push(Problem { path, message: message.into() });
    }
}

/// Where in the configuration the compiler is.
#[derive(Debug, Clone)]
pub(super) struct Place(Vec<String>);

impl Place {
    pub(super) fn at(key: &str) -> Self {
        Self(vec![key.to_owned()])
    }

    pub(super) fn key(&self, key: &str) -> Self {
        let mut path = self.0.clone();
        path.push(key.to_owned());
        Self(path)
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.key(&index.to_string())
    }
}

/// Why a kept trace was kept.
#[derive(Debug)]
pub(crate) struct Reason {
    /// The policy or rule, as an index into the names.
    pub(crate) name: usize,
    /// Of a `composite`: the sub-policy.
    pub(crate) member: Option<String>,
    /// The attributes that say so, as fields of a span.
    pub(crate) attributes: Vec<u8>,
    /// How much of what is like the trace is kept.
    pub(crate) odds: Odds,
}

/// Which part of traces is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Odds {
    /// Those whose randomness is not below this.
    Threshold(u64),
    /// It depends on what else there is.
    Unknown,
}

/// A compiled configuration.
#[derive(Debug)]
pub(crate) struct RuleSet {
    /// Lists of values that may change.
    pub(crate) lists: Vec<Arc<List>>,
    pub(crate) plan: Plan,
    /// The policies' or rules' names.
    pub(crate) names: Vec<String>,
    pub(crate) reasons: Vec<Reason>,
    /// Are these `rules`, not `policies`?
    pub(crate) ordered: bool,
    /// Policies are asked about each batch alone, as it comes.
    pub(crate) span_ingest: bool,
    /// Are there rules that only try, beside others that decide?
    pub(crate) tries: bool,
    /// Do kept spans say in their `tracestate` how many traces they stand for?
    writes_trace_state: bool,
    /// Everything is kept, and decisions are only recorded.
    pub(crate) dry_run: Option<DryRun>,
    /// What makes a late span an error: status ERROR and an exception. None: late errors are like any
    /// late span.
    late_errors: Option<[Expr; 2]>,
    judge: Judge,
}

impl RuleSet {
    /// Is the policy a `drop`?
    pub(crate) fn is_drop(&self, name: usize) -> bool {
        self.judge.is_drop(name)
    }

    /// What becomes of the `tracestate` of the spans of a trace that is kept for `reason`.
    pub(crate) fn trace_state_change(&self, reason: u16, id: &[u8; 16]) -> Option<Change> {
        self.change_to(self.reasons.get(usize::from(reason))?.odds, id)
    }

    /// What becomes of it when the trace was kept with these odds, whatever the rules.
    pub(crate) fn change_to(&self, odds: Odds, id: &[u8; 16]) -> Option<Change> {
        match odds {
            _ if !self.writes_trace_state => None,
            Odds::Threshold(0) => None,
            Odds::Threshold(threshold) => Some(Change::Threshold { threshold, rv: self.judge.derived_randomness(id) }),
            Odds::Unknown => Some(Change::Erase),
        }
    }

    /// The part of what it matches that the rule behind `reason` keeps, where that is by the trace id.
    pub(crate) fn probability(&self, reason: u16) -> Option<f64> {
        self.reasons.get(usize::from(reason))?;
        let decided = match &self.dry_run {
            Some(dry_run) if reason >= dry_run.against => reason - dry_run.against,
            _ => reason,
        };
        self.judge.probability(decided)
    }

    /// Do these late spans bring their trace back?
    pub(crate) fn is_late_error(&self, bits: &Bits) -> bool {
        self.late_errors.as_ref().is_some_and(|errors| errors.iter().any(|error| error.holds_for_span(bits)))
    }

    /// Decides a trace. `now` is in nanoseconds of the sampler's clock.
    pub(crate) fn decide(
        &self,
        facts: &Facts<'_>,
        now: u64,
        votes: &mut Votes,
        ballot: Option<&mut Ballot>,
    ) -> Verdict {
        let verdict = self.judge.decide(facts, now, votes, ballot);
        match &self.dry_run {
            Some(dry_run) => dry_run.record(verdict),
            None => verdict,
        }
    }

    /// The verdict on a trace that nothing keeps.
    pub(crate) fn nothing_matched(&self) -> Verdict {
        self.dry_run.as_ref().map_or(Verdict::NONE, |dry_run| dry_run.record(Verdict::NONE))
    }

    /// What the tables of rates that adapt may take, in bytes.
    pub(crate) fn adaptive_bytes(&self) -> usize {
        self.judge.adaptive_bytes()
    }

    /// What lists of values take, in bytes.
    pub(crate) fn list_bytes(&self) -> usize {
        self.lists.iter().map(|list| list.bytes()).sum()
    }

    /// The rules with a rate that adapts, by index, and how many keys each of them knows.
    pub(crate) fn adaptive_keys(&self) -> impl Iterator<Item = (usize, usize)> {
        self.judge.adaptive_keys()
    }
}

/// The reasons of traces that are kept although that was not decided.
#[derive(Debug)]
pub(crate) struct DryRun {
    /// The first of those for decisions against; they follow each other as the others do.
    against: u16,
    /// Where no rule decided.
    unmatched: u16,
}

impl DryRun {
    /// The reasons of a dry run, added to the `reasons` of decisions. All traces are kept, so none of
    /// them changes a threshold.
    fn of(reasons: &mut Vec<Reason>, names: usize, judge: &Judge) -> Self {
        const EVERYTHING: Odds = Odds::Threshold(0);
        let record = |attributes: &mut Vec<u8>, decision: Decision| {
            put_attribute(attributes, "nyquist.sampling.dry_run", AttributeValue::Text(decision.name()));
        };
        let mut twins = Vec::new();
        for reason in &mut *reasons {
            let mut attributes = reason.attributes.clone();
            let against = if judge.is_drop(reason.name) { Decision::Dropped } else { Decision::NotSampled };
            record(&mut attributes, against);
            twins.push(Reason { name: reason.name, member: reason.member.clone(), attributes, odds: EVERYTHING });
            record(&mut reason.attributes, Decision::Sampled);
            reason.odds = EVERYTHING;
        }
        let mut attributes = Vec::new();
        record(&mut attributes, Decision::NotSampled);
        let against = reasons.len() as u16;
        reasons.extend(twins);
        reasons.push(Reason { name: names, member: None, attributes, odds: EVERYTHING });
        Self { against, unmatched: (reasons.len() - 1) as u16 }
    }

    fn record(&self, mut verdict: Verdict) -> Verdict {
        verdict.dry_run = true;
        verdict.reason = match (verdict.decision, verdict.reason) {
            (Decision::Sampled, reason) => reason,
            (_, Some(reason)) => Some(reason + self.against),
            (_, None) => Some(self.unmatched),
        };
        // The rules that try are part of what is tried.
        verdict.tried = None;
        verdict
    }
}

/// Compiles `config`. The result is for use only if no problem was added.
pub(crate) fn compile(config: &TailSamplingConfig, problems: &mut Problems) -> RuleSet {
    let span_ingest = config.sampling_strategy == SPAN_INGEST;
    let mut builder = Builder {
        compat: config.compat.is_some(),
        use_trace_state: config.use_tracestate,
        span_ingest,
        problems,
        plan: Plan::default(),
        bits: HashMap::new(),
        lists: HashMap::new(),
        keys: Vec::new(),
        next_bit: 0,
    };
    let ordered = !config.rules.is_empty();
    let trace_state = if ordered { config.tracestate.unwrap_or(true) } else { config.use_tracestate };
    builder.plan.ot = match (trace_state, ordered) {
        (false, _) => None,
        (true, true) => Some(Wanted::Randomness),
        (true, false) => Some(Wanted::RandomnessAndThreshold),
    };
    builder.plan.sizes |= !ordered && config.maximum_trace_size_bytes.is_some_and(|limit| limit > 0);
    builder.plan.rejects_zero_ids = config.zero_trace_ids == ZeroTraceIds::Reject;
    let (judge, names, mut reasons) = if ordered {
        compile_rules::compile(config, &mut builder)
    } else {
        compile_policies::compile(config, &mut builder)
    };
    let late_errors = (config.late_errors == LateErrors::Keep).then(|| [builder.status(2), builder.exception()]);
    if builder.next_bit > CAPACITY {
        let list = Place::at(if ordered { "rules" } else { "policies" });
        builder.error(&list, format!("{} distinct conditions are too many: at most {CAPACITY}", builder.next_bit));
    }
    let dry_run = config.dry_run.then(|| DryRun::of(&mut reasons, names.len(), &judge));
    // Indices of reasons have 16 bits, and the last numbers mean something else.
    if reasons.len() > usize::from(u16::MAX) - 16 {
        let list = Place::at(if ordered { "rules" } else { "policies" });
        builder.error(&list, "too many, above all of those with an adaptive rate");
    }
    RuleSet {
        lists: builder.lists.values().cloned().collect(),
        plan: builder.finish(),
        names,
        reasons,
        ordered,
        span_ingest,
        tries: dry_run.is_none() && judge.tries(),
        writes_trace_state: trace_state,
        dry_run,
        late_errors,
        judge,
    }
}

/// What has a name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Named {
    Span,
    Event,
    Scope,
    ScopeVersion,
}

/// Collects what is asked of spans. Equal conditions share a bit.
pub(super) struct Builder<'a> {
    /// The Collector's behaviour also where we differ on purpose.
    pub(super) compat: bool,
    /// Policies read and write the `ot` entry of `tracestate`.
    pub(super) use_trace_state: bool,
    /// Policies are asked about each batch alone.
    pub(super) span_ingest: bool,
    problems: &'a mut Problems,
    pub(super) plan: Plan,
    bits: HashMap<String, u16>,
    lists: HashMap<PathBuf, Arc<List>>,
    keys: Vec<Box<[u8]>>,
    next_bit: usize,
}

impl Builder<'_> {
    pub(super) fn error(&mut self, place: &Place, message: impl Into<String>) {
        self.problems.list.push(Problem { path: place.0.clone(), message: message.into() });
    }

    /// The bit of the condition that `identity` describes, and whether it is a new one.
    pub(super) fn bit(&mut self, identity: String) -> (u16, bool) {
        if let Some(&bit) = self.bits.get(&identity) {
            return (bit, false);
        }
        let bit = (self.next_bit % CAPACITY) as u16;
        self.next_bit += 1;
        self.bits.insert(identity, bit);
        (bit, true)
    }

    pub(super) fn attribute(&mut self, key: &str, places: Places, matcher: ValueMatcher, identity: &str) -> Expr {
        let (bit, new) = self.bit(format!("attribute {key:?} {places:?} {identity}"));
        if new {
            self.plan.places = self.plan.places.and(places);
            let index = match self.keys.iter().position(|known| **known == *key.as_bytes()) {
                Some(index) => index,
                None => {
                    self.keys.push(key.as_bytes().into());
                    self.plan.attributes.push(Vec::new());
                    self.keys.len() - 1
                }
            };
            if let Some(tests) = self.plan.attributes.get_mut(index) {
                tests.push(AttributeTest { places, matcher, bit });
            }
        }
        Expr::Bit(bit)
    }

    pub(super) fn name(&mut self, named: Named, matcher: TextMatcher, identity: &str) -> Expr {
        let (bit, new) = self.bit(format!("{named:?} {identity}"));
        if new {
            let tests = match named {
                Named::Span => &mut self.plan.names,
                Named::Event => &mut self.plan.event_names,
                Named::Scope => &mut self.plan.scope_names,
                Named::ScopeVersion => &mut self.plan.scope_versions,
            };
            tests.push((matcher, bit));
        }
        Expr::Bit(bit)
    }

    /// The values of a file; each file is read once.
    pub(super) fn list(&mut self, path: &Path, place: &Place) -> Option<Arc<List>> {
        if let Some(list) = self.lists.get(path) {
            return Some(Arc::clone(list));
        }
        match List::open(path) {
            Ok(list) => {
                let list = Arc::new(list);
                self.lists.insert(path.to_owned(), Arc::clone(&list));
                Some(list)
            }
            Err(error) => {
                self.error(place, error);
                None
            }
        }
    }

    /// `code` is 0 for UNSET, 1 for OK, 2 for ERROR.
    pub(super) fn status(&mut self, code: usize) -> Expr {
        let (bit, _) = self.bit(format!("status {code}"));
        if let Some(slot) = self.plan.statuses.get_mut(code) {
            *slot = Some(bit);
        }
        Expr::Bit(bit)
    }

    pub(super) fn exception(&mut self) -> Expr {
        let (bit, _) = self.bit("exception".to_owned());
        self.plan.exception = Some(bit);
        Expr::Bit(bit)
    }

    pub(super) fn root(&mut self) -> Expr {
        let (bit, _) = self.bit("root".to_owned());
        self.plan.root = Some(bit);
        Expr::Bit(bit)
    }

    pub(super) fn sampled_flag(&mut self) -> Expr {
        let (bit, _) = self.bit("sampled flag".to_owned());
        self.plan.sampled_flag = Some(bit);
        Expr::Bit(bit)
    }

    /// One span took longer than `above` and at most `up_to` nanoseconds.
    pub(super) fn span_duration(&mut self, above: i64, up_to: i64) -> Expr {
        let (bit, new) = self.bit(format!("duration {above} {up_to}"));
        if new {
            self.plan.durations.push(DurationTest { above, up_to, bit });
        }
        Expr::Bit(bit)
    }

    /// The first spans of the trace, up to any of them, took more than `above` and at most `up_to` ms.
    pub(super) fn prefix_latency(&mut self, above: i64, up_to: i64) -> Expr {
        let (bit, new) = self.bit(format!("prefix {above} {up_to}"));
        if new {
            self.plan.prefixes.push(PrefixTest { above, up_to, bit });
        }
        Expr::Bit(bit)
    }

    pub(super) fn trace_state(&mut self, key: &str, values: TextMatcher, identity: &str) -> Expr {
        let (bit, new) = self.bit(format!("tracestate {key:?} {identity}"));
        if new {
            self.plan.trace_states.push(TraceStateTest { key: key.as_bytes().into(), values, bit });
        }
        Expr::Bit(bit)
    }

    /// A condition that one and the same span meets.
    pub(super) fn on_one_span(&mut self, expr: Expr) -> Expr {
        let (bit, new) = self.bit(format!("span {expr:?}"));
        if new {
            self.plan.derived.push((expr, bit));
        }
        Expr::Bit(bit)
    }

    /// Checks a name: not empty, not used before.
    pub(super) fn unique_name(&mut self, name: &str, names: &[String], place: &Place) {
        if name.is_empty() {
            self.error(&place.key("name"), "a name is required: it is shown in metrics and on kept traces");
        } else if names.iter().any(|other| other == name) {
            self.error(&place.key("name"), format!("{name:?} is used twice: names have to be unique"));
        }
    }

    fn finish(self) -> Plan {
        Plan { keys: KeyTable::new(self.keys), ..self.plan }
    }
}

/// The percentage that kept a trace.
pub(crate) const SAMPLING_RATE: &str = "nyquist.sampling.rate";

/// Appends an attribute to the fields of a span.
pub(crate) fn put_attribute(out: &mut Vec<u8>, key: &str, value: AttributeValue<'_>) {
    let mut any_value = Vec::new();
    match value {
        AttributeValue::Text(text) => put_len_field(&mut any_value, 1, text.as_bytes()),
        AttributeValue::Bool(flag) => {
            put_tag(&mut any_value, 2, 0);
            any_value.push(u8::from(flag));
        }
        AttributeValue::Double(number) => {
            put_tag(&mut any_value, 4, 1);
            any_value.extend_from_slice(&number.to_le_bytes());
        }
    }
    let mut key_value = Vec::new();
    put_len_field(&mut key_value, 1, key.as_bytes());
    put_len_field(&mut key_value, 2, &any_value);
    put_len_field(out, 9, &key_value);
}

/// A value for [`put_attribute`].
pub(crate) enum AttributeValue<'a> {
    Text(&'a str),
    Bool(bool),
    Double(f64),
}
