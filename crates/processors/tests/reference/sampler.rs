//! The reference sampler: which spans are kept, when, and why.

use std::collections::{BTreeMap, BTreeSet};

use nyquist_core::proto::trace::v1::TracesData;
use serde_json::{Value as Json, json};

use crate::conditions::{Rule, first_match, keeps};
use crate::policies::{Decision, Named, decide};
use crate::spans::{Id, Placed, flatten};

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
        });
        match &self.what {
            What::Rules(rules) => {
                json["rules"] = rules.iter().map(Rule::json).collect();
                // Spans are compared as they came.
                json["tracestate"] = json!(false);
            }
            What::Policies(policies) => {
                json["policies"] = policies.iter().map(Named::json).collect();
                json["sample_on_first_match"] = json!(self.first_match);
            }
        }
        if let Some(after_root) = self.after_root {
            json["decision_wait_after_root_received"] = json!(format!("{after_root}s"));
        }
        if let Some(after_last) = self.after_last {
            json["decision_wait_after_last_span"] = json!(format!("{after_last}s"));
        }
        if !self.remember_sampled {
            json["decision_cache"]["sampled_cache_size"] = json!(0);
        }
        if !self.remember_others {
            json["decision_cache"]["non_sampled_cache_size"] = json!(0);
        }
        json
    }

    /// Why a trace is kept; none if it is not.
    pub(crate) fn verdict(&self, id: Id, spans: &[Placed]) -> Option<Why> {
        match &self.what {
            What::Rules(rules) => {
                let rule = first_match(rules, spans)?;
                keeps(rule.percentage, id).then(|| Why::Rule(rule.name.clone(), rule.percentage))
            }
            What::Policies(policies) => match decide(policies, id, spans) {
                Decision::Sampled(mut voters) => {
                    if self.first_match {
                        voters.truncate(1);
                    }
                    Some(Why::OneOf(voters))
                }
                Decision::NotSampled | Decision::Dropped => None,
            },
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Why {
    /// This rule, with its percentage.
    Rule(String, f64),
    /// One of these policies.
    OneOf(Vec<String>),
}

/// A trace that was decided to be kept.
pub(crate) struct Kept {
    pub(crate) id: Id,
    pub(crate) why: Why,
    pub(crate) spans: Vec<Placed>,
}

#[derive(Default)]
struct Pending {
    first: u64,
    root: Option<u64>,
    last: u64,
    spans: Vec<Placed>,
}

pub(crate) struct Reference {
    settings: Settings,
    pending: BTreeMap<Id, Pending>,
    /// What was decided on ids that are remembered.
    decided: BTreeMap<Id, bool>,
    pub(crate) kept: Vec<Kept>,
    /// Spans that came after their trace was decided to be kept.
    pub(crate) late: Vec<Placed>,
    /// How often such spans came: those of one trace in one request are one group.
    pub(crate) late_groups: usize,
    pub(crate) not_kept: u64,
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
            not_kept: 0,
            late_dropped: 0,
        }
    }

    pub(crate) fn insert(&mut self, data: &TracesData, now: u64) {
        let mut late = BTreeSet::new();
        for span in flatten(data.clone()) {
            match self.decided.get(&span.id()) {
                Some(true) => {
                    late.insert(span.id());
                    self.late.push(span);
                }
                Some(false) => self.late_dropped += 1,
                None => {
                    let new = Pending { first: now, ..Pending::default() };
                    let trace = self.pending.entry(span.id()).or_insert(new);
                    if span.is_root() {
                        trace.root.get_or_insert(now);
                    }
                    trace.last = now;
                    trace.spans.push(span);
                }
            }
        }
        self.late_groups += late.len();
    }

    /// Decides what is due.
    pub(crate) fn decide(&mut self, now: u64) {
        let due = |trace: &Pending| {
            let by_root = trace.root.zip(self.settings.after_root).map(|(root, wait)| root + wait);
            let by_silence = self.settings.after_last.map(|wait| trace.last + wait);
            let by_wait = trace.first + self.settings.decision_wait;
            [by_root, by_silence, Some(by_wait)].into_iter().flatten().any(|due| now >= due)
        };
        let ids: Vec<Id> = self.pending.iter().filter(|(_, trace)| due(trace)).map(|(&id, _)| id).collect();
        ids.into_iter().for_each(|id| self.decide_one(id));
    }

    /// Decides everything on what has arrived, or discards it.
    pub(crate) fn shut_down(&mut self) {
        let ids: Vec<Id> = self.pending.keys().copied().collect();
        if self.settings.drop_pending {
            self.pending.clear();
        } else {
            ids.into_iter().for_each(|id| self.decide_one(id));
        }
    }

    fn decide_one(&mut self, id: Id) {
        let spans = self.pending.remove(&id).expect("it is pending").spans;
        let verdict = self.settings.verdict(id, &spans);
        let remember = if verdict.is_some() { self.settings.remember_sampled } else { self.settings.remember_others };
        if remember {
            self.decided.insert(id, verdict.is_some());
        }
        match verdict {
            Some(why) => self.kept.push(Kept { id, why, spans }),
            None => self.not_kept += 1,
        }
    }
}
