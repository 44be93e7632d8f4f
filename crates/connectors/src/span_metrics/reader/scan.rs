//! One scan of a span finds its fields, in place, and hands out the attributes until nobody wants more.
//!
//! Most encoders write fields in the order of their numbers, and attributes as a key and a value with
//! lengths below 128: asked for in that order, each is a branch that the processor foretells. Everything else
//! is read field by field.

use nyquist_core::wire::{AnyValue, Field, Fields, KeyValue, Value};

/// What a span says beside its attributes. Of a repeated field the last counts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Head<'a> {
    pub(super) trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
    pub(super) trace_state: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) kind: i32,
    /// Unix nanoseconds, as `end`.
    pub(super) start: u64,
    pub(super) end: u64,
    /// The code of its status.
    pub(super) status: i32,
}

/// Who is given attributes.
pub(super) trait Wanted<'a> {
    /// Whether further attributes are wanted.
    fn wants_more(&self) -> bool;

    /// Takes one; its value is read when it is called for.
    fn take(&mut self, key: &'a [u8], value: impl FnOnce() -> AnyValue<'a>);
}

/// The keys of fields: number and wire type.
const TRACE_STATE: u8 = 0x1a;
const PARENT_SPAN_ID: u8 = 0x22;
const NAME: u8 = 0x2a;
const KIND: u8 = 0x30;
const START: u8 = 0x39;
const END: u8 = 0x41;
const ATTRIBUTE: u8 = 0x4a;
/// Those of an attribute's fields.
const KEY: u8 = 0x0a;
const VALUE: u8 = 0x12;

/// Reads `span`.
#[inline(always)]
pub(super) fn scan<'a>(span: &'a [u8], attributes: &mut impl Wanted<'a>) -> Head<'a> {
    let mut head = Head::default();
    let mut rest = head.usual(span);
    loop {
        while attributes.wants_more() {
            // The Go Collector writes the value first.
            let (key, value, next) = if let Some((key, value, next)) = next_attribute::<KEY, VALUE>(rest) {
                (key, value, next)
            } else if let Some((value, key, next)) = next_attribute::<VALUE, KEY>(rest) {
                (key, value, next)
            } else {
                break;
            };
            attributes.take(key, || AnyValue::new(value));
            rest = next;
        }
        if !attributes.wants_more() {
            while let [ATTRIBUTE, len @ 0..0x80, after @ ..] = rest
                && let Some(next) = after.get(usize::from(*len)..)
            {
                rest = next;
            }
        }
        let mut fields = Fields::new(rest);
        let Some(field) = fields.next() else { return head };
        match field {
            Field { number: 9, value: Value::Len(attribute) } => {
                if attributes.wants_more() {
                    let KeyValue { key, value } = KeyValue::new(attribute);
                    attributes.take(key, || value);
                }
            }
            other => head.take(other),
        }
        rest = rest.get(fields.position()..).unwrap_or_default();
    }
}

impl<'a> Head<'a> {
    /// Reads the fields that come before the attributes if they stand in the order of their numbers. Returns
    /// what follows.
    #[inline(always)]
    fn usual(&mut self, span: &'a [u8]) -> &'a [u8] {
        let mut rest = span;
        // Two keys, and lengths.
        if let Some((ids, next)) = rest.split_first_chunk::<28>()
            && let (Some((b"\x0a\x10", trace)), Some((b"\x12\x08", span))) = (
                ids.first_chunk::<18>().and_then(|id| id.split_first_chunk::<2>()),
                ids.last_chunk::<10>().and_then(|id| id.split_first_chunk::<2>()),
            )
        {
            (self.trace_id, self.span_id, rest) = (trace, span, next);
        }
        if let Some((state, next)) = short_field(rest, TRACE_STATE) {
            (self.trace_state, rest) = (state, next);
        }
        if let Some((_, next)) = short_field(rest, PARENT_SPAN_ID) {
            rest = next;
        }
        if let Some((name, next)) = short_field(rest, NAME) {
            (self.name, rest) = (name, next);
        }
        if let [KIND, kind @ 0..0x80, next @ ..] = rest {
            (self.kind, rest) = (i32::from(*kind), next);
        }
        if let Some((time, next)) = fixed_field(rest, START) {
            (self.start, rest) = (time, next);
        }
        if let Some((time, next)) = fixed_field(rest, END) {
            (self.end, rest) = (time, next);
        }
        rest
    }

    #[inline(always)]
    fn take(&mut self, field: Field<'a>) {
        match (field.number, field.value) {
            (1, Value::Len(id)) => self.trace_id = id,
            (2, Value::Len(id)) => self.span_id = id,
            (3, Value::Len(state)) => self.trace_state = state,
            (5, Value::Len(name)) => self.name = name,
            (6, Value::Varint(kind)) => self.kind = kind as i32,
            (7, Value::Fixed64(time)) => self.start = time,
            (8, Value::Fixed64(time)) => self.end = time,
            (15, Value::Len(status)) => {
                for Field { number, value } in Fields::new(status) {
                    if let (3, Value::Varint(code)) = (number, value) {
                        self.status = code as i32;
                    }
                }
            }
            _ => {}
        }
    }
}

/// The value of the field with this key if it comes next and has less than 128 bytes, and what follows it.
#[inline(always)]
fn short_field(bytes: &[u8], key: u8) -> Option<(&[u8], &[u8])> {
    match bytes {
        [first, len @ 0..0x80, rest @ ..] if *first == key => rest.split_at_checked(usize::from(*len)),
        _ => None,
    }
}

/// The 64-bit value of the field with this key if it comes next, and what follows it.
#[inline(always)]
fn fixed_field(bytes: &[u8], key: u8) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (value, rest) = rest.split_first_chunk::<8>()?;
    (*first == key).then_some((u64::from_le_bytes(*value), rest))
}

/// The two parts of the attribute that comes next and what follows it, if it has nothing but a field `first`
/// and then a field `second`, together less than 128 bytes.
#[inline(always)]
fn next_attribute<const FIRST: u8, const SECOND: u8>(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (header, after) = bytes.split_first_chunk::<4>()?;
    let header = u32::from_le_bytes(*header);
    // Both keys, and lengths below 128, in one comparison.
    if header & 0x80ff_80ff != u32::from_le_bytes([ATTRIBUTE, 0, FIRST, 0]) {
        return None;
    }
    let [_, len, _, first_len] = header.to_le_bytes();
    let (attribute, rest) = after.split_at_checked(usize::from(len).wrapping_sub(2))?;
    let (first, second) = attribute.split_at_checked(usize::from(first_len))?;
    let (second_header, second) = second.split_first_chunk::<2>()?;
    (*second_header == [SECOND, second.len() as u8]).then_some((first, second, rest))
}

#[cfg(test)]
mod tests {
    use nyquist_core::batch::Signal;
    use nyquist_core::wire::fuzzing::{Entropy, generate, mutate};
    use nyquist_core::wire::{SpanView, TracesView};
    use proptest::prelude::*;

    use super::*;

    /// Takes as many attributes as are left.
    struct Taking<'a> {
        left: usize,
        taken: Vec<KeyValue<'a>>,
    }

    impl<'a> Wanted<'a> for Taking<'a> {
        fn wants_more(&self) -> bool {
            self.left > 0
        }

        fn take(&mut self, key: &'a [u8], value: impl FnOnce() -> AnyValue<'a>) {
            self.left -= 1;
            self.taken.push(KeyValue { key, value: value() });
        }
    }

    /// The scan finds what the views find.
    fn compare(span: &[u8], limit: usize) {
        let mut taking = Taking { left: limit, taken: Vec::new() };
        let head = scan(span, &mut taking);
        let expected = SpanView::new(span).fields();
        let found = (head.trace_id, head.span_id, head.trace_state, head.name);
        assert_eq!(found, (expected.trace_id, expected.span_id, expected.trace_state, expected.name), "{span:x?}");
        let found = (head.kind, head.start, head.end, head.status);
        assert_eq!(found, (expected.kind, expected.start_time, expected.end_time, expected.status_code), "{span:x?}");
        let expected: Vec<KeyValue<'_>> = SpanView::new(span).attributes().take(limit).collect();
        // As text, in which NaN equals NaN.
        assert_eq!(format!("{:?}", taking.taken), format!("{expected:?}"), "{span:x?}");
    }

    fn spans(request: &[u8]) -> impl Iterator<Item = SpanView<'_>> {
        let scopes = TracesView::new(request).resource_spans().flat_map(|resource| resource.scope_spans());
        scopes.flat_map(|scope| scope.spans())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        /// Spans in all encodings that are allowed, and in some that are not.
        #[test]
        fn the_scan_finds_what_the_views_find(
            entropy in prop::collection::vec(any::<u8>(), 0..2000),
            damage in prop::collection::vec(any::<u8>(), 16),
            limit in prop_oneof![Just(0), Just(usize::MAX), 0..6usize],
        ) {
            let request = generate(Signal::Traces, &mut Entropy::new(&entropy));
            for span in spans(&request) {
                compare(span.bytes(), limit);
                compare(&mutate(span.bytes().to_vec(), &mut Entropy::new(&damage)), limit);
            }
        }
    }

    fn field(key: u8, content: &[u8]) -> Vec<u8> {
        [&[key, content.len() as u8], content].concat()
    }

    /// Attributes as encoders write them, and as none does.
    #[test]
    fn attributes_in_every_spelling() {
        let text = |text: &str| field(0x0a, text.as_bytes());
        let (key, value) = (field(KEY, b"http.route"), field(VALUE, &text("/cart")));
        let spellings = [
            [key.clone(), value.clone()].concat(),
            [value.clone(), key.clone()].concat(),
            [field(KEY, b"other"), key.clone(), value.clone()].concat(),
            [key.clone(), value.clone(), field(KEY, b"other")].concat(),
            [key.clone(), field(VALUE, &text("other")), value.clone()].concat(),
            [value.clone(), key.clone(), field(VALUE, &[0x18, 7])].concat(),
            [key.clone(), value.clone(), vec![0x7a, 0]].concat(),
            [key.clone(), field(VALUE, &text(&"x".repeat(200)[..120]))].concat(),
            [field(KEY, "k".repeat(126).as_bytes()), value.clone()].concat(),
            key.clone(),
            value.clone(),
            Vec::new(),
        ];
        for first in &spellings {
            for second in &spellings {
                let rest = [vec![START, 1, 0, 0, 0, 0, 0, 0, 0], field(NAME, b"late"), vec![KIND, 3]].concat();
                let attributes = |attribute: &[u8]| {
                    let mut len = Vec::new();
                    nyquist_core::wire::put_varint(&mut len, attribute.len() as u64);
                    [vec![ATTRIBUTE], len, attribute.to_vec()].concat()
                };
                let span = [attributes(first), attributes(second), rest, field(0x7a, &[0x18, 2])].concat();
                for limit in [0, 1, 2, usize::MAX] {
                    compare(&span, limit);
                }
            }
        }
    }
}
