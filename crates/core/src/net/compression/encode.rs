//! Compression of what goes out.
//!
//! Compressors are kept for each thread: setting one up costs more than a small request. Level 1
//! is the default throughout; see performance.md for what it costs.

use std::cell::RefCell;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::{Compress, FlushCompress, Status};
use zstd::stream::raw::{Encoder, InBuffer, Operation, OutBuffer};

/// How requests are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// The zlib format, which HTTP calls `deflate`.
    Zlib,
    /// The same as `Zlib` under HTTP's name.
    Deflate,
    /// One snappy block.
    Snappy,
    /// The framing format of snappy.
    SnappyFramed,
    /// Zstandard.
    Zstd,
    /// A frame of LZ4, which has no levels here.
    Lz4,
}

impl Compression {
    /// Those that HTTP exporters speak.
    pub const HTTP: &[Self] =
        &[Self::None, Self::Gzip, Self::Zlib, Self::Deflate, Self::Snappy, Self::SnappyFramed, Self::Zstd, Self::Lz4];

    /// Its name in YAML, and as `Content-Encoding`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Deflate => "deflate",
            Self::Snappy => "snappy",
            Self::SnappyFramed => "x-snappy-framed",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }

    /// Reads a `compression` setting; empty text is `none`.
    ///
    /// # Errors
    /// If it is none of `accepted`.
    pub fn parse(text: &str, accepted: &[Self]) -> Result<Self, String> {
        let name = if text.is_empty() { "none" } else { text };
        accepted.iter().copied().find(|compression| compression.name() == name).ok_or_else(|| {
            let choice: Vec<&str> = accepted.iter().map(|compression| compression.name()).collect();
            format!("unsupported compression type {text:?}; use one of {}", choice.join(", "))
        })
    }

    /// The levels that it has; `None` if it has none to choose from.
    #[must_use]
    pub fn levels(self) -> Option<std::ops::RangeInclusive<i32>> {
        match self {
            Self::Gzip | Self::Zlib | Self::Deflate => Some(1..=9),
            Self::Zstd => Some(1..=22),
            _ => None,
        }
    }

    /// Appends `parts`, one after the other, to `out`: compressed as one.
    ///
    /// # Errors
    /// Never for input of less than 4 GiB.
    pub fn encode(self, level: Option<i32>, parts: &[Bytes], out: &mut Vec<u8>) -> io::Result<()> {
        let size: usize = parts.iter().map(Bytes::len).sum();
        let level = level.unwrap_or(DEFAULT_LEVEL);
        match self {
            Self::None => parts.iter().for_each(|part| out.extend_from_slice(part)),
            Self::Gzip => deflate(&GZIP, |level| Compress::new_gzip(level, 15), level, parts, size, out)?,
            Self::Zlib | Self::Deflate => deflate(&ZLIB, |level| Compress::new(level, true), level, parts, size, out)?,
            Self::Zstd => zstd(level, parts, size, out)?,
            Self::Snappy => snappy(parts, size, out)?,
            Self::SnappyFramed => {
                let mut encoder = snap::write::FrameEncoder::new(&mut *out);
                parts.iter().try_for_each(|part| encoder.write_all(part))?;
                encoder.flush()?;
            }
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(&mut *out);
                parts.iter().try_for_each(|part| encoder.write_all(part))?;
                encoder.finish().map_err(io::Error::other)?;
            }
        }
        Ok(())
    }
}

/// Measured on recorded OTLP traces of four SDKs: level 6 of gzip takes two to four times as long
/// as level 1 for a tenth to a sixth less output; zstd at level 1 is faster than gzip at level 1
/// and its output smaller than gzip's at any level.
const DEFAULT_LEVEL: i32 = 1;

thread_local! {
    static GZIP: RefCell<Option<(i32, Compress)>> = const { RefCell::new(None) };
    static ZLIB: RefCell<Option<(i32, Compress)>> = const { RefCell::new(None) };
    static ZSTD: RefCell<Option<(i32, Encoder<'static>)>> = const { RefCell::new(None) };
}

type Pool<T> = std::thread::LocalKey<RefCell<Option<(i32, T)>>>;

/// Telemetry compresses to a fifth or better: what to begin with, so that the output seldom grows.
fn first_guess(size: usize) -> usize {
    size / 4 + 128
}

fn deflate(
    pool: &'static Pool<Compress>,
    make: impl Fn(flate2::Compression) -> Compress,
    level: i32,
    parts: &[Bytes],
    size: usize,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let make = || make(flate2::Compression::new(level.unsigned_abs()));
    pool.with_borrow_mut(|slot| {
        let (_, compress) = match slot {
            Some(kept) if kept.0 == level => {
                kept.1.reset();
                kept
            }
            other => other.insert((level, make())),
        };
        out.reserve(first_guess(size));
        for part in parts {
            let begin = compress.total_in();
            loop {
                let done = usize::try_from(compress.total_in() - begin).unwrap_or(usize::MAX);
                let Some(rest) = part.get(done..).filter(|rest| !rest.is_empty()) else { break };
                make_room(out);
                compress.compress_vec(rest, out, FlushCompress::None).map_err(io::Error::other)?;
            }
        }
        loop {
            make_room(out);
            let status = compress.compress_vec(&[], out, FlushCompress::Finish).map_err(io::Error::other)?;
            if status == Status::StreamEnd {
                return Ok(());
            }
        }
    })
}

fn zstd(level: i32, parts: &[Bytes], size: usize, out: &mut Vec<u8>) -> io::Result<()> {
    ZSTD.with_borrow_mut(|slot| {
        let encoder = match slot {
            Some((kept_level, encoder)) if *kept_level == level => {
                encoder.reinit()?;
                encoder
            }
            other => &mut other.insert((level, Encoder::new(level)?)).1,
        };
        out.reserve(first_guess(size));
        for part in parts {
            let mut input = InBuffer::around(part);
            while input.pos() < part.len() {
                make_room(out);
                let position = out.len();
                encoder.run(&mut input, &mut OutBuffer::around_pos(out, position))?;
            }
        }
        loop {
            make_room(out);
            let position = out.len();
            if encoder.finish(&mut OutBuffer::around_pos(out, position), true)? == 0 {
                return Ok(());
            }
        }
    })
}

fn make_room(out: &mut Vec<u8>) {
    if out.capacity() - out.len() < 1024 {
        out.reserve(out.len().max(4096));
    }
}

fn snappy(parts: &[Bytes], size: usize, out: &mut Vec<u8>) -> io::Result<()> {
    let joined: Vec<u8>;
    let whole: &[u8] = if let [only] = parts {
        only
    } else {
        joined = parts.concat();
        &joined
    };
    let start = out.len();
    out.resize(start + snap::raw::max_compress_len(size), 0);
    let room = out.get_mut(start..).unwrap_or_default();
    let written = snap::raw::Encoder::new().compress(whole, room).map_err(io::Error::other)?;
    out.truncate(start + written);
    Ok(())
}
