//! A replay in numbers.

use serde::Serialize;

use super::TraceReport;

/// What is kept of all recorded traces.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Recorded traces.
    pub traces: u64,
    /// Traces that are kept.
    pub kept_traces: u64,
    /// ... in percent of all.
    pub kept_percentage: f64,
    /// What rates keep of traces like these in the long run: the sum of the rates of the rules
    /// that decided them.
    pub expected_kept_traces: f64,
    /// Recorded spans.
    pub spans: u64,
    /// Spans that are kept.
    pub kept_spans: u64,
    /// Bytes of recorded spans.
    pub bytes: u64,
    /// Bytes of spans that are kept.
    pub kept_bytes: u64,
    /// By the rule that decided a trace first, in the order of the rules; last those that none
    /// decided.
    pub rules: Vec<RuleSummary>,
}

/// What one rule or policy decided.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RuleSummary {
    /// Its name; `None` for traces that none decided.
    pub rule: Option<String>,
    /// Traces that it decided.
    pub traces: u64,
    /// Those that are kept.
    pub kept_traces: u64,
    /// What its rate keeps of so many in the long run.
    pub expected_kept_traces: f64,
    /// Spans of traces that it decided.
    pub spans: u64,
    /// Those that are kept.
    pub kept_spans: u64,
    /// Bytes of spans of traces that it decided.
    pub bytes: u64,
    /// Those that are kept.
    pub kept_bytes: u64,
}

impl RuleSummary {
    fn add(&mut self, trace: &TraceReport, expected: f64) {
        self.traces += 1;
        self.kept_traces += u64::from(trace.is_kept());
        self.expected_kept_traces += expected;
        self.spans += trace.spans;
        self.kept_spans += trace.kept_spans;
        self.bytes += trace.bytes;
        self.kept_bytes += trace.kept_bytes();
    }
}

impl Summary {
    pub(super) fn of(traces: &[TraceReport]) -> Self {
        let first = traces.iter().find_map(|trace| trace.decisions.first());
        let names = first.iter().flat_map(|decided| &decided.votes).map(|vote| Some(vote.rule.clone()));
        let mut rules: Vec<RuleSummary> =
            names.chain([None]).map(|rule| RuleSummary { rule, ..RuleSummary::default() }).collect();
        let mut all = RuleSummary::default();
        for trace in traces {
            let decided = trace.decisions.first();
            let rule = decided.and_then(|decided| decided.rule.as_ref());
            let actual = if trace.is_kept() { 1.0 } else { 0.0 };
            let rate = decided.and_then(|decided| decided.sampling_percentage);
            let expected = rate.map_or(actual, |percentage| percentage / 100.0);
            all.add(trace, expected);
            let index = rules.iter().position(|line| line.rule.as_ref() == rule);
            let line = match index {
                Some(index) => rules.get_mut(index),
                // Beyond those whose votes are remembered.
                None => {
                    let place = rules.len().saturating_sub(1);
                    rules.insert(place, RuleSummary { rule: rule.cloned(), ..RuleSummary::default() });
                    rules.get_mut(place)
                }
            };
            if let Some(line) = line {
                line.add(trace, expected);
            }
        }
        // A line without a rule only where there is something to say.
        rules.retain(|line| line.rule.is_some() || line.traces > 0);
        Self {
            traces: all.traces,
            kept_traces: all.kept_traces,
            kept_percentage: percentage(all.kept_traces, all.traces),
            expected_kept_traces: all.expected_kept_traces,
            spans: all.spans,
            kept_spans: all.kept_spans,
            bytes: all.bytes,
            kept_bytes: all.kept_bytes,
            rules,
        }
    }
}

/// `part` in percent of `whole`; 0 of nothing.
fn percentage(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}
