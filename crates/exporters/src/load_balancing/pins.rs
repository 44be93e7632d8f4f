//! Who has seen what: keeps open traces with their owner when the membership changes (`overlap`).

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// The most keys that one generation remembers: about 20 MB. Later ones go where the ring says.
pub(super) const MOST: usize = 1 << 20;

/// Remembers the backend that a key went to first, for at least `overlap` and less than twice as long.
///
/// Two generations: keys are added to the young one, and after `overlap` the old one is forgotten. Keys
/// are known by 64 bits of their hash: that two open ones share them is a chance of one in millions, and
/// what comes of it is that one goes where the other is.
#[derive(Debug)]
pub(super) struct Pins {
    overlap: Duration,
    hasher: RandomState,
    young: HashMap<u64, u64, RandomState>,
    old: HashMap<u64, u64, RandomState>,
    /// When the young generation began.
    since: Duration,
}

impl Pins {
    pub(super) fn new(overlap: Duration) -> Self {
        Self {
            overlap,
            hasher: RandomState::default(),
            young: HashMap::default(),
            old: HashMap::default(),
            since: Duration::ZERO,
        }
    }

    /// Forgets what is due at `now`.
    pub(super) fn tick(&mut self, now: Duration) {
        let age = now.saturating_sub(self.since);
        if age < self.overlap {
            return;
        }
        self.old = std::mem::take(&mut self.young);
        if age >= self.overlap * 2 {
            self.old = HashMap::default();
        }
        self.since = now;
    }

    /// The backend of `key`: the one that it went to first, if `is_member`, or else `new`.
    pub(super) fn owner(&mut self, key: &[u8], new: u64, is_member: impl Fn(u64) -> bool) -> u64 {
        let hash = self.hasher.hash_one(key);
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
