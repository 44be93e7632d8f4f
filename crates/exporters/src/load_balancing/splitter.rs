//! Routing and slicing as the exporter does it, without backends: for measurements.

use bytes::Bytes;
use nyquist_core::batch::Signal;
use nyquist_core::wire::Owned;
use std::time::Duration;

use super::LoadBalancingConfig;
use super::keys::Routing;
use super::pins::Pins;
use super::ring::Ring;

/// Says which of a fixed list of endpoints gets what.
#[doc(hidden)]
pub struct Splitter {
    routing: Routing,
    ring: Ring,
    pins: Option<Pins>,
    signal: Signal,
}

impl Splitter {
    /// As `config` says, for `endpoints`.
    ///
    /// # Errors
    /// If the signal has no such routing.
    pub fn new(config: &LoadBalancingConfig, signal: Signal, endpoints: &[&str]) -> Result<Self, String> {
        let routing = Routing::new(config.routing_key.as_deref(), &config.routing_attributes, signal)?;
        let pins = (!config.overlap.0.is_zero()).then(|| Pins::new(config.overlap.0));
        Ok(Self { routing, ring: Ring::new(endpoints), pins, signal })
    }

    /// What each endpoint, by its index, gets of `request` at `now`; `edge_ids` as of a batch.
    #[must_use]
    pub fn split(&self, request: &Bytes, edge_ids: bool, now: Duration) -> Vec<Owned> {
        match &self.pins {
            None => self.routing.split(self.signal, request, edge_ids, |key| self.ring.owner(key)),
            Some(pins) => self.routing.split(self.signal, request, edge_ids, |key| {
                pins.owner(now, key, self.ring.owner(key) as u64, |_| true) as usize
            }),
        }
    }
}
