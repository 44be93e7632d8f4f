//! What stands above spans: resources and scopes.

use nyquist_core::proto::common::v1::InstrumentationScope;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};

use super::support::*;

fn scope(name: &str, spans: Vec<Span>) -> ScopeSpans {
    let scope = InstrumentationScope { name: name.to_owned(), ..InstrumentationScope::default() };
    ScopeSpans { scope: Some(scope), spans, schema_url: format!("schema of {name}") }
}

fn of(service: &str, scope_spans: Vec<ScopeSpans>) -> ResourceSpans {
    let resource = resource(vec![attribute("service.name", text(service))]);
    ResourceSpans { resource: Some(resource), scope_spans, schema_url: String::new() }
}

/// Scenario: among scopes and resources that have spans stand others that have none, or only such without a valid id, one of
/// them larger than a batch. Guarantee: each span leaves below the scope and the resource that it came with, and nothing is
/// left of the others.
#[test]
fn what_has_no_spans_is_left_out() {
    let invalid = || Span { trace_id: vec![1, 2, 3], ..span(T1) };
    let rig = config(EVERYTHING, "num_shards: 1");
    let data = TracesData {
        resource_spans: vec![
            of("nothing", vec![]),
            of(
                "first",
                vec![
                    scope("none", vec![]),
                    scope("a", vec![span(T1)]),
                    scope("bad", vec![invalid()]),
                    scope("b", vec![span(T2), invalid(), span(T1)]),
                    scope("none at the end", vec![]),
                ],
            ),
            of(&"large".repeat(1 << 20), vec![scope("none", vec![]), scope("bad", vec![invalid()])]),
            of("second", vec![scope("none", vec![]), scope("a", vec![span(T3)])]),
            of("nothing at the end", vec![scope("none", vec![])]),
        ],
    };
    rig.insert(&data, secs(0));
    let mut found: Vec<(String, String, Id)> = Vec::new();
    for kept in rig.finish(secs(60)) {
        let service = match value(&kept.resource.as_ref().unwrap().attributes, "service.name") {
            Some(nyquist_core::proto::common::v1::any_value::Value::StringValue(name)) => name.clone(),
            _ => panic!("a resource has a name"),
        };
        let name = kept.scope.as_ref().unwrap().name.clone();
        assert_eq!(kept.schema_urls.1, format!("schema of {name}"));
        found.push((service, name, kept.id()));
    }
    found.sort();
    let wanted = [("first", "a", T1), ("first", "b", T1), ("first", "b", T2), ("second", "a", T3)];
    assert_eq!(found, wanted.map(|(service, scope, id)| (service.to_owned(), scope.to_owned(), id)));
}
