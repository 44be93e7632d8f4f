//! Taking requests apart and putting them together without decoding them.
//!
//! All three signals have the same shape: a request repeats resources (field 1), a resource
//! repeats scopes (2), a scope repeats items (2): spans, metrics, log records. The *header* of a
//! resource or scope message is all its other fields as they were written: the resource or scope
//! itself, `schema_url`, and what we do not know. So everything here works for every signal, and
//! keeps every byte of what it keeps.

mod builder;
mod join;
mod owners;
mod retain;
mod sizes;
mod split;

use std::borrow::Cow;
use std::ops::Range;

use super::cursor::{Field, Fields, Value};

pub use builder::{RequestBuilder, ResourceSlot, ScopeSlot, TracesBuilder};
pub use join::join_split_values;
pub use owners::{Owned, Owners, Placed, split_by_owner};
pub use retain::{retain_items, retain_spans, without_invalid_ids};
pub use sizes::{SizeLimit, merge, split_by_size};
pub use split::{TraceId, split_by_trace};

/// The field of a request that holds its resources.
pub(super) const RESOURCES: u32 = 1;
/// The field of a resource that holds its scopes, and of a scope that holds its items.
pub(super) const CHILDREN: u32 = 2;

/// The fields of a message, each with the place of the whole field in it.
pub(super) fn raw_fields(message: &[u8]) -> impl Iterator<Item = (Range<usize>, Field<'_>)> {
    let mut fields = Fields::new(message);
    std::iter::from_fn(move || {
        let start = fields.position();
        let field = fields.next()?;
        Some((start..fields.position(), field))
    })
}

/// The header of a resource or scope message (`ResourceSpans`, `ScopeLogs`, ...): all fields but
/// its children. It is borrowed if the fields lie side by side, as they mostly do.
#[must_use]
pub fn header(message: &[u8]) -> Cow<'_, [u8]> {
    fields_except(message, |number| number == CHILDREN)
}

/// All fields of `message` but the length-delimited ones whose number is a child's.
pub(super) fn fields_except(message: &[u8], is_child: impl Fn(u32) -> bool) -> Cow<'_, [u8]> {
    let mut header = Header::default();
    for (range, field) in raw_fields(message) {
        if !(matches!(field.value, Value::Len(_)) && is_child(field.number)) {
            header.add(message, range);
        }
    }
    header.bytes
}

/// A header, while the fields of its message are read.
struct Header<'a> {
    bytes: Cow<'a, [u8]>,
    /// Where its last field ends in the message.
    end: usize,
}

impl Default for Header<'_> {
    fn default() -> Self {
        Self { bytes: Cow::Borrowed(&[]), end: 0 }
    }
}

impl<'a> Header<'a> {
    /// The field at `range` of `message` is part of it.
    fn add(&mut self, message: &'a [u8], range: Range<usize>) {
        let field = message.get(range.clone()).unwrap_or_default();
        match &mut self.bytes {
            Cow::Borrowed(found) if found.is_empty() => *found = field,
            Cow::Borrowed(found) if self.end == range.start => {
                *found = message.get(range.start - found.len()..range.end).unwrap_or_default();
            }
            _ => self.bytes.to_mut().extend_from_slice(field),
        }
        self.end = range.end;
    }
}
