//! The reference sampler: which spans are kept, when, and why.

use std::collections::{BTreeMap, BTreeSet};

use nyquist_core::proto::trace::v1::TracesData;
use serde_json::{Value as Json, json};

use crate::conditions::{Rule, asked, low_bits, threshold};
use crate::policies::{Decision, Named, Trace, decide, most_generous};
use crate::probability::{Change, changed, randomness};
use crate::spans::{ERROR, Id, Placed, runs};

/// What is configured. Times are in whole seconds.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) what: What,
    pub(crate) decision_wait: u64,
    pub(crate) after_root: Option<u64>,
    pub(crate) after_last: Option<u64>,
    pub(crate) remember_sampled: bool,
    pub(crate) remember_others: bool,
    pub(crate) first_match: bool,
    pub(crate) drop_pending: bool,
    pub(crate) span_limit: Option<u64>,
    /// A late error brings a trace back.
    pub(crate) keep_late_errors: bool,
    pub(crate) dry_run: bool,
    /// The `ot` entry of `tracestate` is read and written: `tracestate` of rules, `use_tracestate` of policies.
    pub(crate) tracestate: bool,
    pub(crate) record: &'static str,
    pub(crate) shards: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Rules(Vec<Rule>),
    Policies(Vec<Named>),
}

impl Settings {
    pub(crate) fn new(what: What) -> Self {
        Self {
            what,
            decision_wait: 10,
            after_root: None,
            after_last: None,
            remember_sampled: true,
            remember_others: true,
            first_match: false,
            drop_pending: false,
            span_limit: None,
            keep_late_errors: false,
            dry_run: false,
            tracestate: false,
            record: "root",
            shards: 1,
        }
    }

    /// JSON is YAML.
    pub(crate) fn json(&self) -> Json {
        let mut json = json!({
            "decision_wait": format!("{}s", self.decision_wait),
            "memory_limit_mib": 256,
            "num_shards": self.shards,
            "record": self.record,
            "drop_pending_traces_on_shutdown": self.drop_pending,
            "dry_run": self.dry_run,
        });
        match &self.what {
            What::Rules(rules) => {
                json["rules"] = rules.iter().map(Rule::json).collect();
                json["tracestate"] = json!(self.tracestate);
            }
            What::Policies(policies) => {
                json["policies"] = policies.iter().map(Named::json).collect();
                json["sample_on_first_match"] = json!(self.first_match);
                json["use_tracestate"] = json!(self.tracestate);
            }
        }
        if let Some(after_root) = self.after_root {
            json["decision_wait_after_root_received"] = json!(format!("{after_root}s"));
        }
        if let Some(after_last) = self.after_last {
            json["decision_wait_after_last_span"] = json!(format!("{after_last}s"));
        }
        if let Some(limit) = self.span_limit {
            json["span_limit"] = json!(limit);
        }
        if self.keep_late_errors {
            json["late_errors"] = json!("keep");
        }
        if !self.remember_sampled {
            json["decision_cache"]["sampled_cache_size"] = json!(0);
        }
        if !self.remember_others {
            json["decision_cache"]["non_sampled_cache_size"] = json!(0);
        }
        json
    }

    /// Is this what a policy keeps, in percent, if it says so?
    pub(crate) fn has_rate(&self, name: &str, rate: f64) -> bool {
        let What::Policies(policies) = &self.what else { return false };
        policies.iter().find(|named| named.name == name).is_some_and(|named| named.policy.rates().contains(&rate))
    }

    /// What becomes of a trace.
    pub(crate) fn verdict(&self, id: Id, spans: &[Placed]) -> Verdict {
        let mut verdict = match &self.what {
            What::Rules(rules) => self.by_rules(rules, id, spans),
            What::Policies(policies) => {
                let mut change = Change::Stay;
                let trace = Trace { id, spans, by_trace_state: self.tracestate };
                let (decision, why) = match decide(policies, trace) {
                    Decision::Sampled(mut voters) => {
                        if self.first_match {
                            voters.truncate(1);
                        }
                        if self.tracestate {
                            let (named, change_of_named) = most_generous(policies, &voters, self.first_match);
                            (voters, change) = (vec![named], change_of_named);
                        }
                        ("sampled", Why::OneOf(voters))
                    }
                    Decision::NotSampled => ("not_sampled", Why::Nobody),
                    Decision::Dropped => ("dropped", Why::SomeDrop),
                };
                Verdict { decision, why, tried: None, dry_run: false, change }
            }
        };
        if self.dry_run {
            (verdict.dry_run, verdict.tried, verdict.change) = (true, None, Change::Stay);
        }
        verdict
    }

    fn by_rules(&self, rules: &[Rule], id: Id, spans: &[Placed]) -> Verdict {
        let randomness = if self.tracestate { randomness(spans, id) } else { low_bits(id) };
        let would = |rule: &Rule| if randomness >= threshold(rule.percentage) { "sampled" } else { "not_sampled" };
        let asked = asked(rules, spans);
        let tried = asked.iter().find(|rule| rule.dry_run).map(|rule| (rule.name.clone(), would(rule)));
        let Some(rule) = asked.last().filter(|rule| !rule.dry_run) else {
            return Verdict { decision: "not_sampled", why: Why::Nobody, tried, dry_run: false, change: Change::Stay };
        };
        let change = match threshold(rule.percentage) {
            threshold if self.tracestate && threshold > 0 => Change::Stricter(threshold),
            _ => Change::Stay,
        };
        let why = Why::Rule(rule.name.clone(), rule.percentage);
        Verdict { decision: would(rule), why, tried, dry_run: false, change }
    }
}

/// What becomes of a trace, and what its spans say of that.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) decision: &'static str,
    pub(crate) why: Why,
    /// The first rule that only tries, and what it would have decided.
    pub(crate) tried: Option<(String, &'static str)>,
    /// It is kept, whatever the decision.
    pub(crate) dry_run: bool,
    change: Change,
}

impl Verdict {
    pub(crate) fn keeps(&self) -> bool {
        self.dry_run || self.decision == "sampled"
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Why {
    /// This rule, with its percentage.
    Rule(String, f64),
    /// One of these policies.
    OneOf(Vec<String>),
    /// A `drop` policy (in a dry run).
    SomeDrop,
    /// No rule or policy (in a dry run).
    Nobody,
}

/// A trace that was decided to be kept.
pub(crate) struct Kept {
    pub(crate) id: Id,
    pub(crate) verdict: Verdict,
    /// What may have triggered the decision.
    pub(crate) triggers: Vec<&'static str>,
    /// As they should leave.
    pub(crate) spans: Vec<Placed>,
}

#[derive(Default)]
struct Pending {
    first: u64,
    root: Option<u64>,
    last: u64,
    spans: Vec<Placed>,
}

/// What was decided on a trace that is remembered: kept, with this change, or not.
type Decided = Option<Change>;

pub(crate) struct Reference {
    pub(crate) settings: Settings,
    pending: BTreeMap<Id, Pending>,
    decided: BTreeMap<Id, Decided>,
    pub(crate) kept: Vec<Kept>,
    /// Spans that came after their trace was decided to be kept, as they should leave.
    pub(crate) late: Vec<Placed>,
    /// How often such spans came: those of one trace in one request are one group.
    pub(crate) late_groups: usize,
    /// Spans that came later in the request that brought the decision: they join what is kept.
    pub(crate) joined: usize,
    /// Traces that a late error has brought back.
    pub(crate) brought_back: BTreeSet<Id>,
    pub(crate) sampled: u64,
    pub(crate) not_sampled: u64,
    pub(crate) late_dropped: u64,
}

impl Reference {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            pending: BTreeMap::new(),
            decided: BTreeMap::new(),
            kept: Vec::new(),
            late: Vec::new(),
            late_groups: 0,
            joined: 0,
            brought_back: BTreeSet::new(),
            sampled: 0,
            not_sampled: 0,
            late_dropped: 0,
        }
    }

    pub(crate) fn insert(&mut self, data: &TracesData, now: u64) {
        // What this request has put among the kept and late ones is still there.
        let mut kept_now: BTreeMap<Id, usize> = BTreeMap::new();
        let mut late_now: BTreeMap<Id, Change> = BTreeMap::new();
        for run in runs(data) {
            let id = run[0].id();
            if let Some(&index) = kept_now.get(&id) {
                self.joined += run.len();
                let kept = &mut self.kept[index];
                kept.spans.extend(run.into_iter().map(|span| changed(span, kept.verdict.change)));
                continue;
            }
            if let Some(&change) = late_now.get(&id) {
                self.late.extend(run.into_iter().map(|span| changed(span, change)));
                continue;
            }
            match self.decided.get(&id) {
                Some(&Some(change)) => {
                    late_now.insert(id, change);
                    self.late.extend(run.into_iter().map(|span| changed(span, change)));
                }
                Some(None) if self.settings.keep_late_errors && run.iter().any(is_error) => {
                    let change = if self.settings.tracestate { Change::Erase } else { Change::Stay };
                    self.brought_back.insert(id);
                    self.decided.remove(&id);
                    if self.settings.remember_sampled {
                        self.decided.insert(id, Some(change));
                    }
                    late_now.insert(id, change);
                    self.late.extend(run.into_iter().map(|span| changed(span, change)));
                }
                Some(None) => self.late_dropped += run.len() as u64,
                None => {
                    let new = Pending { first: now, ..Pending::default() };
                    let trace = self.pending.entry(id).or_insert(new);
                    if run.iter().any(Placed::is_root) {
                        trace.root.get_or_insert(now);
                    }
                    trace.last = now;
                    trace.spans.extend(run);
                    if self.settings.span_limit.is_some_and(|limit| trace.spans.len() as u64 >= limit)
                        && self.decide_one(id, vec!["spans"])
                    {
                        kept_now.insert(id, self.kept.len() - 1);
                    }
                }
            }
        }
        self.late_groups += late_now.len();
    }

    /// Decides what is due.
    pub(crate) fn decide(&mut self, now: u64) {
        let due = |trace: &Pending| -> Vec<&'static str> {
            let by_root = trace.root.zip(self.settings.after_root).map(|(root, wait)| root + wait);
            let by_silence = self.settings.after_last.map(|wait| trace.last + wait);
            let by_wait = trace.first + self.settings.decision_wait;
            let times = [("root", by_root), ("idle", by_silence), ("wait", Some(by_wait))];
            times.into_iter().filter(|(_, due)| due.is_some_and(|due| now >= due)).map(|(name, _)| name).collect()
        };
        let found: Vec<(Id, Vec<_>)> = self.pending.iter().map(|(&id, trace)| (id, due(trace))).collect();
        for (id, triggers) in found.into_iter().filter(|(_, triggers)| !triggers.is_empty()) {
            self.decide_one(id, triggers);
        }
    }

    /// Decides everything on what has arrived, or discards it.
    pub(crate) fn shut_down(&mut self) {
        let ids: Vec<Id> = self.pending.keys().copied().collect();
        if self.settings.drop_pending {
            self.pending.clear();
        } else {
            for id in ids {
                self.decide_one(id, vec!["shutdown"]);
            }
        }
    }

    /// Is the trace kept?
    fn decide_one(&mut self, id: Id, triggers: Vec<&'static str>) -> bool {
        let spans = self.pending.remove(&id).expect("it is pending").spans;
        let verdict = self.settings.verdict(id, &spans);
        let is_kept = verdict.keeps();
        let Settings { remember_sampled, remember_others, .. } = self.settings;
        if (is_kept && remember_sampled) || (!is_kept && remember_others) {
            self.decided.insert(id, is_kept.then_some(verdict.change));
        }
        match verdict.decision {
            "sampled" => self.sampled += 1,
            _ => self.not_sampled += 1,
        }
        if is_kept {
            let spans = spans.into_iter().map(|span| changed(span, verdict.change)).collect();
            self.kept.push(Kept { id, verdict, triggers, spans });
        }
        is_kept
    }
}

/// What brings a trace back.
fn is_error(placed: &Placed) -> bool {
    placed.status() == ERROR || placed.has_exception()
}
