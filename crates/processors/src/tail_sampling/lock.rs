//! A shard behind its lock.
//!
//! A receiver holds it for some 20 us, a step of decisions for about as long. To go to sleep and to be woken costs more than
//! that, so who waits looks again for a while first; and who decides, or hands on, stops between two steps when
//! somebody waits, and gives way before the next.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::buffer::Shard;

/// Looks at the lock before a thread goes to sleep.
const LOOKS: usize = 32;
/// Pauses between two looks: about 2 us.
const PAUSES: usize = 64;

/// A shard, and how many wait for it. (Aligned so that what one shard's visitors write does not take the
/// cache line of another's.)
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Locked {
    shard: Mutex<Shard>,
    waiting: AtomicUsize,
}

impl Locked {
    pub(super) fn new(shard: Shard) -> Self {
        Self { shard: Mutex::new(shard), waiting: AtomicUsize::new(0) }
    }

    /// The shard, if nobody has it.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Shard>> {
        self.shard.try_lock()
    }

    /// The shard, as soon as nobody has it.
    pub(super) fn lock(&self) -> MutexGuard<'_, Shard> {
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
        self.0.lock()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Calls `act` with each of the shards that somebody else has now, in the order in which they come free.
pub(super) fn wait_for_each<'a>(busy: Vec<(usize, &'a Locked)>, mut act: impl FnMut(usize, MutexGuard<'a, Shard>)) {
    let mut busy: Vec<_> = busy.into_iter().map(|(index, shard)| (index, shard.wait())).collect();
    for _ in 0..LOOKS {
        busy.retain(|(index, waiting)| waiting.look().map(|shard| act(*index, shard)).is_none());
        if busy.is_empty() {
            return;
        }
        pause();
    }
    for (index, waiting) in busy {
        act(index, waiting.sleep());
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
            wait_for_each(vec![(0, soon), (1, late)], |index, _| {
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
