//! What `target_info` said of resources, from one request to the next.
//!
//! Bounded in entries and in what an entry may hold; the one that was not used for longest goes first.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use nyquist_core::proto::common::v1::KeyValue;
use parking_lot::Mutex;
use prost::Message;

/// So many resources are remembered.
const MAX_RESOURCES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
/// What is said of one resource may take so many bytes; more is used for its own request only.
const MAX_BYTES: usize = 4096;

/// The attributes of resources, by their keys.
type Known = LruCache<Box<[u8]>, Arc<[KeyValue]>>;

/// The resources.
pub(super) struct Infos(Mutex<Known>);

impl Default for Infos {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_RESOURCES)))
    }
}

impl Infos {
    /// What is known of the resource with `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<Arc<[KeyValue]>> {
        self.0.lock().get(key).cloned()
    }

    /// Remembers `attributes` of the resource with `key`.
    pub(super) fn put(&self, key: &[u8], attributes: &[KeyValue]) {
        let bytes = attributes.iter().map(Message::encoded_len).sum::<usize>() + key.len();
        let mut known = self.0.lock();
        if bytes > MAX_BYTES {
            known.pop(key);
        } else if known.get(key).is_none_or(|own| **own != *attributes) {
            known.put(key.into(), attributes.into());
        }
    }
}
