//! Admission: how many bytes of requests may be in the process at once.
//!
//! A receiver asks before it reads a body, so that overload is refused at the price of a header,
//! and holds the answer until the pipeline has taken the batch. The sum of all permits is the
//! bound on what requests in flight can hold, whatever clients do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Whether anything may come in at all: closed while the process uses too much memory.
///
/// Receivers look at it before they read a body; looking is one relaxed load.
#[derive(Debug, Default)]
pub struct Gate {
    closed: AtomicBool,
}

impl Gate {
    /// May requests come in?
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Relaxed)
    }

    /// Closes or opens it; returns whether that changes anything.
    pub fn set_open(&self, is_open: bool) -> bool {
        self.closed.swap(!is_open, Ordering::Relaxed) == is_open
    }
}

/// A bound on the bytes in flight.
#[derive(Debug)]
pub struct Admission {
    limit: usize,
    used: AtomicUsize,
    idle: Notify,
}

impl Admission {
    /// Admits up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), idle: Notify::new() })
    }

    /// How many bytes are admitted at the most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many bytes are in flight now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Admits `bytes`, or `None` if there is no room for them. When nothing else is in flight a
    /// request is admitted whatever its size, so that a small limit cannot shut it out for ever.
    #[must_use]
    pub fn admit(self: &Arc<Self>, bytes: usize) -> Option<Admitted> {
        self.add(bytes).then(|| Admitted { admission: Arc::clone(self), bytes })
    }

    fn add(&self, bytes: usize) -> bool {
        let room = |used: usize| {
            let sum = used.checked_add(bytes)?;
            (used == 0 || sum <= self.limit).then_some(sum)
        };
        self.used.try_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok()
    }

    /// Waits until nothing is in flight.
    pub async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.used() == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// Bytes in flight; given back on drop.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admitted {
    /// How many bytes it stands for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it stand for `total` bytes; `false`, and no change, if there is no room.
    #[must_use]
    pub fn grow_to(&mut self, total: usize) -> bool {
        let more = total.saturating_sub(self.bytes);
        let alone = self.admission.used() == self.bytes;
        if alone {
            self.admission.used.fetch_add(more, Ordering::AcqRel);
        } else if !self.admission.add(more) {
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let before = self.admission.used.fetch_sub(self.bytes, Ordering::AcqRel);
        if before == self.bytes {
            self.admission.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_tells_when_it_changes() {
        let gate = Gate::default();
        assert!(gate.is_open() && !gate.set_open(true));
        assert!(gate.set_open(false) && !gate.is_open() && !gate.set_open(false));
        assert!(gate.set_open(true) && gate.is_open());
    }

    #[test]
    fn the_sum_of_permits_stays_under_the_limit() {
        let admission = Admission::new(100);
        let first = admission.admit(60).expect("there is room");
        assert!(admission.admit(41).is_none());
        let mut second = admission.admit(20).expect("there is room");
        assert!(!second.grow_to(41));
        assert!(second.grow_to(40));
        assert_eq!(admission.used(), 100);
        drop(first);
        assert_eq!(admission.used(), 40);
    }

    #[test]
    fn a_request_larger_than_the_limit_passes_when_it_is_alone() {
        let admission = Admission::new(10);
        let mut large = admission.admit(50).expect("nothing else is in flight");
        assert!(large.grow_to(80));
        assert!(admission.admit(1).is_none());
        drop(large);
        assert_eq!(admission.used(), 0);
    }

    #[tokio::test]
    async fn idle_returns_once_the_last_permit_is_gone() {
        let admission = Admission::new(10);
        let permit = admission.admit(5);
        let waiting = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.idle().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(permit);
        waiting.await.expect("no panic");
    }
}
