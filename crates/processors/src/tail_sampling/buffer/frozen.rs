//! A block that is compressed: it is not written any more, and seldom read.
//!
//! It is cut at records into chunks of a few KiB, and each is compressed alone, so that reading a record costs a few
//! microseconds, whatever the size of the block. What a chunk lacks of what repeats itself it finds in the dictionary: the first
//! bytes of the block, as they came. Layout: dictionary, chunk, chunk, ... A chunk that does not become smaller stays
//! as it is.
//!
//! The only thing that changes in a sealed block is where a trace goes on. That is kept beside it.

use super::codec::Codec;
use super::record::{self, Addr};

/// Chunks have at least so many bytes before they are compressed, but for the last of a block. With a dictionary, 16 KiB
/// compress little better (lz4 to 0.28 rather than 0.29, zstd to 0.22 rather than 0.24), and take four times as long to read.
const CHUNK: usize = 4096;
/// A dictionary takes a part of the block, and so many bytes at most. (With four times as many, spans become 5 % smaller.)
const DICTIONARY_PART: usize = 32;
pub(super) const MAX_DICTIONARY: usize = 8192;

/// Where a chunk begins.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    raw: u32,
    packed: u32,
}

/// The next record of the one at an offset.
#[derive(Debug, Clone, Copy)]
struct Patch {
    offset: u32,
    next: Addr,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Frozen {
    packed: Box<[u8]>,
    dictionary: usize,
    /// The last one is where the block ends.
    chunks: Box<[Chunk]>,
    patches: Vec<Patch>,
}

impl Frozen {
    /// By how much [`bytes`](Self::bytes) grows when one more record is linked, at most.
    pub(super) const PATCH: usize = 4 * size_of::<Patch>();

    /// Compresses the records in `raw`. `None` if they do not fit into `most` bytes. `scratch` has room for
    /// [`scratch_bytes`].
    pub(super) fn pack(
        raw: &[u8],
        most: usize,
        codec: &mut Codec,
        scratch: &mut [u8],
        footprint: impl Fn(usize) -> usize,
    ) -> Option<Self> {
        let dictionary = raw.get(..(raw.len() / DICTIONARY_PART).min(MAX_DICTIONARY))?;
        scratch.get_mut(..dictionary.len())?.copy_from_slice(dictionary);
        if !codec.begin(dictionary) {
            return None;
        }
        let mut chunks = Vec::with_capacity(raw.len() / CHUNK + 2);
        let (mut begin, mut end, mut packed) = (0, 0, dictionary.len());
        while let Some((record, _)) = record::read(raw, end) {
            end += footprint(record.len);
            if end - begin < CHUNK && end < raw.len() {
                continue;
            }
            let chunk = raw.get(begin..end)?;
            chunks.push(Chunk { raw: begin as u32, packed: packed as u32 });
            let out = scratch.get_mut(packed..)?;
            packed += match codec.pack(dictionary, chunk, out) {
                Some(len) => len,
                None => {
                    out.get_mut(..chunk.len())?.copy_from_slice(chunk);
                    chunk.len()
                }
            };
            if packed > most {
                return None;
            }
            begin = end;
        }
        if begin != raw.len() {
            return None;
        }
        chunks.push(Chunk { raw: begin as u32, packed: packed as u32 });
        let packed = scratch.get(..packed)?.into();
        let frozen =
            Self { packed, dictionary: dictionary.len(), chunks: chunks.into_boxed_slice(), patches: Vec::new() };
        (frozen.bytes() <= most).then_some(frozen)
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        // Patches are charged as if their list had just doubled, so that the charge grows smoothly.
        let patches = self.patches.capacity().max(2 * self.patches.len());
        size_of::<Self>() + self.packed.len() + size_of_val(&*self.chunks) + patches * size_of::<Patch>()
    }

    /// Bytes that it had before it was compressed.
    pub(super) fn raw_len(&self) -> usize {
        self.chunks.last().map_or(0, |end| end.raw as usize)
    }

    /// The chunk that the byte at `offset` is in: its number, and where it begins and ends.
    pub(super) fn chunk_at(&self, offset: usize) -> Option<(u32, std::ops::Range<usize>)> {
        let number = self.chunks.partition_point(|chunk| chunk.raw as usize <= offset).checked_sub(1)?;
        let (begin, end) = (self.chunks.get(number)?, self.chunks.get(number + 1)?);
        Some((number as u32, begin.raw as usize..end.raw as usize))
    }

    /// Decompresses chunk `number` into `out`, which has its length. False if that cannot be.
    pub(super) fn unpack(&self, number: u32, codec: &mut Codec, out: &mut [u8]) -> bool {
        let number = number as usize;
        let (Some(begin), Some(end)) = (self.chunks.get(number), self.chunks.get(number + 1)) else {
            return false;
        };
        let dictionary = self.packed.get(..self.dictionary).unwrap_or_default();
        let Some(packed) = self.packed.get(begin.packed as usize..end.packed as usize) else {
            return false;
        };
        if packed.len() == out.len() {
            out.copy_from_slice(packed);
            return true;
        }
        codec.unpack(dictionary, packed, out)
    }

    /// Decompresses all of it into `out`, which has room for [`raw_len`](Self::raw_len).
    pub(super) fn unpack_all(&self, codec: &mut Codec, out: &mut [u8]) -> bool {
        let ranges = self.chunks.windows(2).map(|pair| match pair {
            [begin, end] => begin.raw as usize..end.raw as usize,
            _ => 0..0,
        });
        for (number, range) in ranges.enumerate() {
            if !out.get_mut(range).is_some_and(|out| self.unpack(number as u32, codec, out)) {
                return false;
            }
        }
        for patch in &self.patches {
            record::link(out, patch.offset as usize, patch.next);
        }
        true
    }

    /// From now on, `next` is the next record of the one at `offset`.
    pub(super) fn link(&mut self, offset: usize, next: Addr) {
        self.patches.push(Patch { offset: offset as u32, next });
    }

    /// The next record of the one at `offset`, if it was linked since.
    pub(super) fn next(&self, offset: usize) -> Option<Addr> {
        self.patches.iter().rev().find(|patch| patch.offset as usize == offset).map(|patch| patch.next)
    }
}

/// What compressing a block of `block_size` bytes needs room for. (Before a chunk of `n` bytes there are at most as many
/// bytes as the block has beside it, and the dictionary.)
pub(super) fn scratch_bytes(block_size: usize) -> usize {
    MAX_DICTIONARY.min(block_size / DICTIONARY_PART) + Codec::room(block_size)
}
