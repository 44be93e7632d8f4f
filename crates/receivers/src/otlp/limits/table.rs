//! What each client may still send: token buckets and bytes in flight, for a bounded number of clients.
//!
//! A request is let in while its client may send one more and has not overdrawn its bytes and items. For these
//! it is charged once it is read: its size is not known before, and one that is larger than a burst must pass
//! at some time. So the average holds, and what was let in before it was charged is all that is overdrawn.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What is counted by the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rate {
    Requests,
    Bytes,
    Items,
}

/// All of them, in the order of [`Bounds::rates`].
pub(super) const RATES: [Rate; 3] = [Rate::Requests, Rate::Bytes, Rate::Items];

/// What one client may send.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// Requests, bytes and items a second.
    pub(super) rates: [Option<f64>; 3],
    /// How long it may save up.
    pub(super) burst: Duration,
    /// Bytes in flight.
    pub(super) held: Option<usize>,
    /// Clients that are told apart.
    pub(super) clients: usize,
}

/// Why a request has to wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Full {
    /// A rate is overdrawn for so long.
    Rate(Rate, Duration),
    /// Too many bytes in flight.
    Held,
}

/// The name of a client here: a hash that outsiders cannot foresee.
pub(super) type Key = u64;

/// All clients for which there is no room.
const OTHERS: Key = 0;

/// How often clients are looked through for some that can be forgotten.
const SWEEP: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Table {
    bounds: Bounds,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    known: HashMap<Key, Client>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    /// What is left of each rate; below zero, it is overdrawn.
    left: [f64; 3],
    /// When `left` was right.
    at: Instant,
    held: usize,
}

impl Table {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, clients: Mutex::default() }
    }

    /// Lets a request of `key` in that begins with `bytes`. The answer is the key to name from now on.
    pub(super) fn enter(&self, key: Key, bytes: usize, now: Instant) -> Result<Key, Full> {
        let mut clients = self.clients.lock();
        let key = clients.place(key.max(OTHERS + 1), &self.bounds, now);
        let client = clients.known.entry(key).or_insert_with(|| Client::new(&self.bounds, now));
        client.refill(&self.bounds, now);
        if let Some(full) = client.overdrawn(&self.bounds) {
            return Err(full);
        }
        if !client.grow(bytes, &self.bounds) {
            return Err(Full::Held);
        }
        client.charge(Rate::Requests, 1);
        Ok(key)
    }

    /// A request of `key` that was let in here was refused elsewhere, before anything of it was read.
    pub(super) fn refund(&self, key: Key) {
        if let Some(client) = self.clients.lock().known.get_mut(&key) {
            client.left[Rate::Requests as usize] += 1.0;
        }
    }

    /// A request of `key` has become larger by `more` bytes; `false` if there is no room for them.
    pub(super) fn grow(&self, key: Key, more: usize) -> bool {
        let mut clients = self.clients.lock();
        let Some(client) = clients.known.get_mut(&key) else { return true };
        client.grow(more, &self.bounds)
    }

    /// A request of `key` came to so many bytes and items.
    pub(super) fn charge(&self, key: Key, bytes: usize, items: usize) {
        if let Some(client) = self.clients.lock().known.get_mut(&key) {
            client.charge(Rate::Bytes, bytes);
            client.charge(Rate::Items, items);
        }
    }

    /// A request of `key` that held `bytes` is done.
    pub(super) fn leave(&self, key: Key, bytes: usize) {
        if let Some(client) = self.clients.lock().known.get_mut(&key) {
            client.held = client.held.saturating_sub(bytes);
        }
    }

    /// How many clients are told apart now.
    pub(super) fn len(&self) -> usize {
        self.clients.lock().known.len()
    }
}

impl Clients {
    /// Under which name `key` is kept: its own, if there is room for it.
    fn place(&mut self, key: Key, bounds: &Bounds, now: Instant) -> Key {
        if self.known.contains_key(&key) || self.known.len() < bounds.clients {
            return key;
        }
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP) {
            self.swept = Some(now);
            self.known.retain(|_, client| {
                client.refill(bounds, now);
                !client.is_forgettable(bounds)
            });
        }
        if self.known.len() < bounds.clients { key } else { OTHERS }
    }
}

impl Client {
    fn new(bounds: &Bounds, now: Instant) -> Self {
        Self { left: bounds.capacities(), at: now, held: 0 }
    }

    fn refill(&mut self, bounds: &Bounds, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        for ((left, rate), capacity) in self.left.iter_mut().zip(bounds.rates).zip(bounds.capacities()) {
            *left = (*left + rate.unwrap_or_default() * passed).min(capacity);
        }
    }

    /// The rate that is overdrawn the longest.
    fn overdrawn(&self, bounds: &Bounds) -> Option<Full> {
        let waits = RATES.into_iter().zip(self.left).zip(bounds.rates).filter_map(|((rate, left), per_second)| {
            let (needed, is_short) = match rate {
                Rate::Requests => (1.0, left < 1.0),
                Rate::Bytes | Rate::Items => (0.0, left <= 0.0),
            };
            let seconds = (needed - left) / per_second?;
            is_short.then(|| (rate, Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
        });
        waits.max_by_key(|(_, wait)| *wait).map(|(rate, wait)| Full::Rate(rate, wait))
    }

    fn charge(&mut self, rate: Rate, amount: usize) {
        self.left[rate as usize] -= amount as f64;
    }

    /// A request that is alone passes whatever its size.
    fn grow(&mut self, more: usize, bounds: &Bounds) -> bool {
        let total = self.held.saturating_add(more);
        let is_room = bounds.held.is_none_or(|most| total <= most || self.held == 0);
        if is_room {
            self.held = total;
        }
        is_room
    }

    /// Would it be as new if it came again?
    fn is_forgettable(&self, bounds: &Bounds) -> bool {
        let is_full = |((left, capacity), rate): ((f64, f64), Option<f64>)| rate.is_none() || left >= capacity;
        self.held == 0 && self.left.into_iter().zip(bounds.capacities()).zip(bounds.rates).all(is_full)
    }
}

impl Bounds {
    /// What a client can save up of each rate: at least one request or item.
    fn capacities(&self) -> [f64; 3] {
        self.rates.map(|rate| rate.map_or(f64::MAX, |rate| (rate * self.burst.as_secs_f64()).max(1.0)))
    }
}
