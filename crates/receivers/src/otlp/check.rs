//! The ingress check by way of prost, until `nyquist_core::wire` has its own.

use bytes::Bytes;
use nyquist_core::batch::Signal;
use nyquist_core::proto::metrics::v1::metric::Data;
use nyquist_core::proto::{logs::v1::LogsData, metrics::v1::MetricsData, trace::v1::TracesData};
use prost::Message;

/// What a message holds.
pub(super) struct Checked {
    /// Spans, points or records, those with invalid ids among them.
    pub(super) items: usize,
    /// Spans whose trace or span id is zero or has the wrong length.
    pub(super) invalid_ids: usize,
}

/// Checks that `bytes` are a message of `signal`.
pub(super) fn check(signal: Signal, bytes: &[u8]) -> Result<Checked, prost::DecodeError> {
    match signal {
        Signal::Traces => {
            let data = TracesData::decode(bytes)?;
            let spans = data.resource_spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|s| &s.spans);
            let invalid = |span: &&nyquist_core::proto::trace::v1::Span| !valid(&span.trace_id, &span.span_id);
            Ok(Checked { items: spans.clone().count(), invalid_ids: spans.filter(invalid).count() })
        }
        Signal::Metrics => {
            let data = MetricsData::decode(bytes)?;
            let metrics = data.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
            let points = metrics.flat_map(|scope| &scope.metrics).map(|metric| match &metric.data {
                None => 0,
                Some(Data::Gauge(gauge)) => gauge.data_points.len(),
                Some(Data::Sum(sum)) => sum.data_points.len(),
                Some(Data::Histogram(histogram)) => histogram.data_points.len(),
                Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
                Some(Data::Summary(summary)) => summary.data_points.len(),
            });
            Ok(Checked { items: points.sum(), invalid_ids: 0 })
        }
        Signal::Logs => {
            let data = LogsData::decode(bytes)?;
            let scopes = data.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
            Ok(Checked { items: scopes.map(|scope| scope.log_records.len()).sum(), invalid_ids: 0 })
        }
    }
}

/// `bytes`, which passed the check as traces, without the spans whose ids are not valid.
pub(super) fn remove_invalid(bytes: &Bytes) -> Bytes {
    let Ok(mut data) = TracesData::decode(bytes.clone()) else { return Bytes::new() };
    for resource in &mut data.resource_spans {
        for scope in &mut resource.scope_spans {
            scope.spans.retain(|span| valid(&span.trace_id, &span.span_id));
        }
    }
    data.encode_to_vec().into()
}

fn valid(trace_id: &[u8], span_id: &[u8]) -> bool {
    let is_set = |id: &[u8], len: usize| id.len() == len && id.iter().any(|&byte| byte != 0);
    is_set(trace_id, 16) && is_set(span_id, 8)
}
