//! Splitting a request by trace.

use bytes::Bytes;
use hashbrown::HashMap;

use super::builder::{RequestBuilder, ResourceSlot, ScopeSlot};
use super::header;
use crate::wire::TracesView;

/// A trace id. One of another length, which the ingress check does not let in, is cut off or
/// filled up with zeros.
pub type TraceId = [u8; 16];

/// Splits a request into one for each trace, in the order in which the traces first appear.
/// Resources and scopes are repeated in each request that needs them; a request of one trace is
/// the same `Bytes`.
#[must_use]
pub fn split_by_trace(bytes: &Bytes) -> Vec<(TraceId, Bytes)> {
    let mut by_id = HashMap::<TraceId, usize, foldhash::quality::RandomState>::default();
    let mut traces: Vec<(TraceId, Trace<'_>)> = Vec::new();
    let mut last = (TraceId::default(), usize::MAX);
    for (resource_index, resource) in TracesView::new(bytes).resource_spans().enumerate() {
        let mut resource_header = None;
        for (scope_index, scope) in resource.scope_spans().enumerate() {
            let mut scope_header = None;
            for span in scope.spans() {
                let id = trace_id(span.trace_id());
                if last.0 != id || last.1 == usize::MAX {
                    let index = *by_id.entry(id).or_insert(traces.len());
                    last = (id, index);
                }
                if last.1 == traces.len() {
                    traces.push((id, Trace::default()));
                }
                let Some((_, trace)) = traces.get_mut(last.1) else { continue };
                if trace.resource.is_none_or(|(index, _)| index != resource_index) {
                    let header = resource_header.get_or_insert_with(|| header(resource.bytes()));
                    trace.resource = Some((resource_index, trace.builder.resource(header.clone())));
                    trace.scope = None;
                }
                if trace.scope.is_none_or(|(index, _)| index != scope_index)
                    && let Some((_, slot)) = trace.resource
                {
                    let header = scope_header.get_or_insert_with(|| header(scope.bytes()));
                    trace.scope = Some((scope_index, trace.builder.scope(slot, header.clone())));
                }
                if let Some((_, slot)) = trace.scope {
                    trace.builder.push(slot, span.bytes());
                }
            }
        }
    }
    match traces.as_slice() {
        [(id, _)] => vec![(*id, bytes.clone())],
        _ => traces.into_iter().map(|(id, trace)| (id, trace.builder.finish())).collect(),
    }
}

/// A request that is being put together, and where its last span went.
#[derive(Default)]
struct Trace<'a> {
    builder: RequestBuilder<'a>,
    resource: Option<(usize, ResourceSlot)>,
    scope: Option<(usize, ScopeSlot)>,
}

fn trace_id(bytes: &[u8]) -> TraceId {
    if let Ok(id) = bytes.try_into() {
        return id;
    }
    let mut id = TraceId::default();
    for (to, from) in id.iter_mut().zip(bytes) {
        *to = *from;
    }
    id
}
