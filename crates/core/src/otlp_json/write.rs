//! Protobuf in, JSON out, along the table.
//!
//! As the specification says: ids in hex, other bytes in base64, 64-bit integers as text, enums as
//! numbers, names in lowerCamelCase, what has its default left out. NaN and the infinities are
//! text. There is no model in between; what the table does not know is left out.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::schema::{ANY_VALUE, Field, Kind, Message, Presence, request};
use crate::batch::Signal;
use crate::wire::{Fields, Malformed, Value};

/// Messages within messages: more than the ingress check lets pass.
const MAX_DEPTH: u32 = 128;

/// `string_value_strindex`: a member of the oneof of `AnyValue` that only profiles may use. It replaces the
/// others, and stands for no value.
const STRING_INDEX: u32 = 8;

/// The bytes are no such message: never, of bytes that passed the ingress check.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It is no protobuf.
    #[error("cannot decode the message: {0}")]
    Malformed(#[from] Malformed),
    /// A field has the wire type of another.
    #[error("cannot decode the message: field {0} has the wrong wire type")]
    WireType(&'static str),
    /// Messages are nested too deep.
    #[error("cannot decode the message: it is nested deeper than {MAX_DEPTH} messages")]
    Depth,
}

/// Appends the export request `message` to `out`, as one JSON object without line breaks.
///
/// # Errors
/// If `message` is no export request of `signal`; `out` then holds a part of it.
pub fn write(signal: Signal, message: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
    write_message(request(signal), &[message], 0, out)
}

/// A field that is there, by its place in the table.
type Found<'a> = (usize, Value<'a>);

/// Writes the message whose content is `pieces`, one after the other: where a sub-message comes in
/// several, they are one.
fn write_message(schema: &Message, pieces: &[&[u8]], depth: u32, out: &mut Vec<u8>) -> Result<(), WriteError> {
    if depth > MAX_DEPTH {
        return Err(WriteError::Depth);
    }
    let mut found: Vec<Found<'_>> = Vec::new();
    for piece in pieces {
        let mut fields = Fields::new(piece);
        while let Some(field) = fields.next_field()? {
            if field.number == STRING_INDEX && std::ptr::eq(schema, &raw const ANY_VALUE) {
                found.clear();
            }
            if let Some(place) = schema.fields.iter().position(|known| known.number == field.number) {
                found.push((place, field.value));
            }
        }
    }
    settle_oneof(schema, &mut found);
    // Stable: what is repeated keeps its order.
    found.sort_by_key(|(place, _)| *place);
    out.push(b'{');
    let mut is_first = true;
    for values in found.chunk_by(|one, other| one.0 == other.0) {
        let Some(field) = values.first().and_then(|(place, _)| schema.fields.get(*place)) else { continue };
        let before = out.len();
        if !is_first {
            out.push(b',');
        }
        let _ = write!(out, "\"{}\":", field.name);
        if write_field(field, values, depth, out)? {
            is_first = false;
        } else {
            out.truncate(before);
        }
    }
    out.push(b'}');
    Ok(())
}

/// Of a oneof, only the member that came last counts, and of that only what came after the others.
fn settle_oneof(schema: &Message, found: &mut Vec<Found<'_>>) {
    let is_member = |place: usize| schema.fields.get(place).is_some_and(|field| field.presence == Presence::OneOf);
    let Some(&(last, _)) = found.iter().rev().find(|(place, _)| is_member(*place)) else { return };
    let Some(replaced) = found.iter().rposition(|(place, _)| is_member(*place) && *place != last) else { return };
    let mut at = 0;
    found.retain(|(place, _)| {
        at += 1;
        at > replaced + 1 || !is_member(*place)
    });
}

/// Writes the value of a field. `false` if there is nothing to say.
fn write_field(field: &Field, values: &[Found<'_>], depth: u32, out: &mut Vec<u8>) -> Result<bool, WriteError> {
    if field.presence == Presence::Repeated {
        return write_list(field, values, depth, out).map(|()| true);
    }
    if let Kind::Message(schema) = field.kind {
        let pieces: Result<Vec<&[u8]>, WriteError> = values.iter().map(|(_, value)| content(field, *value)).collect();
        write_message(schema, &pieces?, depth + 1, out)?;
        return Ok(true);
    }
    let Some(&(_, value)) = values.last() else { return Ok(false) };
    if field.presence == Presence::Implicit && is_default(field.kind, value) {
        return Ok(false);
    }
    write_scalar(field, value, out)?;
    Ok(true)
}

fn write_list(field: &Field, values: &[Found<'_>], depth: u32, out: &mut Vec<u8>) -> Result<(), WriteError> {
    out.push(b'[');
    let begin = out.len();
    let separate = |out: &mut Vec<u8>| {
        if out.len() > begin {
            out.push(b',');
        }
    };
    for (_, value) in values {
        match (field.kind, *value) {
            (Kind::Message(schema), value) => {
                separate(out);
                write_message(schema, &[content(field, value)?], depth + 1, out)?;
            }
            (Kind::Text | Kind::Bytes, value) => {
                separate(out);
                write_scalar(field, value, out)?;
            }
            (Kind::Double | Kind::Fixed64 | Kind::Sfixed64, Value::Len(packed)) => {
                let (numbers, rest) = packed.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(WriteError::WireType(field.name));
                }
                for number in numbers {
                    separate(out);
                    write_scalar(field, Value::Fixed64(u64::from_le_bytes(*number)), out)?;
                }
            }
            (_, Value::Len(packed)) => {
                let mut numbers = Fields::new(packed);
                while let Some(number) = numbers.next_packed_varint() {
                    separate(out);
                    write_scalar(field, Value::Varint(number), out)?;
                }
            }
            (_, value) => {
                separate(out);
                write_scalar(field, value, out)?;
            }
        }
    }
    out.push(b']');
    Ok(())
}

fn content<'a>(field: &Field, value: Value<'a>) -> Result<&'a [u8], WriteError> {
    match value {
        Value::Len(content) => Ok(content),
        _ => Err(WriteError::WireType(field.name)),
    }
}

fn is_default(kind: Kind, value: Value<'_>) -> bool {
    match (kind, value) {
        // An id of another length is none, and would make the whole document unreadable.
        (Kind::Id(length), Value::Len(id)) => id.len() != length,
        (Kind::Uint32 | Kind::Sint32 | Kind::Enum(_), Value::Varint(number)) => number as u32 == 0,
        // -0.0 is not the default.
        (_, Value::Varint(number) | Value::Fixed64(number)) => number == 0,
        (_, Value::Fixed32(number)) => number == 0,
        (_, Value::Len(content)) => content.is_empty(),
        (_, Value::Group) => true,
    }
}

fn write_scalar(field: &Field, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), WriteError> {
    // Writing to memory does not fail.
    match (field.kind, value) {
        (Kind::Text, Value::Len(text)) => {
            let _ = serde_json::to_writer(out, &String::from_utf8_lossy(text));
        }
        (Kind::Bytes, Value::Len(bytes)) => _ = write!(out, "\"{}\"", STANDARD.encode(bytes)),
        (Kind::Id(_), Value::Len(id)) => _ = write!(out, "\"{}\"", hex::encode(id)),
        (Kind::Bool, Value::Varint(flag)) => _ = write!(out, "{}", flag != 0),
        (Kind::Int64, Value::Varint(number)) => _ = write!(out, "\"{}\"", number as i64),
        (Kind::Uint64, Value::Varint(number)) => _ = write!(out, "\"{number}\""),
        (Kind::Uint32, Value::Varint(number)) => _ = write!(out, "{}", number as u32),
        (Kind::Sint32, Value::Varint(number)) => _ = write!(out, "{}", zigzag(number as u32)),
        (Kind::Enum(_), Value::Varint(number)) => _ = write!(out, "{}", number as i32),
        (Kind::Fixed32, Value::Fixed32(number)) => _ = write!(out, "{number}"),
        (Kind::Fixed64, Value::Fixed64(number)) => _ = write!(out, "\"{number}\""),
        (Kind::Sfixed64, Value::Fixed64(number)) => _ = write!(out, "\"{}\"", number as i64),
        (Kind::Double, Value::Fixed64(bits)) => write_double(f64::from_bits(bits), out),
        _ => return Err(WriteError::WireType(field.name)),
    }
    Ok(())
}

fn write_double(number: f64, out: &mut Vec<u8>) {
    let _ = match number {
        _ if number.is_nan() => out.write_all(b"\"NaN\""),
        f64::INFINITY => out.write_all(b"\"Infinity\""),
        f64::NEG_INFINITY => out.write_all(b"\"-Infinity\""),
        _ => serde_json::to_writer(out, &number).map_err(Into::into),
    };
}

fn zigzag(number: u32) -> i32 {
    (number >> 1) as i32 ^ -((number & 1) as i32)
}
