//! Decoders of foreign bytes: each stops at a limit, and none allocates what the input merely
//! claims.
//!
//! Formats: gzip (RFC 1952, several members allowed), zlib (RFC 1950; HTTP calls it `deflate`),
//! zstd (RFC 8878, several frames allowed, windows of up to 8 MiB as RFC 9659 asks), snappy
//! (block and framed), LZ4 (frames).

use std::cell::RefCell;
use std::io::Read;

use bytes::Bytes;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

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
        Encoding::Gzip => read_capped(MultiGzDecoder::new(input), gzip_hint(input), limit),
        Encoding::Zlib => read_capped(ZlibDecoder::new(input), input.len().saturating_mul(4), limit),
        Encoding::Zstd => zstd(input, limit),
        Encoding::Snappy if input.starts_with(SNAPPY_STREAM) => snappy_framed(input, limit),
        Encoding::Snappy => snappy_block(input, limit),
        Encoding::SnappyFramed => snappy_framed(input, limit),
        Encoding::Lz4 => {
            let decoder = lz4_flex::frame::FrameDecoder::new(input);
            read_capped(decoder, input.len().saturating_mul(4), limit)
        }
    }
}

/// What every framed snappy stream begins with.
const SNAPPY_STREAM: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// Output is allocated in steps of at least this much.
const MIN_STEP: usize = 16 << 10;

/// No more than this is allocated on the word of a header; beyond it, output grows as it comes.
const MAX_TRUST: usize = 1 << 20;

/// The decoded size as the trailer of a gzip member claims it.
fn gzip_hint(input: &[u8]) -> usize {
    input.last_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size) as usize)
}

/// Reads `decoder` to its end; `hint` is how much may come, if the input is honest.
fn read_capped(mut decoder: impl Read, hint: usize, limit: usize) -> Result<Bytes, DecodeError> {
    // One byte more than the hint: the read that meets the end needs room too.
    let mut out = vec![0; hint.saturating_add(1).clamp(MIN_STEP, MAX_TRUST).min(limit.saturating_add(1))];
    let mut filled = 0;
    loop {
        if filled == out.len() {
            if filled > limit {
                return Err(DecodeError::TooLarge { limit });
            }
            let grown = (out.len() * 2).max(MIN_STEP).min(limit.saturating_add(1));
            out.resize(grown, 0);
        }
        match decoder.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DecodeError::Corrupt(error.to_string())),
        }
    }
    if filled > limit {
        return Err(DecodeError::TooLarge { limit });
    }
    out.truncate(filled);
    Ok(shrunk(out))
}

/// `out` as `Bytes` that do not keep much more memory than they use.
fn shrunk(mut out: Vec<u8>) -> Bytes {
    if out.capacity() - out.len() > out.len() / 4 {
        out.shrink_to_fit();
    }
    out.into()
}

/// 8 MiB: more is refused by RFC 9659, and a window is memory that the sender chooses.
const ZSTD_MAX_WINDOW_LOG: u32 = 23;

thread_local! {
    /// A decoding context is about 150 KiB: made once per thread.
    static ZSTD: RefCell<Option<ZstdDecoder<'static>>> = const { RefCell::new(None) };
}

fn zstd(input: &[u8], limit: usize) -> Result<Bytes, DecodeError> {
    let corrupt = |error: std::io::Error| DecodeError::Corrupt(error.to_string());
    ZSTD.with_borrow_mut(|slot| {
        // Taken out, so that a context in which something went wrong is not used again.
        let mut decoder = match slot.take() {
            Some(decoder) => decoder,
            None => {
                let mut decoder = ZstdDecoder::new().map_err(corrupt)?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_MAX_WINDOW_LOG)).map_err(corrupt)?;
                decoder
            }
        };
        decoder.reinit().map_err(corrupt)?;
        let out = zstd_frames(&mut decoder, input, limit)?;
        *slot = Some(decoder);
        Ok(shrunk(out))
    })
}

fn zstd_frames(decoder: &mut ZstdDecoder<'_>, input: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
    if input.is_empty() {
        return Err(DecodeError::Corrupt("there is no zstd frame".to_owned()));
    }
    let claimed = zstd::zstd_safe::get_frame_content_size(input).ok().flatten().unwrap_or_default();
    let claimed = usize::try_from(claimed).unwrap_or(usize::MAX);
    if claimed > limit {
        return Err(DecodeError::TooLarge { limit });
    }
    // With room for the whole frame zstd decodes in one pass, without a window of its own.
    let mut out: Vec<u8> = Vec::with_capacity(claimed.clamp(MIN_STEP, MAX_TRUST.max(input.len() * 64)));
    let mut source = InBuffer::around(input);
    let mut needs_more;
    loop {
        if out.len() > limit {
            return Err(DecodeError::TooLarge { limit });
        }
        if out.len() == out.capacity() {
            let more = out.capacity().max(MIN_STEP).min(limit + 1 - out.len());
            out.reserve(more);
        }
        let written = out.len();
        let mut target = OutBuffer::around_pos(&mut out, written);
        let hint = decoder.run(&mut source, &mut target).map_err(|error| DecodeError::Corrupt(error.to_string()))?;
        needs_more = hint != 0;
        let consumed_all = source.pos() == input.len();
        if consumed_all && (!needs_more || out.len() < out.capacity()) {
            break;
        }
    }
    if needs_more {
        return Err(DecodeError::Corrupt("the zstd frame is incomplete".to_owned()));
    }
    if out.len() > limit {
        return Err(DecodeError::TooLarge { limit });
    }
    Ok(out)
}

fn snappy_block(input: &[u8], limit: usize) -> Result<Bytes, DecodeError> {
    /// Three bytes of input make at most 64 of output.
    const MAX_RATIO: usize = 22;
    let corrupt = |error: snap::Error| DecodeError::Corrupt(error.to_string());
    let declared = snap::raw::decompress_len(input).map_err(corrupt)?;
    if declared > limit {
        return Err(DecodeError::TooLarge { limit });
    }
    if declared > input.len().saturating_mul(MAX_RATIO) {
        return Err(DecodeError::Corrupt("snappy block declares more than it can hold".to_owned()));
    }
    let mut out = vec![0; declared];
    let written = snap::raw::Decoder::new().decompress(input, &mut out).map_err(corrupt)?;
    out.truncate(written);
    Ok(out.into())
}

fn snappy_framed(input: &[u8], limit: usize) -> Result<Bytes, DecodeError> {
    read_capped(snap::read::FrameDecoder::new(input), input.len().saturating_mul(3), limit)
}
