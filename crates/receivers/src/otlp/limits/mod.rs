//! What each client, tenant or subject may send: rates and bytes in flight.

mod config;
mod table;

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue};
use nyquist_core::batch::Code;
use nyquist_core::net::admission::{Admission, Admitted, footprint};
use nyquist_core::net::body::{MinRate, Room};
use nyquist_core::net::server::network;
use nyquist_core::telemetry::{Counter, Telemetry, UpDown};
use tokio::time::Instant;

use super::REQUEST_OVERHEAD;
use super::client::Client;
use super::intake::{MIN_RETRY, Rejection};
pub use config::ClientLimit;
use config::Per;
use table::{Bounds, Full, Key, Rate, Table};

/// The limits that a request passes to come in: room in the process, and what its client may still send.
pub(crate) struct Limits {
    admission: Arc<Admission>,
    hasher: RandomState,
    min_rate: Option<MinRate>,
    limits: Vec<Arc<Limit>>,
}

/// One of `client_limits`, with its clients.
struct Limit {
    name: String,
    per: Per,
    hasher: RandomState,
    table: Table,
    /// Requests refused, by what they had too much of: requests, bytes, items, bytes in flight.
    refused: [Counter; 4],
    clients: UpDown,
}

impl Limits {
    /// `limits` for the receiver `id`, behind `admission`, to bodies that come at `min_rate`.
    pub(crate) fn new(
        id: &str,
        admission: &Arc<Admission>,
        min_rate: Option<MinRate>,
        limits: &[ClientLimit],
        telemetry: &Telemetry,
    ) -> Arc<Self> {
        let limits = limits.iter().filter_map(|limit| Some(Arc::new(Limit::new(id, limit, telemetry)?))).collect();
        Arc::new(Self { admission: Arc::clone(admission), hasher: RandomState::new(), min_rate, limits })
    }

    /// Makes room for a request from `address` with these `headers`, before anything is asked about it: who waits
    /// for the answer holds them.
    pub(crate) fn make_room(&self, address: Option<IpAddr>, headers: &HeaderMap) -> Result<Admitted, Rejection> {
        let sender = self.hasher.hash_one(address.map(network));
        let admitted = self.admission.admit_for(sender, REQUEST_OVERHEAD + footprint(headers));
        Ok(admitted.ok_or_else(Rejection::no_room)?.kept_beside())
    }

    /// Lets the request in for which there is room, before its body is read.
    pub(crate) fn enter(&self, room: Admitted, client: &Client, headers: &HeaderMap) -> Result<Pass, Rejection> {
        let (now, head) = (Instant::now(), room.bytes());
        let mut holds: Vec<Hold> = Vec::with_capacity(self.limits.len());
        for limit in &self.limits {
            let entered = Limit::enter(limit, client, headers, head, now);
            // What one of them refuses is no request to the others.
            holds.push(entered.inspect_err(|_| holds.iter().for_each(Hold::refund))?);
        }
        Ok(Pass { holds, admitted: room, min_rate: self.min_rate, refusal: None })
    }
}

impl Limit {
    fn new(id: &str, config: &ClientLimit, telemetry: &Telemetry) -> Option<Self> {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let bytes_per_second = config.bytes_per_second.map(|bytes| bytes.0 as f64);
        let bounds = Bounds {
            rates: [config.requests_per_second, bytes_per_second, config.items_per_second],
            burst: config.burst.0,
            held: config.max_in_flight.map(|bytes| size(bytes.0)),
            clients: config.max_clients,
        };
        let refused = ["requests_per_second", "bytes_per_second", "items_per_second", "max_in_flight"].map(|limit| {
            let labels = [("receiver", id), ("per", config.per.as_str()), ("limit", limit)];
            telemetry.counter("nyquist_receiver_limited_requests", "Requests refused by client_limits.", &labels)
        });
        let labels = [("receiver", id), ("per", config.per.as_str())];
        let help = "Clients that client_limits tell apart now.";
        let clients = telemetry.gauge("nyquist_receiver_limited_clients", help, &labels);
        let (name, hasher) = (config.per.clone(), RandomState::new());
        Some(Self { name, per: config.per()?, hasher, table: Table::new(bounds), refused, clients })
    }

    fn enter(
        limit: &Arc<Self>,
        client: &Client,
        headers: &HeaderMap,
        head: usize,
        now: Instant,
    ) -> Result<Hold, Rejection> {
        let key = limit.key(client, headers);
        let entered = limit.table.enter(key, head, now);
        limit.clients.set(limit.table.len() as i64);
        let key = entered.map_err(|full| limit.refuse(full))?;
        Ok(Hold { limit: Arc::clone(limit), key, head, bytes: head, is_charged: false })
    }

    fn key(&self, client: &Client, headers: &HeaderMap) -> Key {
        match &self.per {
            Per::Address => self.hasher.hash_one(client.address.map(network)),
            Per::Header(name) => self.hasher.hash_one(headers.get(name).map(HeaderValue::as_bytes)),
            Per::Auth(attribute) => self.hasher.hash_one(client.identity.get(attribute)),
        }
    }

    fn refuse(&self, full: Full) -> Rejection {
        let (index, limit, wait) = match full {
            Full::Rate(Rate::Requests, wait) => (0, "requests_per_second", wait),
            Full::Rate(Rate::Bytes, wait) => (1, "bytes_per_second", wait),
            Full::Rate(Rate::Items, wait) => (2, "items_per_second", wait),
            Full::Held => (3, "max_in_flight", MIN_RETRY),
        };
        self.refused[index].inc();
        let message = format!("more than {limit} of client_limits allows per {}: slow down and try again", self.name);
        Rejection::retry_after(Code::ResourceExhausted, message, wait.clamp(MIN_RETRY, MAX_RETRY))
    }
}

/// The most that a client is asked to wait, however much it has overdrawn.
const MAX_RETRY: Duration = Duration::from_secs(5 * 60);

/// A request that was let in; what it holds is given back on drop.
pub(crate) struct Pass {
    admitted: Admitted,
    holds: Vec<Hold>,
    min_rate: Option<MinRate>,
    /// Why it may not grow.
    refusal: Option<Rejection>,
}

impl Pass {
    /// What to answer if the request failed with `rejection`: it may be this pass that had no more room.
    pub(crate) fn explain(&mut self, rejection: Rejection) -> Rejection {
        self.refusal.take().unwrap_or(rejection)
    }

    /// The request came to so many bytes and items.
    pub(crate) fn charge(&mut self, bytes: usize, items: usize) {
        for hold in &mut self.holds {
            hold.is_charged = true;
            hold.limit.table.charge(hold.key, bytes, items);
        }
    }
}

impl From<Admitted> for Pass {
    /// For what comes from no client.
    fn from(admitted: Admitted) -> Self {
        Self { admitted, holds: Vec::new(), min_rate: None, refusal: None }
    }
}

impl Room for Pass {
    fn grow_to(&mut self, total: usize) -> bool {
        for hold in &mut self.holds {
            if !hold.grow_to(total) {
                self.refusal = Some(hold.limit.refuse(Full::Held));
                return false;
            }
        }
        self.admitted.grow_to(total)
    }

    fn min_rate(&self) -> Option<MinRate> {
        self.min_rate
    }
}

/// What a request holds of one limit.
struct Hold {
    limit: Arc<Limit>,
    key: Key,
    /// What it held before its body came, and holds now.
    head: usize,
    bytes: usize,
    /// Have its rates been charged?
    is_charged: bool,
}

impl Hold {
    /// The request does not come in after all.
    fn refund(&self) {
        self.limit.table.refund(self.key);
    }

    fn grow_to(&mut self, total: usize) -> bool {
        let more = total.saturating_add(self.head).saturating_sub(self.bytes);
        let is_room = more == 0 || self.limit.table.grow(self.key, more);
        if is_room {
            self.bytes += more;
        }
        is_room
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.is_charged {
            // What was read for nothing has been read.
            self.limit.table.charge(self.key, self.bytes - self.head, 0);
        }
        self.limit.table.leave(self.key, self.bytes);
    }
}
