//! Assembling a request from headers and items.

use std::borrow::Cow;

use bytes::Bytes;
use hashbrown::HashMap;

use super::{CHILDREN, RESOURCES};
use crate::wire::cursor::{put_tag, put_varint, varint_len};

/// A resource of a [`RequestBuilder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResourceSlot(u32);

/// A scope of a [`RequestBuilder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScopeSlot(u32);

/// Assembles a request of any signal from headers (see [`header`](super::header)) and items.
///
/// The caller says which items share a resource and a scope; [`TracesBuilder`] finds out by
/// itself. Nothing is copied before [`RequestBuilder::finish`]. Order is kept: of the resources,
/// of the scopes in one, of the items in one.
#[derive(Debug, Default)]
pub struct RequestBuilder<'a> {
    resources: Vec<Group<'a>>,
    scopes: Vec<Group<'a>>,
    /// For each scope the next one of the same resource; `NONE` at the end.
    next_scope: Vec<u32>,
    /// The items with the index of the next one of the same scope.
    items: Vec<(&'a [u8], u32)>,
    size_bound: usize,
}

/// A resource with its scopes or a scope with its items: a linked list through a table.
#[derive(Debug)]
struct Group<'a> {
    header: Cow<'a, [u8]>,
    first: u32,
    last: u32,
    /// The encoded length of the children, their keys and lengths included.
    children_len: usize,
}

const NONE: u32 = u32::MAX;

/// The largest key and length that a resource or scope takes.
const PREFIX_BOUND: usize = 1 + 5;

impl<'a> Group<'a> {
    fn new(header: Cow<'a, [u8]>) -> Self {
        Self { header, first: NONE, last: NONE, children_len: 0 }
    }

    fn len(&self) -> usize {
        self.header.len() + self.children_len
    }
}

/// How many bytes a field of `len` bytes takes with its key (below 16) and length.
pub(super) fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

impl<'a> RequestBuilder<'a> {
    /// An empty request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a resource. One that gets no items is left out.
    pub fn resource(&mut self, header: impl Into<Cow<'a, [u8]>>) -> ResourceSlot {
        let header = header.into();
        self.size_bound += header.len() + PREFIX_BOUND;
        self.resources.push(Group::new(header));
        ResourceSlot(self.resources.len() as u32 - 1)
    }

    /// Begins a scope in `resource`. One that gets no items is left out.
    pub fn scope(&mut self, resource: ResourceSlot, header: impl Into<Cow<'a, [u8]>>) -> ScopeSlot {
        let header = header.into();
        self.size_bound += header.len() + PREFIX_BOUND;
        let index = self.scopes.len() as u32;
        self.scopes.push(Group::new(header));
        self.next_scope.push(NONE);
        if let Some(resource) = self.resources.get_mut(resource.0 as usize) {
            match self.next_scope.get_mut(resource.last as usize) {
                Some(next) => *next = index,
                None => resource.first = index,
            }
            resource.last = index;
        }
        ScopeSlot(index)
    }

    /// Adds the message of one item.
    pub fn push(&mut self, scope: ScopeSlot, item: &'a [u8]) {
        let Some(scope) = self.scopes.get_mut(scope.0 as usize) else { return };
        let index = self.items.len() as u32;
        self.items.push((item, NONE));
        match self.items.get_mut(scope.last as usize) {
            Some((_, next)) => *next = index,
            None => scope.first = index,
        }
        scope.last = index;
        let len = field_len(item.len());
        scope.children_len += len;
        self.size_bound += len;
    }

    /// How many items it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Does it hold no item?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The finished request takes at most so many bytes, and only a few less: lengths are
    /// counted at their largest.
    #[must_use]
    pub fn size_bound(&self) -> usize {
        self.size_bound
    }

    /// Writes the request.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        let mut total = 0;
        for resource in &mut self.resources {
            let mut index = resource.first;
            while let (Some(scope), Some(&next)) =
                (self.scopes.get(index as usize), self.next_scope.get(index as usize))
            {
                if scope.first != NONE {
                    resource.children_len += field_len(scope.len());
                }
                index = next;
            }
            if resource.children_len > 0 {
                total += field_len(resource.len());
            }
        }
        let mut out = Vec::with_capacity(total);
        for resource in self.resources.iter().filter(|resource| resource.children_len > 0) {
            put_header(&mut out, RESOURCES, resource);
            let mut index = resource.first;
            while let (Some(scope), Some(&next)) =
                (self.scopes.get(index as usize), self.next_scope.get(index as usize))
            {
                if scope.first != NONE {
                    put_header(&mut out, CHILDREN, scope);
                    self.put_items(&mut out, scope.first);
                }
                index = next;
            }
        }
        debug_assert_eq!(out.len(), total);
        out.into()
    }

    fn put_items(&self, out: &mut Vec<u8>, first: u32) {
        let mut index = first;
        while let Some(&(item, next)) = self.items.get(index as usize) {
            put_tag(out, CHILDREN, 2);
            put_varint(out, item.len() as u64);
            out.extend_from_slice(item);
            index = next;
        }
    }
}

fn put_header(out: &mut Vec<u8>, number: u32, group: &Group<'_>) {
    put_tag(out, number, 2);
    put_varint(out, group.len() as u64);
    out.extend_from_slice(&group.header);
}

/// Assembles a request from items that each come with the headers of their resource and scope,
/// and puts together what has equal headers. Made for spans; serves log records and metrics too.
///
/// Looking a header up means hashing it, unless it is the very slice that came before: whoever
/// interns headers calls this in the order of its ids, or uses a [`RequestBuilder`] and keeps the
/// slots beside its ids.
#[derive(Debug, Default)]
pub struct TracesBuilder<'a> {
    builder: RequestBuilder<'a>,
    resources: HashMap<&'a [u8], ResourceSlot, foldhash::quality::RandomState>,
    scopes: HashMap<(ResourceSlot, &'a [u8]), ScopeSlot, foldhash::quality::RandomState>,
    last: Option<(&'a [u8], ResourceSlot, &'a [u8], ScopeSlot)>,
}

impl<'a> TracesBuilder<'a> {
    /// An empty request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one item.
    pub fn push(&mut self, resource_header: &'a [u8], scope_header: &'a [u8], item: &'a [u8]) {
        let scope = self.slot(resource_header, scope_header);
        self.builder.push(scope, item);
    }

    fn slot(&mut self, resource_header: &'a [u8], scope_header: &'a [u8]) -> ScopeSlot {
        let mut known_resource = None;
        if let Some((resource_bytes, resource, scope_bytes, scope)) = self.last
            && std::ptr::eq(resource_bytes, resource_header)
        {
            if std::ptr::eq(scope_bytes, scope_header) {
                return scope;
            }
            known_resource = Some(resource);
        }
        let builder = &mut self.builder;
        let resource = known_resource.unwrap_or_else(|| {
            *self.resources.entry(resource_header).or_insert_with(|| builder.resource(resource_header))
        });
        let scope =
            *self.scopes.entry((resource, scope_header)).or_insert_with(|| builder.scope(resource, scope_header));
        self.last = Some((resource_header, resource, scope_header, scope));
        scope
    }

    /// How many items it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.builder.len()
    }

    /// Does it hold no item?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// The finished request takes at most so many bytes, and only a few less.
    #[must_use]
    pub fn size_bound(&self) -> usize {
        self.builder.size_bound()
    }

    /// Writes the request.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.builder.finish()
    }
}
