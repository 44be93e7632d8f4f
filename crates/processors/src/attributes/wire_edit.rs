//! Changing a few fields of an OTLP message while everything else is copied byte for byte.

use nyquist_core::wire::{Fields, Value, put_tag, put_varint, varint_len};

/// Copies `message` to `out`. `replace` is offered each length-delimited field; it returns true
/// if it has written what is to stand in the field's place (nothing removes it).
pub(crate) fn rewrite(message: &[u8], out: &mut Vec<u8>, mut replace: impl FnMut(u32, &[u8], &mut Vec<u8>) -> bool) {
    let mut fields = Fields::new(message);
    let mut copied = 0;
    loop {
        let start = fields.position();
        let Some(field) = fields.next() else { break };
        let Value::Len(content) = field.value else { continue };
        out.extend_from_slice(message.get(copied..start).unwrap_or_default());
        copied = if replace(field.number, content, out) { fields.position() } else { start };
    }
    out.extend_from_slice(message.get(copied..).unwrap_or_default());
}

/// Appends the length-delimited field `number`, whose content `body` appends.
pub(crate) fn put_nested(out: &mut Vec<u8>, number: u32, body: impl FnOnce(&mut Vec<u8>)) {
    put_tag(out, number, 2);
    let start = out.len();
    body(out);
    let len = out.len() - start;
    let width = varint_len(len as u64);
    out.resize(out.len() + width, 0);
    out.copy_within(start..start + len, start + width);
    let mut prefix = Vec::with_capacity(width);
    put_varint(&mut prefix, len as u64);
    if let Some(place) = out.get_mut(start..start + width) {
        place.copy_from_slice(&prefix);
    }
}
