//! The tables in testdata: traces in, decisions out.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::common::v1::{InstrumentationScope, KeyValue};
use nyquist_core::proto::trace::v1::span::Event;
use nyquist_core::proto::trace::v1::{Span, Status, TracesData};
use serde::Deserialize;

use super::support::{Id, Rig, attribute, by_trace, millis, resource, resource_spans, text};
use crate::tail_sampling::config::{RuleConfig, ScalarValue, TailSamplingConfig};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: u32,
    #[serde(default)]
    #[expect(dead_code, reason = "it explains the case to readers")]
    why: String,
    not_reproduced: Option<String>,
    same: Option<u32>,
    #[serde(default)]
    config: serde_yaml::Mapping,
    policies: Option<Vec<serde_yaml::Value>>,
    rules: Option<Vec<RuleConfig>>,
    #[serde(default)]
    spans: Vec<CaseSpan>,
    #[serde(default)]
    sequence: Vec<Step>,
    #[serde(default)]
    batches: Vec<CaseBatch>,
    between: Option<[u64; 2]>,
    between_ours: Option<[u64; 2]>,
    shutdown: Option<u64>,
    x: Option<Expect>,
    x_ours: Option<Expect>,
    #[serde(default)]
    ids: BTreeMap<String, Expect>,
    by: Option<String>,
    th: Option<String>,
    composite_policy: Option<String>,
    composite_policy_ours: Option<String>,
    #[serde(default)]
    votes: BTreeMap<String, [u64; 2]>,
    #[serde(default)]
    metrics: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expect {
    Sampled,
    NotSampled,
    Dropped,
    Refused,
    /// The Collector's.
    Crash,
}

/// Which column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Ours,
    Collectors,
}

impl Column {
    fn pick<T: Copy>(self, collectors: Option<T>, ours: Option<T>) -> Option<T> {
        if self == Self::Ours { ours.or(collectors) } else { collectors }
    }
}

type Attributes = BTreeMap<String, ScalarValue>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CaseSpan {
    name: String,
    parent: u8,
    start: Option<u64>,
    d: Option<f64>,
    end: Option<u64>,
    s: Option<String>,
    a: Attributes,
    r: Attributes,
    scope: Attributes,
    scope_name: String,
    scope_version: String,
    flags: u32,
    tracestate: String,
    events: Vec<CaseEvent>,
    big: usize,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CaseEvent {
    name: String,
    a: Attributes,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(default)]
    at: u64,
    #[serde(default)]
    a: Attributes,
    n: usize,
    x: Expect,
    x_ours: Option<Expect>,
    composite_ours: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseBatch {
    t: u64,
    #[serde(default)]
    id: Option<String>,
    spans: Vec<CaseSpan>,
    x: Fate,
    x_ours: Option<Fate>,
}

/// What becomes of a batch's spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Fate {
    Kept,
    Gone,
    /// The Collector's.
    Stall,
}

fn attributes(values: &Attributes) -> Vec<KeyValue> {
    values
        .iter()
        .map(|(key, value)| {
            let value = match value {
                ScalarValue::String(value) => text(value),
                ScalarValue::Int(value) => Value::IntValue(*value),
                ScalarValue::Double(value) => Value::DoubleValue(*value),
                ScalarValue::Bool(value) => Value::BoolValue(*value),
            };
            attribute(key, value)
        })
        .collect()
}

fn request(id: Id, spans: &[CaseSpan]) -> TracesData {
    let mut data = TracesData::default();
    for case in spans {
        let start = case.start.unwrap_or(1000) * 1_000_000;
        let end = case.end.map_or(start + (case.d.unwrap_or(100.0) * 1e6) as u64, |end| end * 1_000_000);
        let mut attributes_of_span = attributes(&case.a);
        if case.big > 0 {
            attributes_of_span.push(attribute("big", text(&"x".repeat(case.big))));
        }
        let code = ["UNSET", "OK", "ERROR"].iter().position(|name| case.s.as_deref() == Some(name));
        let span = Span {
            trace_id: id.to_vec(),
            span_id: vec![7; 8],
            parent_span_id: if case.parent == 0 { vec![] } else { vec![case.parent; 8] },
            name: case.name.clone(),
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes: attributes_of_span,
            status: code.map(|code| Status { code: code as i32, ..Status::default() }),
            flags: case.flags,
            trace_state: case.tracestate.clone(),
            events: case
                .events
                .iter()
                .map(|event| Event { name: event.name.clone(), attributes: attributes(&event.a), ..Event::default() })
                .collect(),
            ..Span::default()
        };
        let mut group = resource_spans(resource(attributes(&case.r)), vec![span]);
        let scope = InstrumentationScope {
            name: case.scope_name.clone(),
            version: case.scope_version.clone(),
            attributes: attributes(&case.scope),
            ..InstrumentationScope::default()
        };
        group.scope_spans[0].scope = Some(scope);
        data.resource_spans.push(group);
    }
    data
}

/// By a name of the table, or as it is.
fn trace_id(name: &str) -> Id {
    static IDS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| corpus().trace_ids);
    let hex = IDS.get(name).map_or(name, String::as_str);
    hex::decode(hex).unwrap().try_into().unwrap()
}

/// What became of a trace.
struct Outcome {
    what: Expect,
    /// Who says so.
    by: Option<String>,
    composite: Option<String>,
    trace_state: String,
}

fn put_through(rig: &Rig, id: Id, spans: &[CaseSpan], at: u64) -> Outcome {
    let dropped = || rig.metric("global_count_traces_sampled", &[("sampled", "false"), ("decision", "dropped")]);
    let dropped_before = dropped();
    rig.insert(&request(id, spans), millis(at));
    let kept = rig.finish(millis(at));
    if let Some(first) = kept.first() {
        assert_eq!(by_trace(&kept)[&id], spans.len(), "a trace is kept whole");
        let by = first.text("tailsampling.policy").or_else(|| first.text("nyquist.sampling.rule"));
        let composite = first.text("tailsampling.composite_policy");
        return Outcome { what: Expect::Sampled, by, composite, trace_state: first.span.trace_state.clone() };
    }
    let what = if dropped() > dropped_before { Expect::Dropped } else { Expect::NotSampled };
    Outcome { what, by: None, composite: None, trace_state: String::new() }
}

fn config(case: &Case, cases: &[Case], column: Column) -> Result<TailSamplingConfig, String> {
    let mut section = case.config.clone();
    let source = case.same.map_or(case, |id| cases.iter().find(|other| other.id == id).expect("the case exists"));
    if let Some(policies) = &source.policies {
        section.insert("policies".into(), policies.clone().into());
        if column == Column::Collectors {
            section.insert("compat".into(), "otelcol".into());
        }
    }
    // Through the reader of configurations, which knows unknown keys.
    let text = serde_yaml::to_string(&section).expect("it can be written");
    let mut config = super::support::read_config(&text)?;
    config.rules = source.rules.clone().unwrap_or_default();
    config.memory_limit_mib = 64;
    Ok(config)
}

fn run(case: &Case, cases: &[Case], column: Column) {
    let id = case.id;
    let x = column.pick(case.x, case.x_ours);
    let rig = match config(case, cases, column).and_then(|config| Rig::of(&config)) {
        Err(_) if x == Some(Expect::Refused) => return,
        Err(error) => panic!("case {id}: refused: {error}"),
        Ok(rig) => rig,
    };
    assert_ne!(x, Some(Expect::Refused), "case {id}: the configuration should be refused");
    let mut ids: Vec<(Id, Expect)> = case.ids.iter().map(|(name, expect)| (trace_id(name), *expect)).collect();
    if let Some(x) = x {
        ids.push((trace_id("T3"), x));
    }
    for (trace, expect) in ids {
        let outcome = put_through(&rig, trace, &case.spans, 0);
        assert_eq!(outcome.what, expect, "case {id}, {column:?}, trace {}", hex::encode(trace));
        if case.by.is_some() {
            assert_eq!(outcome.by, case.by, "case {id}, {column:?}");
        }
        if let Some(th) = &case.th {
            let ot = outcome.trace_state.split([',', '=', ';']).find_map(|part| part.strip_prefix("th:"));
            assert_eq!(ot.unwrap_or("none"), th, "case {id}, {column:?}: {:?}", outcome.trace_state);
        }
    }
    for (index, step) in case.sequence.iter().enumerate() {
        let trace = (index as u128 + 1).to_be_bytes();
        let spans = vec![CaseSpan { a: step.a.clone(), ..CaseSpan::default() }; step.n];
        let outcome = put_through(&rig, trace, &spans, step.at);
        let x = column.pick(Some(step.x), step.x_ours);
        assert_eq!(Some(outcome.what), x, "case {id}, {column:?}, step {index}");
        let member = column.pick(case.composite_policy.as_ref(), case.composite_policy_ours.as_ref());
        let member = if column == Column::Ours { step.composite_ours.as_ref().or(member) } else { member };
        if member.is_some() {
            assert_eq!(outcome.composite.as_ref(), member, "case {id}, {column:?}, step {index}");
        }
    }
    run_batches(case, &rig, column);
    for (policy, [yes, no]) in &case.votes {
        let votes = |sampled: &str, decision: &str| {
            rig.metric("count_traces_sampled", &[("policy", policy), ("sampled", sampled), ("decision", decision)])
        };
        let against = votes("false", "not_sampled");
        assert_eq!((votes("true", "sampled") + votes("false", "dropped"), against), (*yes, *no), "case {id}: {policy}");
    }
    for (metric, count) in &case.metrics {
        let (name, labels) = metric.split_once('{').unwrap_or((metric, ""));
        let labels: Vec<(&str, &str)> = labels
            .trim_end_matches('}')
            .split_terminator(',')
            .map(|label| label.split_once('=').expect("a label has a value"))
            .map(|(key, value)| (key, value.trim_matches('"')))
            .collect();
        assert_eq!(rig.metric(name, &labels), *count, "case {id}, {column:?}: {metric}");
    }
}

/// Requests that come one after the other, with a simulated clock that ticks every 50 ms.
fn run_batches(case: &Case, rig: &Rig, column: Column) {
    const TICK: u64 = 50;
    /// Longer than any wait.
    const AFTER: u64 = 40_000;
    let Some(last) = case.batches.last() else {
        return;
    };
    assert!(case.batches.iter().all(|batch| batch.t % TICK == 0), "case {}: at a tick", case.id);
    let end = case.shutdown.unwrap_or(last.t + AFTER);
    let mut kept: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut first_at = None;
    let mut note = |spans: Vec<super::support::KeptSpan>, at: u64| {
        for span in spans {
            first_at.get_or_insert(at);
            *kept.entry(span.span.span_id).or_default() += 1;
        }
    };
    for now in (0..=end).step_by(TICK as usize) {
        for (index, batch) in case.batches.iter().enumerate().filter(|(_, batch)| batch.t == now) {
            let id = trace_id(batch.id.as_deref().unwrap_or("T3"));
            let mut data = request(id, &batch.spans);
            for group in &mut data.resource_spans {
                group.scope_spans[0].spans[0].span_id = vec![index as u8 + 1; 8];
            }
            assert!(!rig.sampler.must_wait(), "case {}: there is room", case.id);
            rig.insert(&data, millis(now));
        }
        rig.decide(millis(now));
        note(rig.take(millis(now)), now);
    }
    if case.shutdown.is_some() {
        let discard = case.config.contains_key("drop_pending_traces_on_shutdown");
        for shard in 0..rig.sampler.shards() {
            while rig.sampler.decide_all(shard, millis(end), 7, discard) {}
        }
        note(rig.take(millis(end)), end);
    }
    for (index, batch) in case.batches.iter().enumerate() {
        let found = kept.get(&vec![index as u8 + 1; 8]).copied().unwrap_or(0);
        let expected = match column.pick(Some(batch.x), batch.x_ours) {
            Some(Fate::Kept) => batch.spans.len(),
            Some(Fate::Gone) => 0,
            other => panic!("case {}: {other:?} is not reproduced", case.id),
        };
        assert_eq!(found, expected, "case {}, {column:?}, batch {index}", case.id);
    }
    if let Some([from, to]) = column.pick(case.between, case.between_ours) {
        let at = first_at.expect("something is kept");
        assert!((from..=to).contains(&at), "case {}, {column:?}: kept at {at} ms", case.id);
    }
}

/// The table of policies.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    trace_ids: BTreeMap<String, String>,
    cases: Vec<Case>,
}

fn corpus() -> Corpus {
    serde_yaml::from_str(include_str!("corpus.yaml")).expect("the table can be read")
}

#[test]
fn policies_decide_as_the_table_says() {
    let cases = corpus().cases;
    for case in &cases {
        run(case, &cases, Column::Ours);
        if case.not_reproduced.is_none() {
            run(case, &cases, Column::Collectors);
        }
    }
}

#[test]
fn rules_decide_as_the_table_says() {
    let cases: Vec<Case> = serde_yaml::from_str(include_str!("rules.yaml")).expect("the table can be read");
    for case in &cases {
        run(case, &cases, Column::Ours);
    }
}

/// The cases of the specification's table that are the sampler's, by number. (120 to 123 are about the ring and the
/// settings of `load_balancing`, and tested there.)
const SPECIFIED: [std::ops::RangeInclusive<u32>; 16] = [
    1..=6,
    10..=20,
    21..=29,
    30..=38,
    40..=52,
    55..=62,
    65..=69,
    70..=82,
    85..=89,
    90..=92,
    95..=101,
    102..=108,
    109..=109,
    110..=114,
    115..=118,
    130..=136,
];

/// No case of the specification is left out, none is there twice, and those whose outcome in the Collector is a
/// crash, a stall or a loss that is not brought back are few and say so.
#[test]
fn every_case_of_the_specification_is_in_the_table() {
    let cases = corpus().cases;
    let mut ids: Vec<u32> = cases.iter().map(|case| case.id).collect();
    let specified: Vec<u32> = SPECIFIED.into_iter().flatten().collect();
    assert_eq!(specified.len(), 113);
    let missing: Vec<&u32> = specified.iter().filter(|id| !ids.contains(id)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "a number is used twice");
    let skipped: Vec<u32> = cases.iter().filter(|case| case.not_reproduced.is_some()).map(|case| case.id).collect();
    assert_eq!(skipped, [6, 7, 26, 100, 102, 103, 105], "each of them says why");
    for case in cases.iter().filter(|case| case.not_reproduced.is_some()) {
        let has_outcome = case.x_ours.is_some() || !case.batches.is_empty();
        assert!(has_outcome, "case {}: it has to say what is expected here", case.id);
    }
}
