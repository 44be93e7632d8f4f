use std::sync::Arc;

use nyquist_core::batch::{Batch, Metadata, Signal};
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{Extensions, ProcessorConfig};
use nyquist_core::proto::common::v1::{AnyValue, KeyValue, any_value::Value};
use nyquist_core::proto::logs::v1::LogsData;
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use nyquist_core::telemetry::Telemetry;
use nyquist_core::wire::put_len_field;
use prost::Message;

use super::ResourceConfig;
use crate::test_util::{self, Sink, config, errors};

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn traces(attributes: &[(&str, &str)]) -> TracesData {
    let attributes = attributes.iter().map(|(key, value)| text(key, value)).collect();
    let span = Span { name: "op".to_owned(), ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let resource = Some(Resource { attributes, ..Resource::default() });
    TracesData { resource_spans: vec![ResourceSpans { resource, scope_spans, schema_url: "url".to_owned() }] }
}

async fn run(yaml: &str, batch: Batch) -> Batch {
    let sink = Arc::new(Sink::default());
    let (telemetry, extensions) = (Telemetry::new(), Extensions::default());
    let clock = Arc::new(SystemClock::default());
    let context = test_util::context(batch.signal(), Arc::clone(&sink) as _, &extensions, &telemetry, clock);
    let processor = config::<ResourceConfig>(yaml).build(context).unwrap();
    processor.consume(batch).await.unwrap();
    sink.take().remove(0)
}

#[tokio::test]
async fn actions_change_the_resource_and_nothing_else() {
    let yaml = "{attributes: [{action: upsert, key: env, value: prod}, {action: delete, key: secret}, \
                {action: insert, key: name, from_attribute: service.name}, \
                {action: upsert, key: tenant, from_context: metadata.X-Tenant}]}";
    let mut before = traces(&[("service.name", "shop"), ("secret", "x")]);
    before.resource_spans.push(ResourceSpans { resource: None, ..before.resource_spans[0].clone() });
    let metadata = Metadata { headers: vec![("x-tenant".to_owned(), "a".to_owned())] };
    let batch = Batch::from_wire(Signal::Traces, before.encode_to_vec().into(), 2).with_metadata(Arc::new(metadata));
    let mut after = run(yaml, batch).await;
    assert_eq!(after.items(), 2);
    let after = after.traces_mut().unwrap();
    let mut expected = traces(&[("service.name", "shop"), ("env", "prod"), ("name", "shop"), ("tenant", "a")]);
    // A resource that was not written is an empty one.
    expected.resource_spans.push(traces(&[("env", "prod"), ("tenant", "a")]).resource_spans.remove(0));
    assert_eq!(*after, expected);
}

#[tokio::test]
async fn a_batch_that_nothing_applies_to_passes_as_the_same_bytes() {
    let before: bytes::Bytes = traces(&[("a", "b")]).encode_to_vec().into();
    let yaml = "{attributes: [{action: delete, key: x}, {action: update, key: y, value: 1}]}";
    let after = run(yaml, Batch::from_wire(Signal::Traces, before.clone(), 1)).await.into_wire();
    assert_eq!(after.as_ptr(), before.as_ptr());
}

#[tokio::test]
async fn a_resource_in_pieces_and_unknown_fields_survive() {
    let piece = |key: &str| Resource { attributes: vec![text(key, "v")], ..Resource::default() }.encode_to_vec();
    let mut holder = Vec::new();
    put_len_field(&mut holder, 1, &piece("one"));
    put_len_field(&mut holder, 99, b"unknown");
    let mut last = piece("two");
    put_len_field(&mut last, 98, b"unknown too");
    put_len_field(&mut holder, 1, &last);
    let mut message = Vec::new();
    put_len_field(&mut message, 1, &holder);
    let yaml = "{attributes: [{action: update, key: two, value: w}]}";
    let after = run(yaml, Batch::from_wire(Signal::Logs, message.into(), 1)).await;
    let bytes = after.into_wire();
    let data = LogsData::decode(bytes.clone()).unwrap();
    let resource = data.resource_logs[0].resource.as_ref().unwrap();
    assert_eq!(resource.attributes, [text("one", "v"), text("two", "w")]);
    let contains = |wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    assert!(contains(b"unknown") && contains(b"unknown too"));
}

#[test]
fn errors_name_the_action_and_the_field() {
    let errors = errors::<ResourceConfig>("{attributes: [{action: upsert, key: a}, {action: frob, key: b}]}");
    assert_eq!(errors.len(), 2);
    assert!(errors[0].starts_with("attributes[0].action: "), "{errors:?}");
    assert!(errors[1].contains("unsupported action \"frob\""), "{errors:?}");
}
