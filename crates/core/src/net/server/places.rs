//! The connections of a listener, counted: at each worker, and from each address.
//!
//! No address can fill the listener. The last sixteenth of the places is for addresses that have few, less than a
//! 256th of all: a proxy behind which all clients are gets fifteen sixteenths, and somebody who wants to shut the others
//! out needs seventeen addresses, not one. Fewer than sixteen places are not shared out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Peer, network};

/// The part of the places that is for those who have few.
const RESERVE: usize = 16;
/// The part of the places that is no longer few.
const FEW: usize = 256;

/// The places of a listener.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    at_worker: Vec<usize>,
    of_client: HashMap<IpAddr, usize>,
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("all {0} connections are in use (max_connections)")]
    All(usize),
    #[error("{client} has {held} connections; the last {reserve} of max_connections are for clients that have few")]
    Share { client: IpAddr, held: usize, reserve: usize },
}

/// A place; free again on drop.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    worker: u32,
    peer: Option<Peer>,
}

impl Places {
    /// Of a listener with `workers` workers and at most `most` connections.
    pub(super) fn new(workers: usize, most: usize) -> Arc<Self> {
        let taken = Taken { at_worker: vec![0; workers], of_client: HashMap::new() };
        Arc::new(Self { most, taken: taken.into() })
    }

    /// A place for `peer` at the worker with the fewest connections. A Unix socket has no addresses: what comes
    /// over it is bounded as a whole.
    pub(super) fn take(self: &Arc<Self>, peer: Option<Peer>) -> Result<Place, Full> {
        let client = peer.map(|peer| network(peer.0));
        let mut taken = self.taken.lock();
        let free = self.most.saturating_sub(taken.at_worker.iter().sum());
        if free == 0 {
            return Err(Full::All(self.most));
        }
        if let Some(client) = client {
            let held = taken.of_client.entry(client).or_default();
            let (reserve, few) = (self.most / RESERVE, (self.most / FEW).max(1));
            if free <= reserve && *held >= few {
                return Err(Full::Share { client, held: *held, reserve });
            }
            *held += 1;
        }
        let least = taken.at_worker.iter_mut().enumerate().min_by_key(|(_, open)| **open);
        let worker = least.map_or(0, |(worker, open)| {
            *open += 1;
            worker as u32
        });
        Ok(Place { places: Arc::clone(self), worker, peer })
    }
}

impl Place {
    /// The worker that serves the connection.
    pub(super) fn worker(&self) -> usize {
        self.worker as usize
    }

    /// Who has it.
    pub(super) fn peer(&self) -> Option<Peer> {
        self.peer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        if let Some(open) = taken.at_worker.get_mut(self.worker()) {
            *open -= 1;
        }
        if let Some(Entry::Occupied(mut held)) = self.peer.map(|peer| taken.of_client.entry(network(peer.0))) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Option<Peer> {
        Some(Peer(text.parse().expect("an address")))
    }

    /// All that `peer` gets.
    fn greedy(places: &Arc<Places>, peer: Option<Peer>) -> Vec<Place> {
        std::iter::from_fn(|| places.take(peer).ok()).collect()
    }

    #[test]
    fn no_address_fills_a_listener() {
        let places = Places::new(2, 320);
        let first = greedy(&places, peer("10.0.0.1"));
        assert_eq!(first.len(), 300, "fifteen sixteenths");
        let refusal = places.take(peer("10.0.0.1")).expect_err("it has its share");
        assert_eq!(
            refusal.to_string(),
            "10.0.0.1 has 300 connections; the last 20 of max_connections are for clients that have few"
        );
        let others: Vec<_> = (2..=9).flat_map(|last| places.take(peer(&format!("10.0.0.{last}")))).collect();
        assert_eq!(others.len(), 8, "the others come in");
        drop((first, others));
        let taken = places.taken.lock();
        assert_eq!((&taken.at_worker[..], taken.of_client.len()), (&[0, 0][..], 0), "who has left is forgotten");
    }

    #[test]
    fn sixteen_greedy_ones_leave_room() {
        let places = Places::new(1, 8192);
        let held: Vec<_> = (1..=16).flat_map(|last| greedy(&places, peer(&format!("10.0.0.{last}")))).collect();
        assert_eq!(held.len(), 7680 + 15 * 32);
        assert_eq!(greedy(&places, peer("10.0.1.1")).len(), 32);
    }

    #[test]
    fn small_listeners_and_unix_sockets_can_be_filled() {
        for most in 1..16 {
            assert_eq!(greedy(&Places::new(1, most), peer("10.0.0.1")).len(), most);
        }
        let places = Places::new(1, 100);
        let held = greedy(&places, None);
        assert_eq!((held.len(), places.take(None).err()), (100, Some(Full::All(100))));
    }

    #[test]
    fn the_addresses_of_one_host_are_one() {
        let network = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:f::2"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
    }
}
