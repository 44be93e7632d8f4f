//! Small parts of protobuf messages.

use nyquist_core::wire::Malformed;

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
