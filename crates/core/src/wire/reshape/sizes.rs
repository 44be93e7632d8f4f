//! Splitting requests that are too large, and merging small ones.

use std::borrow::Cow;

use bytes::Bytes;

use super::builder::{RequestBuilder, field_len};
use super::{CHILDREN, RESOURCES, fields_except, header};
use crate::batch::Signal;
use crate::wire::common::len_fields;
use crate::wire::cursor::{Field, Fields, Value, put_len_field, put_tag, put_varint};
use crate::wire::{MetricFields, MetricView};

/// How large a request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimit {
    /// Its bytes at the most. A single item that exceeds this alone still makes a request.
    pub bytes: usize,
    /// Its spans, data points or log records at the most, at least 1.
    pub items: usize,
}

impl SizeLimit {
    /// At most so many bytes.
    #[must_use]
    pub fn bytes(bytes: usize) -> Self {
        Self { bytes, items: usize::MAX }
    }

    /// At most so many items.
    #[must_use]
    pub fn items(items: usize) -> Self {
        Self { bytes: usize::MAX, items }
    }
}

/// Puts requests of one signal together: field 1 repeats, so that one after the other is a
/// request.
#[must_use]
pub fn merge(requests: &[Bytes]) -> Bytes {
    match requests {
        [] => Bytes::new(),
        [request] => request.clone(),
        _ => requests.concat().into(),
    }
}

/// Splits a request into requests within `limit`, in order, each with the number of its items.
///
/// A request within the limit is returned as it is. A metric is split between its points if it
/// exceeds the limit alone. What has no items (an empty scope) is left out of a split.
#[must_use]
pub fn split_by_size(signal: Signal, bytes: &Bytes, limit: SizeLimit) -> Vec<(Bytes, usize)> {
    let items = count_items(signal, bytes);
    if bytes.len() <= limit.bytes && items <= limit.items {
        return vec![(bytes.clone(), items)];
    }
    let mut parts = Parts { limit, done: Vec::new(), builder: RequestBuilder::new(), items: 0 };
    for resource in len_fields(bytes, RESOURCES) {
        let resource_header = header(resource);
        let mut resource_slot = None;
        for scope in len_fields(resource, CHILDREN) {
            let scope_header = header(scope);
            let mut scope_slot = None;
            for item in len_fields(scope, CHILDREN) {
                let weight = weight(signal, item);
                // What the item adds if resource and scope have to be repeated for it.
                let alone = field_len(item.len()) + resource_header.len() + scope_header.len() + 2 * PREFIX;
                if signal == Signal::Metrics && weight > 1 && (weight > limit.items || alone > limit.bytes) {
                    parts.flush();
                    (resource_slot, scope_slot) = (None, None);
                    parts.split_metric(&resource_header, &scope_header, item);
                    continue;
                }
                let added = if scope_slot.is_some() { field_len(item.len()) } else { alone };
                if !parts.has_room(added, weight) {
                    parts.flush();
                    (resource_slot, scope_slot) = (None, None);
                }
                let builder = &mut parts.builder;
                let resource = *resource_slot.get_or_insert_with(|| builder.resource(resource_header.clone()));
                let scope = *scope_slot.get_or_insert_with(|| builder.scope(resource, scope_header.clone()));
                builder.push(scope, item);
                parts.items += weight;
            }
        }
    }
    parts.flush();
    parts.done
}

/// The largest key and length of a resource or scope.
const PREFIX: usize = 1 + 5;

/// How many spans, data points or log records a request holds.
pub(super) fn count_items(signal: Signal, bytes: &[u8]) -> usize {
    len_fields(bytes, RESOURCES)
        .flat_map(|resource| len_fields(resource, CHILDREN))
        .flat_map(|scope| len_fields(scope, CHILDREN))
        .map(|item| weight(signal, item))
        .sum()
}

pub(super) fn weight(signal: Signal, item: &[u8]) -> usize {
    match signal {
        Signal::Traces | Signal::Logs => 1,
        Signal::Metrics => MetricView::new(item).fields().point_bytes().count(),
    }
}

struct Parts<'a> {
    limit: SizeLimit,
    done: Vec<(Bytes, usize)>,
    builder: RequestBuilder<'a>,
    items: usize,
}

impl<'a> Parts<'a> {
    fn has_room(&self, bytes: usize, items: usize) -> bool {
        self.builder.is_empty()
            || (self.builder.size_bound().saturating_add(bytes) <= self.limit.bytes
                && self.items.saturating_add(items) <= self.limit.items)
    }

    fn flush(&mut self) {
        let builder = std::mem::take(&mut self.builder);
        let items = std::mem::take(&mut self.items);
        if !builder.is_empty() {
            self.done.push((builder.finish(), items));
        }
    }

    /// Makes requests of the points of one metric.
    fn split_metric(&mut self, resource_header: &[u8], scope_header: &[u8], item: &'a [u8]) {
        let metric = SplitMetric::new(item);
        let fixed = resource_header.len() + scope_header.len() + metric.fixed_len() + 4 * PREFIX;
        let mut points = Vec::new();
        let mut points_len = 0;
        let mut flush = |points: &mut Vec<&[u8]>, points_len: &mut usize| {
            let message = metric.message(points, *points_len);
            let mut builder = RequestBuilder::new();
            let resource = builder.resource(resource_header);
            let scope = builder.scope(resource, scope_header);
            builder.push(scope, &message);
            self.done.push((builder.finish(), points.len()));
            points.clear();
            *points_len = 0;
        };
        for point in metric.fields.point_bytes() {
            let len = field_len(point.len());
            let full = points.len() >= self.limit.items || fixed + points_len + len > self.limit.bytes;
            if full && !points.is_empty() {
                flush(&mut points, &mut points_len);
            }
            points.push(point);
            points_len += len;
        }
        if !points.is_empty() {
            flush(&mut points, &mut points_len);
        }
    }
}

/// A metric without its points.
pub(super) struct SplitMetric<'a> {
    pub(super) fields: MetricFields<'a>,
    /// All fields but the data.
    header: Cow<'a, [u8]>,
    /// The field number of the data.
    number: u32,
    /// All fields of the data but the points, over all its pieces.
    data_header: Vec<u8>,
}

impl<'a> SplitMetric<'a> {
    pub(super) fn new(item: &'a [u8]) -> Self {
        let is_data = |number| matches!(number, 5 | 7 | 9 | 10 | 11);
        let fields = MetricView::new(item).fields();
        let number = fields.kind.map_or(0, |kind| kind.field_number());
        let mut data_header = Vec::new();
        for Field { number: found, value } in Fields::new(item) {
            let Value::Len(piece) = value else { continue };
            if !is_data(found) {
                continue;
            }
            if found == number {
                data_header.extend_from_slice(&fields_except(piece, |number| number == 1));
            } else {
                // Another member of the oneof: what came before does not count.
                data_header.clear();
            }
        }
        Self { fields, header: fields_except(item, is_data), number, data_header }
    }

    fn fixed_len(&self) -> usize {
        self.header.len() + self.data_header.len()
    }

    /// The metric with these points, which take `points_len` bytes with keys and lengths.
    pub(super) fn message(&self, points: &[&[u8]], points_len: usize) -> Vec<u8> {
        let data_len = self.data_header.len() + points_len;
        let mut message = Vec::with_capacity(self.header.len() + field_len(data_len));
        message.extend_from_slice(&self.header);
        put_tag(&mut message, self.number, 2);
        put_varint(&mut message, data_len as u64);
        message.extend_from_slice(&self.data_header);
        for point in points {
            put_len_field(&mut message, 1, point);
        }
        message
    }
}
