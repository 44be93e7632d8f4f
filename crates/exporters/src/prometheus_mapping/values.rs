//! Attribute values and bounds as text.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nyquist_core::wire::{AnyValue, Fields, KeyValue, Value};

/// Deeper values are cut off: the ingress check lets no deeper ones in.
const MAX_DEPTH: u32 = 32;

/// Appends an attribute's value the way the Collector writes it into a label: text as it is,
/// bytes in base64, arrays and maps as compact JSON.
pub(crate) fn put_value(out: &mut Vec<u8>, value: &AnyValue<'_>) {
    match value {
        AnyValue::Empty => {}
        AnyValue::String(text) => out.extend_from_slice(text),
        AnyValue::Bool(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
        AnyValue::Int(number) => put_display(out, number),
        AnyValue::Double(number) => put_json_double(out, *number),
        AnyValue::Bytes(bytes) => out.extend_from_slice(STANDARD.encode(bytes).as_bytes()),
        AnyValue::Array(_) | AnyValue::KvList(_) => put_json(out, value, 0),
    }
}

/// Appends `value` as a decimal without exponent, in its shortest form: `0.005`, `1`, `10000000`.
pub fn put_decimal(out: &mut Vec<u8>, value: f64) {
    if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        put_display(out, value);
    }
}

pub(super) fn put_display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Writing to a Vec does not fail.
    let _ = write!(out, "{value}");
}

/// A double as Go's JSON writes it: exponents only below 1e-6 and from 1e21 on.
fn put_json_double(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    let is_plain = magnitude == 0.0 || (1e-6..1e21).contains(&magnitude);
    if is_plain || !value.is_finite() {
        return put_decimal(out, value);
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => {
            put_display(out, format_args!("{digits}e+{exponent}"))
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
}

fn put_json(out: &mut Vec<u8>, value: &AnyValue<'_>, depth: u32) {
    if depth > MAX_DEPTH {
        return out.extend_from_slice(b"null");
    }
    match value {
        AnyValue::Empty => out.extend_from_slice(b"null"),
        AnyValue::String(text) => put_json_text(out, text),
        AnyValue::Bytes(bytes) => put_json_text(out, STANDARD.encode(bytes).as_bytes()),
        AnyValue::Array(array) => {
            out.push(b'[');
            for (index, item) in len_fields(array).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                put_json(out, &AnyValue::new(item), depth + 1);
            }
            out.push(b']');
        }
        AnyValue::KvList(list) => {
            let mut entries: Vec<KeyValue<'_>> = len_fields(list).map(KeyValue::new).collect();
            entries.sort_by_key(|entry| entry.key);
            out.push(b'{');
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                put_json_text(out, entry.key);
                out.push(b':');
                put_json(out, &entry.value, depth + 1);
            }
            out.push(b'}');
        }
        plain => put_value(out, plain),
    }
}

/// The length-delimited fields 1 of a list.
fn len_fields(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    Fields::new(message).filter_map(|field| match field.value {
        Value::Len(bytes) if field.number == 1 => Some(bytes),
        _ => None,
    })
}

fn put_json_text(out: &mut Vec<u8>, text: &[u8]) {
    // Writing text to a Vec does not fail.
    let _ = serde_json::to_writer(&mut *out, &String::from_utf8_lossy(text));
}
