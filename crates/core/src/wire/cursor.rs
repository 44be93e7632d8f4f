//! Walking the fields of one protobuf message in place.
//!
//! Encoding: <https://protobuf.dev/programming-guides/encoding/>.

/// The bytes are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The message ends inside a field.
    #[error("message ends inside a field")]
    Truncated,
    /// A varint of more than ten bytes, or one that overflows 64 bits.
    #[error("invalid varint")]
    Varint,
    /// A field number of zero or above 2^29 - 1, or an unknown wire type.
    #[error("invalid field key")]
    Key,
    /// A group that ends without having begun, or nested too deep.
    #[error("invalid group")]
    Group,
}

/// The value of a field, as the wire type tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0: integers, booleans, enums.
    Varint(u64),
    /// Wire type 1: fixed64, sfixed64, double.
    Fixed64(u64),
    /// Wire type 2: strings, bytes, sub-messages, packed arrays.
    Len(&'a [u8]),
    /// Wire type 3: a group, only ever met as an unknown field; its content is skipped.
    Group,
    /// Wire type 5: fixed32, sfixed32, float.
    Fixed32(u32),
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field number, 1 to 2^29 - 1.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
}

/// The fields of one message, in the order in which they were written.
///
/// As an iterator it ends at the first malformed field; [`Fields::next_field`] tells the two
/// ends apart.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
    len: usize,
}

/// How many messages and groups prost lets nest in a request.
pub(super) const MAX_DEPTH: u32 = 100;

// Everything below is inlined by force: a field of a span costs about two nanoseconds, so that a
// call, or a `Value` that goes through memory, would double it. For the same reason the rare cases
// are functions of the bytes: one that took `&mut self` would force the cursor into memory.
impl<'a> Fields<'a> {
    /// The fields of the message in `bytes`.
    #[must_use]
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, len: bytes.len() }
    }

    /// How many bytes have been read: the offset of the next field.
    #[must_use]
    #[inline]
    pub fn position(&self) -> usize {
        self.len - self.rest.len()
    }

    /// What has not been read yet.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field, or `None` at the end of the message.
    ///
    /// # Errors
    /// If the bytes at this position are not a field.
    #[inline(always)]
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.key()?;
        let value = self.value(number, wire_type, MAX_DEPTH)?;
        Ok(Some(Field { number, value }))
    }

    /// The value of a field whose key was just read. `depth` is how many groups may nest in it.
    #[inline(always)]
    pub(super) fn value(&mut self, number: u32, wire_type: u8, depth: u32) -> Result<Value<'a>, Malformed> {
        match wire_type {
            0 => Ok(Value::Varint(self.varint()?)),
            1 => Ok(Value::Fixed64(u64::from_le_bytes(self.fixed()?))),
            2 => Ok(Value::Len(self.len_delimited()?)),
            3 => {
                self.rest = skip_group(self.rest, number, depth)?;
                Ok(Value::Group)
            }
            5 => Ok(Value::Fixed32(u32::from_le_bytes(self.fixed()?))),
            4 => Err(Malformed::Group),
            _ => Err(Malformed::Key),
        }
    }

    /// The next number of a packed array of varints.
    #[inline]
    pub(crate) fn next_packed_varint(&mut self) -> Option<u64> {
        if self.rest.is_empty() { None } else { self.varint().ok() }
    }

    #[inline(always)]
    fn key(&mut self) -> Result<(u32, u8), Malformed> {
        let key = match self.rest {
            [key, rest @ ..] if *key < 0x80 => {
                self.rest = rest;
                u32::from(*key)
            }
            // Field 16 of a span.
            [low, high, rest @ ..] if *high < 0x80 => {
                self.rest = rest;
                u32::from(*low & 0x7f) | u32::from(*high) << 7
            }
            _ => u32::try_from(self.long_varint()?).map_err(|_| Malformed::Key)?,
        };
        let number = key >> 3;
        if number == 0 {
            return Err(Malformed::Key);
        }
        Ok((number, (key & 7) as u8))
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(always)]
    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let (value, rest) = long_varint(self.rest)?;
        self.rest = rest;
        Ok(value)
    }

    #[inline(always)]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (value, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*value)
    }

    #[inline(always)]
    fn len_delimited(&mut self) -> Result<&'a [u8], Malformed> {
        let len = match self.rest {
            [len, rest @ ..] if *len < 0x80 => {
                self.rest = rest;
                usize::from(*len)
            }
            [low, high, rest @ ..] if *high < 0x80 => {
                self.rest = rest;
                usize::from(*low & 0x7f) | usize::from(*high) << 7
            }
            _ => usize::try_from(self.long_varint()?).map_err(|_| Malformed::Truncated)?,
        };
        let (value, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(value)
    }
}

#[inline(never)]
fn long_varint(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        if index == 9 && byte > 1 {
            return Err(Malformed::Varint);
        }
        value |= u64::from(byte & 0x7f) << (index * 7);
        if byte < 0x80 {
            return Ok((value, bytes.get(index + 1..).unwrap_or_default()));
        }
    }
    Err(Malformed::Truncated)
}

/// Returns what follows `group`, in which `bytes` begin. As in prost, a group counts as a level
/// and so does each field in it.
#[cold]
#[inline(never)]
fn skip_group(bytes: &[u8], group: u32, depth: u32) -> Result<&[u8], Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed::Group)?;
    let mut fields = Fields::new(bytes);
    loop {
        let (number, wire_type) = fields.key()?;
        if wire_type == 4 {
            return if number == group { Ok(fields.rest) } else { Err(Malformed::Group) };
        }
        if depth == 0 {
            return Err(Malformed::Group);
        }
        fields.value(number, wire_type, depth)?;
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Field<'a>> {
        match self.next_field() {
            Ok(field) => field,
            Err(_) => {
                self.rest = &[];
                None
            }
        }
    }
}

/// How many bytes `value` takes as a varint: 1 to 10.
#[must_use]
#[inline]
pub fn varint_len(value: u64) -> usize {
    ((64 - (value | 1).leading_zeros() as usize) * 9 + 64) / 64
}

/// Appends `value` as a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the key of field `number` with `wire_type`.
#[inline]
pub fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

/// Appends a length-delimited field.
#[inline]
pub fn put_len_field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
