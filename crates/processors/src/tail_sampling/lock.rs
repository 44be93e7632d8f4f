//! A shard behind its lock.
//!
//! A receiver holds it for some 20 us, a step of decisions for about as long. To go to sleep and to be woken costs more than
//! that, so who waits looks again for a while first; and who decides, or hands on, stops between two steps when
//! somebody waits, and gives way before the next.

use std::hint::spin_loop;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::buffer::Shard;

/// Looks at the lock before a thread goes to sleep.
const LOOKS: usize = 128;
/// Pauses between two looks: about 0.5 us.
const PAUSES: usize = 16;

/// What several threads write often, in cache lines of its own: what is next to it is not fetched again each time.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A shard, and what can be known of it without its lock.
#[derive(Debug)]
pub(super) struct Locked {
    shard: Apart<Mutex<Shard>>,
    /// How many wait for it.
    waiting: Apart<AtomicUsize>,
    /// Bytes of kept traces that wait to be handed on, as of the last visit.
    kept: AtomicU64,
}

impl Locked {
    pub(super) fn new(shard: Shard) -> Self {
        Self { shard: Apart(Mutex::new(shard)), waiting: Apart::default(), kept: AtomicU64::new(0) }
    }

    /// Bytes of kept traces that wait to be handed on.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Notes what `shard`, which is this one, holds.
    pub(super) fn note(&self, shard: &Shard) {
        if shard.kept_bytes() != self.kept_bytes() {
            self.kept.store(shard.kept_bytes(), Ordering::Relaxed);
        }
    }

    /// The shard, if nobody has it.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Shard>> {
        self.shard.try_lock()
    }

    /// The shard, as soon as nobody has it.
    pub(super) fn lock(&self) -> MutexGuard<'_, Shard> {
        for _ in 0..LOOKS {
            if let Some(shard) = self.try_lock() {
                return shard;
            }
            pause();
        }
        self.shard.lock()
    }

    /// Says that the caller waits for the shard, until that is dropped.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    /// Does anybody wait for it?
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Lets those who wait for it have it first, for a while.
    pub(super) fn give_way(&self) {
        for _ in 0..LOOKS {
            if !self.is_wanted() {
                return;
            }
            pause();
        }
    }
}

/// Somebody who waits for a shard.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a Locked);

impl<'a> Waiting<'a> {
    /// The shard, if nobody has it now.
    pub(super) fn look(&self) -> Option<MutexGuard<'a, Shard>> {
        self.0.try_lock()
    }

    /// The shard; sleeps until nobody has it.
    pub(super) fn sleep(self) -> MutexGuard<'a, Shard> {
        self.0.shard.lock()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Calls `act` with each of the shards that somebody else has now, in the order in which they come free.
pub(super) fn wait_for_each<'a>(
    busy: Vec<(usize, &'a Locked)>,
    mut act: impl FnMut(usize, &'a Locked, MutexGuard<'a, Shard>),
) {
    let mut busy: Vec<_> = busy.into_iter().map(|(index, shard)| (index, shard.wait())).collect();
    for _ in 0..LOOKS {
        busy.retain(|(index, waiting)| waiting.look().map(|shard| act(*index, waiting.0, shard)).is_none());
        if busy.is_empty() {
            return;
        }
        pause();
    }
    for (index, waiting) in busy {
        act(index, waiting.0, waiting.sleep());
    }
}

fn pause() {
    for _ in 0..PAUSES {
        spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nyquist_core::config::ComponentId;
    use nyquist_core::telemetry::{Ledger, Telemetry};

    use super::*;
    use crate::tail_sampling::sampler::Sampler;

    fn sampler() -> Sampler {
        let config = serde_yaml::from_str("{num_shards: 4, rules: [{name: all, sampling_percentage: 100}]}").unwrap();
        Sampler::new(&config, &ComponentId::of("tail_sampling"), Ledger::detached(), &Telemetry::new()).unwrap()
    }

    #[test]
    fn each_that_was_busy_is_visited_once_however_long_it_takes() {
        let sampler = sampler();
        let (soon, late) = (&sampler.shards[0], &sampler.shards[1]);
        let (freed, frees) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let (held, holds) = std::sync::mpsc::channel();
            scope.spawn(move || {
                let guard = late.lock();
                held.send(()).unwrap();
                // Others have been visited, and this one is being waited for.
                frees.recv().unwrap();
                while !late.is_wanted() {
                    std::thread::yield_now();
                }
                drop(guard);
            });
            holds.recv().unwrap();
            let mut visited = Vec::new();
            wait_for_each(vec![(0, soon), (1, late)], |index, _, _| {
                visited.push(index);
                if index == 0 {
                    freed.send(()).unwrap();
                }
            });
            assert_eq!(visited, [0, 1]);
        });
        assert!(!soon.is_wanted() && !late.is_wanted());
    }

    #[test]
    fn to_give_way_has_an_end() {
        let sampler = sampler();
        let waiting = sampler.shards[0].wait();
        assert!(sampler.shards[0].is_wanted());
        sampler.shards[0].give_way();
        assert!(!sampler.decide(0, Duration::from_secs(1), 1), "there is nothing to decide");
        drop(waiting);
        assert!(!sampler.shards[0].is_wanted());
    }
}
