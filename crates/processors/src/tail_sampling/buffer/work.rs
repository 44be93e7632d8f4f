//! How much is done while a shard is locked.
//!
//! Work is counted in units of about 100 ns. They are round numbers from profiles of a gateway at saturation,
//! on the safe side: deciding and dropping a trace of ten spans took 0.5 us there, and the kernel 50 us to take a block back.

use super::shard::Shard;

/// A call that has done so much leaves the rest to the next one: 2.5 ms.
pub(super) const ENOUGH: u64 = 25_000;
/// To give a block back to the allocator.
pub(super) const BLOCK: u64 = 500;

impl Shard {
    /// Is it time to let others have the shard?
    pub(super) fn has_done_enough(&self) -> bool {
        self.work >= ENOUGH
    }

    /// Is it time not to begin with the largest pieces of work?
    pub(super) fn has_done_half(&self) -> bool {
        self.work >= ENOUGH / 2
    }

    /// What has been done since the shard was locked, in units of about 100 ns.
    #[cfg(test)]
    pub(crate) fn work(&self) -> u64 {
        self.work
    }

    /// The shard is about to be unlocked.
    pub(crate) fn end_work(&mut self) {
        self.work = 0;
    }
}
