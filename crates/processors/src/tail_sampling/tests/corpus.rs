//! The tables in testdata: traces in, decisions out.

use std::collections::BTreeMap;

use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::common::v1::{InstrumentationScope, KeyValue};
use nyquist_core::proto::trace::v1::span::Event;
use nyquist_core::proto::trace::v1::{Span, Status, TracesData};
use serde::Deserialize;

use super::support::{Id, Rig, attribute, by_trace, millis, resource, resource_spans, text};
use crate::tail_sampling::config::{PolicyConfig, RuleConfig, ScalarValue, TailSamplingConfig};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: u32,
    #[serde(default)]
    #[expect(dead_code, reason = "it explains the case to readers")]
    ours: String,
    same: Option<u32>,
    #[serde(default)]
    config: serde_yaml::Mapping,
    policies: Option<Vec<PolicyConfig>>,
    rules: Option<Vec<RuleConfig>>,
    #[serde(default)]
    spans: Vec<CaseSpan>,
    #[serde(default)]
    sequence: Vec<Step>,
    expect: Option<Expect>,
    #[serde(default)]
    ids: BTreeMap<String, Expect>,
    by: Option<String>,
    composite_policy: Option<String>,
    #[serde(default)]
    votes: BTreeMap<String, [u64; 2]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expect {
    Sampled,
    NotSampled,
    Dropped,
    Refused,
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
    expect: Expect,
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
        let scope = InstrumentationScope { attributes: attributes(&case.scope), ..InstrumentationScope::default() };
        group.scope_spans[0].scope = Some(scope);
        data.resource_spans.push(group);
    }
    data
}

fn trace_id(name: &str) -> Id {
    let hex = match name {
        "T1" => "00000000000000000000000000000001",
        "T2" => "0102030405060708090a0b0c0d0e0f10",
        "T3" => "4bf92f3577b34da6a3ce929d0e0e4736",
        "T4" => "ffffffffffffffffffffffffffffffff",
        "T5" => "5b8efff798038103d269b633813fc60c",
        "T6" => "7bba9f33312b3dbb8b2c2c62bb7abe2d",
        other => panic!("no trace id is called {other}"),
    };
    hex::decode(hex).unwrap().try_into().unwrap()
}

/// Puts one trace through; what became of it, and who says so.
fn put_through(rig: &Rig, id: Id, spans: &[CaseSpan], at: u64) -> (Expect, Option<String>, Option<String>) {
    let dropped = || rig.metric("global_count_traces_sampled", &[("sampled", "false"), ("decision", "dropped")]);
    let dropped_before = dropped();
    rig.insert(&request(id, spans), millis(at));
    let kept = rig.finish(millis(at));
    if let Some(first) = kept.first() {
        assert_eq!(by_trace(&kept)[&id], spans.len(), "a trace is kept whole");
        let by = first.text("tailsampling.policy").or_else(|| first.text("nyquist.sampling.rule"));
        return (Expect::Sampled, by, first.text("tailsampling.composite_policy"));
    }
    (if dropped() > dropped_before { Expect::Dropped } else { Expect::NotSampled }, None, None)
}

fn config(case: &Case, cases: &[Case]) -> TailSamplingConfig {
    let mut config: TailSamplingConfig =
        serde_yaml::from_value(serde_yaml::Value::Mapping(case.config.clone())).expect("a configuration");
    let source = case.same.map_or(case, |id| cases.iter().find(|other| other.id == id).expect("the case exists"));
    config.policies = source.policies.clone().unwrap_or_default();
    config.rules = source.rules.clone().unwrap_or_default();
    config.memory_limit_mib = 64;
    config
}

fn run(case: &Case, cases: &[Case]) {
    let id = case.id;
    let rig = match Rig::of(&config(case, cases)) {
        Err(_) if case.expect == Some(Expect::Refused) => return,
        Err(error) => panic!("case {id}: refused: {error}"),
        Ok(rig) => rig,
    };
    assert_ne!(case.expect, Some(Expect::Refused), "case {id}: the configuration should be refused");
    let mut ids: Vec<(Id, Expect)> = case.ids.iter().map(|(name, expect)| (trace_id(name), *expect)).collect();
    if let Some(expect) = case.expect {
        ids.push((trace_id("T3"), expect));
    }
    for (trace, expect) in ids {
        let (what, by, _) = put_through(&rig, trace, &case.spans, 0);
        assert_eq!(what, expect, "case {id}, trace {}", hex::encode(trace));
        if case.by.is_some() {
            assert_eq!(by, case.by, "case {id}");
        }
    }
    for (index, step) in case.sequence.iter().enumerate() {
        let trace = (index as u128 + 1).to_be_bytes();
        let spans = vec![CaseSpan { a: step.a.clone(), ..CaseSpan::default() }; step.n];
        let (what, _, composite) = put_through(&rig, trace, &spans, step.at);
        assert_eq!(what, step.expect, "case {id}, step {index}");
        if case.composite_policy.is_some() {
            assert_eq!(composite, case.composite_policy, "case {id}");
        }
    }
    for (policy, [yes, no]) in &case.votes {
        let votes = |sampled: &str, decision: &str| {
            rig.metric("count_traces_sampled", &[("policy", policy), ("sampled", sampled), ("decision", decision)])
        };
        let against = votes("false", "not_sampled");
        assert_eq!((votes("true", "sampled") + votes("false", "dropped"), against), (*yes, *no), "case {id}: {policy}");
    }
}

#[test]
fn policies_decide_as_the_table_says() {
    let cases: Vec<Case> = serde_yaml::from_str(include_str!("../testdata/policies.yaml")).unwrap();
    for case in &cases {
        run(case, &cases);
    }
}

#[test]
fn rules_decide_as_the_table_says() {
    let cases: Vec<Case> = serde_yaml::from_str(include_str!("../testdata/rules.yaml")).unwrap();
    for case in &cases {
        run(case, &cases);
    }
}
