//! Room that is reserved before a batch is committed.
//!
//! A fan-out asks every branch for room before it gives a batch to any of them. The room that a
//! bounded stage sets aside travels with the batch as a [`Permit`], and the stage takes it out
//! again when the batch arrives; a permit that is dropped on the way gives its room back.
//!
//! Nobody holds room while waiting for other room: a stage that has none says what to wait for
//! ([`NoRoom`]), and whoever asks gives everything back first, waits, and asks everybody anew. So what
//! fills a queue is what was committed to it, which leaves in its time, never callers that wait for each
//! other, in whatever order they ask.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Refusal;

/// The room of one bounded stage.
#[derive(Debug)]
pub struct Room {
    capacity: usize,
    used: AtomicUsize,
    freed: tokio::sync::Notify,
    /// Somebody has found too little, and nothing has been given back since.
    is_short: AtomicBool,
}

impl Room {
    /// A room for `capacity` units (requests, items or bytes: the owner decides).
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        let (used, freed) = (AtomicUsize::new(0), tokio::sync::Notify::new());
        Arc::new(Self { capacity, used, freed, is_short: AtomicBool::new(false) })
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

    /// Sets `units` aside, waiting until there is room: for those who hold no other. Never returns if
    /// `units` exceed the capacity: check first.
    pub async fn reserve(self: &Arc<Self>, units: usize) -> Permit {
        loop {
            self.wait_for(units, || ()).await;
            if let Some(permit) = self.try_reserve(units) {
                return permit;
            }
        }
    }

    /// Waits until there is room for `units`, which others may take before the caller does. Never
    /// returns if `units` exceed the capacity: check first. `on_short` is called when there is too
    /// little, before waiting, and can do something about it; whoever brings something later, and finds that
    /// the room [is short](Self::is_short), has to do the same.
    pub async fn wait_for(&self, units: usize, on_short: impl Fn()) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.used().checked_add(units).is_some_and(|sum| sum <= self.capacity) {
                return;
            }
            // Whoever gives room back says so before waking us. While it stays so, the first to find out has done what
            // can be done, and whoever comes does it for what is new.
            if !self.is_short.swap(true, Ordering::AcqRel) {
                on_short();
            }
            freed.await;
        }
    }

    /// Does somebody wait for room that is not there?
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Acquire)
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
            self.room.is_short.store(false, Ordering::Release);
            self.room.freed.notify_waiters();
        }
    }
}

/// Why a stage has set no room aside.
pub enum NoRoom {
    /// The batch is refused.
    Refused(Refusal),
    /// There is none now, and whoever brings the batch is to wait (`block_on_overflow`): until this is
    /// done, as long as it wants to. Then it asks everybody anew, since others may have been faster.
    Full(Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>),
}

impl NoRoom {
    /// Waits until asking anew makes sense. The caller has given back what room it had by then.
    ///
    /// # Errors
    /// The refusal, also if whoever brings the batch does not wait any longer.
    pub async fn wait(self) -> Result<(), Refusal> {
        match self {
            Self::Refused(refusal) => Err(refusal),
            Self::Full(freed) => freed.await,
        }
    }
}

impl From<Refusal> for NoRoom {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl std::fmt::Debug for NoRoom {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => formatter.debug_tuple("Refused").field(refusal).finish(),
            Self::Full(_) => formatter.write_str("Full"),
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

    /// How many units of `room` are among them: whoever waits for more of it, and gives these back, waits for
    /// these, too.
    #[must_use]
    pub fn units_of(&self, room: &Arc<Room>) -> usize {
        let Some(permits) = &self.0 else { return 0 };
        permits.lock().iter().filter(|permit| Arc::ptr_eq(&permit.room, room)).map(Permit::units).sum()
    }

    /// Takes out the permit of `room`, if there is one.
    #[must_use]
    pub fn take(&mut self, room: &Arc<Room>) -> Option<Permit> {
        let mut permits = self.0.as_ref()?.lock();
        let index = permits.iter().position(|permit| Arc::ptr_eq(&permit.room, room))?;
        Some(permits.swap_remove(index))
    }
}
