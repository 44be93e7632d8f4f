//! How large traces are as the Collector counts: `bytes_limiting`, and `maximum_trace_size_bytes` of policies.
//!
//! What a `ResourceSpans` of a request has of a trace stands there in a `ResourceSpans` of its own, with a copy of the
//! resource and of each scope, but not of their schema URLs; the size of the trace is that of all of these as fields of a
//! message. So a resource counts once for each `ResourceSpans` that brings spans of the trace. Spans count as they came: where
//! they leave their parent or status out, the Collector writes two bytes for each.

use std::collections::HashMap;

use nyquist_core::wire::varint_len;

type TraceId = [u8; 16];

/// Traces that are kept allocated from request to request.
const KEEP: usize = 1 << 12;

/// The traces of a request, where their sizes are asked for.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// The number of the `ResourceSpans` in the request, and the bytes of its resource.
    resource: (u32, usize),
    /// The number of the `ScopeSpans` in the request, and the bytes of its scope.
    scope: (u32, usize),
    traces: HashMap<TraceId, Part, foldhash::quality::RandomState>,
}

/// What the last `ResourceSpans` that had spans of a trace has had of it so far.
#[derive(Debug)]
struct Part {
    resource: u32,
    scope: u32,
    /// Of the resource and of scopes that are complete.
    closed: usize,
    /// Of the last scope with its spans.
    open: usize,
}

impl Part {
    fn len(&self) -> usize {
        field_len(self.closed + field_len(self.open))
    }
}

/// A field whose number is below 16.
fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

impl Sizes {
    /// Another request begins.
    pub(super) fn clear(&mut self) {
        self.traces.clear();
        self.traces.shrink_to(KEEP);
        (self.resource, self.scope) = ((0, 0), (0, 0));
    }

    /// A `ResourceSpans` begins, with a resource of so many bytes.
    pub(super) fn begin_resource(&mut self, len: usize) {
        self.resource = (self.resource.0 + 1, len);
    }

    /// A `ScopeSpans` begins, with a scope of so many bytes.
    pub(super) fn begin_scope(&mut self, len: usize) {
        self.scope = (self.scope.0 + 1, len);
    }

    /// By how much spans of so many bytes, tags and lengths included, make a trace larger.
    pub(super) fn add(&mut self, id: &TraceId, spans: usize) -> usize {
        let (resource, resource_len) = self.resource;
        let (scope, scope_len) = self.scope;
        let new = || Part { resource, scope, closed: field_len(resource_len), open: field_len(scope_len) + spans };
        let Some(part) = self.traces.get_mut(id) else {
            let part = new();
            let len = part.len();
            self.traces.insert(*id, part);
            return len;
        };
        if part.resource != resource {
            *part = new();
            return part.len();
        }
        let before = part.len();
        if part.scope == scope {
            part.open += spans;
        } else {
            part.closed += field_len(part.open);
            (part.scope, part.open) = (scope, field_len(scope_len) + spans);
        }
        part.len() - before
    }
}

#[cfg(test)]
mod tests {
    use nyquist_core::proto::common::v1::InstrumentationScope;
    use nyquist_core::proto::resource::v1::Resource;
    use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
    use prost::Message;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::tail_sampling::tests::support::{attribute, large_span, text};

    /// Scenario: requests of some resources, scopes and traces, in any order. Guarantee: the sizes of a trace's runs add up to
    /// that of the message which has what each `ResourceSpans` has of it by itself.
    #[test]
    fn runs_add_up_to_the_messages_of_a_trace() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..300 {
            let mut sizes = Sizes::default();
            let mut added: HashMap<TraceId, usize> = HashMap::new();
            let mut whole: HashMap<TraceId, TracesData> = HashMap::new();
            for _ in 0..rng.random_range(1..4) {
                let value = text(&"r".repeat(rng.random_range(0..300)));
                let resource = Resource { attributes: vec![attribute("k", value)], ..Resource::default() };
                sizes.begin_resource(resource.encoded_len());
                let mut of_resource: HashMap<TraceId, ResourceSpans> = HashMap::new();
                for _ in 0..rng.random_range(1..4) {
                    let scope = InstrumentationScope {
                        name: "s".repeat(rng.random_range(0..200)),
                        ..InstrumentationScope::default()
                    };
                    sizes.begin_scope(scope.encoded_len());
                    let mut of_scope: HashMap<TraceId, ScopeSpans> = HashMap::new();
                    for _ in 0..rng.random_range(0..8) {
                        let id = [rng.random_range(1..4); 16];
                        let span: Span = large_span(id, rng.random_range(0..200));
                        *added.entry(id).or_default() += sizes.add(&id, field_len(span.encoded_len()));
                        let new = || ScopeSpans { scope: Some(scope.clone()), ..ScopeSpans::default() };
                        of_scope.entry(id).or_insert_with(new).spans.push(span);
                    }
                    for (id, scope_spans) in of_scope {
                        let new = || ResourceSpans { resource: Some(resource.clone()), ..ResourceSpans::default() };
                        of_resource.entry(id).or_insert_with(new).scope_spans.push(scope_spans);
                    }
                }
                for (id, resource_spans) in of_resource {
                    whole.entry(id).or_default().resource_spans.push(resource_spans);
                }
            }
            let expected: HashMap<TraceId, usize> = whole.iter().map(|(id, data)| (*id, data.encoded_len())).collect();
            assert_eq!(added, expected, "seed {seed}");
        }
    }
}
