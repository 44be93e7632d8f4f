//! Folding a span: everything that any condition wants to know, in one pass over its bytes.

use nyquist_core::wire::{AnyValue, Field, Fields, KeyValue, Value};

use super::Bits;
use super::expr::{Expr, nanos_between};
use super::extra::Given;
use super::fields::{fixed_field, next_attribute, short_field, short_len, split_plain};
use super::keys::KeyTable;
use super::marks::{self, MarkKey, Single};
use super::matchers::{TextMatcher, ValueMatcher};
use super::ottl::OttlTests;
use super::prefix::{self, PrefixTest};
use super::trace_state::{self, Ot, TraceStateTest};

/// Where attributes are looked for: a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Places(u8);

impl Places {
    pub(super) const SPAN: Self = Self(1);
    pub(super) const RESOURCE: Self = Self(2);
    pub(super) const EVENT: Self = Self(4);
    pub(super) const SCOPE: Self = Self(8);
    pub(super) const ALL: Self = Self(15);

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[inline]
    const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A test of an attribute's value.
#[derive(Debug)]
pub(super) struct AttributeTest {
    pub(super) places: Places,
    pub(super) matcher: ValueMatcher,
    pub(super) bit: u16,
}

/// A test of one span's duration in nanoseconds: above, and up to.
#[derive(Debug)]
pub(super) struct DurationTest {
    pub(super) above: i64,
    pub(super) up_to: i64,
    pub(super) bit: u16,
}

/// Everything that is asked of spans.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(super) keys: KeyTable,
    /// By the key's index.
    pub(super) attributes: Vec<Vec<AttributeTest>>,
    /// In which places any attribute is looked for.
    pub(super) places: Places,
    pub(super) names: Vec<(TextMatcher, u16)>,
    pub(super) event_names: Vec<(TextMatcher, u16)>,
    pub(super) scope_names: Vec<(TextMatcher, u16)>,
    pub(super) scope_versions: Vec<(TextMatcher, u16)>,
    /// For UNSET, OK, ERROR.
    pub(super) statuses: [Option<u16>; 3],
    pub(super) exception: Option<u16>,
    pub(super) root: Option<u16>,
    pub(super) sampled_flag: Option<u16>,
    pub(super) durations: Vec<DurationTest>,
    /// What adaptive rates tell traces apart by.
    pub(super) marks: Vec<MarkKey>,
    pub(super) prefixes: Vec<PrefixTest>,
    pub(super) trace_states: Vec<TraceStateTest>,
    /// Is the `ot` entry of `tracestate` read: for randomness, or also for thresholds?
    pub(super) ot: Option<Wanted>,
    /// Conditions in OpenTelemetry's language; asked before the span is folded.
    pub(crate) ottl: OttlTests,
    /// Traces are as large as the Collector says (see `sizes`), not as their spans.
    pub(crate) sizes: bool,
    /// A trace id of zeros is none.
    pub(super) rejects_zero_ids: bool,
    /// Conditions on one span that combine the bits above; in order.
    pub(super) derived: Vec<(Expr, u16)>,
}

/// What is wanted of the `ot` entry of `tracestate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Randomness,
    RandomnessAndThreshold,
}

/// What the sampler needs of every span, and what the conditions found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpanFold {
    /// `None` if it is not 16 bytes long.
    pub(crate) id: Option<[u8; 16]>,
    pub(crate) root: bool,
    /// It has a `tracestate`.
    pub(crate) trace_state: bool,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) bits: Bits,
    /// What its `tracestate` says about sampling, if that is wanted.
    pub(crate) given: Given,
    /// It has a `tracestate` that cannot be read, and somebody wanted to.
    pub(crate) bad_trace_state: bool,
}

impl Plan {
    /// The bits of a resource, given as one piece of its message.
    pub(crate) fn fold_resource(&self, resource: &[u8], bits: &mut Bits) {
        if !self.places.has(Places::RESOURCE) {
            return;
        }
        for field in Fields::new(resource) {
            if let Field { number: 1, value: Value::Len(attribute) } = field {
                self.attribute(attribute, Places::RESOURCE, bits);
            }
        }
    }

    /// Is there a trace of this id?
    #[inline]
    pub(crate) fn takes(&self, id: &[u8; 16]) -> bool {
        *id != [0; 16] || !self.rejects_zero_ids
    }

    /// Do adaptive rates ask for values?
    #[inline]
    pub(crate) fn wants_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    /// The values of a resource that adaptive rates ask for, given as one piece of its message.
    pub(crate) fn values_of_resource(&self, resource: &[u8], values: &mut Single) {
        if self.wants_marks() {
            marks::of_resource(&self.marks, resource, values);
        }
    }

    /// Those of a span, one by one.
    pub(crate) fn values_of_span(&self, span: &[u8], root: bool, add: impl FnMut(u64)) {
        marks::of_span(&self.marks, span, root, add);
    }

    /// What depends on the order of spans: `run` comes after spans from `start` to `end`.
    #[inline]
    pub(crate) fn fold_in_order(&self, run: &[u8], start: u64, end: u64, bits: &mut Bits) {
        if !self.prefixes.is_empty() {
            prefix::fold(&self.prefixes, run, start, end, bits);
        }
    }

    /// The bits of the instrumentation scope of a `ScopeSpans`.
    pub(crate) fn fold_scope(&self, scope_spans: &[u8], bits: &mut Bits) {
        let asked = self.places.has(Places::SCOPE) || !self.scope_names.is_empty() || !self.scope_versions.is_empty();
        if !asked {
            return;
        }
        // Everybody writes the scope first; only where it is not there are all fields looked at.
        let scope = Fields::new(scope_spans).find_map(|field| match field {
            Field { number: 1, value: Value::Len(scope) } => Some(scope),
            _ => None,
        });
        let (mut name, mut version): (&[u8], &[u8]) = (&[], &[]);
        for Field { number, value } in Fields::new(scope.unwrap_or_default()) {
            match (number, value) {
                (1, Value::Len(text)) => name = text,
                (2, Value::Len(text)) => version = text,
                (3, Value::Len(attribute)) if self.places.has(Places::SCOPE) => {
                    self.attribute(attribute, Places::SCOPE, bits);
                }
                _ => {}
            }
        }
        test_text(&self.scope_names, name, bits);
        test_text(&self.scope_versions, version, bits);
    }

    /// Folds one span; `bits` are those of its resource and scope.
    #[inline]
    pub(crate) fn fold_span(&self, span: &[u8], bits: Bits) -> SpanFold {
        let mut walk = Walk {
            fold: SpanFold {
                id: None,
                root: true,
                trace_state: false,
                start: 0,
                end: 0,
                bits,
                given: Given::NOTHING,
                bad_trace_state: false,
            },
            name: &[],
            trace_state: &[],
            status: 0,
            flags: 0,
        };
        let span_attributes = self.places.has(Places::SPAN);
        let mut rest = span;
        // Most encoders write fields in the order of their numbers: asked for in that order, each is a
        // branch that the processor foretells. What comes otherwise is left to the loop.
        if let Some((id, next)) = short_field(rest, TRACE_ID) {
            walk.fold.id = id.try_into().ok();
            rest = next;
        }
        if let Some((_, next)) = short_field(rest, SPAN_ID) {
            rest = next;
        }
        if let Some((parent, next)) = short_field(rest, PARENT_SPAN_ID) {
            walk.fold.root = parent.iter().all(|&byte| byte == 0);
            rest = next;
        }
        if let Some((name, next)) = short_field(rest, NAME) {
            walk.name = name;
            rest = next;
        }
        if let [KIND, 0..0x80, next @ ..] = rest {
            rest = next;
        }
        if let Some((nanos, next)) = fixed_field(rest, START) {
            walk.fold.start = nanos;
            rest = next;
        }
        if let Some((nanos, next)) = fixed_field(rest, END) {
            walk.fold.end = nanos;
            rest = next;
        }
        while let Some((key, value, next)) = next_attribute(rest) {
            if span_attributes && let Some(index) = self.keys.find(key) {
                self.test(index, AnyValue::new(value), Places::SPAN, &mut walk.fold.bits);
            }
            rest = next;
        }
        // The same and what else there is, in any order.
        while let Some((&tag, after)) = rest.split_first() {
            let next = match tag {
                ATTRIBUTES => short_len(after).map(|(attribute, next)| {
                    if span_attributes {
                        self.attribute(attribute, Places::SPAN, &mut walk.fold.bits);
                    }
                    next
                }),
                TRACE_ID => short_len(after).map(|(id, next)| {
                    walk.fold.id = id.try_into().ok();
                    next
                }),
                SPAN_ID => short_len(after).map(|(_, next)| next),
                PARENT_SPAN_ID => short_len(after).map(|(parent, next)| {
                    walk.fold.root = parent.iter().all(|&byte| byte == 0);
                    next
                }),
                NAME => short_len(after).map(|(name, next)| {
                    walk.name = name;
                    next
                }),
                START => after.split_first_chunk::<8>().map(|(nanos, next)| {
                    walk.fold.start = u64::from_le_bytes(*nanos);
                    next
                }),
                END => after.split_first_chunk::<8>().map(|(nanos, next)| {
                    walk.fold.end = u64::from_le_bytes(*nanos);
                    next
                }),
                KIND => after.split_first().filter(|(first, _)| **first < 0x80).map(|(_, next)| next),
                STATUS => short_len(after).map(|(status, next)| {
                    walk.status(status);
                    next
                }),
                FLAGS => match after {
                    [FLAGS_SECOND, a, b, c, d, next @ ..] => {
                        walk.flags = u32::from_le_bytes([*a, *b, *c, *d]);
                        Some(next)
                    }
                    _ => None,
                },
                _ => None,
            };
            rest = match next {
                Some(next) => next,
                None => match self.other_field(rest, &mut walk) {
                    Some(next) => next,
                    None => break,
                },
            };
        }
        let Walk { mut fold, name, trace_state, status, flags } = walk;
        self.whole_span(&mut fold, name, trace_state, status, flags);
        fold
    }

    /// Any field at the start of `rest`, the usual ones in unusual encodings included. Returns what
    /// follows it; `None` where no field begins.
    fn other_field<'a>(&self, rest: &'a [u8], walk: &mut Walk<'a>) -> Option<&'a [u8]> {
        let mut fields = Fields::new(rest);
        let Field { number, value } = fields.next()?;
        match (number, value) {
            (9, Value::Len(attribute)) if self.places.has(Places::SPAN) => {
                self.attribute(attribute, Places::SPAN, &mut walk.fold.bits);
            }
            (1, Value::Len(id)) => walk.fold.id = id.try_into().ok(),
            (3, Value::Len(text)) => {
                walk.trace_state = text;
                walk.fold.trace_state = true;
            }
            (4, Value::Len(parent)) => walk.fold.root = parent.iter().all(|&byte| byte == 0),
            (5, Value::Len(text)) => walk.name = text,
            (7, Value::Fixed64(nanos)) => walk.fold.start = nanos,
            (8, Value::Fixed64(nanos)) => walk.fold.end = nanos,
            (11, Value::Len(event)) if self.wants_events() => {
                self.event(event, &mut walk.fold.bits);
            }
            (15, Value::Len(status)) => walk.status(status),
            (16, Value::Fixed32(bits)) => walk.flags = bits,
            _ => {}
        }
        rest.get(fields.position()..)
    }

    /// What can only be told once all fields are known: the last of a repeated field counts.
    #[inline]
    fn whole_span(&self, fold: &mut SpanFold, name: &[u8], trace_state: &[u8], status: u64, flags: u32) {
        if let Some(Some(bit)) = usize::try_from(status).ok().and_then(|status| self.statuses.get(status)) {
            fold.bits.set(*bit);
        }
        if fold.root
            && let Some(bit) = self.root
        {
            fold.bits.set(bit);
        }
        if flags & 1 != 0
            && let Some(bit) = self.sampled_flag
        {
            fold.bits.set(bit);
        }
        test_text(&self.names, name, &mut fold.bits);
        if !self.durations.is_empty() && fold.start != 0 {
            let nanos = nanos_between(fold.start, fold.end);
            for test in &self.durations {
                if nanos > test.above && nanos <= test.up_to {
                    fold.bits.set(test.bit);
                }
            }
        }
        if !trace_state.is_empty() && (self.ot.is_some() || !self.trace_states.is_empty()) {
            self.trace_state(trace_state, fold);
        }
        for (expr, bit) in &self.derived {
            if expr.holds_for_span(&fold.bits) {
                fold.bits.set(*bit);
            }
        }
    }

    #[cold]
    fn trace_state(&self, header: &[u8], fold: &mut SpanFold) {
        if let Some(wanted) = self.ot {
            match trace_state::read_ot(header) {
                Ok(Ot { rv: Some(rv), .. }) => fold.given = Given::randomness(rv),
                Ok(Ot { th: Some(_), .. }) if wanted == Wanted::RandomnessAndThreshold => {
                    fold.given = Given::THRESHOLD;
                }
                Ok(_) => {}
                Err(_) => fold.bad_trace_state = true,
            }
        }
        if self.trace_states.is_empty() {
            return;
        }
        let Some(entries) = trace_state::parse(header) else {
            fold.bad_trace_state = true;
            return;
        };
        for test in &self.trace_states {
            if entries.iter().any(|(key, value)| **key == *test.key && test.values.matches(value)) {
                fold.bits.set(test.bit);
            }
        }
    }

    fn wants_events(&self) -> bool {
        self.exception.is_some() || self.places.has(Places::EVENT) || !self.event_names.is_empty()
    }

    fn event(&self, event: &[u8], bits: &mut Bits) {
        let mut name: &[u8] = &[];
        let attributes = self.places.has(Places::EVENT);
        for Field { number, value } in Fields::new(event) {
            match (number, value) {
                (2, Value::Len(text)) => name = text,
                (3, Value::Len(attribute)) if attributes => self.attribute(attribute, Places::EVENT, bits),
                _ => {}
            }
        }
        if name == b"exception"
            && let Some(bit) = self.exception
        {
            bits.set(bit);
        }
        test_text(&self.event_names, name, bits);
    }

    #[inline(always)]
    fn attribute(&self, key_value: &[u8], place: Places, bits: &mut Bits) {
        match split_plain(key_value) {
            Some((key, value)) => {
                if let Some(index) = self.keys.find(key) {
                    self.test(index, AnyValue::new(value), place, bits);
                }
            }
            None => self.unusual_attribute(key_value, place, bits),
        }
    }

    #[cold]
    fn unusual_attribute(&self, key_value: &[u8], place: Places, bits: &mut Bits) {
        let attribute = KeyValue::new(key_value);
        if let Some(index) = self.keys.find(attribute.key) {
            self.test(index, attribute.value, place, bits);
        }
    }

    fn test(&self, key: usize, value: AnyValue<'_>, place: Places, bits: &mut Bits) {
        for test in self.attributes.get(key).map_or(&[][..], Vec::as_slice) {
            if test.places.has(place) && test.matcher.matches(value) {
                bits.set(test.bit);
            }
        }
    }
}

#[inline]
fn test_text(tests: &[(TextMatcher, u16)], text: &[u8], bits: &mut Bits) {
    for (matcher, bit) in tests {
        if matcher.matches(text) {
            bits.set(*bit);
        }
    }
}

/// Tags of a span's fields: number and wire type.
const TRACE_ID: u8 = 0x0a;
const SPAN_ID: u8 = 0x12;
const PARENT_SPAN_ID: u8 = 0x22;
const NAME: u8 = 0x2a;
const START: u8 = 0x39;
const END: u8 = 0x41;
const ATTRIBUTES: u8 = 0x4a;
const KIND: u8 = 0x30;
const STATUS: u8 = 0x7a;
/// The tag of `flags` has two bytes.
const FLAGS: u8 = 0x85;
const FLAGS_SECOND: u8 = 0x01;

/// What a walk over a span has met so far; of a repeated field the last.
struct Walk<'a> {
    fold: SpanFold,
    name: &'a [u8],
    trace_state: &'a [u8],
    status: u64,
    flags: u32,
}

impl Walk<'_> {
    #[inline]
    fn status(&mut self, message: &[u8]) {
        for field in Fields::new(message) {
            if let Field { number: 3, value: Value::Varint(code) } = field {
                // An enum is 32 bits wide on the wire's other end: prost, too, drops the rest.
                self.status = u64::from(code as u32);
            }
        }
    }
}
