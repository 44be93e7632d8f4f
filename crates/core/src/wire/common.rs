//! `opentelemetry.proto.common.v1`: values and attributes.

use super::cursor::{Field, Fields, Value};
use super::keys::KeySet;

/// A view of an `AnyValue`. Where the encoding holds several, the last one wins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AnyValue<'a> {
    /// No value is set, or one that only profiles may use (`string_value_strindex`, 8).
    Empty,
    /// `string_value` (1). Not checked for UTF-8 here: the ingress check did.
    String(&'a [u8]),
    /// `bool_value` (2).
    Bool(bool),
    /// `int_value` (3).
    Int(i64),
    /// `double_value` (4).
    Double(f64),
    /// `array_value` (5): the bytes of an `ArrayValue`.
    Array(&'a [u8]),
    /// `kvlist_value` (6): the bytes of a `KeyValueList`.
    KvList(&'a [u8]),
    /// `bytes_value` (7).
    Bytes(&'a [u8]),
}

impl<'a> AnyValue<'a> {
    /// Reads the `AnyValue` message in `bytes`.
    #[must_use]
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        // Nearly all values are one field with a short length or number.
        match bytes {
            [0x0a, len @ 0..0x80, text @ ..] if text.len() == usize::from(*len) => Self::String(text),
            [0x10, flag @ 0..0x80] => Self::Bool(*flag != 0),
            [0x18, number @ 0..0x80] => Self::Int(i64::from(*number)),
            [0x18, low, high @ 0..0x80] if *low >= 0x80 => Self::Int(i64::from(*low & 0x7f) | i64::from(*high) << 7),
            _ => Self::Empty.merge(bytes),
        }
    }

    /// This value with the further piece `bytes` of its message merged in.
    #[must_use]
    #[inline(never)]
    pub fn merge(self, bytes: &'a [u8]) -> Self {
        let mut found = self;
        for Field { number, value } in Fields::new(bytes) {
            found = match (number, value) {
                (1, Value::Len(text)) => Self::String(text),
                (2, Value::Varint(flag)) => Self::Bool(flag != 0),
                (3, Value::Varint(number)) => Self::Int(number as i64),
                (4, Value::Fixed64(bits)) => Self::Double(f64::from_bits(bits)),
                (5, Value::Len(array)) => Self::Array(array),
                (6, Value::Len(list)) => Self::KvList(list),
                (7, Value::Len(bytes)) => Self::Bytes(bytes),
                (8, Value::Varint(_)) => Self::Empty,
                _ => found,
            };
        }
        found
    }
}

/// A view of a `KeyValue`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyValue<'a> {
    /// The key, as UTF-8 bytes.
    pub key: &'a [u8],
    /// The value.
    pub value: AnyValue<'a>,
}

impl<'a> KeyValue<'a> {
    /// Reads the `KeyValue` message in `bytes`.
    #[must_use]
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        match usual_parts(bytes) {
            Some((key, value)) => Self { key, value: AnyValue::new(value) },
            None => Self::read(bytes),
        }
    }

    #[inline(never)]
    fn read(bytes: &'a [u8]) -> Self {
        let mut key: &[u8] = &[];
        let mut value = AnyValue::Empty;
        for Field { number, value: field } in Fields::new(bytes) {
            match (number, field) {
                (1, Value::Len(bytes)) => key = bytes,
                (2, Value::Len(bytes)) => value = value.merge(bytes),
                _ => {}
            }
        }
        Self { key, value }
    }
}

/// The key and the value (an `AnyValue`) of a `KeyValue` that is written as everybody writes it:
/// both once, nothing else, lengths below 128. Other spellings are `None`.
#[inline(always)]
pub(super) fn usual_parts(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    // A length from 128 on takes two bytes, of which the first is 128 or more.
    let (key_len, key, value_len, value) = match bytes {
        // Key, then value: everybody but the Go Collector.
        [0x0a, key_len @ 0..0x80, rest @ ..] => match rest.split_at_checked(usize::from(*key_len))? {
            (key, [0x12, value_len @ 0..0x80, value @ ..]) => (*key_len, key, *value_len, value),
            _ => return None,
        },
        // Value, then key: the Go Collector.
        [0x12, value_len @ 0..0x80, rest @ ..] => match rest.split_at_checked(usize::from(*value_len))? {
            (value, [0x0a, key_len @ 0..0x80, key @ ..]) => (*key_len, key, *value_len, value),
            _ => return None,
        },
        _ => return None,
    };
    (key.len() == usize::from(key_len) && value.len() == usize::from(value_len)).then_some((key, value))
}

/// The attributes of a message: each field `number` of `message` is a `KeyValue`.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    fields: Fields<'a>,
    number: u32,
}

impl<'a> Attributes<'a> {
    /// The attributes in field `number` of `message`.
    #[must_use]
    pub fn new(message: &'a [u8], number: u32) -> Self {
        Self { fields: Fields::new(message), number }
    }

    /// The value of the first attribute `key`; no other value is read.
    #[must_use]
    #[inline]
    pub fn get(self, key: &[u8]) -> Option<AnyValue<'a>> {
        for Field { number, value } in self.fields {
            let Value::Len(bytes) = value else { continue };
            if number != self.number {
                continue;
            }
            match usual_parts(bytes) {
                Some((found, value)) if found == key => return Some(AnyValue::new(value)),
                Some(_) => {}
                None => {
                    let attribute = KeyValue::read(bytes);
                    if attribute.key == key {
                        return Some(attribute.value);
                    }
                }
            }
        }
        None
    }

    /// Calls `found` with the index and the value of each attribute whose key is in `keys`, in
    /// order: one scan for any number of keys, and no value is read in vain.
    #[inline]
    pub fn select(self, keys: &KeySet, mut found: impl FnMut(usize, AnyValue<'a>)) {
        for Field { number, value } in self.fields {
            let Value::Len(bytes) = value else { continue };
            if number != self.number {
                continue;
            }
            match usual_parts(bytes) {
                Some((key, value)) => {
                    if let Some(index) = keys.index_of(key) {
                        found(index, AnyValue::new(value));
                    }
                }
                None => {
                    let attribute = KeyValue::read(bytes);
                    if let Some(index) = keys.index_of(attribute.key) {
                        found(index, attribute.value);
                    }
                }
            }
        }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = KeyValue<'a>;

    #[inline]
    fn next(&mut self) -> Option<KeyValue<'a>> {
        loop {
            match self.fields.next()? {
                Field { number, value: Value::Len(bytes) } if number == self.number => {
                    return Some(KeyValue::new(bytes));
                }
                _ => {}
            }
        }
    }
}

/// The length-delimited fields `number` of `message`, in order.
pub(super) fn len_fields(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    Fields::new(message).filter_map(move |field| match field.value {
        Value::Len(bytes) if field.number == number => Some(bytes),
        _ => None,
    })
}

/// The last length-delimited field `number` of `message`, or nothing.
///
/// For names and ids of spans this is most of the work of whoever asks for one of them, so that the usual
/// fields (keys and lengths below 128, times) are passed over here.
pub(super) fn last_len(message: &[u8], number: u32) -> &[u8] {
    let mut found: &[u8] = &[];
    let mut rest = message;
    loop {
        // A key below 128 has a field number below 16, and its wire type in the last three bits.
        rest = match rest {
            [key @ 0x0a..0x80, len @ 0..0x80, behind @ ..] if key & 7 == 2 && behind.len() >= usize::from(*len) => {
                let (value, next) = behind.split_at(usize::from(*len));
                if u32::from(*key) == number << 3 | 2 {
                    found = value;
                }
                next
            }
            [key @ 0x09..0x80, _, _, _, _, _, _, _, _, next @ ..] if key & 7 == 1 => next,
            [] => return found,
            _ => {
                let mut fields = Fields::new(rest);
                let Some(field) = fields.next() else { return found };
                if let Value::Len(value) = field.value
                    && field.number == number
                {
                    found = value;
                }
                fields.rest()
            }
        };
    }
}
