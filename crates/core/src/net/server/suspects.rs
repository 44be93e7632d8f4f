//! Clients that broke the rules a moment ago.
//!
//! A connection that floods (rapid resets, blocks of headers without an end) or speaks no HTTP is ended at once; that costs
//! its client nothing, and it comes again. So the next connections from its network wait before their first byte is
//! read: somebody who attacks over one connection at a time gets ten a second, and over many at once a hundred.
//! Connections that are open already go on as they were.

use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Peer, network};

/// How long a connection of a suspect waits at the least,
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// after another one of the same suspect,
const STEP: Duration = Duration::from_millis(10);
/// and at the most: others may be behind the same address.
const LONGEST: Duration = Duration::from_secs(2);
/// How long a client is suspect.
const REMEMBERED: Duration = Duration::from_secs(10);
/// How many are remembered. When there are more, those who came last go unpunished.
const MOST: usize = 4096;

/// The suspects of a listener.
#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<HashMap<IpAddr, Suspect>>);

#[derive(Debug)]
struct Suspect {
    until: Instant,
    /// When the next connection may begin.
    next: Instant,
}

impl Suspects {
    /// A connection of `peer` broke the rules at `now`. Is that the first one for a while?
    pub(super) fn add(&self, peer: Option<Peer>, now: Instant) -> bool {
        let Some(peer) = peer else { return false };
        let mut suspects = self.0.lock();
        suspects.retain(|_, suspect| suspect.until > now);
        let (client, is_first) = (network(peer.0), suspects.is_empty());
        if suspects.len() < MOST || suspects.contains_key(&client) {
            suspects.entry(client).or_insert(Suspect { until: now, next: now }).until = now + REMEMBERED;
        }
        is_first
    }

    /// How long a connection that `peer` makes at `now` has to wait.
    pub(super) fn pause(&self, peer: Option<Peer>, now: Instant) -> Option<Duration> {
        let client = network(peer?.0);
        let mut suspects = self.0.lock();
        let suspect = suspects.get_mut(&client).filter(|suspect| suspect.until > now)?;
        let begin = suspect.next.clamp(now + PAUSE, now + LONGEST);
        suspect.next = begin + STEP;
        Some(begin - now)
    }
}

/// Did the connection end for what its client sent, rather than because it went away or was slow?
pub(super) fn is_foul(error: &hyper::Error) -> bool {
    let http2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_parse() || http2.is_some_and(|error| error.is_go_away() && error.is_library())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> Option<Peer> {
        Some(Peer(IpAddr::from(number.to_be_bytes())))
    }

    #[test]
    fn a_suspect_waits_for_ten_seconds_and_nobody_else_does() {
        let (suspects, begun) = (Suspects::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(suspects.pause(peer(1), begun), None);
        assert!(suspects.add(peer(1), begun), "the first one");
        assert!(!suspects.add(peer(2), after(5)), "one more");
        assert_eq!([1, 2, 3].map(|number| suspects.pause(peer(number), after(9))), [Some(PAUSE), Some(PAUSE), None]);
        assert_eq!([1, 2, 3].map(|number| suspects.pause(peer(number), after(11))), [None, Some(PAUSE), None]);
        assert_eq!(suspects.pause(peer(2), after(16)), None);
        assert!(suspects.add(peer(1), after(17)), "the first one again");
        assert!(!suspects.add(None, begun) && suspects.pause(None, begun).is_none(), "nobody has no address");
    }

    #[test]
    fn many_connections_of_a_suspect_wait_for_each_other() {
        let (suspects, now) = (Suspects::default(), Instant::now());
        suspects.add(peer(1), now);
        let waits: Vec<_> = (0..300).map_while(|_| suspects.pause(peer(1), now)).collect();
        assert_eq!(waits[..3], [PAUSE, PAUSE + STEP, PAUSE + 2 * STEP]);
        assert_eq!(waits[200..], [LONGEST; 100]);
        assert_eq!(suspects.pause(peer(1), now + REMEMBERED / 2), Some(PAUSE), "they are through");
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (suspects, now) = (Suspects::default(), Instant::now());
        for number in 0..2 * MOST as u32 {
            suspects.add(peer(number), now);
        }
        assert_eq!(suspects.0.lock().len(), MOST);
        assert_eq!(suspects.pause(peer(0), now), Some(PAUSE));
    }
}
