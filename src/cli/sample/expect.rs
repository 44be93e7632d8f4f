//! What is expected of a replay: the file of `--expect`.

use std::collections::BTreeMap;

use nyquist_core::config::{Check, Diagnostics, Located, Problem, Validate};
use nyquist_core::pipeline::parse_trace_id;
use nyquist_processors::tail_sampling::config::TailSamplingConfig;
use nyquist_processors::tail_sampling::explain::{Decided, triggers};
use nyquist_processors::tail_sampling::replay::{Report, TraceReport};
use serde::Deserialize;

use crate::cli::output::{decimal, printable};

/// Where no rule decided.
const NO_RULE: &str = "none";

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Expectations {
    traces: Vec<TraceExpectation>,
    summary: SummaryExpectation,
}

/// Of one trace, or of all with a span of some name.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TraceExpectation {
    trace_id: Option<String>,
    span_name: Option<String>,
    decision: Option<Decision>,
    rule: Option<String>,
    trigger: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Decision {
    Sampled,
    NotSampled,
    Dropped,
}

impl Decision {
    fn name(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::NotSampled => "not_sampled",
            Self::Dropped => "dropped",
        }
    }
}

/// Of all traces together.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SummaryExpectation {
    traces: Option<Bounds>,
    kept_traces: Option<Bounds>,
    kept_percentage: Option<Bounds>,
    expected_kept_traces: Option<Bounds>,
    spans: Option<Bounds>,
    kept_spans: Option<Bounds>,
    kept_bytes: Option<Bounds>,
    rules: BTreeMap<String, RuleExpectation>,
}

/// Of the traces that one rule decided.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuleExpectation {
    traces: Option<Bounds>,
    kept_traces: Option<Bounds>,
}

/// Both inclusive.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Bounds {
    min: Option<f64>,
    max: Option<f64>,
}

impl Bounds {
    fn holds(self, value: f64) -> bool {
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }

    fn describe(self) -> String {
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("from {} to {}", decimal(min, 6), decimal(max, 6)),
            (Some(min), None) => format!("at least {}", decimal(min, 6)),
            (None, Some(max)) => format!("at most {}", decimal(max, 6)),
            (None, None) => "anything".to_owned(),
        }
    }
}

impl SummaryExpectation {
    fn bounds(&self) -> [(&'static str, Option<Bounds>); 7] {
        [
            ("traces", self.traces),
            ("kept_traces", self.kept_traces),
            ("kept_percentage", self.kept_percentage),
            ("expected_kept_traces", self.expected_kept_traces),
            ("spans", self.spans),
            ("kept_spans", self.kept_spans),
            ("kept_bytes", self.kept_bytes),
        ]
    }
}

impl RuleExpectation {
    fn bounds(&self) -> [(&'static str, Option<Bounds>); 2] {
        [("traces", self.traces), ("kept_traces", self.kept_traces)]
    }
}

impl Validate for Expectations {
    fn validate(&self, check: &mut Check<'_>) {
        let rules = self.summary.rules.iter();
        let of_rules = rules.flat_map(|(name, rule)| {
            rule.bounds().map(|(key, bounds)| (vec!["summary", "rules", name.as_str(), key], bounds))
        });
        let of_all = self.summary.bounds().into_iter().map(|(key, bounds)| (vec!["summary", key], bounds));
        let mut some = !self.traces.is_empty();
        for (path, bounds) in of_all.chain(of_rules) {
            let Some(bounds) = bounds else { continue };
            some = true;
            if bounds.min.is_none() && bounds.max.is_none() {
                check.error(&path, "min or max is required");
            }
            if bounds.min.zip(bounds.max).is_some_and(|(min, max)| min > max) {
                check.error(&path, "min is above max: nothing would do");
            }
        }
        if !some {
            check.error(&[], "nothing is expected here: list `traces`, or give bounds under `summary`");
        }
        for (index, trace) in self.traces.iter().enumerate() {
            trace.validate(&index.to_string(), check);
        }
    }
}

impl TraceExpectation {
    fn validate(&self, index: &str, check: &mut Check<'_>) {
        match (&self.trace_id, &self.span_name) {
            (Some(id), None) => {
                if let Err(message) = parse_trace_id(id) {
                    check.error(&["traces", index, "trace_id"], message);
                }
            }
            (None, Some(_)) => {}
            _ => check.error(&["traces", index], "exactly one of trace_id, span_name is required"),
        }
        if self.decision.is_none() && self.rule.is_none() && self.trigger.is_none() {
            check.error(&["traces", index], "what is expected is missing: decision, rule or trigger");
        }
        if let Some(trigger) = self.trigger.as_deref().filter(|trigger| triggers().all(|known| known != *trigger)) {
            let known: Vec<&str> = triggers().collect();
            let message = format!("unknown trigger {trigger:?}: the triggers are {}", known.join(", "));
            check.error(&["traces", index, "trigger"], message);
        }
    }

    /// Is it about this trace?
    fn is_about(&self, trace: &TraceReport) -> bool {
        let by_id = self.trace_id.as_deref().and_then(|id| parse_trace_id(id).ok());
        match (by_id, &self.span_name) {
            (Some(id), _) => trace.trace_id == format!("{:032x}", u128::from_be_bytes(id)),
            (None, Some(name)) => trace.names.contains(name.as_str()),
            (None, None) => false,
        }
    }

    /// What it is about, for messages.
    fn subject(&self) -> String {
        match (&self.trace_id, &self.span_name) {
            (Some(id), _) => format!("trace {id}"),
            (None, name) => format!("a trace with a span {:?}", name.as_deref().unwrap_or_default()),
        }
    }

    /// The keys whose expectation a decision does not meet, with what is expected and what is.
    fn misses(&self, decided: &Decided) -> Vec<(&'static str, String, String)> {
        let expected = [
            ("decision", self.decision.map(Decision::name), decided.decision.as_str()),
            ("rule", self.rule.as_deref(), decided.rule.as_deref().unwrap_or(NO_RULE)),
            ("trigger", self.trigger.as_deref(), decided.trigger.as_str()),
        ];
        let missed = expected.into_iter().filter_map(|(key, expected, actual)| {
            let expected = expected.filter(|expected| *expected != actual)?;
            Some((key, expected.to_owned(), actual.to_owned()))
        });
        missed.collect()
    }
}

/// Checks that every rule that is spoken of exists.
pub(super) fn check_names(
    expectations: &Located<Expectations>,
    sampler: &TailSamplingConfig,
) -> Result<(), Diagnostics> {
    let rules = sampler.rules.iter().map(|rule| rule.name.as_str());
    let names: Vec<&str> = rules.chain(sampler.policies.iter().map(|policy| policy.name.as_str())).collect();
    let mut diagnostics = Diagnostics::default();
    let mut check = |path: &[&str], name: &str| {
        if name != NO_RULE && !names.contains(&name) {
            let message = format!("there is no rule or policy {name:?}: there are {}", names.join(", "));
            diagnostics.push(expectations.problem(path, message));
        }
    };
    for (index, trace) in expectations.value.traces.iter().enumerate() {
        if let Some(rule) = &trace.rule {
            check(&["traces", &index.to_string(), "rule"], rule);
        }
    }
    for name in expectations.value.summary.rules.keys() {
        check(&["summary", "rules", name], name);
    }
    if diagnostics.errors.is_empty() { Ok(()) } else { Err(diagnostics) }
}

/// The expectations that the outcome does not meet, each at its place in the file.
pub(super) fn misses(expectations: &Located<Expectations>, report: &Report) -> Vec<Problem> {
    let mut misses = Vec::new();
    for (index, expected) in expectations.value.traces.iter().enumerate() {
        let index = index.to_string();
        let mut found = false;
        for trace in report.traces.iter().filter(|trace| expected.is_about(trace)) {
            found = true;
            for decided in &trace.decisions {
                for (key, wanted, actual) in expected.misses(decided) {
                    let root = trace.root.as_deref().map(|root| format!(" ({})", printable(root)));
                    let message = format!(
                        "trace {}{}: {key} is {actual}, expected {wanted}",
                        trace.trace_id,
                        root.unwrap_or_default()
                    );
                    misses.push(expectations.problem(&["traces", &index, key], message));
                }
            }
        }
        if !found {
            let message = format!("{} was not recorded", expected.subject());
            misses.push(expectations.problem(&["traces", &index], message));
        }
    }
    let mut bound = |path: &[&str], bounds: Option<Bounds>, actual: f64| {
        if let Some(bounds) = bounds.filter(|bounds| !bounds.holds(actual)) {
            let key = path.last().copied().unwrap_or_default();
            let message = format!("{key} is {}, expected {}", decimal(actual, 2), bounds.describe());
            misses.push(expectations.problem(path, message));
        }
    };
    let summary = &report.summary;
    let actual = [
        summary.traces as f64,
        summary.kept_traces as f64,
        summary.kept_percentage,
        summary.expected_kept_traces,
        summary.spans as f64,
        summary.kept_spans as f64,
        summary.kept_bytes as f64,
    ];
    for ((key, bounds), actual) in expectations.value.summary.bounds().into_iter().zip(actual) {
        bound(&["summary", key], bounds, actual);
    }
    for (name, expected) in &expectations.value.summary.rules {
        let line = summary.rules.iter().find(|line| line.rule.as_deref().unwrap_or(NO_RULE) == name);
        let actual = line.map_or([0, 0], |line| [line.traces, line.kept_traces]);
        for ((key, bounds), actual) in expected.bounds().into_iter().zip(actual) {
            bound(&["summary", "rules", name, key], bounds, actual as f64);
        }
    }
    misses
}
