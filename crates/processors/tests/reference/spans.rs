//! Decoded spans with what they stand below, and what can be asked of one.

use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message;

pub(crate) type Id = [u8; 16];

pub(crate) const UNSET: i32 = 0;
pub(crate) const OK: i32 = 1;
pub(crate) const ERROR: i32 = 2;

/// A span and where it stood.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Placed {
    pub(crate) span: Span,
    pub(crate) scope: Option<InstrumentationScope>,
    pub(crate) scope_url: String,
    pub(crate) resource: Option<Resource>,
    pub(crate) resource_url: String,
}

impl Placed {
    pub(crate) fn id(&self) -> Id {
        self.span.trace_id.as_slice().try_into().expect("trace ids have 16 bytes")
    }

    /// A root has no parent. Zeros are no parent either.
    pub(crate) fn is_root(&self) -> bool {
        self.span.parent_span_id.iter().all(|&byte| byte == 0)
    }

    pub(crate) fn status(&self) -> i32 {
        self.span.status.as_ref().map_or(UNSET, |status| status.code)
    }

    pub(crate) fn has_exception(&self) -> bool {
        self.span.events.iter().any(|event| event.name == "exception")
    }

    pub(crate) fn resource_attributes(&self) -> &[KeyValue] {
        self.resource.as_ref().map_or(&[], |resource| &resource.attributes)
    }

    /// Nanoseconds from start to end; none if one of them is not set.
    pub(crate) fn duration(&self) -> Option<i128> {
        let (start, end) = (self.span.start_time_unix_nano, self.span.end_time_unix_nano);
        (start != 0 && end != 0).then(|| i128::from(end) - i128::from(start))
    }

    /// The request of this span alone.
    pub(crate) fn into_request(self) -> TracesData {
        let scope = ScopeSpans { scope: self.scope, spans: vec![self.span], schema_url: self.scope_url };
        TracesData {
            resource_spans: vec![ResourceSpans {
                resource: self.resource,
                scope_spans: vec![scope],
                schema_url: self.resource_url,
            }],
        }
    }

    /// All of it as bytes, to compare and to count.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.clone().into_request().encode_to_vec()
    }
}

/// Nanoseconds from the earliest start to the latest end of what has arrived; times that are not
/// set do not count.
pub(crate) fn trace_duration(spans: &[Placed]) -> Option<i128> {
    let start = spans.iter().map(|placed| placed.span.start_time_unix_nano).filter(|&time| time != 0).min()?;
    let end = spans.iter().map(|placed| placed.span.end_time_unix_nano).filter(|&time| time != 0).max()?;
    Some(i128::from(end) - i128::from(start))
}

/// The spans of a request, each with where it stands.
pub(crate) fn flatten(data: TracesData) -> Vec<Placed> {
    let mut flat = Vec::new();
    for resource in data.resource_spans {
        for scope in resource.scope_spans {
            for span in scope.spans {
                flat.push(Placed {
                    span,
                    scope: scope.scope.clone(),
                    scope_url: scope.schema_url.clone(),
                    resource: resource.resource.clone(),
                    resource_url: resource.schema_url.clone(),
                });
            }
        }
    }
    flat
}

/// The spans of a request in runs: those of one trace that stand next to each other below one scope came together.
pub(crate) fn runs(data: &TracesData) -> Vec<Vec<Placed>> {
    let mut runs: Vec<Vec<Placed>> = Vec::new();
    for resource in &data.resource_spans {
        for scope in &resource.scope_spans {
            let alone = ResourceSpans { scope_spans: vec![scope.clone()], ..resource.clone() };
            let spans = flatten(TracesData { resource_spans: vec![alone] });
            runs.extend(spans.chunk_by(|one, other| one.id() == other.id()).map(<[Placed]>::to_vec));
        }
    }
    runs
}

/// The value of an attribute; none if it has none, which is not the same as not being there.
pub(crate) fn value_of(attribute: &KeyValue) -> Option<&Value> {
    attribute.value.as_ref()?.value.as_ref()
}

/// The first value of that key.
pub(crate) fn first_value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    value_of(attributes.iter().find(|attribute| attribute.key == key)?)
}

pub(crate) fn attribute(key: &str, value: Option<Value>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value }), ..KeyValue::default() }
}

pub(crate) fn text(value: &str) -> Value {
    Value::StringValue(value.to_owned())
}
