//! One shard: compressing what is full.

use super::log::FrozenBlocks;
use super::shard::Shard;
use super::work;

/// To compress so many bytes, in units of [`work`].
const PACKED: u64 = 32;
/// To decompress so many.
const UNPACKED: u64 = 64;

/// The work of decompressing so many bytes.
pub(super) fn thawing(bytes: usize) -> u64 {
    bytes as u64 / UNPACKED
}

/// What has changed since it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compressed {
    pub(crate) bytes: i64,
    pub(crate) raw: i64,
    /// Chunks that were decompressed.
    pub(crate) thaws: u64,
}

impl Shard {
    /// Compresses blocks that have been full for long enough. True if there are more.
    pub(super) fn freeze_old(&mut self, now: u64) -> bool {
        let upto = self.log.old(now);
        self.freeze(upto, true)
    }

    /// Compresses blocks that are full, however young: memory is short. How many bytes are free now.
    pub(super) fn freeze_full(&mut self) -> usize {
        let before = self.log.charged();
        self.freeze(u64::MAX, false);
        before.saturating_sub(self.log.charged())
    }

    fn freeze(&mut self, upto: u64, keep_memory: bool) -> bool {
        while self.log.has_to_freeze(upto) {
            // The largest block takes more than what is left, but not more than anyone may be kept waiting.
            if self.has_done_half() {
                return true;
            }
            // What comes next needs memory that has been touched. (Until now it counted as full, and now both do.)
            let keep = keep_memory && self.log.wants_spares() && self.claim(self.settings.block_size);
            self.work += self.log.freeze_next(keep) as u64 / PACKED + if keep { 1 } else { work::BLOCK };
        }
        false
    }

    /// Charges the budget for what is about to be taken, until the shard is settled. False if it is not there.
    pub(super) fn claim(&mut self, bytes: usize) -> bool {
        let claimed = self.budget.claim(bytes);
        if claimed {
            self.claimed += bytes;
        }
        claimed
    }

    /// What has changed since the last call; `None` if nothing is compressed.
    pub(crate) fn compressed(&mut self) -> Option<Compressed> {
        if self.settings.compression.is_none() {
            return None;
        }
        let FrozenBlocks { bytes, raw, .. } = self.log.frozen();
        let before = std::mem::replace(&mut self.counted_frozen, self.log.frozen());
        let change = |after: usize, before: usize| after as i64 - before as i64;
        Some(Compressed {
            bytes: change(bytes, before.bytes),
            raw: change(raw, before.raw),
            thaws: self.log.take_thaws(),
        })
    }
}
