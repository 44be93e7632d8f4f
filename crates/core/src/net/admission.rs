//! Admission: how many bytes of requests may be in the process at once.
//!
//! A receiver asks before it reads a body, so that overload is refused at the price of a header,
//! and holds the answer until the pipeline has taken the batch. The sum of all permits is the
//! bound on what requests in flight can hold, whatever clients do.
//!
//! Nobody can take it all: what one client holds may grow to [`SHARE`] times what is free then, and
//! no further (the dynamic thresholds of Choudhury and Hahne, "Dynamic queue length thresholds for
//! shared-memory packet switches", 1998). A client that is alone gets two thirds, each of seven a
//! bit more than an eighth, and a fifteenth is left for the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hashbrown::hash_map::Entry;
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::ByteSize;
use crate::table::{Table, put};

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

/// How much a client may hold of what is free.
pub const SHARE: usize = 2;

/// The name of a client here: a hash that outsiders cannot foresee.
pub type ClientKey = u64;

/// Bytes of memory that `headers` take: what is sent again over HTTP/2 comes as one byte, and is here as a whole.
#[must_use]
pub fn footprint(headers: &HeaderMap) -> usize {
    /// The map's own places for one of them.
    const ENTRY: usize = 128;
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ENTRY).sum()
}

/// A bound on the bytes in flight.
#[derive(Debug)]
pub struct Admission {
    limit: usize,
    used: AtomicUsize,
    /// What each client holds, if it is anything.
    held: Mutex<Table<usize>>,
    idle: Notify,
}

/// `max_in_flight` of a receiver that says nothing about it, in bytes for each core.
const PER_CORE: usize = 64 << 20;

impl Admission {
    /// Admits what `max_in_flight` of a receiver says; by default 64 MiB for each core.
    #[must_use]
    pub fn of_receiver(max_in_flight: Option<ByteSize>) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let told = max_in_flight.map(|bytes| usize::try_from(bytes.0).unwrap_or(usize::MAX));
        Self::new(told.unwrap_or(PER_CORE.saturating_mul(cores)))
    }

    /// Admits up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), held: Mutex::default(), idle: Notify::new() })
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
        self.add(bytes).then(|| Admitted { admission: Arc::clone(self), bytes, beside: 0, client: None })
    }

    /// Admits `bytes` of `client`, or `None` if there is no room for them, or `client` holds its
    /// share already.
    #[must_use]
    pub fn admit_for(self: &Arc<Self>, client: ClientKey, bytes: usize) -> Option<Admitted> {
        let is_lent = self.lend(client, bytes, 0);
        is_lent.then(|| Admitted { admission: Arc::clone(self), bytes, beside: 0, client: Some(client) })
    }

    /// Adds `more` bytes to what `client` holds, to a request of `bytes`.
    fn lend(&self, client: ClientKey, more: usize, bytes: usize) -> bool {
        let mut held = self.held.lock();
        let used = self.used();
        let is_alone = used == bytes;
        let total = held.get(&client).map_or(more, |bytes| bytes.saturating_add(more));
        let free = self.limit.saturating_sub(used.saturating_add(more));
        let is_lent = if is_alone {
            self.used.fetch_add(more, Ordering::AcqRel);
            true
        } else {
            total <= free.saturating_mul(SHARE) && self.add(more)
        };
        if is_lent {
            put(&mut held, client, total);
        }
        is_lent
    }

    /// Takes back `bytes` of what `client` holds.
    fn take_back(&self, client: ClientKey, bytes: usize) {
        if let Entry::Occupied(mut entry) = self.held.lock().entry(client) {
            *entry.get_mut() = entry.get().saturating_sub(bytes);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
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
    /// What totals do not include.
    beside: usize,
    client: Option<ClientKey>,
}

impl Admitted {
    /// How many bytes it stands for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it stands for now stays beside what it grows to.
    #[must_use]
    pub fn kept_beside(mut self) -> Self {
        self.beside = self.bytes;
        self
    }

    /// Makes it stand for `total` bytes (and what is kept beside them); `false`, and no change, if there is no room.
    #[must_use]
    pub fn grow_to(&mut self, total: usize) -> bool {
        let more = total.saturating_add(self.beside).saturating_sub(self.bytes);
        let is_lent = match self.client {
            _ if more == 0 => true,
            Some(client) => self.admission.lend(client, more, self.bytes),
            None if self.admission.used() == self.bytes => {
                self.admission.used.fetch_add(more, Ordering::AcqRel);
                true
            }
            None => self.admission.add(more),
        };
        if is_lent {
            self.bytes += more;
        }
        is_lent
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            self.admission.take_back(client, self.bytes);
        }
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

    /// Seven clients take whatever they get, a kilobyte at a time; an eighth one that comes then still gets in.
    #[test]
    fn nobody_can_take_it_all() {
        let admission = Admission::new(150_000);
        let first = admission.admit_for(1, 1000).expect("nothing else is in flight");
        let mut more: Vec<_> = std::iter::from_fn(|| admission.admit_for(1, 1000)).collect();
        let alone = first.bytes() + 1000 * more.len();
        assert_eq!(alone, 100_000, "alone it gets two thirds");
        assert!(admission.admit_for(2, 30_000).is_some(), "the second finds room at once");
        more.truncate(1);
        loop {
            let round: Vec<_> = (1..=7).filter_map(|client| admission.admit_for(client, 1000)).collect();
            if round.is_empty() {
                break;
            }
            more.extend(round);
        }
        let free = admission.limit() - admission.used();
        assert!((9_000..=11_000).contains(&free), "a fifteenth is left: {free}");
        assert!(admission.admit_for(8, free / 2).is_some());
        drop((first, more));
        assert_eq!((admission.used(), admission.held.lock().len()), (0, 0), "clients that hold nothing are forgotten");
    }

    #[test]
    fn a_share_holds_for_what_grows_too() {
        let admission = Admission::new(90);
        let other = admission.admit_for(2, 1).expect("there is room");
        let mut greedy = admission.admit_for(1, 10).expect("there is room");
        assert!(!greedy.grow_to(80) && greedy.grow_to(59) && !greedy.grow_to(61));
        drop(other);
        assert!(greedy.grow_to(500), "alone it passes whatever its size");
        drop(greedy);
        assert_eq!(admission.used(), 0);
    }

    #[test]
    fn what_is_kept_beside_is_not_part_of_a_total() {
        let admission = Admission::new(100);
        let mut request = admission.admit_for(1, 20).expect("there is room").kept_beside();
        let _other = admission.admit(10).expect("there is room");
        assert!(request.grow_to(15));
        assert_eq!((request.bytes(), admission.used()), (35, 45));
        assert!(!request.grow_to(71));
        drop(request);
        assert_eq!(admission.used(), 10);
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
