//! Decoders of foreign bytes: each stops at a limit, and none allocates what the input merely
//! claims.
//!
//! Formats: gzip (RFC 1952, several members allowed), zlib (RFC 1950; HTTP calls it `deflate`),
//! zstd (RFC 8878, several frames allowed, windows of up to 8 MiB as RFC 9659 asks), snappy
//! (block and framed), LZ4 (frames).

use bytes::Bytes;

use super::steps::Decoding;
use crate::net::body::Room;
use crate::net::turns::{IN_PLACE, aside, slice};

/// How a request body or message is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// `gzip`.
    Gzip,
    /// `zlib`, and `deflate`, which is the same thing in HTTP.
    Zlib,
    /// `zstd`.
    Zstd,
    /// `snappy`: the block format, or the framed one if the input begins like it.
    Snappy,
    /// `x-snappy-framed`.
    SnappyFramed,
    /// `lz4`.
    Lz4,
}

impl Encoding {
    /// The encoding that a `Content-Encoding` or `grpc-encoding` header names, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        const NAMES: [(&str, Encoding); 9] = [
            ("", Encoding::Identity),
            ("identity", Encoding::Identity),
            ("gzip", Encoding::Gzip),
            ("zstd", Encoding::Zstd),
            ("zlib", Encoding::Zlib),
            ("deflate", Encoding::Zlib),
            ("snappy", Encoding::Snappy),
            ("x-snappy-framed", Encoding::SnappyFramed),
            ("lz4", Encoding::Lz4),
        ];
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, encoding)| *encoding)
    }
}

/// Why bytes could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They decode to more than the limit.
    #[error("decoded data is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// They are not what the encoding says.
    #[error("corrupt compressed data: {0}")]
    Corrupt(String),
    /// There is no room for the result beside the requests that are in flight.
    #[error("too many bytes in flight")]
    NoRoom,
    /// The encoding is not known.
    #[error("unsupported encoding: {0}")]
    Unsupported(String),
}

/// Decodes `input` to at most `limit` bytes.
///
/// # Errors
/// If the result would be larger, or the input is damaged or incomplete.
pub fn decode(encoding: Encoding, input: &[u8], limit: usize) -> Result<Bytes, DecodeError> {
    match encoding {
        Encoding::Identity if input.len() > limit => Err(DecodeError::TooLarge { limit }),
        Encoding::Identity => Ok(Bytes::copy_from_slice(input)),
        _ => match Decoding::new(encoding, input, limit)? {
            Some(mut decoding) => {
                while !decoding.step()? {}
                Ok(decoding.finish())
            }
            None => snappy_block(input, limit),
        },
    }
}

/// [`decode`] for a worker that others wait for: what comes to more than a slice is decoded a slice
/// a turn. `room` is charged before memory is taken; after it, for what is decoded aside by at most as
/// many threads as there are cores.
///
/// # Errors
/// The same, and if there is no room.
pub async fn decode_in_turns(
    encoding: Encoding,
    input: Bytes,
    limit: usize,
    room: &mut impl Room,
) -> Result<Bytes, DecodeError> {
    if encoding == Encoding::Identity {
        return if input.len() > limit { Err(DecodeError::TooLarge { limit }) } else { Ok(input) };
    }
    // The blocks of these are decoded as a whole, and can be large.
    let is_block = encoding == Encoding::Snappy && !input.starts_with(SNAPPY_STREAM);
    if encoding == Encoding::Lz4 || is_block && block_size(&input, limit)? > IN_PLACE {
        let decoded = aside(move || decode(encoding, &input, limit)).await;
        let decoded = decoded.unwrap_or_else(|| Err(DecodeError::Corrupt("it cannot be decoded".to_owned())))?;
        return if room.grow_to(decoded.len()) { Ok(decoded) } else { Err(DecodeError::NoRoom) };
    }
    let Some(mut decoding) = Decoding::new(encoding, &input, limit)? else {
        let decoded = snappy_block(&input, limit)?;
        return if room.grow_to(decoded.len()) { Ok(decoded) } else { Err(DecodeError::NoRoom) };
    };
    let mut is_first = true;
    loop {
        if !room.grow_to(decoding.footprint()) {
            return Err(DecodeError::NoRoom);
        }
        // Most requests are done with the first.
        let is_done = if is_first { decoding.step()? } else { slice(|| decoding.step()).await? };
        if is_done {
            break;
        }
        is_first = false;
    }
    while decoding.is_in_pieces() {
        slice(|| decoding.join()).await;
    }
    Ok(decoding.finish())
}

/// What every framed snappy stream begins with.
pub(super) const SNAPPY_STREAM: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// How large a snappy block becomes, if it is honest.
fn block_size(input: &[u8], limit: usize) -> Result<usize, DecodeError> {
    /// Three bytes of input make at most 64 of output.
    const MAX_RATIO: usize = 22;
    let declared = snap::raw::decompress_len(input).map_err(|error| DecodeError::Corrupt(error.to_string()))?;
    if declared > limit {
        return Err(DecodeError::TooLarge { limit });
    }
    if declared > input.len().saturating_mul(MAX_RATIO) {
        return Err(DecodeError::Corrupt("snappy block declares more than it can hold".to_owned()));
    }
    Ok(declared)
}

fn snappy_block(input: &[u8], limit: usize) -> Result<Bytes, DecodeError> {
    let mut out = vec![0; block_size(input, limit)?];
    let written = snap::raw::Decoder::new().decompress(input, &mut out);
    out.truncate(written.map_err(|error| DecodeError::Corrupt(error.to_string()))?);
    Ok(out.into())
}
