//! UTF-8, quickly for what telemetry is made of: short ASCII.

/// From here on the vectorized validator beats the standard library's.
const LONG: usize = 64;

/// Are these bytes UTF-8?
#[inline]
pub(super) fn is_utf8(bytes: &[u8]) -> bool {
    is_ascii(bytes) || is_utf8_slow(bytes)
}

/// The same, for bytes that are known not to be ASCII throughout.
#[inline(never)]
pub(super) fn is_utf8_slow(bytes: &[u8]) -> bool {
    if bytes.len() >= LONG { simdutf8::basic::from_utf8(bytes).is_ok() } else { std::str::from_utf8(bytes).is_ok() }
}

/// Are these bytes ASCII? Written for a few dozen bytes: the first and the last so many, which
/// overlap, instead of a loop whose end nobody can predict.
#[inline(always)]
pub(super) fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    let len = bytes.len();
    let seen = if len > 64 {
        return bytes.is_ascii();
    } else if len > 32 {
        ends::<32>(bytes)
    } else if len >= 16 {
        ends::<16>(bytes)
    } else if len >= 8 {
        ends::<8>(bytes)
    } else {
        return bytes.iter().fold(0, |seen, byte| seen | byte) < 0x80;
    };
    seen & HIGH_BITS == 0
}

/// The bits that are set anywhere in the words of the first and the last `N` bytes.
#[inline(always)]
fn ends<const N: usize>(bytes: &[u8]) -> u64 {
    let (Some(first), Some(last)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) else {
        return u64::MAX;
    };
    let words = first.as_chunks::<8>().0.iter().zip(last.as_chunks::<8>().0);
    words.fold(0, |seen, (first, last)| seen | u64::from_le_bytes(*first) | u64::from_le_bytes(*last))
}
