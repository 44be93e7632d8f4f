//! A cursor over one message that is being checked.

use super::text::is_utf8;
use super::{Check, CheckError};
use crate::wire::cursor::{Fields, Malformed};

/// Reads the fields of a message: the caller matches on whole keys, so that number and wire type
/// are one branch, and hands every other key to [`Reader::skip`].
#[derive(Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// The name of the message, for errors.
    message: &'static str,
    /// How many levels may nest in the message.
    left: u32,
}

impl<'a> Reader<'a> {
    #[inline(always)]
    pub(super) fn new(message: &'static str, bytes: &'a [u8], left: u32) -> Self {
        Self { rest: bytes, message, left }
    }

    /// How many levels may nest in a message that is a field of this one.
    #[inline(always)]
    pub(super) fn enter(&self) -> Check<u32> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(left),
            None => Err(too_deep(self.message)),
        }
    }

    /// Has all of it been read?
    #[inline(always)]
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next key, or `None` at the end of the message.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Check<Option<u32>> {
        match self.rest {
            [] => Ok(None),
            [key, rest @ ..] if *key < 0x80 => {
                self.rest = rest;
                Ok(Some(u32::from(*key)))
            }
            // Keys of two bytes: field 16 of a span.
            [low, high, rest @ ..] if *high < 0x80 => {
                self.rest = rest;
                Ok(Some(u32::from(*low & 0x7f) | u32::from(*high) << 7))
            }
            _ => match u32::try_from(self.long_varint()?) {
                Ok(key) => Ok(Some(key)),
                Err(_) => Err(malformed(self.message, Malformed::Key)),
            },
        }
    }

    /// The bytes of a length-delimited field.
    #[inline(always)]
    pub(super) fn bytes(&mut self) -> Check<&'a [u8]> {
        let len = match self.rest {
            [len, rest @ ..] if *len < 0x80 => {
                self.rest = rest;
                usize::from(*len)
            }
            [low, high, rest @ ..] if *high < 0x80 => {
                self.rest = rest;
                usize::from(*low & 0x7f) | usize::from(*high) << 7
            }
            // A length beyond the address space is beyond the message too.
            _ => usize::try_from(self.long_varint()?).unwrap_or(usize::MAX),
        };
        match self.rest.split_at_checked(len) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(malformed(self.message, Malformed::Truncated)),
        }
    }

    /// Passes a string.
    #[inline(always)]
    pub(super) fn text(&mut self, field: &'static str) -> Check {
        let bytes = self.bytes()?;
        if is_utf8(bytes) { Ok(()) } else { Err(not_utf8(field)) }
    }

    /// Does the field `key` (below 128) come next? Passes its key.
    #[inline(always)]
    pub(super) fn next_is(&mut self, key: u32) -> bool {
        match self.rest {
            [next, rest @ ..] if u32::from(*next) == key => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Passes a varint.
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Check {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(())
            }
            _ => self.long_varint().map(drop),
        }
    }

    /// Passes a 64-bit value.
    #[inline(always)]
    pub(super) fn fixed64(&mut self) -> Check {
        self.fixed::<8>()
    }

    /// Passes a 32-bit value.
    #[inline(always)]
    pub(super) fn fixed32(&mut self) -> Check {
        self.fixed::<4>()
    }

    #[inline(always)]
    fn fixed<const N: usize>(&mut self) -> Check {
        match self.rest.split_first_chunk::<N>() {
            Some((_, rest)) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(malformed(self.message, Malformed::Truncated)),
        }
    }

    /// Passes a packed array of 64-bit values.
    pub(super) fn packed_fixed64(&mut self) -> Check {
        let whole = self.bytes()?.len().is_multiple_of(8);
        if whole { Ok(()) } else { Err(malformed(self.message, Malformed::Truncated)) }
    }

    /// Passes a packed array of varints.
    pub(super) fn packed_varints(&mut self) -> Check {
        let mut packed = Self { rest: self.bytes()?, ..*self };
        while !packed.rest.is_empty() {
            packed.varint()?;
        }
        Ok(())
    }

    /// Passes a field that the caller does not know. `known` has the bit of each number that the
    /// message knows: such a field is here because its wire type is wrong.
    #[inline(always)]
    pub(super) fn skip(&mut self, key: u32, known: u32) -> Check {
        self.rest = skip(self.rest, key, known, self.message, self.left)?;
        Ok(())
    }

    #[inline(always)]
    fn long_varint(&mut self) -> Check<u64> {
        let (value, rest) = long_varint(self.rest, self.message)?;
        self.rest = rest;
        Ok(value)
    }
}

// The rare cases are functions of the bytes: had they `&mut self`, the reader could not stay in
// registers.

#[cold]
#[inline(never)]
fn skip<'a>(rest: &'a [u8], key: u32, known: u32, message: &'static str, left: u32) -> Check<&'a [u8]> {
    let number = key >> 3;
    let wire_type = (key & 7) as u8;
    if number == 0 {
        return Err(malformed(message, Malformed::Key));
    }
    if number < u32::BITS && known >> number & 1 == 1 {
        return Err(Box::new(CheckError::WireType { message, number, wire_type }));
    }
    if left == 0 {
        return Err(too_deep(message));
    }
    let mut fields = Fields::new(rest);
    match fields.value(number, wire_type, left) {
        Ok(_) => Ok(fields.rest()),
        Err(error) => Err(malformed(message, error)),
    }
}

#[inline(never)]
fn long_varint<'a>(rest: &'a [u8], message: &'static str) -> Check<(u64, &'a [u8])> {
    let mut fields = Fields::new(rest);
    match fields.varint() {
        Ok(value) => Ok((value, fields.rest())),
        Err(error) => Err(malformed(message, error)),
    }
}

#[cold]
#[inline(never)]
fn malformed(message: &'static str, error: Malformed) -> Box<CheckError> {
    Box::new(CheckError::Malformed { message, error })
}

#[cold]
#[inline(never)]
fn too_deep(message: &'static str) -> Box<CheckError> {
    Box::new(CheckError::Depth { message })
}

#[cold]
#[inline(never)]
fn not_utf8(field: &'static str) -> Box<CheckError> {
    Box::new(CheckError::Utf8 { field })
}

/// The set of `numbers`, for [`Reader::skip`].
pub(super) const fn known(numbers: &[u32]) -> u32 {
    let mut set = 0;
    let mut index = 0;
    while index < numbers.len() {
        set |= 1 << numbers[index];
        index += 1;
    }
    set
}
