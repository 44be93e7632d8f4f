//! Splitting a request between owners: whoever is to get which item.

use std::borrow::Cow;

use bytes::Bytes;

use super::builder::field_len;
use super::sizes::{SplitMetric, weight};
use super::{CHILDREN, RESOURCES, header, raw_fields};
use crate::batch::Signal;
use crate::wire::common::len_fields;
use crate::wire::cursor::{Field, Value, put_len_field, put_tag, put_varint};
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

/// Items of one owner that stand side by side in a scope.
struct Run<'a> {
    /// Which of the owners, in the order of their first items.
    slot: u32,
    /// The index of the resource.
    resource: u32,
    /// The index of the scope, counted over all resources.
    scope: u32,
    items: usize,
    /// Their fields, keys and lengths included.
    fields: Cow<'a, [u8]>,
}

/// Splits a request into one for each owner, in the order in which they first appear. Owners are small
/// numbers: a table is kept that is as long as the largest. Order within an owner is kept, resources and
/// scopes are repeated as needed, and if there is one owner only, it gets the same `Bytes`. A metric
/// without points goes with the rest of the whole request or not at all.
#[must_use]
pub fn split_by_owner<'a>(signal: Signal, bytes: &'a Bytes, owners: &mut impl Owners<'a>) -> Vec<Owned> {
    let (mut resources, mut scopes) = (Vec::new(), Vec::new());
    let mut slots = Slots::default();
    let mut runs: Vec<Run<'a>> = Vec::new();
    for resource in len_fields(bytes, RESOURCES) {
        owners.resource(resource);
        for scope in len_fields(resource, CHILDREN) {
            owners.scope(scope);
            let place = (resources.len() as u32, scopes.len() as u32);
            let run = |slot, items, fields| Run { slot, resource: place.0, scope: place.1, items, fields };
            // Where the last run ends, if what follows may be a part of it.
            let mut end = None;
            for (range, field) in raw_fields(scope) {
                let Field { number: CHILDREN, value: Value::Len(message) } = field else { continue };
                let owner = match owners.item(message) {
                    Placed::Whole(owner) => owner,
                    Placed::ByPoint => {
                        for (owner, message, points) in split_points(message, owners) {
                            let mut field = Vec::with_capacity(field_len(message.len()));
                            put_len_field(&mut field, CHILDREN, &message);
                            runs.push(run(slots.of(owner), points, field.into()));
                        }
                        end = None;
                        continue;
                    }
                };
                let (slot, items) = (slots.of(owner), weight(signal, message));
                match runs.last_mut() {
                    Some(Run { slot: last, items: known, fields: Cow::Borrowed(fields), .. })
                        if *last == slot && end == Some(range.start) =>
                    {
                        *known += items;
                        *fields = scope.get(range.start - fields.len()..range.end).unwrap_or_default();
                    }
                    _ => runs.push(run(slot, items, scope.get(range.clone()).unwrap_or_default().into())),
                }
                end = Some(range.end);
            }
            scopes.push(scope);
        }
        resources.push(resource);
    }
    if slots.owners.len() < 2 {
        let items = runs.iter().map(|run| run.items).sum();
        return vec![Owned { owner: slots.owners.first().copied().unwrap_or(0), bytes: bytes.clone(), items }];
    }
    // Stable: what has one owner stays in order.
    runs.sort_by_key(|run| run.slot);
    let headers = Headers {
        of_resources: resources.into_iter().map(header).collect(),
        of_scopes: scopes.into_iter().map(header).collect(),
    };
    let owned = |(runs, owner): (&[Run<'_>], usize)| Owned {
        owner,
        bytes: headers.request(runs).into(),
        items: runs.iter().map(|run| run.items).sum(),
    };
    runs.chunk_by(|a, b| a.slot == b.slot).zip(slots.owners).map(owned).collect()
}

/// Numbers owners in the order in which they are met.
#[derive(Default)]
struct Slots {
    owners: Vec<usize>,
    /// For each owner its slot plus one; 0 for those not met yet.
    of_owner: Vec<u32>,
}

impl Slots {
    #[inline]
    fn of(&mut self, owner: usize) -> u32 {
        match self.of_owner.get(owner) {
            Some(&slot) if slot > 0 => slot - 1,
            _ => self.add(owner),
        }
    }

    #[cold]
    fn add(&mut self, owner: usize) -> u32 {
        if self.of_owner.len() <= owner {
            self.of_owner.resize(owner + 1, 0);
        }
        self.owners.push(owner);
        let slot = self.owners.len() as u32;
        if let Some(entry) = self.of_owner.get_mut(owner) {
            *entry = slot;
        }
        slot - 1
    }
}

/// What is repeated for each owner.
struct Headers<'a> {
    of_resources: Vec<Cow<'a, [u8]>>,
    of_scopes: Vec<Cow<'a, [u8]>>,
}

impl Headers<'_> {
    /// The request of these runs, which all have the same owner.
    fn request(&self, runs: &[Run<'_>]) -> Vec<u8> {
        let total = by_resource(runs).map(|runs| field_len(self.resource_len(runs))).sum();
        let mut out = Vec::with_capacity(total);
        for runs in by_resource(runs) {
            put_tag(&mut out, RESOURCES, 2);
            put_varint(&mut out, self.resource_len(runs) as u64);
            out.extend_from_slice(self.of_resource(runs));
            for runs in by_scope(runs) {
                put_tag(&mut out, CHILDREN, 2);
                put_varint(&mut out, self.scope_len(runs) as u64);
                out.extend_from_slice(self.of_scope(runs));
                runs.iter().for_each(|run| out.extend_from_slice(&run.fields));
            }
        }
        debug_assert_eq!(out.len(), total);
        out
    }

    fn of_resource(&self, runs: &[Run<'_>]) -> &[u8] {
        runs.first().and_then(|run| self.of_resources.get(run.resource as usize)).map_or(&[], |header| header)
    }

    fn of_scope(&self, runs: &[Run<'_>]) -> &[u8] {
        runs.first().and_then(|run| self.of_scopes.get(run.scope as usize)).map_or(&[], |header| header)
    }

    /// The length of the resource message with these runs.
    fn resource_len(&self, runs: &[Run<'_>]) -> usize {
        let scopes = by_scope(runs).map(|runs| field_len(self.scope_len(runs)));
        self.of_resource(runs).len() + scopes.sum::<usize>()
    }

    /// The length of the scope message with these runs.
    fn scope_len(&self, runs: &[Run<'_>]) -> usize {
        self.of_scope(runs).len() + runs.iter().map(|run| run.fields.len()).sum::<usize>()
    }
}

fn by_resource<'r, 'a>(runs: &'r [Run<'a>]) -> impl Iterator<Item = &'r [Run<'a>]> {
    runs.chunk_by(|a, b| a.resource == b.resource)
}

fn by_scope<'r, 'a>(runs: &'r [Run<'a>]) -> impl Iterator<Item = &'r [Run<'a>]> {
    runs.chunk_by(|a, b| a.scope == b.scope)
}

/// The metric `message` for each owner of its points.
fn split_points<'a>(message: &'a [u8], owners: &mut impl Owners<'a>) -> Vec<(usize, Cow<'a, [u8]>, usize)> {
    let metric = SplitMetric::new(message);
    let mut by_owner: Vec<(usize, Vec<&'a [u8]>)> = Vec::new();
    let mut slots = Slots::default();
    for point in metric.fields.data_points() {
        let owner = owners.point(point);
        let slot = slots.of(owner) as usize;
        if slot == by_owner.len() {
            by_owner.push((owner, Vec::new()));
        }
        if let Some((_, points)) = by_owner.get_mut(slot) {
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
