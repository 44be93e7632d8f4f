//! Reshaping bytes against reshaping the decoded message.

use bytes::Bytes;
use prost::Message;

use super::{Entropy, generate};
use crate::batch::Signal;
use crate::proto::logs::v1::LogsData;
use crate::proto::metrics::v1::MetricsData;
use crate::proto::trace::v1::{Span, TracesData};
use crate::wire::{
    self, DataPoint, LogsView, MetricsView, Owners, Placed, SizeLimit, SpanView, TracesBuilder, TracesView, check,
    merge, retain_items, retain_spans, split_by_owner, split_by_size, split_by_trace, without_invalid_ids,
};

/// Reshapes a request that is generated from `data`, and `data` itself if it is a request.
pub fn reshape(data: &[u8]) {
    let (choices, data) = data.split_at(data.len().min(4));
    for signal in Signal::ALL {
        for bytes in [Bytes::copy_from_slice(data), generate(signal, &mut Entropy::new(data)).into()] {
            let Ok(checked) = check(signal, &bytes) else { continue };
            let choice = |index: usize| choices.get(index).copied().unwrap_or_default();
            split_and_merge(signal, &bytes, checked.items, choice(0), choice(1));
            retain_whole_items(signal, &bytes, choice(2));
            by_owner(signal, &bytes, checked.items, choice(3));
            if signal == Signal::Traces {
                retain(&bytes, choice(2), checked);
                by_trace(&bytes);
                build(&bytes);
            }
        }
    }
}

/// One item with the headers above it, as bytes.
type Item = (Vec<u8>, Vec<u8>, Vec<u8>);

fn items(signal: Signal, bytes: &[u8]) -> Vec<Item> {
    let mut found = Vec::new();
    macro_rules! collect {
        ($view:expr, $resources:ident, $scopes:ident, $items:ident) => {
            for resource in $view.$resources() {
                for scope in resource.$scopes() {
                    for item in scope.$items() {
                        found.push((resource.header().to_vec(), scope.header().to_vec(), item.bytes().to_vec()));
                    }
                }
            }
        };
    }
    match signal {
        Signal::Traces => collect!(TracesView::new(bytes), resource_spans, scope_spans, spans),
        Signal::Metrics => collect!(MetricsView::new(bytes), resource_metrics, scope_metrics, metrics),
        Signal::Logs => collect!(LogsView::new(bytes), resource_logs, scope_logs, log_records),
    }
    found
}

fn decoded<M: Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).expect("the request is decodable")
}

fn wanted(span_id: &[u8], choice: u8) -> bool {
    span_id.iter().fold(choice, |sum, byte| sum.wrapping_add(*byte)) % 3 > 0
}

fn retain_model(model: &mut TracesData, keep: impl Fn(&Span) -> bool) {
    for resource in &mut model.resource_spans {
        for scope in &mut resource.scope_spans {
            scope.spans.retain(&keep);
        }
        resource.scope_spans.retain(|scope| !scope.spans.is_empty());
    }
    model.resource_spans.retain(|resource| !resource.scope_spans.is_empty());
}

fn retain(bytes: &Bytes, choice: u8, checked: wire::Checked) {
    let mut asked = Vec::new();
    let (kept, count) = retain_spans(bytes, |span| {
        asked.push(span.bytes().to_vec());
        wanted(span.span_id(), choice)
    });
    let before = items(Signal::Traces, bytes);
    assert!(asked.iter().eq(before.iter().map(|(_, _, span)| span)), "each span is asked for once, in order");
    let expected: Vec<Item> =
        before.iter().filter(|(_, _, span)| wanted(SpanView::new(span).span_id(), choice)).cloned().collect();
    assert_eq!(count, expected.len());
    assert_eq!(items(Signal::Traces, &kept), expected, "spans and headers stay byte for byte");
    if count == before.len() {
        assert!(std::ptr::eq(kept.as_ptr(), bytes.as_ptr()) && kept.len() == bytes.len(), "nothing is copied");
    } else {
        let mut model: TracesData = decoded(bytes);
        retain_model(&mut model, |span| wanted(&span.span_id, choice));
        assert_eq!(decoded::<TracesData>(&kept).encode_to_vec(), model.encode_to_vec());
    }
    let (valid, count) = without_invalid_ids(bytes);
    assert_eq!(count, checked.items - checked.invalid_ids);
    let checked = check(Signal::Traces, &valid).expect("what is left is acceptable");
    assert_eq!((checked.items, checked.invalid_ids), (count, 0));
}

fn retain_whole_items(signal: Signal, bytes: &Bytes, choice: u8) {
    let keep = |item: &[u8]| wanted(item, choice);
    let (kept, count) = retain_items(bytes, keep);
    let expected: Vec<Item> = items(signal, bytes).into_iter().filter(|(_, _, item)| keep(item)).collect();
    assert_eq!(count, expected.len());
    assert_eq!(items(signal, &kept), expected);
    check(signal, &kept).expect("what is left is acceptable");
}

fn by_trace(bytes: &Bytes) {
    let id = |bytes: &[u8]| {
        let mut id = [0; 16];
        id.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        id
    };
    let mut order: Vec<[u8; 16]> = Vec::new();
    for (_, _, span) in items(Signal::Traces, bytes) {
        let id = id(SpanView::new(&span).trace_id());
        if !order.contains(&id) {
            order.push(id);
        }
    }
    let traces = split_by_trace(bytes);
    assert_eq!(traces.iter().map(|(id, _)| *id).collect::<Vec<_>>(), order);
    for (trace, request) in &traces {
        let mut model: TracesData = decoded(bytes);
        retain_model(&mut model, |span| id(&span.trace_id) == *trace);
        let mut split: TracesData = decoded(request);
        retain_model(&mut split, |_| true);
        assert_eq!(split.encode_to_vec(), model.encode_to_vec());
    }
}

/// Owners by what items, or points, are written as; every item is asked for once, in order.
struct ByContent {
    owners: usize,
    by_point: bool,
    asked: Vec<Vec<u8>>,
}

impl ByContent {
    fn owner(&self, bytes: &[u8]) -> usize {
        bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % self.owners
    }
}

impl<'a> Owners<'a> for ByContent {
    fn resource(&mut self, _: &'a [u8]) {}

    fn scope(&mut self, _: &'a [u8]) {}

    fn item(&mut self, item: &'a [u8]) -> Placed {
        self.asked.push(item.to_vec());
        if self.by_point { Placed::ByPoint } else { Placed::Whole(self.owner(item)) }
    }

    fn point(&mut self, point: DataPoint<'a>) -> usize {
        self.owner(point.bytes())
    }
}

fn by_owner(signal: Signal, bytes: &Bytes, count: usize, choice: u8) {
    let by_point = signal == Signal::Metrics && choice.is_multiple_of(2);
    let mut owners = ByContent { owners: usize::from(choice % 5) + 1, by_point, asked: Vec::new() };
    let parts = split_by_owner(signal, bytes, &mut owners);
    let before = items(signal, bytes);
    assert!(owners.asked.iter().eq(before.iter().map(|(_, _, item)| item)), "each item is asked for once, in order");
    assert_eq!(parts.iter().map(|part| part.items).sum::<usize>(), count, "no item is lost");
    if let [only] = parts.as_slice() {
        assert!(std::ptr::eq(only.bytes.as_ptr(), bytes.as_ptr()), "nothing is copied");
        assert_eq!(only.bytes.len(), bytes.len());
        return;
    }
    let flat = |bytes: &[u8]| if by_point { flat_points(bytes) } else { items(signal, bytes) };
    let mut expected: Vec<(usize, Vec<Item>)> = Vec::new();
    for item in flat(bytes) {
        let owner = owners.owner(&item.2);
        match expected.iter_mut().find(|(known, _)| *known == owner) {
            Some((_, items)) => items.push(item),
            None => expected.push((owner, vec![item])),
        }
    }
    let found: Vec<_> = parts.iter().map(|part| (part.owner, flat(&part.bytes))).collect();
    assert_eq!(found, expected, "each in the order of the request, with its headers");
    for part in &parts {
        assert_eq!(check(signal, &part.bytes).expect("parts are acceptable").items, part.items);
    }
}

fn build(bytes: &Bytes) {
    let mut before = items(Signal::Traces, bytes);
    // Every third span first: resources and scopes come in turns.
    let later = before.split_off(before.len() / 3);
    let pushed: Vec<Item> = later.into_iter().chain(before).collect();
    let mut builder = TracesBuilder::new();
    for (resource, scope, span) in &pushed {
        builder.push(resource, scope, span);
    }
    assert_eq!(builder.len(), pushed.len());
    let bound = builder.size_bound();
    let built = builder.finish();
    assert!(built.len() <= bound, "{} bytes, bound {bound}", built.len());
    // Grouped by headers in the order in which they first appear.
    let mut expected: Vec<Item> = Vec::new();
    for (resource, scope, span) in pushed {
        let same_scope = expected.iter().rposition(|(r, s, _)| *r == resource && *s == scope);
        let same_resource = expected.iter().rposition(|(r, _, _)| *r == resource);
        let at = same_scope.or(same_resource).map_or(expected.len(), |last| last + 1);
        expected.insert(at, (resource, scope, span));
    }
    assert_eq!(items(Signal::Traces, &built), expected);
    let view = TracesView::new(&built);
    let headers: Vec<_> = view.resource_spans().map(|resource| resource.header().to_vec()).collect();
    assert!(headers.iter().enumerate().all(|(index, header)| !headers[..index].contains(header)));
}

fn split_and_merge(signal: Signal, bytes: &Bytes, count: usize, bytes_choice: u8, items_choice: u8) {
    let limit = SizeLimit {
        bytes: if bytes_choice.is_multiple_of(2) { usize::MAX } else { usize::from(bytes_choice) * 4 },
        items: if items_choice.is_multiple_of(4) { usize::MAX } else { usize::from(items_choice % 16) + 1 },
    };
    let parts = split_by_size(signal, bytes, limit);
    assert_eq!(parts.iter().map(|(_, items)| items).sum::<usize>(), count, "no item is lost");
    for (part, items) in &parts {
        let checked = check(signal, part).expect("parts are acceptable");
        assert_eq!(checked.items, *items);
        assert!(*items <= limit.items.max(1), "{items} items, {limit:?}");
        assert!(part.len() <= limit.bytes || *items <= 1 || whole(signal, part), "{} bytes, {limit:?}", part.len());
    }
    let merged = merge(&parts.iter().map(|(part, _)| part.clone()).collect::<Vec<_>>());
    let flat = |bytes: &[u8]| match signal {
        Signal::Metrics => flat_points(bytes),
        _ => items(signal, bytes),
    };
    assert_eq!(flat(&merged), flat(bytes), "order, headers and items stay");
    let twice = merge(&[bytes.clone(), bytes.clone()]);
    match signal {
        Signal::Traces => {
            let (mut model, twice) = (decoded::<TracesData>(bytes), decoded::<TracesData>(&twice));
            model.resource_spans.extend(model.resource_spans.clone());
            assert_eq!(model.encode_to_vec(), twice.encode_to_vec());
        }
        Signal::Metrics => {
            let (mut model, twice) = (decoded::<MetricsData>(bytes), decoded::<MetricsData>(&twice));
            model.resource_metrics.extend(model.resource_metrics.clone());
            assert_eq!(model.encode_to_vec(), twice.encode_to_vec());
        }
        Signal::Logs => {
            let (mut model, twice) = (decoded::<LogsData>(bytes), decoded::<LogsData>(&twice));
            model.resource_logs.extend(model.resource_logs.clone());
            assert_eq!(model.encode_to_vec(), twice.encode_to_vec());
        }
    }
}

/// A metric without points is one thing that cannot be split, whatever its size.
fn whole(signal: Signal, part: &[u8]) -> bool {
    signal == Signal::Metrics && items(signal, part).len() == 1
}

/// Each point as an item, with the metric (without points) as part of its header.
fn flat_points(bytes: &[u8]) -> Vec<Item> {
    let mut found = Vec::new();
    for (resource, mut scope, metric) in items(Signal::Metrics, bytes) {
        let view = wire::MetricView::new(&metric);
        let fields = view.fields();
        let metadata: Vec<_> = view.metadata().collect();
        scope.extend(
            format!("{:?} {:?} {:?} {:?} {metadata:?}", fields.name, fields.description, fields.unit, fields.kind)
                .into_bytes(),
        );
        for point in fields.point_bytes() {
            found.push((resource.clone(), scope.clone(), point.to_vec()));
        }
    }
    found
}
