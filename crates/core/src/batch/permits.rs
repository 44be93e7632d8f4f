//! Room that is reserved before a batch is committed.
//!
//! A fan-out asks every branch for room before it gives a batch to any of them. The room that a
//! bounded stage sets aside travels with the batch as a [`Permit`], and the stage takes it out
//! again when the batch arrives; a permit that is dropped on the way gives its room back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The room of one bounded stage.
#[derive(Debug)]
pub struct Room {
    capacity: usize,
    used: AtomicUsize,
    freed: tokio::sync::Notify,
}

impl Room {
    /// A room for `capacity` units (requests, items or bytes: the owner decides).
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, used: AtomicUsize::new(0), freed: tokio::sync::Notify::new() })
    }

    /// How many units it holds at the most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many units are in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Sets `units` aside, or `None` if there is no room for them now.
    #[must_use]
    pub fn try_reserve(self: &Arc<Self>, units: usize) -> Option<Permit> {
        self.used
            .try_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(units).filter(|&sum| sum <= self.capacity)
            })
            .ok()?;
        Some(Permit { room: Arc::clone(self), units })
    }

    /// Sets `units` aside, waiting until there is room. Never returns if `units` exceed the
    /// capacity: check first.
    pub async fn reserve(self: &Arc<Self>, units: usize) -> Permit {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(permit) = self.try_reserve(units) {
                return permit;
            }
            freed.await;
        }
    }

    /// Takes `units` whether or not there is room: for what was accepted before and has grown.
    #[must_use]
    pub fn take(self: &Arc<Self>, units: usize) -> Permit {
        self.used.fetch_add(units, Ordering::AcqRel);
        Permit { room: Arc::clone(self), units }
    }
}

/// Units of a [`Room`]; given back on drop.
#[derive(Debug)]
pub struct Permit {
    room: Arc<Room>,
    units: usize,
}

impl Permit {
    /// How many units it holds.
    #[must_use]
    pub fn units(&self) -> usize {
        self.units
    }

    /// Takes the units of `other`, a permit of the same room.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.room, &other.room), "permits of two rooms");
        self.units += std::mem::take(&mut other.units);
    }

    /// Splits `units` off (all of them, if it holds fewer) into a permit of their own.
    #[must_use]
    pub fn split(&mut self, units: usize) -> Self {
        let units = units.min(self.units);
        self.units -= units;
        Self { room: Arc::clone(&self.room), units }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.units > 0 {
            self.room.used.fetch_sub(self.units, Ordering::AcqRel);
            self.room.freed.notify_waiters();
        }
    }
}

/// The permits that travel with a batch. Clones share them: of the copies that a fan-out makes,
/// each stage takes its own permit, whichever copy reaches it.
#[derive(Debug, Default, Clone)]
pub struct Permits(Option<Arc<Mutex<Vec<Permit>>>>);

impl Permits {
    /// Permits for a batch whose way ahead is about to be reserved.
    #[must_use]
    pub fn reserving() -> Self {
        Self(Some(Arc::default()))
    }

    /// Has the way ahead been reserved already?
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.is_some()
    }

    /// Adds a permit.
    pub fn push(&mut self, permit: Permit) {
        self.0.get_or_insert_default().lock().push(permit);
    }

    /// Takes out the permit of `room`, if there is one.
    #[must_use]
    pub fn take(&mut self, room: &Arc<Room>) -> Option<Permit> {
        let mut permits = self.0.as_ref()?.lock();
        let index = permits.iter().position(|permit| Arc::ptr_eq(&permit.room, room))?;
        Some(permits.swap_remove(index))
    }
}
