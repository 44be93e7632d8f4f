//! What compresses the blocks of one log, and keeps copies of the chunks that were read last.

use std::collections::VecDeque;

use super::codec::Codec;
use super::frozen::{Frozen, scratch_bytes};
use crate::tail_sampling::config::Compression;

/// A block is as young as the youngest of what is in it, which is known to within this part of the delay.
const STEPS: u64 = 32;
/// Copies that are looked through for one that is wanted.
const MOST_COPIES: usize = 64;

/// A decompressed chunk.
#[derive(Debug, Clone, Copy)]
struct Copied {
    block: u64,
    chunk: u32,
    begin: u32,
    len: u32,
}

/// Copies of chunks, one after the other in a ring: the oldest goes first.
#[derive(Debug)]
struct Copies {
    ring: Vec<u8>,
    /// In the order in which they stand there.
    list: VecDeque<Copied>,
    end: usize,
}

impl Copies {
    fn find(&self, block: u64, chunk: u32) -> Option<&[u8]> {
        let found = self.list.iter().rev().find(|copy| copy.chunk == chunk && copy.block == block)?;
        self.ring.get(found.begin as usize..)?.get(..found.len as usize)
    }

    /// Room for one more of `len` bytes.
    fn add(&mut self, block: u64, chunk: u32, len: usize) -> Option<&mut [u8]> {
        if self.end + len > self.ring.len() {
            // What stands behind the end of the ring's last lap is the oldest.
            while self.list.front().is_some_and(|oldest| oldest.begin as usize >= self.end) {
                self.list.pop_front();
            }
            self.end = 0;
        }
        let place = self.end..self.end + len;
        while let Some(oldest) = self.list.front()
            && (self.list.len() >= MOST_COPIES
                || (oldest.begin as usize) < place.end && (oldest.begin + oldest.len) as usize > place.start)
        {
            self.list.pop_front();
        }
        let room = self.ring.get_mut(place.clone())?;
        self.end = place.end;
        self.list.push_back(Copied { block, chunk, begin: place.start as u32, len: len as u32 });
        Some(room)
    }
}

/// When blocks are old enough.
#[derive(Debug)]
struct Ages {
    /// In milliseconds.
    delay: u64,
    /// The block that was being filled, step by step, the oldest first.
    numbers: VecDeque<u64>,
    stepped: u64,
    old: u64,
}

impl Ages {
    /// It is `now`, in milliseconds, and block `current` is being filled: blocks before the number that is returned are old
    /// enough.
    fn see(&mut self, now: u64, current: u64) -> u64 {
        if self.delay == 0 {
            return current;
        }
        let step = (self.delay / STEPS).max(1);
        let steps = now.saturating_sub(self.stepped) / step;
        for _ in 0..steps.min(self.delay.div_ceil(step) + 1) {
            self.numbers.push_back(current);
            if self.numbers.len() as u64 > self.delay.div_ceil(step) {
                self.old = self.numbers.pop_front().unwrap_or_default();
            }
        }
        self.stepped += steps * step;
        self.old
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Freezer {
    codec: Codec,
    /// Where blocks are packed, and whole ones unpacked.
    scratch: Vec<u8>,
    scratch_bytes: usize,
    copies: Copies,
    ages: Ages,
    /// Chunks that were decompressed because one of their records was read.
    thaws: u64,
}

impl Freezer {
    /// One for blocks of `block_size`, `delay` milliseconds after they are full. `None` if nothing is to be compressed, or
    /// there is no memory for it.
    pub(super) fn new(compression: Compression, delay: u32, block_size: usize) -> Option<Box<Self>> {
        let scratch_bytes = scratch_bytes(block_size);
        let numbers = VecDeque::with_capacity(STEPS as usize + 2);
        let mut freezer = Self {
            codec: Codec::new(compression)?,
            scratch: vec![0; scratch_bytes],
            scratch_bytes,
            copies: Copies { ring: vec![0; block_size], list: VecDeque::with_capacity(MOST_COPIES), end: 0 },
            ages: Ages { delay: u64::from(delay), numbers, stepped: 0, old: 0 },
            thaws: 0,
        };
        freezer.warm_up(block_size);
        Some(Box::new(freezer))
    }

    /// What compressing takes, it takes from the start.
    fn warm_up(&mut self, block_size: usize) {
        let dictionary = vec![7; super::frozen::MAX_DICTIONARY];
        let _ = self.codec.begin(&dictionary);
        let _ = self.codec.pack(&dictionary, self.copies.ring.get(..block_size).unwrap_or_default(), &mut self.scratch);
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.codec.bytes()
            + self.scratch_bytes
            + self.copies.ring.capacity()
            + self.copies.list.capacity() * size_of::<Copied>()
            + self.ages.numbers.capacity() * size_of::<u64>()
    }

    /// See [`Ages::see`]; `now` is in nanoseconds.
    pub(super) fn old(&mut self, now: u64, current: u64) -> u64 {
        self.ages.see(now / 1_000_000, current)
    }

    /// Compresses the records of a block; `None` if they do not fit into `most` bytes.
    pub(super) fn freeze(&mut self, raw: &[u8], most: usize, footprint: impl Fn(usize) -> usize) -> Option<Frozen> {
        Frozen::pack(raw, most, &mut self.codec, &mut self.scratch, footprint)
    }

    /// Sees to it that there is a copy of the chunk that the record at `offset` of block `number` is in. How many bytes had to
    /// be decompressed.
    pub(super) fn thaw(&mut self, number: u64, block: &Frozen, offset: usize) -> usize {
        let Some((chunk, range)) = block.chunk_at(offset) else {
            return 0;
        };
        if self.copies.find(number, chunk).is_some() {
            return 0;
        }
        let Some(room) = self.copies.add(number, chunk, range.len()) else {
            return 0;
        };
        if !block.unpack(chunk, &mut self.codec, room) {
            debug_assert!(false, "a chunk cannot be decompressed");
            self.copies.list.pop_back();
        }
        self.thaws += 1;
        range.len()
    }

    /// The copy of a chunk, if it was thawed a moment ago.
    pub(super) fn thawed(&self, number: u64, chunk: u32) -> Option<&[u8]> {
        self.copies.find(number, chunk)
    }

    /// All records of a block, in memory that [`give_back`](Self::give_back) has to get.
    pub(super) fn thaw_all(&mut self, block: &Frozen) -> Vec<u8> {
        let mut raw = std::mem::take(&mut self.scratch);
        raw.resize(block.raw_len(), 0);
        if !block.unpack_all(&mut self.codec, &mut raw) {
            debug_assert!(false, "a block cannot be decompressed");
            raw.clear();
        }
        raw
    }

    /// Takes memory of [`thaw_all`](Self::thaw_all) back; returns what is none.
    pub(super) fn give_back(&mut self, mut data: Vec<u8>) -> Option<Vec<u8>> {
        if !self.scratch.is_empty() {
            return Some(data);
        }
        data.resize(self.scratch_bytes, 0);
        self.scratch = data;
        None
    }

    /// Chunks that were decompressed since the last call, because one of their records was read.
    pub(super) fn take_thaws(&mut self) -> u64 {
        std::mem::take(&mut self.thaws)
    }
}
