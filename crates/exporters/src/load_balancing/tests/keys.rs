use std::collections::BTreeMap;

use nyquist_core::batch::Signal;
use nyquist_core::proto::common::v1::InstrumentationScope;
use nyquist_core::proto::logs::v1::{LogRecord, LogsData, ResourceLogs, ScopeLogs};
use nyquist_core::proto::metrics::v1::MetricsData;
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::proto::trace::v1::{Span, TracesData};
use prost::Message;

use super::super::keys::Routing;
use super::{attributes, resource_spans, span, trace_id};
use crate::testing::{T, gauge, number, push_from};

/// The keys that a request is asked for, with what each of them gets: every key has an owner of its own.
fn by_key<M: Message + Default>(routing: &Routing, signal: Signal, message: &M) -> BTreeMap<String, (M, usize)> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let bytes = message.encode_to_vec().into();
    let parts = routing.split(signal, &bytes, false, |key| {
        keys.iter().position(|known| known == key).unwrap_or_else(|| {
            keys.push(key.to_vec());
            keys.len() - 1
        })
    });
    let name = |owner: usize| match std::str::from_utf8(&keys[owner]) {
        Ok(text) if routing != &Routing::TraceId => text.to_owned(),
        _ => hex::encode(&keys[owner]),
    };
    parts.into_iter().map(|part| (name(part.owner), (M::decode(part.bytes).unwrap(), part.items))).collect()
}

fn routing(key: &str, names: &[&str], signal: Signal) -> Routing {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    Routing::new(Some(key), &names, signal).unwrap()
}

fn names(data: &TracesData) -> Vec<&str> {
    let scopes = data.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans).map(|span| span.name.as_str()).collect()
}

#[test]
fn traces_are_kept_together_with_their_headers() {
    let spans = |service: &str| resource_spans(service, vec![span(1, 0), span(2, 0), span(1, 1)]);
    let data = TracesData { resource_spans: vec![spans("a"), spans("b")] };
    let parts = by_key(&Routing::TraceId, Signal::Traces, &data);
    assert_eq!(parts.keys().cloned().collect::<Vec<_>>(), [hex::encode(trace_id(1)), hex::encode(trace_id(2))]);
    let (one, items) = &parts[&hex::encode(trace_id(1))];
    assert_eq!((names(one), *items), (vec!["1-0", "1-1", "1-0", "1-1"], 4));
    assert_eq!(one.resource_spans.len(), 2);
    assert_eq!(one.resource_spans[1].resource, data.resource_spans[1].resource);
}

/// Guarantee: what the ingress check knows of the ids makes it faster, not different.
#[test]
fn traces_are_split_the_same_where_their_ids_are_known_to_be_at_the_edge() {
    let spans = (0..300).map(|index| span(index % 7 + index / 50, index)).collect();
    let data = TracesData { resource_spans: vec![resource_spans("a", spans), resource_spans("b", vec![span(3, 0)])] };
    let bytes = data.encode_to_vec().into();
    let split = |edge_ids| {
        let owner = |id: &[u8]| usize::from(id.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte))) % 3;
        Routing::TraceId.split(Signal::Traces, &bytes, edge_ids, owner)
    };
    let parts = split(true);
    assert_eq!(parts, split(false));
    assert_eq!((parts.len(), parts.iter().map(|part| part.items).sum::<usize>()), (3, 301));
}

#[test]
fn a_request_of_one_owner_is_the_same_bytes() {
    let data = TracesData { resource_spans: vec![resource_spans("a", vec![span(1, 0), span(2, 0)])] };
    let bytes = data.encode_to_vec().into();
    let parts = Routing::TraceId.split(Signal::Traces, &bytes, false, |_| 3);
    assert_eq!((parts.len(), parts[0].owner, parts[0].items), (1, 3, 2));
    assert_eq!(parts[0].bytes.as_ptr(), bytes.as_ptr());
}

/// Resource before scope before pseudo attribute before the span's own; what is missing is empty.
#[test]
fn attributes_are_looked_up_in_the_collectors_order() {
    let mut from_span = Span { kind: 2, name: "GET /".to_owned(), ..span(1, 0) };
    from_span.attributes = attributes(&[("tenant", "t1"), ("service.name", "not this")]);
    let mut resource = resource_spans("shop", vec![from_span, span(2, 0)]);
    resource.scope_spans[0].scope = Some(InstrumentationScope {
        attributes: attributes(&[("zone", "z"), ("service.name", "nor this")]),
        ..InstrumentationScope::default()
    });
    let data = TracesData { resource_spans: vec![resource] };
    let all = routing("attributes", &["service.name", "zone", "span.kind", "span.name", "tenant"], Signal::Traces);
    let parts = by_key(&all, Signal::Traces, &data);
    let keys: Vec<&str> = parts.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "service.name=shop|zone=z|span.kind=Server|span.name=GET /|tenant=t1|",
            "service.name=shop|zone=z|span.kind=Unspecified|span.name=2-0|tenant=|"
        ]
    );
    let parts = by_key(&routing("service", &[], Signal::Traces), Signal::Traces, &data);
    assert_eq!(parts.keys().collect::<Vec<_>>(), ["service.name=shop|"]);
}

fn logs(services: &[&str]) -> LogsData {
    let record = |name: &str, trace_id: Vec<u8>| LogRecord {
        event_name: name.to_owned(),
        severity_text: "INFO".to_owned(),
        trace_id,
        ..LogRecord::default()
    };
    let resource = |service: &&str| ResourceLogs {
        resource: Some(Resource { attributes: attributes(&[("service.name", service)]), ..Resource::default() }),
        scope_logs: vec![ScopeLogs {
            log_records: vec![record("a", trace_id(1)), record("b", Vec::new())],
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    };
    LogsData { resource_logs: services.iter().map(resource).collect() }
}

#[test]
fn logs_go_by_service_trace_or_attributes() {
    let data = logs(&["a", "b"]);
    let keys = |routing: Routing| by_key(&routing, Signal::Logs, &data).into_keys().collect::<Vec<_>>();
    assert_eq!(keys(routing("service", &[], Signal::Logs)), ["a", "b"]);
    assert!(keys(routing("resource", &[], Signal::Logs)).contains(&"resource/950ea35c409f946d".to_owned()));
    assert_eq!(keys(routing("attributes", &["log.severity", "x"], Signal::Logs)), ["log.severity=INFO|x=|"]);
    // The Collector puts first what the resource has.
    let mixed = keys(routing("attributes", &["log.severity", "service.name"], Signal::Logs));
    assert_eq!(mixed, ["service.name=a|log.severity=INFO|", "service.name=b|log.severity=INFO|"]);
    // Those without a trace go by their service; the key of the others is the id in hex, as in the Collector.
    let traces = keys(Routing::TraceId);
    assert_eq!(traces, [hex::encode(hex::encode(trace_id(1))), hex::encode("a"), hex::encode("b")]);
}

fn point_count(data: &MetricsData) -> usize {
    nyquist_core::batch::Batch::from_metrics(data.clone()).items()
}

#[test]
fn metrics_are_split_by_name_service_and_stream() {
    let points = || vec![number(1.0, T, &[("k", "1")]), number(2.0, T, &[("k", "2")]), number(3.0, T, &[("k", "1")])];
    let mut data = push_from(&[("service.name", "a")], vec![gauge("m1", "s", points()), gauge("m2", "", points())]);
    data.resource_metrics.extend(push_from(&[], vec![gauge("m1", "s", points())]).resource_metrics);
    let parts = |key: &str, names: &[&str]| by_key(&routing(key, names, Signal::Metrics), Signal::Metrics, &data);

    let by_name = parts("metric", &[]);
    assert_eq!(
        by_name.iter().map(|(key, (_, items))| (key.as_str(), *items)).collect::<Vec<_>>(),
        [("m1", 6), ("m2", 3)]
    );
    let by_service = parts("service", &[]);
    assert_eq!(by_service.keys().collect::<Vec<_>>(), ["", "a"], "what has no service is not lost");
    let by_stream = parts("streamID", &[]);
    assert_eq!(by_stream.len(), 6);
    let by_attribute = parts("attributes", &["service.name", "k"]);
    let keys: Vec<&str> = by_attribute.keys().map(String::as_str).collect();
    assert_eq!(keys, ["service.name=a|k=1|", "service.name=a|k=2|", "service.name=|k=1|", "service.name=|k=2|"]);
    for parts in [by_name, by_service, by_stream, by_attribute] {
        let total: usize = parts.values().map(|(_, items)| items).sum();
        assert_eq!(total, 9);
        for (data, items) in parts.values() {
            assert_eq!(point_count(data), *items);
            let metrics = data.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
            let metric = &metrics.clone().next().unwrap().metrics[0];
            assert_eq!(metric.description, "What it is", "what is split keeps everything else");
        }
    }
}

/// Bytes that are no message at all: no panic, and nothing is made up.
#[test]
fn damaged_requests_do_no_harm() {
    let data = TracesData { resource_spans: vec![resource_spans("a", vec![span(1, 0), span(2, 0)])] };
    let whole = data.encode_to_vec();
    for length in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[length] ^= 0xff;
        for bytes in [damaged, whole[..length].to_vec()] {
            let bytes = bytes.into();
            for signal in Signal::ALL {
                let keys = [("traceID", Signal::Traces), ("attributes", Signal::Traces), ("streamID", Signal::Metrics)];
                for (key, _) in keys.into_iter().filter(|(_, of)| *of == signal) {
                    let parts =
                        routing(key, &["x", "span.name"], signal).split(signal, &bytes, false, |key| key.len() % 3);
                    assert!(parts.iter().map(|part| part.items).sum::<usize>() <= whole.len());
                }
            }
        }
    }
}
