//! Attributes and values: `opentelemetry.proto.common.v1` and `resource.v1`.

use super::keys::*;
use super::reader::{Reader, known};
use super::text::{is_ascii, is_utf8, is_utf8_slow};
use super::{Check, CheckError, Checked, MAX_VALUE_DEPTH};
use crate::wire::common::usual_parts;

/// Checks the attribute (`KeyValue`) whose key `reader` has just passed, and those that follow:
/// they mostly come in a row. `key` is that of the field.
#[inline(always)]
pub(super) fn attributes(reader: &mut Reader<'_>, key: u32, checked: &mut Checked) -> Check {
    let left = reader.enter()?;
    loop {
        let bytes = reader.bytes()?;
        // The value of an attribute lies one level below it.
        if left == 0 || !is_plain(bytes) {
            key_value(bytes, left, MAX_VALUE_DEPTH, checked)?;
        }
        if !reader.next_is(key) {
            return Ok(());
        }
    }
}

/// Is this a `KeyValue` of the usual shape, and nothing wrong with it? "No" says nothing.
#[inline(always)]
fn is_plain(bytes: &[u8]) -> bool {
    let Some((key, value)) = usual_parts(bytes) else { return false };
    match value {
        // One look at the whole message covers key and text.
        [0x0a, len, text @ ..] if text.len() == usize::from(*len) => {
            is_ascii(bytes) || (is_utf8_slow(key) && is_utf8_slow(text))
        }
        [0x10 | 0x18, number @ ..] => is_short_varint(number) && is_utf8(key),
        [0x21, number @ ..] => number.len() == 8 && is_utf8(key),
        _ => false,
    }
}

/// Is this one varint, and not so long that it could be too large?
#[inline]
fn is_short_varint(bytes: &[u8]) -> bool {
    match bytes {
        [last] => *last < 0x80,
        [first, last] => *first >= 0x80 && *last < 0x80,
        [rest @ .., last] => rest.len() < 9 && *last < 0x80 && rest.iter().all(|byte| *byte >= 0x80),
        [] => false,
    }
}

#[inline(never)]
fn key_value(bytes: &[u8], left: u32, depth: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("KeyValue", bytes, left);
    let mut member = 0;
    while let Some(key) = reader.key()? {
        match key {
            LEN_1 => reader.text("KeyValue.key")?,
            LEN_2 => any_value(reader.bytes()?, reader.enter()?, depth, &mut member, checked)?,
            VARINT_3 => reader.varint()?,
            _ => reader.skip(key, known(&[1, 2, 3]))?,
        }
    }
    Ok(())
}

/// Checks a value, the first of its kind, in whose message `left` levels may nest. `member` is
/// the member of the oneof that an earlier piece of it has set, or 0.
#[inline]
pub(super) fn value(bytes: &[u8], left: u32, member: &mut u32, checked: &mut Checked) -> Check {
    any_value(bytes, left, MAX_VALUE_DEPTH, member, checked)
}

fn any_value(bytes: &[u8], left: u32, depth: u32, member: &mut u32, checked: &mut Checked) -> Check {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Box::new(CheckError::ValueDepth));
    };
    let mut reader = Reader::new("AnyValue", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            LEN_1 => reader.text("AnyValue.string_value")?,
            VARINT_2 | VARINT_3 | VARINT_8 => reader.varint()?,
            FIXED64_4 => reader.fixed64()?,
            LEN_5 => {
                checked.split_values |= *member == 5;
                array(reader.bytes()?, reader.enter()?, depth, checked)?;
            }
            LEN_6 => {
                checked.split_values |= *member == 6;
                list(reader.bytes()?, reader.enter()?, depth, checked)?;
            }
            LEN_7 => drop(reader.bytes()?),
            _ => {
                reader.skip(key, known(&[1, 2, 3, 4, 5, 6, 7, 8]))?;
                continue;
            }
        }
        *member = key >> 3;
    }
    Ok(())
}

fn array(bytes: &[u8], left: u32, depth: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("ArrayValue", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            LEN_1 => any_value(reader.bytes()?, reader.enter()?, depth, &mut 0, checked)?,
            _ => reader.skip(key, known(&[1]))?,
        }
    }
    Ok(())
}

fn list(bytes: &[u8], left: u32, depth: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("KeyValueList", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            LEN_1 => key_value(reader.bytes()?, reader.enter()?, depth, checked)?,
            _ => reader.skip(key, known(&[1]))?,
        }
    }
    Ok(())
}

/// Checks a `Resource`.
pub(super) fn resource(bytes: &[u8], left: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("Resource", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            LEN_1 => attributes(&mut reader, LEN_1, checked)?,
            VARINT_2 => reader.varint()?,
            LEN_3 => entity_ref(reader.bytes()?, reader.enter()?)?,
            _ => reader.skip(key, known(&[1, 2, 3]))?,
        }
    }
    Ok(())
}

fn entity_ref(bytes: &[u8], left: u32) -> Check {
    let mut reader = Reader::new("EntityRef", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            LEN_1 => reader.text("EntityRef.schema_url")?,
            LEN_2 => reader.text("EntityRef.type")?,
            LEN_3 => reader.text("EntityRef.id_keys")?,
            LEN_4 => reader.text("EntityRef.description_keys")?,
            _ => reader.skip(key, known(&[1, 2, 3, 4]))?,
        }
    }
    Ok(())
}

/// Checks an `InstrumentationScope`.
pub(super) fn scope(bytes: &[u8], left: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("InstrumentationScope", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            LEN_1 => reader.text("InstrumentationScope.name")?,
            LEN_2 => reader.text("InstrumentationScope.version")?,
            LEN_3 => attributes(&mut reader, LEN_3, checked)?,
            VARINT_4 => reader.varint()?,
            _ => reader.skip(key, known(&[1, 2, 3, 4]))?,
        }
    }
    Ok(())
}
