//! The keys of `delta_to_cumulative`.

use nyquist_core::config::{Check, Duration, Validate};
use serde::Deserialize;

/// Configuration of the `delta_to_cumulative` processor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeltaToCumulativeConfig {
    /// After how long without a point a stream is given up; it begins anew then. Default 5m.
    pub max_stale: Duration,
    /// How many streams are tracked at the most; points of further ones are dropped. 0 is any number.
    /// Default 1,000,000.
    pub max_streams: usize,
    /// What all streams may take, in MiB. Default 256.
    pub memory_limit_mib: usize,
}

impl Default for DeltaToCumulativeConfig {
    fn default() -> Self {
        Self { max_stale: Duration::from_secs(300), max_streams: 1_000_000, memory_limit_mib: 256 }
    }
}

impl DeltaToCumulativeConfig {
    pub(super) fn max_streams(&self) -> usize {
        if self.max_streams == 0 { usize::MAX } else { self.max_streams }
    }
}

impl Validate for DeltaToCumulativeConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.max_stale.0.is_zero() {
            check.error(&["max_stale"], "max_stale must be a positive duration: 5m is usual");
        }
        if self.memory_limit_mib == 0 {
            check.error(&["memory_limit_mib"], "must be greater than zero: a million counters take about 120");
        }
    }
}
