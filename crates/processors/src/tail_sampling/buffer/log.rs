//! Blocks of [records](super::record), which begin at multiples of a unit: 4 bytes, or 8 where blocks are so large that
//! addresses need it.
//!
//! A block counts the traces whose first record is in it, and is freed when it is the oldest and
//! that count is zero. Blocks that are full may be [compressed](super::frozen).

use std::collections::VecDeque;

use super::freezer::Freezer;
use super::frozen::Frozen;
use super::record::{self, Addr, Contents, HEADER, LARGE_UNIT, Record, UNIT, footprint};
use crate::tail_sampling::config::Compression;

/// A place in the log: the number of a block, and an offset in it, in bytes. What comes later is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64, usize);

impl Place {
    /// Behind everything.
    pub(super) const LAST: Self = Self(u64::MAX, 0);
}

const OFFSET_BITS: u32 = 17;
const BLOCK_MASK: u64 = (1 << 15) - 1;
/// A record on its way out: in its block, with attributes added (in memory that may have doubled), and
/// in the batch.
const COPIES: usize = 4;

/// Rounds of decisions after which spare blocks are given back: about ten seconds.
const PERIOD: u32 = 200;
/// Blocks that one call gives back to the allocator, at most: the kernel takes some 50 us for each.
const AT_ONCE: usize = 8;

/// The largest block: what an [`Addr`] can span.
pub(super) const MAX_BLOCK: usize = LARGE_UNIT << OFFSET_BITS;

/// Of a block's memory, what compressing it has to save, or it stays as it is.
const WORTH_IT: usize = 8;
/// So many blocks are compressed, at most: half of the numbers are for those that are not.
const MOST_FROZEN: usize = 1 << 14;

#[derive(Debug)]
struct Block {
    /// Empty if it is compressed.
    data: Vec<u8>,
    firsts: u32,
    /// What the budget is charged for.
    charged: usize,
    frozen: Option<Box<Frozen>>,
}

/// Blocks that are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FrozenBlocks {
    pub(super) count: usize,
    /// Bytes that they take.
    pub(super) bytes: usize,
    /// Bytes of their records.
    pub(super) raw: usize,
}

#[derive(Debug)]
pub(super) struct Log {
    blocks: VecDeque<Block>,
    /// The number of the oldest block.
    oldest: u64,
    free: Vec<Vec<u8>>,
    /// The fewest spare blocks there were in this period.
    least_spare: usize,
    /// Rounds of this period that are over.
    rounds: u32,
    /// Spare blocks that nothing has needed for a period: given back little by little.
    idle: usize,
    block_size: usize,
    unit: usize,
    bytes: usize,
    charged: usize,
    /// What compresses blocks, if they are to be.
    freezer: Option<Box<Freezer>>,
    frozen: FrozenBlocks,
    /// The number of the next block to be compressed.
    next_frozen: u64,
}

impl Log {
    /// One whose full blocks are compressed `delay` milliseconds after they are.
    pub(super) fn new(block_size: usize, compression: Compression, delay: u32) -> Self {
        let block_size = block_size.clamp(4096, MAX_BLOCK);
        Self {
            freezer: Freezer::new(compression, delay, block_size),
            frozen: FrozenBlocks::default(),
            next_frozen: 0,
            unit: if block_size <= UNIT << OFFSET_BITS { UNIT } else { LARGE_UNIT },
            blocks: VecDeque::new(),
            oldest: 0,
            free: Vec::new(),
            least_spare: 0,
            rounds: 0,
            idle: 0,
            block_size,
            bytes: 0,
            charged: 0,
        }
    }

    /// Bytes of all blocks in use, as if none were compressed.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the budget is charged for: all blocks, in use and spare. A block of its own for a large
    /// record counts for the record's copies on its way out too.
    pub(super) fn charged(&self) -> usize {
        let freezer = self.freezer.as_ref().map_or(0, |freezer| freezer.bytes());
        self.charged + self.free.len() * self.block_size + self.blocks.len() * size_of::<Block>() * 2 + freezer
    }

    /// Memory for so many more records with so many bytes, at most. (Of two blocks that follow each
    /// other, the records do not fit into one.)
    pub(super) const fn growth(block_size: usize, records: usize, bytes: usize) -> usize {
        let footprint = bytes + records * (HEADER + LARGE_UNIT);
        let copies = if footprint > block_size { COPIES } else { 2 };
        copies * footprint + block_size + (footprint / block_size + 1) * 4 * size_of::<Block>()
    }

    /// Gives the memory of spare blocks back, but for what comes and goes from one round of decisions
    /// to the next. Returns how many bytes.
    pub(super) fn limit_spares(&mut self) -> usize {
        let keep = self.spares_to_keep();
        let over = self.free.len().saturating_sub(keep).min(AT_ONCE);
        self.free.truncate(self.free.len() - over);
        self.least_spare = self.least_spare.min(self.free.len());
        over * self.block_size
    }

    fn spares_to_keep(&self) -> usize {
        (self.blocks.len() - self.frozen.count) / 8 + 2
    }

    /// Gives `bytes` of the memory of spare blocks back, as far as there are so many; returns how many
    /// blocks that were.
    pub(super) fn drop_spares(&mut self, bytes: usize) -> usize {
        let count = bytes.div_ceil(self.block_size).min(self.free.len());
        self.free.truncate(self.free.len() - count);
        self.least_spare = self.least_spare.min(self.free.len());
        count
    }

    /// The record at `addr` is on its way out: its copies are charged for themselves from now on.
    pub(super) fn sent(&mut self, addr: Addr) {
        let (block, _) = self.locate(addr);
        if let Some(block) = self.blocks.get_mut(block).filter(|block| block.charged > self.block_size) {
            let one = block.data.capacity();
            self.charged -= block.charged - one;
            block.charged = one;
        }
    }

    /// The number of the oldest block.
    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The number of the block that is being filled.
    pub(super) fn current(&self) -> u64 {
        (self.oldest + self.blocks.len() as u64).saturating_sub(1)
    }

    /// The bytes that a record of `len` bytes takes.
    pub(super) fn footprint(&self, len: usize) -> usize {
        footprint(len, self.unit)
    }

    /// Copies a record in. `None` if there are too many blocks.
    pub(super) fn append(&mut self, bytes: &[u8], scope: u32, contents: Contents) -> Option<Addr> {
        let footprint = self.footprint(bytes.len());
        let header = record::header(scope, contents, bytes.len())?;
        let fits = self.blocks.back().is_some_and(|block| block.data.len() + footprint <= self.block_size);
        if !fits {
            self.open_block(footprint)?;
        }
        let number = self.current();
        let block = self.blocks.back_mut()?;
        let offset = block.data.len();
        block.data.extend_from_slice(&header);
        block.data.extend_from_slice(bytes);
        const PADDING: [u8; LARGE_UNIT] = [0; LARGE_UNIT];
        let padding = offset + footprint - block.data.len();
        block.data.extend_from_slice(PADDING.get(..padding).unwrap_or_default());
        let offset = u32::try_from(offset >> self.unit.trailing_zeros()).ok()?;
        Some(Addr(((number & BLOCK_MASK) as u32) << OFFSET_BITS | offset))
    }

    fn open_block(&mut self, at_least: usize) -> Option<()> {
        if self.blocks.len() as u64 >= BLOCK_MASK {
            return None;
        }
        let data = if at_least > self.block_size {
            Vec::with_capacity(at_least)
        } else {
            let spare = self.free.pop();
            self.least_spare = self.least_spare.min(self.free.len());
            spare.unwrap_or_else(|| Vec::with_capacity(self.block_size))
        };
        self.bytes += data.capacity();
        let copies = if data.capacity() > self.block_size { COPIES } else { 1 };
        let charged = data.capacity() * copies;
        self.charged += charged;
        self.blocks.push_back(Block { data, firsts: 0, charged, frozen: None });
        Some(())
    }

    /// The number of the block that `addr` is in.
    fn block_number(&self, addr: Addr) -> u64 {
        self.oldest + (u64::from(addr.0 >> OFFSET_BITS).wrapping_sub(self.oldest) & BLOCK_MASK)
    }

    pub(super) fn place(&self, addr: Addr) -> Place {
        Place(self.block_number(addr), self.offset(addr))
    }

    /// Where the next record is going to be, or before that.
    pub(super) fn end(&self) -> Place {
        self.blocks.back().map_or(Place(self.oldest, 0), |block| Place(self.current(), block.data.len()))
    }

    fn locate(&self, addr: Addr) -> (usize, usize) {
        let block = (self.block_number(addr) - self.oldest) as usize;
        (block, self.offset(addr))
    }

    /// Where the record at `addr` is in its block, in bytes.
    pub(super) fn offset(&self, addr: Addr) -> usize {
        (addr.0 & ((1 << OFFSET_BITS) - 1)) as usize * self.unit
    }

    /// The record at `addr`, and its bytes. If its block is compressed, it has to be [thawed](Self::thaw) before.
    pub(super) fn read(&self, addr: Addr) -> Option<(Record, &[u8])> {
        let (index, offset) = self.locate(addr);
        let block = self.blocks.get(index)?;
        let Some(frozen) = &block.frozen else {
            return record::read(&block.data, offset);
        };
        let (chunk, range) = frozen.chunk_at(offset)?;
        let copy = self.freezer.as_ref()?.thawed(self.oldest + index as u64, chunk)?;
        let (mut record, bytes) = record::read(copy, offset - range.start)?;
        if record.next == Addr::NONE {
            record.next = frozen.next(offset).unwrap_or(Addr::NONE);
        }
        Some((record, bytes))
    }

    /// Makes the record at `addr` readable until the next one is. `None` if its block is not compressed, so that it was; else how
    /// many bytes had to be decompressed.
    #[inline]
    pub(super) fn thaw(&mut self, addr: Addr) -> Option<usize> {
        let (index, offset) = self.locate(addr);
        let frozen = self.blocks.get(index)?.frozen.as_deref()?;
        Some(self.freezer.as_mut()?.thaw(self.oldest + index as u64, frozen, offset))
    }

    /// Sets the next record of the one at `addr`.
    #[inline]
    pub(super) fn link(&mut self, addr: Addr, next: Addr) {
        let (block, offset) = self.locate(addr);
        let Some(block) = self.blocks.get_mut(block) else {
            return;
        };
        let Some(frozen) = &mut block.frozen else {
            return record::link(&mut block.data, offset, next);
        };
        let before = frozen.bytes();
        frozen.link(offset, next);
        let grown = frozen.bytes() - before;
        block.charged += grown;
        self.charged += grown;
        self.frozen.bytes += grown;
    }

    /// A trace begins at `addr`.
    pub(super) fn add_first(&mut self, addr: Addr) {
        let (block, _) = self.locate(addr);
        if let Some(block) = self.blocks.get_mut(block) {
            block.firsts += 1;
        }
    }

    /// A trace that began at `addr` is gone or begins elsewhere.
    pub(super) fn remove_first(&mut self, addr: Addr) {
        let (block, _) = self.locate(addr);
        if let Some(block) = self.blocks.get_mut(block) {
            block.firsts -= 1;
        }
    }

    /// Is `addr` in the oldest block?
    pub(super) fn in_oldest(&self, addr: Addr) -> bool {
        addr != Addr::NONE && self.locate(addr).0 == 0
    }

    /// Takes the bytes of the oldest block out, to copy what lives in them elsewhere; puts back an
    /// empty block, which `free_unused` removes. Says how many bytes had to be decompressed.
    pub(super) fn take_oldest(&mut self) -> (Vec<u8>, usize) {
        let Some(block) = self.blocks.front_mut() else {
            return (Vec::new(), 0);
        };
        self.charged -= std::mem::take(&mut block.charged);
        let (data, frozen) = (std::mem::take(&mut block.data), block.frozen.take());
        match (frozen, &mut self.freezer) {
            (Some(frozen), Some(freezer)) => {
                let data = freezer.thaw_all(&frozen);
                self.forget_frozen(&frozen);
                let thawed = data.len();
                (data, thawed)
            }
            _ => {
                self.bytes -= data.capacity();
                (data, 0)
            }
        }
    }

    /// A compressed block is gone.
    fn forget_frozen(&mut self, frozen: &Frozen) {
        self.bytes -= self.block_size;
        self.frozen.count -= 1;
        self.frozen.bytes -= frozen.bytes();
        self.frozen.raw -= frozen.raw_len();
    }

    /// Gives the bytes of a block back for use as another.
    pub(super) fn recycle(&mut self, data: Vec<u8>) {
        let Some(mut data) = (match &mut self.freezer {
            Some(freezer) => freezer.give_back(data),
            None => Some(data),
        }) else {
            return;
        };
        if data.capacity() == self.block_size {
            data.clear();
            self.free.push(data);
        }
    }

    /// Ends a round of decisions. Memory that is touched for the first time is dear, so spare blocks stay
    /// through the ups and downs of traffic, until nothing has needed them through a whole period. Returns how many were
    /// given back.
    pub(super) fn end_round(&mut self) -> usize {
        let some = self.idle.min(AT_ONCE).min(self.free.len());
        self.idle -= self.idle.min(AT_ONCE);
        self.free.truncate(self.free.len() - some);
        self.rounds += 1;
        if self.rounds < PERIOD {
            return some;
        }
        self.rounds = 0;
        self.idle = self.least_spare.min(self.free.len());
        self.least_spare = self.free.len();
        some
    }

    /// Frees the oldest blocks as far as no trace begins in them.
    pub(super) fn free_unused(&mut self) {
        while self.blocks.len() > 1 && self.blocks.front().is_some_and(|block| block.firsts == 0) {
            let Some(block) = self.blocks.pop_front() else {
                return;
            };
            self.oldest += 1;
            self.charged -= block.charged;
            if let Some(frozen) = &block.frozen {
                self.forget_frozen(frozen);
                continue;
            }
            self.bytes -= block.data.capacity();
            self.recycle(block.data);
        }
        // The last one is being filled: start it again.
        if let (1, Some(block)) = (self.blocks.len(), self.blocks.front_mut())
            && block.firsts == 0
            && !block.data.is_empty()
        {
            if block.data.capacity() > self.block_size {
                self.bytes -= block.data.capacity();
                self.charged -= block.charged;
                self.blocks.clear();
            } else {
                block.data.clear();
            }
            self.oldest += 1;
        }
    }
}

/// Compressing blocks.
impl Log {
    /// It is `now`, in nanoseconds: blocks before the number that is returned are full for long enough to be compressed.
    pub(super) fn old(&mut self, now: u64) -> u64 {
        let current = self.current();
        self.freezer.as_mut().map_or(0, |freezer| freezer.old(now, current))
    }

    /// Is there a full block before number `upto` to be compressed?
    pub(super) fn has_to_freeze(&self, upto: u64) -> bool {
        self.freezer.is_some()
            && self.next_frozen.max(self.oldest) < upto.min(self.current())
            && self.frozen.count < MOST_FROZEN
    }

    /// Are there fewer spare blocks than come and go?
    pub(super) fn wants_spares(&self) -> bool {
        self.free.len() < self.spares_to_keep()
    }

    /// Compresses the next full block, if that is worth it; how many bytes were looked at. Its memory is given back, or, if it
    /// is to be kept, spare.
    pub(super) fn freeze_next(&mut self, keep: bool) -> usize {
        let number = self.next_frozen.max(self.oldest);
        self.next_frozen = number + 1;
        let unit = self.unit;
        let (Some(freezer), Some(block)) = (&mut self.freezer, self.blocks.get_mut((number - self.oldest) as usize))
        else {
            return 0;
        };
        // What is larger has its own block, which is charged for its way out: compressing it would save nothing.
        if block.data.capacity() != self.block_size || block.data.is_empty() {
            return 0;
        }
        let looked_at = block.data.len();
        let most = self.block_size - self.block_size / WORTH_IT;
        let Some(frozen) = freezer.freeze(&block.data, most, |len| footprint(len, unit)) else {
            return looked_at;
        };
        self.charged -= block.charged;
        block.charged = frozen.bytes();
        self.charged += block.charged;
        self.frozen.count += 1;
        self.frozen.bytes += block.charged;
        self.frozen.raw += looked_at;
        block.frozen = Some(Box::new(frozen));
        let data = std::mem::take(&mut block.data);
        if keep {
            self.recycle(data);
        }
        looked_at
    }

    pub(super) fn frozen(&self) -> FrozenBlocks {
        self.frozen
    }

    /// Chunks that were decompressed since the last call.
    pub(super) fn take_thaws(&mut self) -> u64 {
        self.freezer.as_mut().map_or(0, |freezer| freezer.take_thaws())
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
