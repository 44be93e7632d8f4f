//! Taking points out of a batch, and marking points in it, on the wire.

use std::iter::Peekable;
use std::slice;

use nyquist_core::wire::{Field, Fields, MetricKind, Value, put_len_field};

use super::admission::{Decision, Route};
use super::scan::{Action, Plan};
use super::shared::Shared;
use crate::accumulate::write::{attributes_field, put_no_recorded_value};
use crate::attributes::{put_nested, rewrite};

/// Where in `base` its part `part` begins.
pub(super) fn offset(base: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).wrapping_sub(base.as_ptr() as usize)
}

/// The batch in `bytes` after `plan`; metrics, scopes and resources that end empty are left out.
pub(super) fn apply(shared: &Shared, plan: &Plan<'_>, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut edit = Edit { shared, plan, base: bytes, actions: plan.actions.iter().peekable() };
    rewrite(bytes, &mut out, |number, resource, out| {
        number == 1
            && edit.is_touched(resource)
            && edit.nested(resource, 1, out, |edit, number, scope, out| {
                if number != 2 {
                    return Part::Other;
                }
                if !edit.is_touched(scope) {
                    return Part::Kept;
                }
                edit.scope(scope, out)
            })
    });
    out
}

struct Edit<'a> {
    shared: &'a Shared,
    plan: &'a Plan<'a>,
    base: &'a [u8],
    actions: Peekable<slice::Iter<'a, Action>>,
}

/// What became of a field.
enum Part {
    /// It is none of those that are counted, and is copied.
    Other,
    /// It is copied.
    Kept,
    /// It has been written.
    Changed,
    /// It is left out.
    Removed,
}

impl Edit<'_> {
    /// Is there a point in `part` about which something is to be done?
    fn is_touched(&mut self, part: &[u8]) -> bool {
        let start = offset(self.base, part);
        self.actions.peek().is_some_and(|action| (start..start + part.len() + 1).contains(&action.offset))
    }

    /// Writes `message` as field `number`, with what `each` makes of its fields; nothing at all
    /// if no field is left that counts. Returns true, as [`rewrite`] wants it.
    fn nested(
        &mut self,
        message: &[u8],
        number: u32,
        out: &mut Vec<u8>,
        mut each: impl FnMut(&mut Self, u32, &[u8], &mut Vec<u8>) -> Part,
    ) -> bool {
        let mark = out.len();
        let mut left = 0;
        put_nested(out, number, |out| {
            rewrite(message, out, |number, field, out| match each(self, number, field, out) {
                Part::Other => false,
                Part::Kept => {
                    left += 1;
                    false
                }
                Part::Changed => {
                    left += 1;
                    true
                }
                Part::Removed => true,
            });
        });
        if left == 0 {
            out.truncate(mark);
        }
        true
    }

    fn scope(&mut self, scope: &[u8], out: &mut Vec<u8>) -> Part {
        let mark = out.len();
        self.nested(scope, 2, out, |edit, number, metric, out| {
            if number != 2 {
                return Part::Other;
            }
            if !edit.is_touched(metric) {
                return Part::Kept;
            }
            edit.metric(metric, out)
        });
        written(mark, out)
    }

    fn metric(&mut self, metric: &[u8], out: &mut Vec<u8>) -> Part {
        let mark = out.len();
        self.nested(metric, 2, out, |edit, number, data, out| {
            if !matches!(number, 5 | 7 | 9 | 10 | 11) {
                return Part::Other;
            }
            if !edit.is_touched(data) {
                return Part::Kept;
            }
            let mark = out.len();
            edit.nested(
                data,
                number,
                out,
                |edit, number, point, out| {
                    if number == 1 { edit.point(point, out) } else { Part::Other }
                },
            );
            written(mark, out)
        });
        written(mark, out)
    }

    fn point(&mut self, point: &[u8], out: &mut Vec<u8>) -> Part {
        let own = offset(self.base, point);
        let Some(action) = self.actions.next_if(|action| action.offset == own) else { return Part::Kept };
        let Some((context, _)) = self.plan.contexts.get(action.context) else { return Part::Kept };
        match action.decision {
            Decision::Pass => Part::Kept,
            Decision::Drop(_) | Decision::Collapse(Route { was_individual: false, .. }) => Part::Removed,
            Decision::Collapse(_) => {
                put_nested(out, 1, |out| put_end(out, point, context.kind));
                Part::Changed
            }
            Decision::Tag => {
                put_nested(out, 1, |out| {
                    out.extend_from_slice(point);
                    put_len_field(out, attributes_field(context.kind), &self.shared.overflow_attribute);
                });
                Part::Changed
            }
        }
    }
}

fn written(mark: usize, out: &[u8]) -> Part {
    if out.len() > mark { Part::Changed } else { Part::Removed }
}

/// Writes `point` as the flag that its series ends: attributes and times, without a value.
fn put_end(out: &mut Vec<u8>, point: &[u8], kind: MetricKind) {
    let attributes = attributes_field(kind);
    let mut fields = Fields::new(point);
    loop {
        let start = fields.position();
        let Some(Field { number, value }) = fields.next() else { break };
        let stays = matches!((number, value), (2 | 3, Value::Fixed64(_))) || number == attributes;
        if stays {
            out.extend_from_slice(point.get(start..fields.position()).unwrap_or_default());
        }
    }
    put_no_recorded_value(out, kind);
}
