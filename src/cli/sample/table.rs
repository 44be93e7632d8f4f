//! The outcome of `nyquist sample` for people.

use nyquist_processors::tail_sampling::explain::Decided;
use nyquist_processors::tail_sampling::replay::{Report, RuleSummary, Summary, TraceReport};

use crate::cli::output::Align::{Left, Right};
use crate::cli::output::{Table, bytes, count, decimal, millis, share};

pub(super) fn render(report: &Report) -> String {
    let mut table = Table::new(&[
        ("trace", Left),
        ("root", Left),
        ("spans", Right),
        ("duration", Right),
        ("decision", Left),
        ("rule", Left),
        ("trigger", Left),
        ("matched", Left),
    ]);
    for trace in &report.traces {
        for (index, decided) in trace.decisions.iter().enumerate() {
            table.row(row(trace, decided, index + 1 == trace.decisions.len()));
        }
    }
    format!("{}\n{}\n{}", table.render(), headline(&report.summary), by_rule(&report.summary))
}

fn row(trace: &TraceReport, decided: &Decided, is_last: bool) -> [String; 8] {
    let matched: Vec<&str> = decided.votes.iter().filter(|vote| vote.matched).map(|vote| vote.rule.as_str()).collect();
    let or_none = |text: Option<&str>, none: &str| text.unwrap_or(none).to_owned();
    let rule = match (&decided.rule, &decided.sub_policy) {
        (Some(rule), Some(sub_policy)) => format!("{rule} ({sub_policy})"),
        (rule, _) => or_none(rule.as_deref(), "-"),
    };
    let late = trace.spans.saturating_sub(trace.decisions.iter().map(|decided| decided.spans).sum());
    let late = if is_last && late > 0 { format!(" (+{late} late)") } else { String::new() };
    [
        trace.trace_id.clone(),
        or_none(trace.root.as_deref(), "(no root)"),
        format!("{}{late}", decided.spans),
        millis(decided.duration_ms),
        decided.decision.clone(),
        rule,
        decided.trigger.clone(),
        if matched.is_empty() { "-".to_owned() } else { matched.join(", ") },
    ]
}

fn headline(summary: &Summary) -> String {
    format!(
        "{}, {}, {} of spans\nkept: {} ({}), {} ({}), {} ({})\n",
        count(summary.traces, "trace"),
        count(summary.spans, "span"),
        bytes(summary.bytes),
        count(summary.kept_traces, "trace"),
        share(summary.kept_traces, summary.traces),
        count(summary.kept_spans, "span"),
        share(summary.kept_spans, summary.spans),
        bytes(summary.kept_bytes),
        share(summary.kept_bytes, summary.bytes),
    )
}

fn by_rule(summary: &Summary) -> String {
    let mut table = Table::new(&[
        ("decided by", Left),
        ("traces", Right),
        ("kept", Right),
        ("expected", Right),
        ("spans", Right),
        ("kept", Right),
        ("bytes", Right),
        ("kept", Right),
    ]);
    for line in &summary.rules {
        table.row(line_of(line.rule.as_deref().unwrap_or("-"), line));
    }
    let total = RuleSummary {
        rule: None,
        traces: summary.traces,
        kept_traces: summary.kept_traces,
        expected_kept_traces: summary.expected_kept_traces,
        spans: summary.spans,
        kept_spans: summary.kept_spans,
        bytes: summary.bytes,
        kept_bytes: summary.kept_bytes,
    };
    table.row(line_of("total", &total));
    table.render()
}

fn line_of(name: &str, line: &RuleSummary) -> [String; 8] {
    [
        name.to_owned(),
        line.traces.to_string(),
        line.kept_traces.to_string(),
        decimal(line.expected_kept_traces, 2),
        line.spans.to_string(),
        line.kept_spans.to_string(),
        bytes(line.bytes),
        bytes(line.kept_bytes),
    ]
}
