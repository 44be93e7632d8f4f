//! When metadata (type, help, unit) of a metric was sent last.

use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::time::Duration;

use foldhash::fast::RandomState;
use lru::LruCache;
use parking_lot::Mutex;

use crate::prometheus_mapping::{Family, Partition};

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

    /// A hash of the metric in `partition`, if its metadata is new there, changed, or a minute old. Then it counts as
    /// sent.
    pub(super) fn due(&self, family: &Family, partition: Partition, description: &[u8], now: Duration) -> Option<u64> {
        let metric = partition.turn(self.hasher.hash_one(&family.name));
        let content = self.hasher.hash_one((family.metric_type, &family.unit, description));
        let mut sent = self.sent.lock();
        let known = sent.get(&metric);
        let is_fresh = known.is_some_and(|sent| sent.content == content && now.saturating_sub(sent.at) < INTERVAL);
        if is_fresh {
            return None;
        }
        sent.put(metric, Sent { content, at: now });
        Some(metric)
    }
}
