//! Something for each stream, in shards, within a number of streams and of bytes.

use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;

use crate::skew::Capped;

/// Enough that cores seldom meet in one.
const SHARDS: usize = 64;

/// What is kept of a stream.
pub(crate) trait HeapSize {
    /// Its bytes on the heap.
    fn heap(&self) -> usize;
}

/// There is no room for another stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// What is kept of all streams.
pub(crate) struct Bounded<T> {
    shards: Vec<Mutex<Shard<T>>>,
    count: AtomicUsize,
    bytes: AtomicUsize,
    max_count: usize,
    max_bytes: usize,
}

struct Shard<T> {
    /// Never `None` but while it is being changed.
    streams: HashMap<u64, Option<T>>,
    /// The newest that was said of the streams that were given up: see [`Bounded::sweep`].
    horizon: Capped,
}

impl<T: HeapSize> Bounded<T> {
    /// Room for `max_count` streams that take `max_bytes`.
    pub(crate) fn new(max_count: usize, max_bytes: usize) -> Self {
        let shard = || Mutex::new(Shard { streams: HashMap::new(), horizon: Capped::UNKNOWN });
        let shards = (0..SHARDS).map(|_| shard()).collect();
        Self { shards, count: AtomicUsize::new(0), bytes: AtomicUsize::new(0), max_count, max_bytes }
    }

    /// What one stream takes beside its heap: itself, its key, and its share of empty slots.
    const FIXED: usize = size_of::<(u64, Option<T>)>() * 3 / 2 + 16;

    /// Calls `change` with what is kept of `stream`, under the lock of its shard; what `change` leaves there is
    /// kept. It is also told the horizon of the shard. A new stream is refused if there is no room.
    pub(crate) fn change<R>(&self, stream: u64, change: impl FnOnce(&mut Option<T>, Capped) -> R) -> Result<R, Full> {
        let mut shard = self.shard(stream).lock();
        let horizon = shard.horizon;
        match shard.streams.entry(stream) {
            Entry::Occupied(mut entry) => {
                let kept = entry.get_mut();
                let before = kept.as_ref().map_or(0, T::heap);
                let outcome = change(kept, horizon);
                self.resize(before, kept.as_ref().map_or(0, T::heap));
                if kept.is_none() {
                    entry.remove();
                    self.forget(1);
                }
                Ok(outcome)
            }
            Entry::Vacant(entry) => {
                if self.count.load(Ordering::Relaxed) >= self.max_count || self.bytes() >= self.max_bytes {
                    return Err(Full);
                }
                let mut kept = None;
                let outcome = change(&mut kept, horizon);
                if let Some(new) = &kept {
                    self.count.fetch_add(1, Ordering::Relaxed);
                    self.bytes.fetch_add(Self::FIXED + new.heap(), Ordering::Relaxed);
                    entry.insert(kept);
                }
                Ok(outcome)
            }
        }
    }

    /// Gives up the streams of which `is_stale` says something: a time that the horizon of their shard is not
    /// before from now on. Returns how many went.
    pub(crate) fn sweep(&self, is_stale: impl Fn(&T) -> Option<Capped>) -> usize {
        let mut gone = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Shard { streams, horizon } = &mut *shard;
            let before = gone;
            streams.retain(|_, kept| {
                let Some(kept) = kept else { return false };
                let Some(time) = is_stale(kept) else { return true };
                *horizon = time.max(*horizon);
                self.resize(kept.heap(), 0);
                gone += 1;
                false
            });
            self.forget(gone - before);
            if streams.len() < streams.capacity() / 4 {
                streams.shrink_to_fit();
            }
        }
        gone
    }

    /// How many streams there are.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn shard(&self, stream: u64) -> &Mutex<Shard<T>> {
        // The table inside uses the lower bits and the uppermost seven.
        &self.shards[(stream >> 48) as usize % SHARDS]
    }

    fn resize(&self, before: usize, after: usize) {
        if after >= before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    fn forget(&self, streams: usize) {
        self.count.fetch_sub(streams, Ordering::Relaxed);
        self.bytes.fetch_sub(streams * Self::FIXED, Ordering::Relaxed);
    }
}
