//! UTF-8, quickly for what telemetry is made of: short ASCII.

/// From here on the vectorized validator beats the standard library's.
const LONG: usize = 64;

/// Are these bytes UTF-8?
#[inline]
pub(super) fn is_utf8(bytes: &[u8]) -> bool {
    is_ascii(bytes) || is_utf8_slow(bytes)
}

#[inline(never)]
fn is_utf8_slow(bytes: &[u8]) -> bool {
    if bytes.len() >= LONG { simdutf8::basic::from_utf8(bytes).is_ok() } else { std::str::from_utf8(bytes).is_ok() }
}

const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// Are these bytes ASCII? Written for a few dozen bytes: whole words, the last one overlapping.
#[inline]
pub(super) fn is_ascii(bytes: &[u8]) -> bool {
    if let (Some(_), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        if bytes.len() >= LONG {
            return bytes.is_ascii();
        }
        let mut seen = u64::from_le_bytes(*last);
        for word in bytes.as_chunks::<8>().0 {
            seen |= u64::from_le_bytes(*word);
        }
        return seen & HIGH_BITS == 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let seen = u32::from_le_bytes(*first) | u32::from_le_bytes(*last);
        return seen & HIGH_BITS as u32 == 0;
    }
    bytes.iter().fold(0, |seen, byte| seen | byte) < 0x80
}
