//! Who has seen what: keeps open traces with their owner when the membership changes (`overlap`).

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;

/// In so many parts, each with its lock, which is held for one key: workers that split batches at the same
/// time do not wait for each other.
const SHARDS: usize = 16;

/// The most keys that one generation of a shard remembers: about 20 MB for all. Later ones go where the ring
/// says.
pub(super) const MOST: usize = (1 << 20) / SHARDS;

/// Remembers the backend that a key went to first, for at least `overlap` and less than twice as long.
///
/// Keys are known by 64 bits of their hash: that two open ones share them is a chance of one in millions,
/// and what comes of it is that one goes where the other is.
#[derive(Debug)]
pub(super) struct Pins {
    overlap: Duration,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

/// Two generations: keys are added to the young one, and after `overlap` the old one is forgotten.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<u64, u64, foldhash::fast::FixedState>,
    old: HashMap<u64, u64, foldhash::fast::FixedState>,
    /// When the young generation began.
    since: Duration,
}

impl Pins {
    pub(super) fn new(overlap: Duration) -> Self {
        Self { overlap, hasher: RandomState::default(), shards: Default::default() }
    }

    /// The backend of `key` at `now`: the one that it went to first, if `is_member`, or else `new`.
    pub(super) fn owner(&self, now: Duration, key: &[u8], new: u64, is_member: impl Fn(u64) -> bool) -> u64 {
        let hash = self.hasher.hash_one(key);
        let Some(shard) = self.shards.get((hash >> 32) as usize % SHARDS) else { return new };
        let mut shard = shard.lock();
        shard.forget(now, self.overlap);
        shard.owner(hash, new, is_member)
    }
}

impl Shard {
    /// Forgets what is due at `now`.
    fn forget(&mut self, now: Duration, overlap: Duration) {
        let age = now.saturating_sub(self.since);
        if age < overlap {
            return;
        }
        self.old = std::mem::take(&mut self.young);
        if age >= overlap * 2 {
            self.old = HashMap::default();
        }
        self.since = now;
    }

    fn owner(&mut self, hash: u64, new: u64, is_member: impl Fn(u64) -> bool) -> u64 {
        if let Some(&first) = self.old.get(&hash) {
            if is_member(first) {
                return first;
            }
            self.old.remove(&hash);
        }
        let is_full = self.young.len() >= MOST;
        match self.young.entry(hash) {
            Entry::Occupied(mut entry) => {
                if !is_member(*entry.get()) {
                    entry.insert(new);
                }
                *entry.get()
            }
            Entry::Vacant(entry) => {
                if !is_full {
                    entry.insert(new);
                }
                new
            }
        }
    }
}
