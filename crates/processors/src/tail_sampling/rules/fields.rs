//! Fields of the usual shape, quickly.

/// The value of the field with this key if it comes next and has less than 128 bytes, and what
/// follows it.
#[inline(always)]
pub(super) fn short_field(bytes: &[u8], key: u8) -> Option<(&[u8], &[u8])> {
    match bytes {
        [first, len @ 0..0x80, rest @ ..] if *first == key => rest.split_at_checked(usize::from(*len)),
        _ => None,
    }
}

/// The 64-bit value of the field with this key if it comes next, and what follows it.
#[inline(always)]
pub(super) fn fixed_field(bytes: &[u8], key: u8) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (value, rest) = rest.split_first_chunk::<8>()?;
    (*first == key).then_some((u64::from_le_bytes(*value), rest))
}

/// A length-delimited value of less than 128 bytes, and what follows it.
#[inline]
pub(super) fn short_len(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    if len >= 0x80 {
        return None;
    }
    rest.split_at_checked(usize::from(len))
}

/// Key and value of a `KeyValue` that consists of just these two fields, each shorter than 128
/// bytes, in either order: as every known library writes it.
#[inline]
pub(super) fn split_plain(message: &[u8]) -> Option<(&[u8], &[u8])> {
    const KEY: u8 = 0x0a;
    const VALUE: u8 = 0x12;
    /// Tags and lengths.
    const OVERHEAD: usize = 4;
    let &[first_tag, first_len, ref rest @ ..] = message else {
        return None;
    };
    let first_len = usize::from(first_len);
    let second_len = message.len().checked_sub(first_len + OVERHEAD)?;
    let (first, rest) = rest.split_at_checked(first_len)?;
    let &[second_tag, len, ref second @ ..] = rest else {
        return None;
    };
    if usize::from(len) != second_len || (first_len | second_len) >= 0x80 {
        return None;
    }
    match (first_tag, second_tag) {
        (KEY, VALUE) => Some((first, second)),
        (VALUE, KEY) => Some((second, first)),
        _ => None,
    }
}

/// Key and value of the attribute of a span that comes next, and what follows it, if it is written as most
/// libraries do: the key, then the value, together less than 128 bytes.
#[inline(always)]
pub(super) fn next_attribute(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    const ATTRIBUTE: u8 = 0x4a;
    const KEY: u8 = 0x0a;
    const VALUE: u8 = 0x12;
    let [ATTRIBUTE, len @ 0..0x80, KEY, key_len, rest @ ..] = bytes else {
        return None;
    };
    let (len, key_len) = (usize::from(*len), usize::from(*key_len));
    let value_len = len.checked_sub(key_len + 4)?;
    let (key, rest) = rest.split_at_checked(key_len)?;
    let [VALUE, found, rest @ ..] = rest else {
        return None;
    };
    if usize::from(*found) != value_len {
        return None;
    }
    let (value, rest) = rest.split_at_checked(value_len)?;
    Some((key, value, rest))
}
