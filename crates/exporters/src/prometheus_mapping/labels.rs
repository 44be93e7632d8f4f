//! Labels: sanitised, sorted, merged, and encoded once for all series of a point.
//!
//! Encoded labels are remote write's `Label` messages, one after the other, as they stand in a
//! `TimeSeries`: `0a len 0a len name 12 len value`. Being sorted and without repetition they are
//! also the canonical key of a series.

use std::ops::Range;

use nyquist_core::wire::{AnyValue, Fields, Value, put_varint, varint_len};

use super::LostLabels;
use super::values::put_value;

/// Where a label comes from, which decides who wins when names collide: the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// An external label that overwrites others.
    Override,
    /// `job` and `instance`, and the scope.
    Given,
    /// An attribute.
    Attribute,
    /// An external label.
    External,
}

#[derive(Debug, Clone)]
struct Entry {
    /// The name as it was before sanitising.
    raw: Range<usize>,
    name: Range<usize>,
    value: Range<usize>,
    source: Source,
    /// How many were added before it.
    arrival: usize,
}

/// A set of labels under construction.
#[derive(Debug, Default)]
pub(super) struct Labels {
    pub(super) text: Vec<u8>,
    entries: Vec<Entry>,
    /// How many labels were added, those that were left out included.
    pub(super) seen: usize,
}

/// How label names are made valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelRules {
    /// Only `[a-zA-Z0-9_]`, or any UTF-8?
    pub escape: bool,
    /// Is `a..b` to become `a_b` instead of `a__b`?
    pub collapse_underscores: bool,
}

impl Labels {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.entries.clear();
        self.seen = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an attribute. Empty values are left out; `false` says that nothing is left of the
    /// name, so that the label was left out too.
    #[inline]
    pub(super) fn push_attribute(&mut self, key: &[u8], value: &AnyValue<'_>, rules: LabelRules) -> bool {
        self.push(b"", key, value, Source::Attribute, rules)
    }

    /// Adds a label of `prefix` and `key`.
    #[inline]
    pub(super) fn push(
        &mut self,
        prefix: &[u8],
        key: &[u8],
        value: &AnyValue<'_>,
        source: Source,
        rules: LabelRules,
    ) -> bool {
        let start = self.text.len();
        put_value(&mut self.text, value);
        self.push_text(prefix, key, start..self.text.len(), source, rules)
    }

    /// Adds an attribute whose value is in `text` already.
    pub(super) fn push_known(&mut self, key: &[u8], value: Range<usize>, rules: LabelRules) -> bool {
        self.push_text(b"", key, value, Source::Attribute, rules)
    }

    fn push_text(&mut self, prefix: &[u8], key: &[u8], value: Range<usize>, source: Source, rules: LabelRules) -> bool {
        let arrival = self.seen;
        self.seen += 1;
        if value.is_empty() {
            return true;
        }
        let raw_start = self.text.len();
        self.text.extend_from_slice(prefix);
        self.text.extend_from_slice(key);
        let raw = raw_start..self.text.len();
        let name = if is_plain_name(&self.text[raw.clone()], rules) {
            raw.clone()
        } else {
            put_label_name(&mut self.text, prefix, key, rules);
            raw.end..self.text.len()
        };
        if self.text[name.clone()].iter().all(|&letter| letter == b'_') {
            self.text.truncate(raw_start);
            return false;
        }
        self.entries.push(Entry { raw, name, value, source, arrival });
        true
    }

    /// Sorts by name. Of equal names from different sources one stays; from the same source, their
    /// values are joined with `;` in the order of the names before sanitising, without repeating
    /// an equal value. Returns how many labels were joined with another one, and how many attributes overwritten.
    pub(super) fn sort_and_join(&mut self) -> LostLabels {
        let text = &self.text;
        let order = |left: &Entry, right: &Entry| {
            let by_name = text[left.name.clone()].cmp(&text[right.name.clone()]);
            by_name
                .then_with(|| left.source.cmp(&right.source))
                .then_with(|| text[left.raw.clone()].cmp(&text[right.raw.clone()]))
        };
        if self.entries.len() <= 16 {
            insertion_sort(&mut self.entries, order);
        } else {
            self.entries.sort_by(order);
        }
        let text = &self.text;
        let are_equal = |pair: &[Entry]| text[pair[0].name.clone()] == text[pair[1].name.clone()];
        let has_equal = self.entries.windows(2).any(are_equal);
        if has_equal { self.join_equal_names() } else { LostLabels::default() }
    }

    #[cold]
    fn join_equal_names(&mut self) -> LostLabels {
        let mut lost = LostLabels::default();
        let mut joined: Vec<Entry> = Vec::with_capacity(self.entries.len());
        for entry in std::mem::take(&mut self.entries) {
            match joined.last_mut() {
                Some(last) if self.text[last.name.clone()] == self.text[entry.name.clone()] => {
                    if last.source == entry.source {
                        lost.joined += 1;
                        last.value = self.joined_value(&last.value, &entry.value);
                    } else if entry.source == Source::Attribute {
                        // The others are overwritten where the configuration says so.
                        lost.overwritten += 1;
                    }
                }
                _ => joined.push(entry),
            }
        }
        self.entries = joined;
        lost
    }

    fn joined_value(&mut self, left: &Range<usize>, right: &Range<usize>) -> Range<usize> {
        if self.text[left.clone()] == self.text[right.clone()] {
            return left.clone();
        }
        let start = self.text.len();
        self.text.extend_from_within(left.clone());
        self.text.push(b';');
        self.text.extend_from_within(right.clone());
        start..self.text.len()
    }

    /// The length of all names and values, in characters.
    pub(super) fn characters(&self) -> usize {
        let count = |range: &Range<usize>| String::from_utf8_lossy(&self.text[range.clone()]).chars().count();
        self.entries.iter().map(|entry| count(&entry.name) + count(&entry.value)).sum()
    }

    /// All labels, encoded.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for entry in &self.entries {
            put_label(out, &self.text[entry.name.clone()], &self.text[entry.value.clone()]);
        }
    }

    /// How many labels there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When each label was added, and its name before sanitising.
    pub(super) fn keys(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.entries.iter().map(|entry| (entry.arrival, &self.text[entry.raw.clone()]))
    }

    /// The name of each label, and when it was added.
    pub(super) fn names(&self) -> impl Iterator<Item = (&[u8], usize)> {
        self.entries.iter().map(|entry| (self.name(entry), entry.arrival))
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        &self.text[entry.name.clone()]
    }

    fn value(&self, entry: &Entry) -> &[u8] {
        &self.text[entry.value.clone()]
    }
}

/// Few entries, mostly sorted already.
fn insertion_sort<T>(items: &mut [T], order: impl Fn(&T, &T) -> std::cmp::Ordering) {
    for end in 1..items.len() {
        let mut index = end;
        while index > 0 && order(&items[index - 1], &items[index]).is_gt() {
            items.swap(index - 1, index);
            index -= 1;
        }
    }
}

/// The labels that all points of a resource and scope share, sorted, each encoded.
#[derive(Debug, Default)]
pub(super) struct BaseLabels {
    labels: Labels,
    encoded: Vec<u8>,
    /// Where each entry's encoding ends.
    ends: Vec<usize>,
}

impl BaseLabels {
    /// The set to fill; finish with [`BaseLabels::seal`].
    pub(super) fn begin(&mut self) -> &mut Labels {
        self.labels.clear();
        &mut self.labels
    }

    /// Sorts and encodes what was added. Returns what [`Labels::sort_and_join`] does.
    pub(super) fn seal(&mut self) -> LostLabels {
        let lost = self.labels.sort_and_join();
        self.encoded.clear();
        self.ends.clear();
        for entry in &self.labels.entries {
            put_label(&mut self.encoded, self.labels.name(entry), self.labels.value(entry));
            self.ends.push(self.encoded.len());
        }
        lost
    }

    /// All labels, encoded.
    pub(super) fn all_encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The name of each label, and the encoded label.
    pub(super) fn names(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.labels.entries.iter().enumerate().map(|(index, entry)| (self.labels.name(entry), self.encoded(index)))
    }

    fn encoded(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.encoded[start..self.ends[index]]
    }
}

/// All labels of a point but `__name__` and the one that tells its series apart (`le`,
/// `quantile`), encoded and sorted, with the places where those two belong.
#[derive(Debug, Default, Clone)]
pub struct PointLabels {
    pub(super) encoded: Vec<u8>,
    pub(super) name_at: usize,
    pub(super) extra_at: usize,
}

/// How a merge went.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Merged {
    /// Labels of the point that others of the same name overwrote.
    pub(super) overwritten: usize,
    /// Labels of the point that met others of the same name.
    pub(super) conflicts: usize,
    /// Those of them that were joined with the other.
    pub(super) joined: usize,
}

impl PointLabels {
    /// All labels but the two, as `Label` messages.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The encoded labels in three pieces: `__name__` goes between the first two, and the extra
    /// label between the last two (`le` and `quantile` both sort behind `__name__`).
    #[must_use]
    pub fn pieces(&self) -> [&[u8]; 3] {
        let (head, tail) = self.encoded.split_at(self.extra_at);
        let (start, middle) = head.split_at(self.name_at);
        [start, middle, tail]
    }

    /// Merges `point` (sorted) into `base`. `extra` is the name of the label that will be added.
    pub(super) fn merge(&mut self, base: &BaseLabels, point: &Labels, extra: &[u8]) -> Merged {
        self.encoded.clear();
        let mut cursor = Cursor { out: self, extra, name_at: None, extra_at: None, merged: Merged::default() };
        let mut own = point.entries.iter().peekable();
        for (index, given) in base.labels.entries.iter().enumerate() {
            let name = base.labels.name(given);
            while let Some(entry) = own.next_if(|entry| point.name(entry) < name) {
                cursor.put(point.name(entry), point.value(entry));
            }
            let Some(entry) = own.next_if(|entry| point.name(entry) == name) else {
                cursor.put_encoded(name, base.encoded(index));
                continue;
            };
            cursor.merged.conflicts += 1;
            match given.source {
                Source::Override | Source::Given => {
                    cursor.merged.overwritten += 1;
                    cursor.put_encoded(name, base.encoded(index));
                }
                Source::External => cursor.put(name, point.value(entry)),
                Source::Attribute => cursor.put_joined(&base.labels, given, point, entry),
            }
        }
        for entry in own {
            cursor.put(point.name(entry), point.value(entry));
        }
        cursor.finish()
    }
}

struct Cursor<'a> {
    out: &'a mut PointLabels,
    extra: &'a [u8],
    name_at: Option<usize>,
    extra_at: Option<usize>,
    merged: Merged,
}

const NAME: &[u8] = b"__name__";

impl Cursor<'_> {
    /// Is `name` one that will be added? Notes the places of those that go before it.
    #[inline]
    fn is_taken(&mut self, name: &[u8]) -> bool {
        if self.name_at.is_none() && name >= NAME {
            self.name_at = Some(self.out.encoded.len());
        }
        if self.extra_at.is_none() && !self.extra.is_empty() && name >= self.extra {
            self.extra_at = Some(self.out.encoded.len());
        }
        let is_taken = name == NAME || name == self.extra;
        self.merged.overwritten += usize::from(is_taken);
        is_taken
    }

    #[inline]
    fn put(&mut self, name: &[u8], value: &[u8]) {
        if !self.is_taken(name) {
            put_label(&mut self.out.encoded, name, value);
        }
    }

    #[inline]
    fn put_encoded(&mut self, name: &[u8], label: &[u8]) {
        if !self.is_taken(name) {
            self.out.encoded.extend_from_slice(label);
        }
    }

    /// A promoted resource attribute and a point's attribute have one name: if they had it before
    /// sanitising, the point's wins, otherwise both are joined.
    #[cold]
    fn put_joined(&mut self, base: &Labels, given: &Entry, point: &Labels, own: &Entry) {
        let (raw_given, raw_own) = (&base.text[given.raw.clone()], &point.text[own.raw.clone()]);
        let (given, own_value) = (base.value(given), point.value(own));
        if raw_given == raw_own || given == own_value {
            return self.put(point.name(own), own_value);
        }
        self.merged.joined += 1;
        let (first, second) = if raw_given < raw_own { (given, own_value) } else { (own_value, given) };
        self.put(point.name(own), &[first, b";", second].concat());
    }

    fn finish(self) -> Merged {
        let end = self.out.encoded.len();
        self.out.name_at = self.name_at.unwrap_or(end);
        self.out.extra_at = self.extra_at.unwrap_or(end).max(self.out.name_at);
        self.merged
    }
}

/// Appends a `Label` message with its tag in `TimeSeries`.
#[inline]
pub fn put_label(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let name_len = varint_len(name.len() as u64) + name.len();
    let value_len = varint_len(value.len() as u64) + value.len();
    out.push(0x0a);
    put_varint(out, (2 + name_len + value_len) as u64);
    out.push(0x0a);
    put_varint(out, name.len() as u64);
    out.extend_from_slice(name);
    out.push(0x12);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// The names and values of encoded labels.
pub fn decoded_labels(encoded: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let messages = Fields::new(encoded).filter_map(|field| match field.value {
        Value::Len(label) => Some(label),
        _ => None,
    });
    messages.map(|label| {
        let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
        for field in Fields::new(label) {
            match (field.number, field.value) {
                (1, Value::Len(text)) => name = text,
                (2, Value::Len(text)) => value = text,
                _ => {}
            }
        }
        (name, value)
    })
}

/// Appends a valid label name made of `prefix` and `key`: what is no letter, digit or underscore
/// becomes `_`, a leading digit gets `key_` in front. Only underscores are left if there was
/// nothing else.
fn put_label_name(out: &mut Vec<u8>, prefix: &[u8], key: &[u8], rules: LabelRules) {
    if prefix.is_empty() && key.first().is_some_and(u8::is_ascii_digit) {
        out.extend_from_slice(b"key_");
    }
    // Names of Prometheus' own kind, `__x__`, keep their underscores.
    let reserved = key.strip_prefix(b"__").and_then(|rest| rest.strip_suffix(b"__"));
    let reserved = reserved.filter(|_| prefix.is_empty() && rules.collapse_underscores);
    if reserved.is_some() {
        out.extend_from_slice(b"__");
    }
    let start = out.len();
    out.extend_from_slice(prefix);
    for &letter in reserved.unwrap_or(key) {
        let is_inside_character = letter & 0b1100_0000 == 0b1000_0000;
        if is_inside_character {
            continue;
        }
        let letter = if letter.is_ascii_alphanumeric() { letter } else { b'_' };
        let repeats = letter == b'_' && out.len() > start && out.last() == Some(&b'_');
        if !(repeats && rules.collapse_underscores) {
            out.push(letter);
        }
    }
    if reserved.is_some() {
        out.extend_from_slice(b"__");
    }
}

#[inline]
fn is_plain_name(raw: &[u8], rules: LabelRules) -> bool {
    if !rules.escape {
        return true;
    }
    !rules.collapse_underscores
        && !raw.first().is_some_and(u8::is_ascii_digit)
        && raw.iter().all(|&letter| letter.is_ascii_alphanumeric() || letter == b'_')
}

/// `key` as a label name; `None` if nothing is left of it.
#[must_use]
pub fn label_name(key: &str, rules: LabelRules) -> Option<String> {
    let mut name = Vec::new();
    if rules.escape {
        put_label_name(&mut name, b"", key.as_bytes(), rules);
    } else {
        name.extend_from_slice(key.as_bytes());
    }
    let has_substance = name.iter().any(|&letter| letter != b'_');
    String::from_utf8(name).ok().filter(|_| has_substance)
}
