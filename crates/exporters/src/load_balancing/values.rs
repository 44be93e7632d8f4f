//! Attribute values as text, spelled as the Collector spells them in routing keys.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nyquist_core::wire::{AnyValue, Attributes, Fields, Value};

/// Deeper values are left out; the ingress check lets none in.
const MAX_DEPTH: usize = 32;

/// Appends `value`.
pub(super) fn put_value(out: &mut Vec<u8>, value: AnyValue<'_>) {
    put(out, value, MAX_DEPTH);
}

fn put(out: &mut Vec<u8>, value: AnyValue<'_>, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match value {
        AnyValue::Empty => {}
        AnyValue::String(text) => out.extend_from_slice(text),
        AnyValue::Bool(flag) => out.extend_from_slice(if flag { b"true" } else { b"false" }),
        AnyValue::Int(number) => {
            // A Vec takes everything.
            let _ = write!(out, "{number}");
        }
        AnyValue::Double(number) => out.extend_from_slice(float(number).as_bytes()),
        AnyValue::Bytes(bytes) => out.extend_from_slice(STANDARD.encode(bytes).as_bytes()),
        AnyValue::Array(array) => {
            out.push(b'[');
            let elements = Fields::new(array).filter_map(|field| match field.value {
                Value::Len(element) if field.number == 1 => Some(element),
                _ => None,
            });
            for (index, element) in elements.enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                put(out, AnyValue::new(element), depth);
            }
            out.push(b']');
        }
        AnyValue::KvList(list) => {
            out.push(b'{');
            let mut pairs: Vec<_> = Attributes::new(list, 1).map(|pair| (pair.key, pair.value)).collect();
            pairs.sort_by_key(|(key, _)| *key);
            for (index, (key, value)) in pairs.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(key);
                out.push(b':');
                put(out, value, depth);
            }
            out.push(b'}');
        }
    }
}

/// Go's `FormatFloat(number, 'g', -1, 64)`: the shortest digits, and below 1e-4 and from 1e6 on an exponent
/// of at least two digits.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return number.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spelled_as_go_does() {
        let small = [(1.0, "1"), (0.5, "0.5"), (-0.0, "-0"), (1e-4, "0.0001"), (1e-5, "1e-05"), (123_456.0, "123456")];
        let large = [(1e6, "1e+06"), (1_234_567.0, "1.234567e+06"), (1e21, "1e+21"), (1.5e-300, "1.5e-300")];
        for (number, text) in small.into_iter().chain(large) {
            assert_eq!(float(number), text);
        }
        assert_eq!(float(f64::INFINITY), "+Inf");
    }
}
