//! What every exporter shares: queue, batching, retry, timeout.

use serde::Deserialize;

use crate::config::Duration;

/// How queued requests are merged before they are sent (`sending_queue.batch`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct BatchConfig {
    /// Send at the latest after this time.
    pub flush_timeout: Duration,
    /// Send as soon as this much is waiting, in units of `sizer`.
    pub min_size: usize,
    /// Never send more than this at once; 0 for no bound.
    pub max_size: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { flush_timeout: Duration::from_millis(200), min_size: 8192, max_size: 0 }
    }
}
