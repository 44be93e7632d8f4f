//! Decoding a slice at a time.

use std::cell::RefCell;
use std::io::{BufRead, ErrorKind, Read};

use bytes::Bytes;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use super::decode::{DecodeError, Encoding, SNAPPY_STREAM};
use crate::net::turns::SLICE;

/// Output is allocated in steps of at least this much.
const MIN_STEP: usize = 16 << 10;

/// No more than this is allocated on the word of a header; beyond it, output comes in pieces.
const MAX_TRUST: usize = 2 * PIECE;

/// What a piece of the output holds, beyond the first.
const PIECE: usize = 2 * SLICE;

/// How many pieces a thread keeps for the next time: 4 MiB. Memory that the system gives and takes back costs more than
/// decoding into it does, and whoever else runs on the thread waits meanwhile.
const KEPT: usize = 32;

thread_local! {
    /// Pieces that nobody uses.
    static PIECES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A piece for the next output, of at most `most` bytes.
fn piece(most: usize) -> Vec<u8> {
    let kept = if most < PIECE { None } else { PIECES.with_borrow_mut(Vec::pop) };
    kept.unwrap_or_else(|| vec![0; most.min(PIECE)])
}

/// Keeps `piece` for the next time, if it is one.
fn keep(piece: Vec<u8>) {
    PIECES.with_borrow_mut(|kept| {
        if piece.len() == PIECE && kept.len() < KEPT {
            kept.push(piece);
        }
    });
}

/// Input that is being decoded. What comes out is kept in pieces: moving what is there already into
/// a larger buffer would take as long as many slices.
pub(super) struct Decoding<'a> {
    source: Source<'a>,
    pieces: Vec<Vec<u8>>,
    /// The last of `pieces` is filled so far.
    filled: usize,
    /// Bytes in all pieces.
    total: usize,
    limit: usize,
    /// The pieces that have been put together, and how many those were.
    joined: Option<(Vec<u8>, usize)>,
}

enum Source<'a> {
    Gzip(Box<MultiGzDecoder<Metered<'a>>>),
    Zlib(Box<ZlibDecoder<Metered<'a>>>),
    /// Decodes blocks of at most 64 KiB.
    Snappy(Box<snap::read::FrameDecoder<&'a [u8]>>),
    /// Decodes blocks of up to 4 MiB.
    Lz4(Box<lz4_flex::frame::FrameDecoder<&'a [u8]>>),
    Zstd(Box<Frames<'a>>),
}

impl<'a> Decoding<'a> {
    /// Begins to decode `input` to at most `limit` bytes. `None` if the encoding is not decoded in steps.
    pub(super) fn new(encoding: Encoding, input: &'a [u8], limit: usize) -> Result<Option<Self>, DecodeError> {
        let times = |factor: usize| input.len().saturating_mul(factor);
        let (source, hint) = match encoding {
            Encoding::Gzip => (Source::Gzip(Box::new(MultiGzDecoder::new(Metered::new(input)))), gzip_hint(input)),
            Encoding::Zlib => (Source::Zlib(Box::new(ZlibDecoder::new(Metered::new(input)))), times(4)),
            Encoding::Lz4 => (Source::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(input))), times(4)),
            Encoding::Zstd => {
                let (frames, claimed) = Frames::new(input, limit)?;
                (Source::Zstd(Box::new(frames)), claimed)
            }
            Encoding::Snappy if !input.starts_with(SNAPPY_STREAM) => return Ok(None),
            Encoding::Snappy | Encoding::SnappyFramed => {
                (Source::Snappy(Box::new(snap::read::FrameDecoder::new(input))), times(3))
            }
            Encoding::Identity => return Ok(None),
        };
        Ok(Some(Self::of(source, hint, limit)))
    }

    fn of(source: Source<'a>, hint: usize, limit: usize) -> Self {
        // One byte more than the hint: the read that meets the end needs room too.
        let first = hint.saturating_add(1).clamp(MIN_STEP, MAX_TRUST).min(limit.saturating_add(1));
        let mut decoding = Self { source, pieces: Vec::new(), filled: 0, total: 0, limit, joined: None };
        decoding.pieces.push(vec![0; first]);
        decoding
    }

    /// How much memory it takes in the next step.
    pub(super) fn footprint(&self) -> usize {
        let next = if self.is_full() { PIECE } else { 0 };
        let pieces: usize = self.pieces.iter().map(Vec::len).sum();
        let window = match self.source {
            // What is done in one step is done without.
            Source::Zstd(_) if self.total > 0 => (self.total + SLICE).min(1 << ZSTD_MAX_WINDOW_LOG),
            _ => 0,
        };
        pieces + next + window
    }

    /// Decodes up to a slice more, as far as there is room in the last piece; `true` at the end.
    pub(super) fn step(&mut self) -> Result<bool, DecodeError> {
        let rest = self.limit.saturating_add(1) - self.total;
        if self.is_full() {
            self.pieces.push(piece(rest));
            self.filled = 0;
        }
        self.source.refill();
        let mut left = SLICE;
        while left > 0 && !self.is_full() {
            let piece = self.pieces.last_mut().map(Vec::as_mut_slice).unwrap_or_default();
            let end = piece.len().min(self.filled + left);
            let target = piece.get_mut(self.filled..end).unwrap_or_default();
            let Some(step) = self.source.read(target)? else { break };
            self.filled += step.written;
            self.total += step.written;
            left = left.saturating_sub(step.written.max(step.consumed));
            if self.total > self.limit {
                return Err(DecodeError::TooLarge { limit: self.limit });
            }
            if step.is_end {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_full(&self) -> bool {
        self.pieces.last().is_none_or(|piece| piece.len() == self.filled)
    }

    /// Are there pieces that have to be joined?
    pub(super) fn is_in_pieces(&self) -> bool {
        match &self.joined {
            None => self.pieces.len() > 1,
            Some((_, count)) => *count < self.pieces.len(),
        }
    }

    /// Puts the next piece behind those that are together.
    pub(super) fn join(&mut self) {
        let (whole, count) = self.joined.get_or_insert_with(|| (Vec::with_capacity(self.total), 0));
        if let Some(piece) = self.pieces.get_mut(*count) {
            let piece = std::mem::take(piece);
            let left = self.total - whole.len();
            whole.extend_from_slice(piece.get(..left).unwrap_or(&piece));
            keep(piece);
            *count += 1;
        }
    }

    /// All that came out.
    pub(super) fn finish(mut self) -> Bytes {
        while self.is_in_pieces() {
            self.join();
        }
        if let Some((whole, _)) = self.joined.take() {
            return whole.into();
        }
        let mut only = self.pieces.pop().unwrap_or_default();
        only.truncate(self.total);
        // What is kept should not hold much more memory than it uses.
        if only.capacity() - only.len() > only.len() / 4 {
            only.shrink_to_fit();
        }
        only.into()
    }
}

impl Drop for Decoding<'_> {
    fn drop(&mut self) {
        self.pieces.drain(..).for_each(keep);
    }
}

/// What one read came to.
struct Step {
    written: usize,
    /// Bytes of input, where they are counted.
    consumed: usize,
    is_end: bool,
}

impl Source<'_> {
    fn refill(&mut self) {
        match self {
            Self::Gzip(decoder) => decoder.get_mut().refill(),
            Self::Zlib(decoder) => decoder.get_mut().refill(),
            Self::Snappy(_) | Self::Lz4(_) | Self::Zstd(_) => {}
        }
    }

    /// Writes to `target` what comes next; `None` if it has read a slice of input.
    fn read(&mut self, target: &mut [u8]) -> Result<Option<Step>, DecodeError> {
        let read = match self {
            Self::Gzip(decoder) => decoder.read(target),
            Self::Zlib(decoder) => decoder.read(target),
            Self::Snappy(decoder) => decoder.read(target),
            Self::Lz4(decoder) => decoder.read(target),
            Self::Zstd(frames) => return frames.read(target).map(Some),
        };
        match read {
            Ok(written) => Ok(Some(Step { written, consumed: 0, is_end: written == 0 })),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(corrupt(error)),
        }
    }
}

/// Input that seems to pause after each slice: much of it can stand for nothing at all.
struct Metered<'a> {
    input: &'a [u8],
    left: usize,
}

impl<'a> Metered<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self { input, left: SLICE }
    }

    fn refill(&mut self) {
        self.left = SLICE;
    }
}

impl Read for Metered<'_> {
    fn read(&mut self, target: &mut [u8]) -> std::io::Result<usize> {
        let mut available = self.fill_buf()?;
        let read = available.read(target)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Metered<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.left == 0 && !self.input.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(self.input.get(..self.left).unwrap_or(self.input))
    }

    fn consume(&mut self, read: usize) {
        self.input = self.input.get(read..).unwrap_or_default();
        self.left = self.left.saturating_sub(read);
    }
}

/// The decoded size as the trailer of a gzip member claims it.
fn gzip_hint(input: &[u8]) -> usize {
    input.last_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size) as usize)
}

/// 8 MiB: more is refused by RFC 9659, and a window is memory that the sender chooses.
const ZSTD_MAX_WINDOW_LOG: u32 = 23;

thread_local! {
    /// A decoding context is about 150 KiB: one is kept for each thread.
    static ZSTD: RefCell<Option<ZstdDecoder<'static>>> = const { RefCell::new(None) };
}

/// The frames of a zstd stream.
struct Frames<'a> {
    /// Given back at the end; one in which something went wrong is not used again.
    decoder: Option<ZstdDecoder<'static>>,
    input: &'a [u8],
    position: usize,
}

impl<'a> Frames<'a> {
    /// The frames in `input`, and how much they say they hold.
    fn new(input: &'a [u8], limit: usize) -> Result<(Self, usize), DecodeError> {
        if input.is_empty() {
            return Err(DecodeError::Corrupt("there is no zstd frame".to_owned()));
        }
        let claimed = zstd::zstd_safe::get_frame_content_size(input).ok().flatten().unwrap_or_default();
        let claimed = usize::try_from(claimed).unwrap_or(usize::MAX);
        if claimed > limit {
            return Err(DecodeError::TooLarge { limit });
        }
        let mut decoder = match ZSTD.take() {
            Some(decoder) => decoder,
            None => {
                let mut decoder = ZstdDecoder::new().map_err(corrupt)?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_MAX_WINDOW_LOG)).map_err(corrupt)?;
                decoder
            }
        };
        decoder.reinit().map_err(corrupt)?;
        Ok((Self { decoder: Some(decoder), input, position: 0 }, claimed))
    }

    /// Fills as much of `target` as there is.
    fn read(&mut self, target: &mut [u8]) -> Result<Step, DecodeError> {
        let Some(decoder) = &mut self.decoder else { return Ok(Step { written: 0, consumed: 0, is_end: true }) };
        let mut source = InBuffer::around(self.input);
        source.set_pos(self.position);
        let mut out = OutBuffer::around(target);
        let hint = decoder.run(&mut source, &mut out).map_err(corrupt)?;
        let (written, is_full) = (out.pos(), out.pos() == out.capacity());
        let consumed = source.pos() - self.position;
        self.position = source.pos();
        let is_consumed = self.position == self.input.len();
        let is_end = is_consumed && hint == 0;
        if is_end {
            ZSTD.set(self.decoder.take());
        } else if is_consumed && !is_full {
            return Err(DecodeError::Corrupt("the zstd frame is incomplete".to_owned()));
        }
        Ok(Step { written, consumed, is_end })
    }
}

fn corrupt(error: std::io::Error) -> DecodeError {
    DecodeError::Corrupt(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: pieces are used again, whatever became of what was in them, and no more are kept than there should be.
    #[test]
    fn pieces_are_kept_for_the_next_time() {
        let kept = || PIECES.with_borrow(Vec::len);
        let stream = |len: usize| {
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            std::io::copy(&mut std::io::repeat(7).take(len as u64), &mut encoder).expect("it can be encoded");
            encoder.into_inner().expect("it can be encoded")
        };
        let decode = |len: usize, limit: usize| {
            let encoded = stream(len);
            let mut decoding = Decoding::new(Encoding::SnappyFramed, &encoded, limit)?.expect("in steps");
            while !decoding.step()? {}
            Ok::<_, DecodeError>(decoding.finish())
        };
        PIECES.with_borrow_mut(Vec::clear);
        assert_eq!(decode(8 * PIECE, 2 << 20), Ok(vec![7; 8 * PIECE].into()));
        let first = kept();
        assert!((6..=8).contains(&first), "{first}");
        assert_eq!(decode(8 * PIECE, 4 * PIECE), Err(DecodeError::TooLarge { limit: 4 * PIECE }));
        assert_eq!(decode(8 * PIECE - 1, 2 << 20), Ok(vec![7; 8 * PIECE - 1].into()));
        assert_eq!(kept(), first);
        assert!(decode(2 * KEPT * PIECE, 64 << 20).is_ok());
        assert_eq!(kept(), KEPT);
    }
}
