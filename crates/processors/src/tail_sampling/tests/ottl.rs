//! Conditions in OpenTelemetry's language, in policies and in rules.

use std::collections::BTreeMap;

use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::common::v1::{InstrumentationScope, KeyValue};
use nyquist_core::proto::trace::v1::span::Event;
use nyquist_core::proto::trace::v1::{Span, Status, TracesData};
use nyquist_core::wire::{Fields, Value as Wire, put_len_field};
use prost::Message;
use serde::Deserialize;

use super::support::{Id, Rig, attribute, by_trace, request, resource, resource_spans, secs, span, text, warnings_of};
use crate::tail_sampling::config::{ScalarValue, TailSamplingConfig};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: u32,
    #[serde(default)]
    #[expect(dead_code, reason = "it explains the case to readers")]
    ours: String,
    same: Option<u32>,
    policies: Option<serde_yaml::Value>,
    rules: Option<serde_yaml::Value>,
    #[serde(default)]
    spans: Vec<CaseSpan>,
    expect: Expect,
    by: Option<String>,
    member: Option<String>,
    errors: Option<u64>,
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

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CaseSpan {
    name: String,
    parent: u8,
    d: Option<u64>,
    s: Option<String>,
    a: Attributes,
    r: Attributes,
    scope: Attributes,
    events: Vec<CaseEvent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CaseEvent {
    name: String,
    a: Attributes,
}

fn attributes(values: &Attributes) -> Vec<KeyValue> {
    let value = |value: &ScalarValue| match value {
        ScalarValue::String(value) => text(value),
        ScalarValue::Int(value) => Value::IntValue(*value),
        ScalarValue::Double(value) => Value::DoubleValue(*value),
        ScalarValue::Bool(value) => Value::BoolValue(*value),
    };
    values.iter().map(|(key, scalar)| attribute(key, value(scalar))).collect()
}

fn trace(id: Id, spans: &[CaseSpan]) -> TracesData {
    let groups = spans.iter().map(|case| {
        let event = |event: &CaseEvent| Event {
            name: event.name.clone(),
            attributes: attributes(&event.a),
            ..Event::default()
        };
        let code = ["UNSET", "OK", "ERROR"].iter().position(|name| case.s.as_deref() == Some(name));
        let span = Span {
            name: case.name.clone(),
            parent_span_id: if case.parent == 0 { vec![] } else { vec![case.parent; 8] },
            end_time_unix_nano: 1_000_000_000 + case.d.unwrap_or(100) * 1_000_000,
            attributes: attributes(&case.a),
            status: code.map(|code| Status { code: code as i32, ..Status::default() }),
            events: case.events.iter().map(event).collect(),
            ..span(id)
        };
        let mut group = resource_spans(resource(attributes(&case.r)), vec![span]);
        let scope = InstrumentationScope { attributes: attributes(&case.scope), ..InstrumentationScope::default() };
        group.scope_spans[0].scope = Some(scope);
        group
    });
    TracesData { resource_spans: groups.collect() }
}

fn config(case: &Case, cases: &[Case]) -> TailSamplingConfig {
    let source = case.same.map_or(case, |id| cases.iter().find(|other| other.id == id).expect("the case exists"));
    let mut config = serde_yaml::Mapping::new();
    config.insert("memory_limit_mib".into(), 64.into());
    for (key, list) in [("policies", &source.policies), ("rules", &source.rules)] {
        if let Some(list) = list {
            config.insert(key.into(), list.clone());
        }
    }
    serde_yaml::from_value(config.into()).expect("the configuration has the right types")
}

fn run(case: &Case, cases: &[Case]) {
    let number = case.id;
    let rig = match Rig::of(&config(case, cases)) {
        Err(_) if case.expect == Expect::Refused => return,
        Err(error) => panic!("case {number}: refused: {error}"),
        Ok(rig) => rig,
    };
    rig.insert(&trace([7; 16], &case.spans), secs(0));
    let kept = rig.finish(secs(0));
    let dropped = rig.metric("global_count_traces_sampled", &[("sampled", "false"), ("decision", "dropped")]);
    let found = match (kept.is_empty(), dropped) {
        (false, _) => Expect::Sampled,
        (true, 0) => Expect::NotSampled,
        (true, _) => Expect::Dropped,
    };
    assert_eq!(found, case.expect, "case {number}");
    let said = |key: &str| kept.iter().find_map(|span| span.text(key));
    if case.by.is_some() {
        assert_eq!(said("tailsampling.policy").or(said("nyquist.sampling.rule")), case.by, "case {number}");
    }
    if case.member.is_some() {
        assert_eq!(said("tailsampling.composite_policy"), case.member, "case {number}");
    }
    if let Some(errors) = case.errors {
        assert_eq!(rig.metric("sampling_policy_evaluation_error", &[]), errors, "case {number}");
    }
    for (policy, votes) in &case.votes {
        let count = |sampled: &str, decision: &str| {
            rig.metric("count_traces_sampled", &[("policy", policy), ("sampled", sampled), ("decision", decision)])
        };
        let yes = count("true", "sampled") + count("false", "dropped");
        assert_eq!([yes, count("false", "not_sampled")], *votes, "case {number}: {policy}");
    }
}

#[test]
fn conditions_decide_as_the_table_says() {
    let cases: Vec<Case> = serde_yaml::from_str(include_str!("ottl.yaml")).unwrap();
    assert!(cases.len() > 30);
    for case in &cases {
        run(case, &cases);
    }
}

fn refusals(yaml: &str) -> Vec<(String, String)> {
    let config: TailSamplingConfig = serde_yaml::from_str(yaml).unwrap();
    config.problems().into_iter().map(|problem| (problem.path.join("."), problem.message)).collect()
}

/// A mistake is shown at its condition, with the column in it.
#[test]
fn mistakes_are_found_at_the_start_and_have_their_place() {
    let found = refusals(
        "
policies:
  - {name: a, type: ottl_condition, ottl_condition: {error_mode: ignore}}
  - name: b
    type: and
    and:
      and_sub_policy:
        - {name: c, type: ottl_condition, ottl_condition: {span: ['true', 'nam == \"x\"'], spanevent: ['name == \"(']}}
",
    );
    let at = |place: &str, message: &str| (place.to_owned(), message.to_owned());
    let inner = "policies.1.and.and_sub_policy.0.ottl_condition";
    assert_eq!(
        found,
        [
            at("policies.0.ottl_condition", "a condition is required, below `span:` or `spanevent:`"),
            at(&format!("{inner}.span.1"), "column 1: span has no field `nam`; did you mean name?"),
            at(&format!("{inner}.spanevent.0"), "column 9: this text has no closing `\"`"),
        ]
    );
    let found = refusals(
        "
rules: [{name: r, sampling_percentage: 1, when: {ottl: {error_mode: propagate, span: ['true']}}}]
",
    );
    assert_eq!(found[0].0, "rules.0.when.ottl.error_mode");
}

/// The message with the fields of each level last to first, as the Go Collector writes it.
fn reversed(message: &[u8], depth: usize) -> Vec<u8> {
    let mut parts = Vec::new();
    let mut fields = Fields::new(message);
    let mut before = 0;
    while let Some(field) = fields.next() {
        let raw = &message[before..fields.position()];
        before = fields.position();
        parts.push(match field.value {
            Wire::Len(inner) if matches!((depth, field.number), (0, 1) | (1 | 2, 1 | 2)) => {
                let mut out = Vec::new();
                put_len_field(&mut out, field.number, &reversed(inner, depth + 1));
                out
            }
            _ => raw.to_vec(),
        });
    }
    parts.reverse();
    parts.concat()
}

/// Resource and scope are found wherever they are written, and those of other spans are not.
#[test]
fn a_condition_sees_the_resource_and_the_scope_of_its_span() {
    const IDS: [Id; 4] = [[1; 16], [2; 16], [3; 16], [4; 16]];
    let group = |id: Id, service: &str, scope: &str| {
        let mut group = resource_spans(resource(vec![attribute("service.name", text(service))]), vec![span(id)]);
        group.scope_spans[0].scope = Some(InstrumentationScope { name: scope.to_owned(), ..Default::default() });
        group
    };
    let mut data = TracesData {
        resource_spans: vec![
            group(IDS[0], "pay", "lib"),
            group(IDS[1], "pay", "other"),
            group(IDS[2], "web", "lib"),
            resource_spans(resource(vec![]), vec![span(IDS[3])]),
        ],
    };
    // A second scope below the first resource.
    let second = data.resource_spans[1].scope_spans.clone();
    data.resource_spans[0].scope_spans.extend(second);
    let message = data.encode_to_vec();
    for message in [message.clone(), reversed(&message, 0)] {
        let rig = Rig::new(
            "
memory_limit_mib: 64
policies:
  - name: o
    type: ottl_condition
    ottl_condition: {span: ['resource.attributes[\"service.name\"] == \"pay\" and scope.name == \"lib\"']}
  - name: none
    type: ottl_condition
    ottl_condition: {span: ['resource.attributes[\"service.name\"] == nil and scope.name == \"\"']}
",
        );
        rig.sampler.insert(&message, secs(0)).unwrap();
        let kept = rig.finish(secs(0));
        assert_eq!(by_trace(&kept).into_keys().collect::<Vec<Id>>(), [IDS[0], IDS[3]]);
        assert_eq!(kept.iter().find(|span| span.id() == IDS[0]).unwrap().text("tailsampling.policy").unwrap(), "o");
    }
}

/// Hostile spans cannot fill a disk: of a thousand errors, ten are logged.
#[test]
fn ignored_errors_are_logged_ever_more_rarely_and_silent_ones_never() {
    for (mode, expected) in [("ignore", 10), ("silent", 0), ("propagate", 0)] {
        let warnings = warnings_of(|| {
            let rig = Rig::new(&format!(
                "
memory_limit_mib: 64
policies:
  - name: o
    type: ottl_condition
    ottl_condition: {{error_mode: {mode}, span: ['attributes[\"k\"][\"z\"] == 1']}}
"
            ));
            let erring = Span { attributes: vec![attribute("k", text("v"))], ..span([1; 16]) };
            rig.insert(&request(vec![erring; 1000]), secs(0));
        });
        assert_eq!(warnings.len(), expected, "{mode}: {warnings:?}");
    }
}

/// A request made of many spans below one huge resource is not read for each of them: what conditions
/// may read is limited by the size of the request, and the next request starts afresh.
#[test]
fn a_hostile_request_does_not_take_for_ever() {
    const SPANS: u128 = 3_000;
    let rig = Rig::new(
        "
memory_limit_mib: 1024
policies:
  - name: o
    type: ottl_condition
    ottl_condition: {error_mode: propagate, span: ['resource.attributes[\"missing\"] == nil']}
",
    );
    let spans = |ids: std::ops::RangeInclusive<u128>| ids.map(|id| span(id.to_be_bytes())).collect::<Vec<Span>>();
    let huge = resource(vec![attribute("huge", text(&"x".repeat(500_000)))]);
    let request = |spans| TracesData { resource_spans: vec![resource_spans(huge.clone(), spans)] };
    rig.insert(&request(spans(1..=SPANS)), secs(0));
    rig.insert(&request(spans(SPANS + 1..=SPANS + 1)), secs(0));
    let kept = by_trace(&rig.finish(secs(0)));
    let has = |id: u128| kept.contains_key(&id.to_be_bytes());
    assert!(has(1) && has(300) && !has(SPANS) && has(SPANS + 1), "{}", kept.len());
    let errors = rig.metric("sampling_policy_evaluation_error", &[]);
    assert_eq!(u128::from(errors) + kept.len() as u128, SPANS + 1);
}
