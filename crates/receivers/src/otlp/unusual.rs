//! Requests of unusual shape, put right on their way in.

use bytes::Bytes;
use nyquist_core::batch::Signal;
use nyquist_core::proto::{logs::v1::LogsData, metrics::v1::MetricsData, trace::v1::TracesData};
use prost::Message;

/// `bytes`, which passed the ingress check as traces, without the spans whose ids are zero or of
/// the wrong length.
pub(super) fn without_invalid_ids(bytes: &Bytes) -> Bytes {
    let Ok(mut data) = TracesData::decode(bytes.clone()) else { return Bytes::new() };
    let is_set = |id: &[u8], len: usize| id.len() == len && id.iter().any(|&byte| byte != 0);
    for resource in &mut data.resource_spans {
        for scope in &mut resource.scope_spans {
            scope.spans.retain(|span| is_set(&span.trace_id, 16) && is_set(&span.span_id, 8));
        }
    }
    data.encode_to_vec().into()
}

/// `bytes`, which passed the ingress check, with values that came in pieces joined.
pub(super) fn joined(signal: Signal, bytes: &Bytes) -> Bytes {
    let encoded = match signal {
        Signal::Traces => TracesData::decode(bytes.clone()).map(|data| data.encode_to_vec()),
        Signal::Metrics => MetricsData::decode(bytes.clone()).map(|data| data.encode_to_vec()),
        Signal::Logs => LogsData::decode(bytes.clone()).map(|data| data.encode_to_vec()),
    };
    encoded.unwrap_or_default().into()
}
