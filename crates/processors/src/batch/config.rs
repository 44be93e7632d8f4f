//! The keys of `batch`, as the Collector has them.

use std::collections::HashSet;

use nyquist_core::config::{Check, Duration, Validate};
use serde::Deserialize;

/// Configuration of the `batch` processor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct BatchConfig {
    /// Send at the latest after this time. Default 200ms; 0 sends at once.
    pub timeout: Duration,
    /// Send as soon as this many items wait. Default 8192; 0 sends at once.
    pub send_batch_size: usize,
    /// Never send more items than this at once. Default 0: no bound.
    pub send_batch_max_size: usize,
    /// Only requests whose clients sent the same values of these headers are merged.
    pub metadata_keys: Vec<String>,
    /// Accepted for compatibility: see the README. Default 1000.
    pub metadata_cardinality_limit: u32,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(200),
            send_batch_size: 8192,
            send_batch_max_size: 0,
            metadata_keys: Vec::new(),
            metadata_cardinality_limit: 1000,
        }
    }
}

impl Validate for BatchConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.send_batch_max_size > 0 && self.send_batch_max_size < self.send_batch_size {
            let message = format!(
                "send_batch_max_size must be greater or equal to send_batch_size: {} is smaller than {}; raise \
                 send_batch_max_size, lower send_batch_size, or set send_batch_max_size to 0 for no bound",
                self.send_batch_max_size, self.send_batch_size
            );
            check.error(&["send_batch_max_size"], message);
        }
        let mut seen = HashSet::new();
        for key in &self.metadata_keys {
            if !seen.insert(key.to_lowercase()) {
                let message = format!("duplicate entry in metadata_keys: {key:?} (case-insensitive)");
                check.error(&["metadata_keys"], message);
            }
        }
    }
}
