//! `opentelemetry.proto.trace.v1`.

use super::envelope::{self, Names};
use super::keys::*;
use super::reader::{Reader, known};
use super::values::attributes;
use super::{Check, Checked};

const NAMES: Names = Names {
    request: "ExportTraceServiceRequest",
    resource: "ResourceSpans",
    resource_schema_url: "ResourceSpans.schema_url",
    scope: "ScopeSpans",
    scope_schema_url: "ScopeSpans.schema_url",
};

/// Checks an `ExportTraceServiceRequest`.
pub(super) fn request(bytes: &[u8], checked: &mut Checked) -> Check {
    envelope::request(&NAMES, bytes, checked, span)
}

/// Is this a trace id?
#[inline]
pub(in crate::wire) fn is_trace_id(id: &[u8]) -> bool {
    <[u8; 16]>::try_from(id).is_ok_and(|id| u128::from_ne_bytes(id) != 0)
}

/// Is this a span id?
#[inline]
pub(in crate::wire) fn is_span_id(id: &[u8]) -> bool {
    <[u8; 8]>::try_from(id).is_ok_and(|id| u64::from_ne_bytes(id) != 0)
}

fn span(bytes: &[u8], left: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("Span", bytes, left);
    let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
    // Most encoders write fields in the order of their numbers: asked for in that order, each is a
    // branch that the processor foretells. What comes otherwise is left to the loop.
    if reader.next_is(LEN_1) {
        trace_id = reader.bytes()?;
    }
    if reader.next_is(LEN_2) {
        span_id = reader.bytes()?;
    }
    if reader.next_is(LEN_4) {
        reader.bytes()?;
    }
    if reader.next_is(LEN_5) {
        reader.text("Span.name")?;
    }
    if reader.next_is(VARINT_6) {
        reader.varint()?;
    }
    if reader.next_is(FIXED64_7) {
        reader.fixed64()?;
    }
    if reader.next_is(FIXED64_8) {
        reader.fixed64()?;
    }
    while let Some(key) = reader.key()? {
        match key {
            LEN_1 => {
                let earlier = std::mem::replace(&mut trace_id, reader.bytes()?);
                checked.inner_ids |= !(earlier.is_empty() && reader.is_at_end());
            }
            LEN_2 => span_id = reader.bytes()?,
            LEN_3 => reader.text("Span.trace_state")?,
            LEN_4 => drop(reader.bytes()?),
            LEN_5 => reader.text("Span.name")?,
            VARINT_6 | VARINT_10 | VARINT_12 | VARINT_14 => {
                reader.varint()?;
            }
            FIXED64_7 | FIXED64_8 => reader.fixed64()?,
            LEN_9 => attributes(&mut reader, LEN_9, checked)?,
            LEN_11 => event(reader.bytes()?, reader.enter()?, checked)?,
            LEN_13 => link(reader.bytes()?, reader.enter()?, checked)?,
            LEN_15 => status(reader.bytes()?, reader.enter()?)?,
            FIXED32_16 => reader.fixed32()?,
            _ => reader.skip(key, known(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]))?,
        }
    }
    checked.items += 1;
    checked.invalid_ids += usize::from(!(is_trace_id(trace_id) && is_span_id(span_id)));
    Ok(())
}

fn event(bytes: &[u8], left: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("Span.Event", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            FIXED64_1 => reader.fixed64()?,
            LEN_2 => reader.text("Span.Event.name")?,
            LEN_3 => attributes(&mut reader, LEN_3, checked)?,
            VARINT_4 => reader.varint()?,
            _ => reader.skip(key, known(&[1, 2, 3, 4]))?,
        }
    }
    Ok(())
}

fn link(bytes: &[u8], left: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("Span.Link", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            LEN_1 | LEN_2 => drop(reader.bytes()?),
            LEN_3 => reader.text("Span.Link.trace_state")?,
            LEN_4 => attributes(&mut reader, LEN_4, checked)?,
            VARINT_5 => reader.varint()?,
            FIXED32_6 => reader.fixed32()?,
            _ => reader.skip(key, known(&[1, 2, 3, 4, 5, 6]))?,
        }
    }
    Ok(())
}

fn status(bytes: &[u8], left: u32) -> Check {
    let mut reader = Reader::new("Status", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            LEN_2 => reader.text("Status.message")?,
            VARINT_3 => reader.varint()?,
            _ => reader.skip(key, known(&[2, 3]))?,
        }
    }
    Ok(())
}
