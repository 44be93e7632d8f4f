mod balancing;
mod config;
mod identity;
mod keys;
mod names;
mod pins;
mod resolvers;
mod ring;

use nyquist_core::batch::{Batch, Signal};
use nyquist_core::proto::common::v1::{AnyValue, KeyValue, any_value::Value};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message;

/// String attributes.
fn attributes(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    let value = |text: &str| Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    pairs
        .iter()
        .map(|(key, text)| KeyValue { key: (*key).to_owned(), value: value(text), ..KeyValue::default() })
        .collect()
}

fn trace_id(number: u64) -> Vec<u8> {
    let spread = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [number.to_be_bytes(), spread.to_be_bytes()].concat()
}

/// A span of trace `number`.
fn span(number: u64, index: u64) -> Span {
    Span {
        trace_id: trace_id(number),
        span_id: (index + 1).to_be_bytes().to_vec(),
        name: format!("{number}-{index}"),
        ..Span::default()
    }
}

fn resource_spans(service: &str, spans: Vec<Span>) -> ResourceSpans {
    let resource = Resource { attributes: attributes(&[("service.name", service)]), ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }
}

/// `spans` spans of each of these traces, those of different traces mixed.
fn traces(numbers: std::ops::Range<u64>, spans: u64) -> Batch {
    let all = (0..spans).flat_map(|index| numbers.clone().map(move |number| span(number, index))).collect();
    let data = TracesData { resource_spans: vec![resource_spans("shop", all)] };
    let items = (numbers.end - numbers.start) * spans;
    Batch::from_wire(Signal::Traces, data.encode_to_vec().into(), items as usize)
}
