//! Small parts of protobuf messages.

use nyquist_core::wire::{Fields, Malformed, Value};

/// The numbers of a packed list.
pub(crate) fn varints(mut packed: &[u8]) -> impl Iterator<Item = Result<u64, String>> {
    std::iter::from_fn(move || {
        let mut number = 0u64;
        for index in 0..10 {
            let (&byte, rest) = match packed.split_first() {
                Some(split) => split,
                None if index == 0 => return None,
                None => return Some(Err(malformed(Malformed::Truncated))),
            };
            packed = rest;
            number |= u64::from(byte & 0x7f) << (index * 7);
            if byte < 0x80 {
                return Some(Ok(number));
            }
        }
        packed = &[];
        Some(Err(malformed(Malformed::Varint)))
    })
}

/// What is wrong with a message, in words.
pub(crate) fn malformed(error: Malformed) -> String {
    format!("cannot decode it: {error}")
}

/// The bytes of a `string`.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "text that is not UTF-8".to_owned())
}

/// A label's name (1) and value (2): a `LabelPair` of an exposition, or a `Label` of remote write 1.0.
pub(crate) fn pair(message: &[u8]) -> Result<(&str, &str), String> {
    let mut pair = ("", "");
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field().map_err(malformed)? {
        match (field.number, field.value) {
            (1, Value::Len(name)) => pair.0 = text(name)?,
            (2, Value::Len(value)) => pair.1 = text(value)?,
            _ => {}
        }
    }
    Ok(pair)
}
