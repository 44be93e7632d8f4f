//! Keeping some items of a request and removing the others.

use std::ops::Range;

use bytes::Bytes;

use super::builder::field_len;
use super::{CHILDREN, RESOURCES, raw_fields};
use crate::wire::SpanView;
use crate::wire::check::{is_span_id, is_trace_id};
use crate::wire::common::len_fields;
use crate::wire::cursor::{Field, Value, put_tag, put_varint};

/// Keeps the spans that `keep` wants. Returns the request and how many spans are in it.
///
/// If all are kept it is the same `Bytes`. If not, scopes and resources without spans go too,
/// and everything else stays as it was written, in the order in which it was written.
pub fn retain_spans(bytes: &Bytes, mut keep: impl FnMut(&SpanView<'_>) -> bool) -> (Bytes, usize) {
    retain_items(bytes, |item| keep(&SpanView::new(item)))
}

/// Removes the spans whose trace id or span id is zero or of the wrong length. Returns the
/// request and how many spans are left in it.
#[must_use]
pub fn without_invalid_ids(bytes: &Bytes) -> (Bytes, usize) {
    retain_spans(bytes, |span| {
        let fields = span.fields();
        is_trace_id(fields.trace_id) && is_span_id(fields.span_id)
    })
}

/// As [`retain_spans`] for a request of any signal: `keep` gets the messages of the items, which
/// are spans, log records, or metrics (whole ones: their points count as one item here).
pub fn retain_items(bytes: &Bytes, mut keep: impl FnMut(&[u8]) -> bool) -> (Bytes, usize) {
    let items = len_fields(bytes, RESOURCES)
        .flat_map(|resource| len_fields(resource, CHILDREN))
        .flat_map(|scope| len_fields(scope, CHILDREN));
    let mut decisions = Decisions::default();
    for item in items {
        decisions.push(keep(item));
    }
    if decisions.later.is_empty() {
        return (bytes.clone(), decisions.kept);
    }
    let kept = decisions.kept;
    (Rest::of(bytes, decisions).write(bytes), kept)
}

/// Which items are kept. Costs no memory until one is not.
#[derive(Default)]
struct Decisions {
    /// How many are kept before the first one that is not.
    first: usize,
    /// That one and all after it.
    later: Vec<bool>,
    kept: usize,
}

impl Decisions {
    fn push(&mut self, keep: bool) {
        self.kept += usize::from(keep);
        if keep && self.later.is_empty() {
            self.first += 1;
        } else {
            self.later.push(keep);
        }
    }

    fn into_iter(self) -> impl Iterator<Item = bool> {
        std::iter::repeat_n(true, self.first).chain(self.later)
    }
}

/// What is left of a request, as a list of steps that write it.
#[derive(Default)]
struct Rest {
    steps: Vec<Step>,
    len: usize,
}

enum Step {
    /// Copy these bytes of the request.
    Copy(Range<usize>),
    /// Begin field `number`, whose content is `len` bytes long.
    Begin { number: u32, len: usize },
}

impl Rest {
    fn of(bytes: &[u8], decisions: Decisions) -> Self {
        let mut decisions = decisions.into_iter();
        let mut rest = Self::default();
        rest.message(bytes, 0, RESOURCES, &mut |rest, resource, base| {
            rest.message(resource, base, CHILDREN, &mut |rest, scope, base| {
                rest.message(scope, base, CHILDREN, &mut |rest, item, base| {
                    let keep = decisions.next().unwrap_or(true);
                    if keep {
                        rest.copy(base..base + item.len());
                    }
                    keep
                })
            })
        });
        rest
    }

    /// Goes through `message`, which begins at `base`, and calls `child` for the content of each
    /// field `number`, which says whether anything of it stays. Other fields are copied. Returns
    /// whether any child stayed.
    fn message(
        &mut self,
        message: &[u8],
        base: usize,
        number: u32,
        child: &mut dyn FnMut(&mut Self, &[u8], usize) -> bool,
    ) -> bool {
        let mut any = false;
        for (range, field) in raw_fields(message) {
            let Field { value: Value::Len(content), .. } = field else {
                self.copy(base + range.start..base + range.end);
                continue;
            };
            if field.number != number {
                self.copy(base + range.start..base + range.end);
                continue;
            }
            let (steps, len) = (self.steps.len(), self.len);
            self.steps.push(Step::Begin { number, len: 0 });
            self.len = 0;
            let stays = child(self, content, base + range.end - content.len());
            if stays {
                let content_len = self.len;
                if let Some(Step::Begin { len, .. }) = self.steps.get_mut(steps) {
                    *len = content_len;
                }
                self.len = len + field_len(content_len);
                any = true;
            } else {
                self.steps.truncate(steps);
                self.len = len;
            }
        }
        any
    }

    fn copy(&mut self, range: Range<usize>) {
        self.len += range.len();
        match self.steps.last_mut() {
            Some(Step::Copy(last)) if last.end == range.start => last.end = range.end,
            _ => self.steps.push(Step::Copy(range)),
        }
    }

    fn write(self, bytes: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(self.len);
        for step in self.steps {
            match step {
                Step::Copy(range) => out.extend_from_slice(bytes.get(range).unwrap_or_default()),
                Step::Begin { number, len } => {
                    put_tag(&mut out, number, 2);
                    put_varint(&mut out, len as u64);
                }
            }
        }
        debug_assert_eq!(out.len(), self.len);
        out.into()
    }
}
