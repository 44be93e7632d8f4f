//! What is changed in kept spans: attributes that say why, and `tracestate`. By splicing: nothing is decoded.

use nyquist_core::wire::{Field, Fields, KeyValue, Value, put_len_field, put_tag, put_varint, varint_len};

use super::record::Contents;
use crate::tail_sampling::rules::trace_state::Change;

/// Which spans of a run get attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    None,
    First,
    Root,
    All,
}

/// What is changed in the spans of a trace.
pub(super) struct Rewrite<'a> {
    pub(super) target: Target,
    /// Fields of a span that the target's get.
    pub(super) attributes: &'a [u8],
    /// What becomes of `tracestate`.
    pub(super) change: Option<Change>,
}

/// Reused from span to span.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    span: Vec<u8>,
    header: Vec<u8>,
    /// What a span without `tracestate` gets.
    first_header: Vec<u8>,
}

impl Scratch {
    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.span.capacity() + self.header.capacity() + self.first_header.capacity()
    }

    /// Gives back what a large span has left, so that no more than `bytes` are kept for the next.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if self.span.capacity() > bytes {
            self.span = Vec::new();
        }
    }
}

impl Rewrite<'_> {
    pub(super) fn is_needed(&self) -> bool {
        self.target != Target::None || self.change.is_some()
    }

    /// Appends `run` to `out` as it should be. True if the target was found.
    pub(super) fn run(&self, run: &[u8], contents: Contents, scratch: &mut Scratch, out: &mut Vec<u8>) -> bool {
        let mut done = false;
        scratch.first_header.clear();
        if let Some(change) = self.change {
            change.apply(&[], &mut scratch.first_header);
        }
        let read_headers = self.change.is_some() && contents.trace_state;
        let change_all = read_headers || !scratch.first_header.is_empty();
        let mut fields = Fields::new(run);
        // What is before `copied` is in `out`.
        let (mut before, mut copied, mut index) = (0, 0, 0);
        while let Some(field) = fields.next() {
            let place = before..fields.position();
            before = place.end;
            let Field { number: 2, value: Value::Len(span) } = field else {
                continue;
            };
            let wanted = match self.target {
                Target::None => false,
                Target::All => true,
                Target::First => !done,
                Target::Root => index == contents.root,
            };
            index += 1;
            done |= wanted;
            if !wanted && !change_all {
                if done && self.target != Target::All {
                    break;
                }
                continue;
            }
            let header = if read_headers { trace_state(span) } else { &[] };
            if header.is_empty() && !wanted {
                // Most spans: one field more.
                let first = scratch.first_header.as_slice();
                if first.is_empty() {
                    continue;
                }
                let field = 1 + varint_len(first.len() as u64) + first.len();
                out.extend_from_slice(run.get(copied..place.start).unwrap_or_default());
                copied = place.end;
                put_tag(out, 2, 2);
                put_varint(out, (span.len() + field) as u64);
                out.extend_from_slice(span);
                put_len_field(out, 3, first);
            } else if self.span(span, header, wanted, scratch) {
                out.extend_from_slice(run.get(copied..place.start).unwrap_or_default());
                copied = place.end;
                put_tag(out, 2, 2);
                put_varint(out, scratch.span.len() as u64);
                out.extend_from_slice(&scratch.span);
            }
        }
        out.extend_from_slice(run.get(copied..).unwrap_or_default());
        done
    }

    /// Puts the span as it should be into `scratch.span`. False if it is that already.
    fn span(&self, span: &[u8], header: &[u8], wanted: bool, scratch: &mut Scratch) -> bool {
        scratch.header.clear();
        let changed = self.change.is_some_and(|change| change.apply(header, &mut scratch.header));
        if !changed && !wanted {
            return false;
        }
        scratch.span.clear();
        let mut fields = Fields::new(span);
        let (mut before, mut copied) = (0, 0);
        while let Some(Field { number, value }) = fields.next() {
            let place = before..fields.position();
            before = place.end;
            let replaced = match (number, value) {
                (3, Value::Len(_)) => changed,
                (9, Value::Len(attribute)) => wanted && is_replaced(attribute, self.attributes),
                _ => false,
            };
            if replaced {
                scratch.span.extend_from_slice(span.get(copied..place.start).unwrap_or_default());
                copied = place.end;
            }
        }
        scratch.span.extend_from_slice(span.get(copied..).unwrap_or_default());
        if changed && !scratch.header.is_empty() {
            put_len_field(&mut scratch.span, 3, &scratch.header);
        }
        if wanted {
            scratch.span.extend_from_slice(self.attributes);
        }
        true
    }
}

/// The `tracestate` of a span.
fn trace_state(span: &[u8]) -> &[u8] {
    let found = Fields::new(span).filter_map(|field| match field {
        Field { number: 3, value: Value::Len(header) } => Some(header),
        _ => None,
    });
    found.last().unwrap_or_default()
}

/// Is it an attribute that a gateway before this one wrote, and that this one writes too?
fn is_replaced(attribute: &[u8], ours: &[u8]) -> bool {
    let key = KeyValue::new(attribute).key;
    let looks_like_ours = key.starts_with(b"nyquist.sampling.") || key.starts_with(b"tailsampling.");
    looks_like_ours
        && Fields::new(ours)
            .any(|field| matches!(field.value, Value::Len(attribute) if KeyValue::new(attribute).key == key))
}
