//! The short way for points whose attributes have the keys of a point before.
//!
//! Sanitising, sorting and merging depend on the keys alone, and the points of a metric have the
//! same ones in the same order. So the outcome is remembered as a list of steps, in which only the
//! values are left open. Whatever is out of the ordinary (joined, nameless or overwritten labels)
//! takes the long way each time.

use std::ops::Range;

use nyquist_core::wire::{KeyValue, put_varint, varint_len};

use super::labels::{BaseLabels, LabelRules, Labels, Merged, PointLabels};
use super::values::put_value;

/// How many layouts are remembered for the current scope.
const REMEMBERED: usize = 8;

/// Points with more attributes always take the long way.
const MAX_ATTRIBUTES: usize = 64;

/// So do those with longer keys, in bytes.
const MAX_KEYS: usize = 4096;

/// A step of writing labels.
#[derive(Debug)]
enum Step {
    /// Bytes that are always the same.
    Fixed(Range<usize>),
    /// A label of the point: its name field, and which attribute's value.
    Own { name: Range<usize>, attribute: usize },
    /// Here goes `__name__`.
    Name,
    /// Here goes `le` or `quantile`.
    Extra,
}

/// The steps for points with certain keys.
#[derive(Debug)]
struct Layout {
    extra: &'static [u8],
    keys: Vec<u8>,
    key_ends: Vec<usize>,
    bytes: Vec<u8>,
    steps: Vec<Step>,
}

impl Layout {
    #[inline]
    fn key(&self, index: usize) -> Option<&[u8]> {
        let end = *self.key_ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.key_ends.get(before)).copied().unwrap_or(0);
        self.keys.get(start..end)
    }

    fn len(&self) -> usize {
        self.key_ends.len()
    }

    /// Does it begin with the first `count` keys of `other`?
    fn begins_like(&self, other: &Self, count: usize) -> bool {
        count == 0 || (0..count).all(|index| self.key(index) == other.key(index))
    }
}

/// The layouts met in a scope.
#[derive(Debug, Default)]
pub(super) struct Layouts {
    /// The labels of the scope that they hold for, encoded.
    base: Vec<u8>,
    known: Vec<Layout>,
    last: usize,
    /// Which one to replace next.
    oldest: usize,
    values: Vec<Range<usize>>,
}

impl Layouts {
    /// A scope begins: what was remembered for another one is forgotten.
    pub(super) fn begin_scope(&mut self, base: &BaseLabels) {
        if self.base != base.all_encoded() {
            self.known.clear();
            (self.last, self.oldest) = (0, 0);
            self.base.clear();
            self.base.extend_from_slice(base.all_encoded());
        }
    }

    /// A point begins; `extra` is the name of the label that will be added to its series.
    pub(super) fn begin_point<'a>(
        &'a mut self,
        labels: &'a mut Labels,
        extra: &'static [u8],
        rules: LabelRules,
    ) -> PointAttributes<'a> {
        labels.clear();
        self.values.clear();
        let candidate = self.known.get(self.last).filter(|layout| layout.extra == extra).map(|_| self.last);
        PointAttributes { layouts: self, labels, candidate, extra, rules, unnamable: 0 }
    }

    fn remember(&mut self, layout: Layout) {
        if self.known.len() < REMEMBERED {
            self.last = self.known.len();
            self.known.push(layout);
            return;
        }
        self.last = self.oldest;
        self.oldest = (self.oldest + 1) % REMEMBERED;
        self.known[self.last] = layout;
    }
}

/// Collects a point's attributes as labels.
pub(super) struct PointAttributes<'a> {
    layouts: &'a mut Layouts,
    labels: &'a mut Labels,
    /// The layout that has fit so far; `None`: the long way.
    candidate: Option<usize>,
    extra: &'static [u8],
    rules: LabelRules,
    unnamable: usize,
}

/// What became of a point's attributes.
pub(super) struct Collected {
    /// Labels that were left out: nothing is left of their names.
    pub(super) unnamable: usize,
    /// Labels that others of the same name overwrote.
    pub(super) overwritten: usize,
    /// Labels that were joined with others of the same name.
    pub(super) joined: usize,
}

impl PointAttributes<'_> {
    #[inline]
    pub(super) fn push(&mut self, attribute: &KeyValue<'_>) {
        let index = self.layouts.values.len();
        if let Some(layout) = self.candidate.and_then(|candidate| self.layouts.known.get(candidate))
            && layout.key(index) == Some(attribute.key)
        {
            let start = self.labels.text.len();
            put_value(&mut self.labels.text, &attribute.value);
            self.layouts.values.push(start..self.labels.text.len());
            return;
        }
        self.push_other(attribute);
    }

    /// The candidate does not fit: another one, or the long way.
    fn push_other(&mut self, attribute: &KeyValue<'_>) {
        let count = self.layouts.values.len();
        if self.candidate.is_none() && (count > 0 || self.labels.seen > 0) {
            return self.push_long(attribute);
        }
        let other = self.find(|layout| layout.key(count) == Some(attribute.key));
        if other.is_none() {
            self.leave();
            return self.push_long(attribute);
        }
        self.candidate = other;
        let start = self.labels.text.len();
        put_value(&mut self.labels.text, &attribute.value);
        self.layouts.values.push(start..self.labels.text.len());
    }

    /// A layout with the keys so far that is `wanted`.
    fn find(&self, wanted: impl Fn(&Layout) -> bool) -> Option<usize> {
        let known = &self.layouts.known;
        let current = self.candidate.and_then(|candidate| known.get(candidate));
        let count = self.layouts.values.len();
        known.iter().position(|layout| {
            let begins_right = current.is_none_or(|current| layout.begins_like(current, count));
            layout.extra == self.extra && begins_right && wanted(layout)
        })
    }

    fn push_long(&mut self, attribute: &KeyValue<'_>) {
        let is_named = self.labels.push_attribute(attribute.key, &attribute.value, self.rules);
        self.unnamable += usize::from(!is_named);
    }

    /// Takes the long way from here on, with what has come so far.
    fn leave(&mut self) {
        let Some(layout) = self.candidate.take().and_then(|candidate| self.layouts.known.get(candidate)) else {
            return;
        };
        for (index, value) in self.layouts.values.drain(..).enumerate() {
            // Keys of a layout have names.
            let _ = self.labels.push_known(layout.key(index).unwrap_or_default(), value, self.rules);
        }
    }

    /// All attributes are there: merges them with the scope's into `out`.
    pub(super) fn finish(mut self, base: &BaseLabels, out: &mut PointLabels) -> Collected {
        let count = self.layouts.values.len();
        let is_short = self.candidate.is_some() || self.labels.seen == 0;
        if is_short {
            let fits = |layout: &Layout| layout.len() == count;
            let candidate = self.candidate.filter(|&candidate| self.layouts.known.get(candidate).is_some_and(fits));
            if let Some(found) = candidate.or_else(|| self.find(fits)) {
                self.layouts.last = found;
                if let Some(layout) = self.layouts.known.get(found) {
                    lay_out(layout, &self.labels.text, &self.layouts.values, out);
                    return Collected { unnamable: 0, overwritten: 0, joined: 0 };
                }
            }
            self.leave();
        }
        // Attributes alone: none overwrites another.
        let joined = self.labels.sort_and_join().joined;
        let merged = out.merge(base, self.labels, self.extra);
        let Merged { overwritten, conflicts, .. } = merged;
        let is_ordinary = joined == 0 && overwritten == 0 && conflicts == 0 && self.unnamable == 0;
        if is_ordinary && let Some(layout) = learn(base, self.labels, self.extra) {
            self.layouts.remember(layout);
        }
        Collected { unnamable: self.unnamable, overwritten, joined: joined + merged.joined }
    }
}

/// Writes a point's labels.
fn lay_out(layout: &Layout, text: &[u8], values: &[Range<usize>], out: &mut PointLabels) {
    out.encoded.clear();
    for step in &layout.steps {
        match step {
            Step::Fixed(range) => out.encoded.extend_from_slice(&layout.bytes[range.clone()]),
            Step::Own { name, attribute } => {
                let (name, value) = (&layout.bytes[name.clone()], &text[values[*attribute].clone()]);
                if value.is_empty() {
                    continue;
                }
                out.encoded.push(0x0a);
                put_varint(&mut out.encoded, (name.len() + varint_len(value.len() as u64) + value.len()) as u64);
                out.encoded.extend_from_slice(name);
                put_varint(&mut out.encoded, value.len() as u64);
                out.encoded.extend_from_slice(value);
            }
            Step::Name => out.name_at = out.encoded.len(),
            Step::Extra => out.extra_at = out.encoded.len(),
        }
    }
}

/// The layout of a point that has taken the long way; `None` if it does not lend itself to one.
fn learn(base: &BaseLabels, point: &Labels, extra: &'static [u8]) -> Option<Layout> {
    let count = point.seen;
    if count != point.len() || count > MAX_ATTRIBUTES {
        return None;
    }
    let mut by_arrival: Vec<(usize, &[u8])> = point.keys().collect();
    by_arrival.sort_unstable();
    let mut layout = Layout { extra, keys: Vec::new(), key_ends: Vec::new(), bytes: Vec::new(), steps: Vec::new() };
    for (_, key) in by_arrival {
        layout.keys.extend_from_slice(key);
        layout.key_ends.push(layout.keys.len());
    }
    if layout.keys.len() > MAX_KEYS {
        return None;
    }
    let mut all: Vec<(&[u8], Option<usize>, &[u8])> =
        point.names().map(|(name, arrival)| (name, Some(arrival), &[][..])).collect();
    all.extend(base.names().map(|(name, encoded)| (name, None, encoded)));
    all.push((b"__name__", None, b""));
    if !extra.is_empty() {
        all.push((extra, None, b""));
    }
    all.sort_unstable_by_key(|(name, ..)| *name);
    for (name, attribute, encoded) in all {
        let start = layout.bytes.len();
        let step = match attribute {
            Some(attribute) => {
                layout.bytes.push(0x0a);
                put_varint(&mut layout.bytes, name.len() as u64);
                layout.bytes.extend_from_slice(name);
                layout.bytes.push(0x12);
                Step::Own { name: start..layout.bytes.len(), attribute }
            }
            None if !encoded.is_empty() => {
                layout.bytes.extend_from_slice(encoded);
                let start = match layout.steps.pop_if(|before| matches!(before, Step::Fixed(_))) {
                    Some(Step::Fixed(before)) => before.start,
                    _ => start,
                };
                Step::Fixed(start..layout.bytes.len())
            }
            None if name == extra => Step::Extra,
            None => Step::Name,
        };
        layout.steps.push(step);
    }
    if extra.is_empty() {
        layout.steps.push(Step::Extra);
    }
    Some(layout)
}
