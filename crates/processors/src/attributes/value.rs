//! Attribute values: written in a configuration, encoded, and as text.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use nyquist_core::wire::{AnyValue, Attributes, Fields, KeyValue, Value, put_len_field, put_tag, put_varint};
use serde::{Deserialize, Deserializer, de};

use super::wire_edit::put_nested;

/// A value of any type, as written in YAML.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigValue {
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number with a fraction.
    Double(f64),
    /// Text.
    String(String),
    /// A list.
    List(Vec<Self>),
    /// A mapping.
    Map(Vec<(String, Self)>),
}

impl ConfigValue {
    /// The `AnyValue` message of this value.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => put_any(AnyValue::Bool(*value), out),
            Self::Int(value) => put_any(AnyValue::Int(*value), out),
            Self::Double(value) => put_any(AnyValue::Double(*value), out),
            Self::String(text) => put_any(AnyValue::String(text.as_bytes()), out),
            Self::List(items) => put_nested(out, 5, |out| {
                for item in items {
                    put_nested(out, 1, |out| item.put(out));
                }
            }),
            Self::Map(entries) => put_nested(out, 6, |out| {
                for (key, value) in entries {
                    put_nested(out, 1, |out| {
                        put_len_field(out, 1, key.as_bytes());
                        put_nested(out, 2, |out| value.put(out));
                    });
                }
            }),
        }
    }
}

impl<'de> Deserialize<'de> for ConfigValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = ConfigValue;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string, number, boolean, list or mapping")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<ConfigValue, E> {
                Ok(ConfigValue::Bool(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<ConfigValue, E> {
                Ok(ConfigValue::Int(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<ConfigValue, E> {
                i64::try_from(value).map(ConfigValue::Int).map_err(|_| E::custom("integer is too large"))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<ConfigValue, E> {
                Ok(ConfigValue::Double(value))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ConfigValue, E> {
                Ok(ConfigValue::String(text.to_owned()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<ConfigValue, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(ConfigValue::List(list))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<ConfigValue, A::Error> {
                let mut map = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    map.push(entry);
                }
                Ok(ConfigValue::Map(map))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Appends the fields of the `AnyValue` message of `value`.
pub(crate) fn put_any(value: AnyValue<'_>, out: &mut Vec<u8>) {
    match value {
        AnyValue::Empty => {}
        AnyValue::String(text) => put_len_field(out, 1, text),
        AnyValue::Bool(flag) => {
            put_tag(out, 2, 0);
            put_varint(out, u64::from(flag));
        }
        AnyValue::Int(number) => {
            put_tag(out, 3, 0);
            put_varint(out, number as u64);
        }
        AnyValue::Double(number) => {
            put_tag(out, 4, 1);
            out.extend_from_slice(&number.to_le_bytes());
        }
        AnyValue::Array(bytes) => put_len_field(out, 5, bytes),
        AnyValue::KvList(bytes) => put_len_field(out, 6, bytes),
        AnyValue::Bytes(bytes) => put_len_field(out, 7, bytes),
    }
}

/// `value` as text, as the Collector's `AsString` writes it.
pub(crate) fn text(value: AnyValue<'_>) -> Cow<'_, [u8]> {
    let text = match value {
        AnyValue::Empty => return Cow::Borrowed(&[]),
        AnyValue::String(text) => return Cow::Borrowed(text),
        AnyValue::Bool(flag) => flag.to_string(),
        AnyValue::Int(number) => number.to_string(),
        AnyValue::Double(number) => double_text(number),
        AnyValue::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes),
        AnyValue::Array(_) | AnyValue::KvList(_) => json(value, 0).to_string(),
    };
    Cow::Owned(text.into_bytes())
}

/// ES6's number to string conversion, as Go's JSON encoder does it.
fn double_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let size = number.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) if !exponent.starts_with('-') => format!("{mantissa}e+{exponent}"),
        _ => text,
    }
}

/// How deep values may nest: what the ingress check lets in.
const MAX_DEPTH: usize = 32;

fn json(value: AnyValue<'_>, depth: usize) -> serde_json::Value {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match value {
        AnyValue::Empty => serde_json::Value::Null,
        _ if depth > MAX_DEPTH => serde_json::Value::Null,
        AnyValue::String(text) => lossy(text).into(),
        AnyValue::Bool(flag) => flag.into(),
        AnyValue::Int(number) => number.into(),
        AnyValue::Double(number) => number.into(),
        AnyValue::Bytes(_) => lossy(&text(value)).into(),
        AnyValue::Array(bytes) => Fields::new(bytes)
            .filter_map(|field| match field.value {
                Value::Len(item) if field.number == 1 => Some(json(AnyValue::new(item), depth + 1)),
                _ => None,
            })
            .collect(),
        AnyValue::KvList(bytes) => {
            let entry = |KeyValue { key, value }| (lossy(key), json(value, depth + 1));
            Attributes::new(bytes, 1).map(entry).collect()
        }
    }
}
