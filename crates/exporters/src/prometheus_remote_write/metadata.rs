//! When metadata (type, help, unit) of a metric was sent last.

use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::time::Duration;

use foldhash::fast::RandomState;
use lru::LruCache;
use parking_lot::Mutex;

use crate::prometheus_mapping::Family;

/// How many metrics are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// Unchanged metadata is sent again after this time.
const INTERVAL: Duration = Duration::from_secs(60);

struct Sent {
    content: u64,
    at: Duration,
}

/// What was sent, and when.
pub(super) struct MetadataLog {
    hasher: RandomState,
    sent: Mutex<LruCache<u64, Sent>>,
}

impl MetadataLog {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::default(), sent: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    pub(super) fn hash(&self, family: &Family) -> u64 {
        self.hasher.hash_one(&family.name)
    }

    /// Is this metric's metadata new, changed, or a minute old? Then it counts as sent.
    pub(super) fn is_due(&self, family: &Family, description: &[u8], now: Duration) -> bool {
        let content = self.hasher.hash_one((family.metric_type, &family.unit, description));
        let mut sent = self.sent.lock();
        let known = sent.get(&self.hash(family));
        let is_fresh = known.is_some_and(|sent| sent.content == content && now.saturating_sub(sent.at) < INTERVAL);
        if !is_fresh {
            sent.put(self.hash(family), Sent { content, at: now });
        }
        !is_fresh
    }
}
