//! Splitting a request between owners: whoever is to get which item.

use std::borrow::Cow;

use bytes::Bytes;
use hashbrown::HashMap;

use super::builder::{RequestBuilder, ResourceSlot, ScopeSlot, field_len};
use super::sizes::{SplitMetric, weight};
use super::{CHILDREN, RESOURCES, header};
use crate::batch::Signal;
use crate::wire::common::len_fields;
use crate::wire::metrics::DataPoint;

/// Who gets an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// The whole of it goes to this owner.
    Whole(usize),
    /// A metric whose points may go to different owners: [`Owners::point`] is asked for each of them.
    ByPoint,
}

/// Says who gets what. Called in the order in which things stand in the request.
pub trait Owners<'a> {
    /// What follows is in this resource message (`ResourceSpans`, ...).
    fn resource(&mut self, resource: &'a [u8]);

    /// What follows is in this scope message (`ScopeSpans`, ...).
    fn scope(&mut self, scope: &'a [u8]);

    /// Who gets this span, log record or metric.
    fn item(&mut self, item: &'a [u8]) -> Placed;

    /// Who gets this point of the metric that was asked for last.
    fn point(&mut self, point: DataPoint<'a>) -> usize;
}

/// What one owner gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Who.
    pub owner: usize,
    /// The request.
    pub bytes: Bytes,
    /// How many spans, data points or log records it holds.
    pub items: usize,
}

/// An item with its place in the request.
struct Item<'a> {
    owner: usize,
    resource: usize,
    scope: usize,
    message: Cow<'a, [u8]>,
    weight: usize,
}

/// Splits a request into one for each owner, in the order in which they first appear. Order within an
/// owner is kept, resources and scopes are repeated as needed, and if there is one owner only, it gets
/// the same `Bytes`. A metric without points goes with the rest of the whole request or not at all.
#[must_use]
pub fn split_by_owner<'a>(signal: Signal, bytes: &'a Bytes, owners: &mut impl Owners<'a>) -> Vec<Owned> {
    let (mut resources, mut scopes) = (Vec::new(), Vec::new());
    let mut items: Vec<Item<'a>> = Vec::new();
    for resource in len_fields(bytes, RESOURCES) {
        owners.resource(resource);
        resources.push(resource);
        for scope in len_fields(resource, CHILDREN) {
            owners.scope(scope);
            scopes.push(scope);
            let (resource, scope_index) = (resources.len() - 1, scopes.len() - 1);
            for message in len_fields(scope, CHILDREN) {
                match owners.item(message) {
                    Placed::Whole(owner) => {
                        let (message, weight) = (Cow::Borrowed(message), weight(signal, message));
                        items.push(Item { owner, resource, scope: scope_index, message, weight });
                    }
                    Placed::ByPoint => {
                        for (owner, message, weight) in split_points(message, owners) {
                            items.push(Item { owner, resource, scope: scope_index, message, weight });
                        }
                    }
                }
            }
        }
    }
    let first = items.first().map_or(0, |item| item.owner);
    if items.iter().all(|item| item.owner == first) {
        let items = items.iter().map(|item| item.weight).sum();
        return vec![Owned { owner: first, bytes: bytes.clone(), items }];
    }
    build(&resources, &scopes, &items)
}

/// The metric `message` for each owner of its points.
fn split_points<'a>(message: &'a [u8], owners: &mut impl Owners<'a>) -> Vec<(usize, Cow<'a, [u8]>, usize)> {
    let metric = SplitMetric::new(message);
    let mut by_owner: Vec<(usize, Vec<&'a [u8]>)> = Vec::new();
    let mut index_of = HashMap::<usize, usize, foldhash::quality::RandomState>::default();
    for point in metric.fields.data_points() {
        let owner = owners.point(point);
        let index = *index_of.entry(owner).or_insert_with(|| {
            by_owner.push((owner, Vec::new()));
            by_owner.len() - 1
        });
        if let Some((_, points)) = by_owner.get_mut(index) {
            points.push(point.bytes());
        }
    }
    if let [(owner, points)] = by_owner.as_slice() {
        return vec![(*owner, Cow::Borrowed(message), points.len())];
    }
    let whole = |(owner, points): (usize, Vec<&'a [u8]>)| {
        let len = points.iter().map(|point| field_len(point.len())).sum();
        (owner, Cow::Owned(metric.message(&points, len)), points.len())
    };
    by_owner.into_iter().map(whole).collect()
}

/// The request of one owner, while it is put together.
struct Request<'a> {
    owner: usize,
    builder: RequestBuilder<'a>,
    resource: Option<(usize, ResourceSlot)>,
    scope: Option<(usize, ScopeSlot)>,
    items: usize,
}

fn build<'a>(resources: &[&'a [u8]], scopes: &[&'a [u8]], items: &'a [Item<'_>]) -> Vec<Owned> {
    // Headers are looked for once, and only where they are needed.
    let mut resource_headers: Vec<Option<Cow<'a, [u8]>>> = vec![None; resources.len()];
    let mut scope_headers: Vec<Option<Cow<'a, [u8]>>> = vec![None; scopes.len()];
    let mut requests: Vec<Request<'a>> = Vec::new();
    let mut index_of = HashMap::<usize, usize, foldhash::quality::RandomState>::default();
    let mut last = None;
    for item in items {
        let index = match last {
            Some((owner, index)) if owner == item.owner => index,
            _ => *index_of.entry(item.owner).or_insert_with(|| {
                let builder = RequestBuilder::new();
                requests.push(Request { owner: item.owner, builder, resource: None, scope: None, items: 0 });
                requests.len() - 1
            }),
        };
        last = Some((item.owner, index));
        let Some(request) = requests.get_mut(index) else { continue };
        let resource = match request.resource {
            Some((known, slot)) if known == item.resource => slot,
            _ => {
                let found = header_of(resources, &mut resource_headers, item.resource);
                request.scope = None;
                request.builder.resource(found)
            }
        };
        request.resource = Some((item.resource, resource));
        let scope = match request.scope {
            Some((known, slot)) if known == item.scope => slot,
            _ => request.builder.scope(resource, header_of(scopes, &mut scope_headers, item.scope)),
        };
        request.scope = Some((item.scope, scope));
        request.builder.push(scope, &item.message);
        request.items += item.weight;
    }
    let owned =
        |request: Request<'_>| Owned { owner: request.owner, bytes: request.builder.finish(), items: request.items };
    requests.into_iter().map(owned).collect()
}

fn header_of<'a>(messages: &[&'a [u8]], headers: &mut [Option<Cow<'a, [u8]>>], index: usize) -> Cow<'a, [u8]> {
    let (Some(message), Some(known)) = (messages.get(index), headers.get_mut(index)) else { return Cow::default() };
    known.get_or_insert_with(|| header(message)).clone()
}
