//! Rewriting the points of some metrics, while everything else is copied as it is.

use nyquist_core::wire::{
    DataPoint, Fields, MetricFields, MetricKind, MetricsView, Temporality, put_len_field, put_tag, put_varint,
};

use super::identity::Identities;
use crate::attributes::{put_nested, rewrite};

/// What is done with points.
pub(crate) trait Converter {
    /// Whether points of this metric are converted.
    fn wants(&self, metric: &MetricFields<'_>) -> bool;

    /// Appends to `out` the fields of the point that takes the place of `point`, of `metric`; `false` if there is none.
    fn convert(&mut self, stream: u64, metric: &MetricFields<'_>, point: DataPoint<'_>, out: &mut Vec<u8>) -> bool;
}

/// A rewritten request.
pub(crate) struct Converted {
    /// An `ExportMetricsServiceRequest`.
    pub(crate) bytes: Vec<u8>,
    /// How many points are left out.
    pub(crate) removed: usize,
}

/// Rewrites the metrics in `message` that `converter` wants; they have the temporality `to` afterwards.
/// What becomes empty is left out. `None` if no metric is wanted.
pub(crate) fn convert(
    message: &[u8],
    identities: &Identities,
    to: Temporality,
    converter: &mut impl Converter,
) -> Option<Converted> {
    let resources = || MetricsView::new(message).resource_metrics();
    let metrics = resources().flat_map(|resource| resource.scope_metrics()).flat_map(|scope| scope.metrics());
    if !metrics.map(|metric| metric.fields()).any(|metric| converter.wants(&metric)) {
        return None;
    }
    let mut converted = Converted { bytes: Vec::with_capacity(message.len() + message.len() / 8), removed: 0 };
    for resource in resources() {
        let resource_hash = identities.resource(resource);
        put_unless_empty(&mut converted.bytes, 1, |out| {
            out.extend_from_slice(&resource.header());
            let mut any_scope = false;
            for scope in resource.scope_metrics() {
                let scope_hash = identities.scope(resource_hash, scope);
                any_scope |= put_unless_empty(out, 2, |out| {
                    out.extend_from_slice(&scope.header());
                    let mut any_metric = false;
                    for metric in scope.metrics() {
                        let fields = metric.fields();
                        let Some(kind) = fields.kind.filter(|_| converter.wants(&fields)) else {
                            put_len_field(out, 2, metric.bytes());
                            any_metric = true;
                            continue;
                        };
                        let hash = identities.metric(scope_hash, &fields);
                        any_metric |= put_unless_empty(out, 2, |out| {
                            // All but the data, which are written anew.
                            rewrite(metric.bytes(), out, |number, _, _| matches!(number, 5 | 7 | 9 | 10 | 11));
                            put_unless_empty(out, kind.field_number(), |out| {
                                let mut any_point = false;
                                for point in fields.data_points() {
                                    let stream = identities.stream(hash, point.attributes());
                                    let is_written =
                                        put_unless_empty(out, 1, |out| converter.convert(stream, &fields, point, out));
                                    any_point |= is_written;
                                    converted.removed += usize::from(!is_written);
                                }
                                put_data_fields(out, kind, to);
                                any_point
                            })
                        });
                    }
                    any_metric
                });
            }
            any_scope
        });
    }
    Some(converted)
}

/// Appends what `write` appends as the message in field `number`, unless `write` says that it is empty.
fn put_unless_empty(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
    let begin = out.len();
    let mut is_full = false;
    put_nested(out, number, |out| is_full = write(out));
    if !is_full {
        out.truncate(begin);
    }
    is_full
}

fn put_data_fields(out: &mut Vec<u8>, kind: MetricKind, to: Temporality) {
    put_tag(out, 2, 0);
    put_varint(out, if to == Temporality::Delta { 1 } else { 2 });
    if let MetricKind::Sum { monotonic: true, .. } = kind {
        put_tag(out, 3, 0);
        put_varint(out, 1);
    }
}

/// Appends the fields of `point` but times and values: attributes, flags, exemplars, and what we do not know.
pub(crate) fn put_point_without_values(out: &mut Vec<u8>, point: DataPoint<'_>) {
    let values: &[u32] = match point {
        DataPoint::Number(_) => &[2, 3, 4, 6],
        DataPoint::Histogram(_) => &[2, 3, 4, 5, 6, 7, 11, 12],
        DataPoint::ExponentialHistogram(_) => &[2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14],
        DataPoint::Summary(_) => &[2, 3, 4, 5, 6],
    };
    let bytes = point.bytes();
    let mut fields = Fields::new(bytes);
    loop {
        let start = fields.position();
        let Some(field) = fields.next() else { break };
        if !values.contains(&field.number) {
            out.extend_from_slice(bytes.get(start..fields.position()).unwrap_or_default());
        }
    }
}
