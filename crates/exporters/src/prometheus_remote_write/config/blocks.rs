//! Blocks of the configuration.

use nyquist_core::config::Duration;
use serde::Deserialize;

/// `target_info`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TargetInfoConfig {
    /// Default true.
    pub enabled: bool,
    /// Unchanged ones are sent again after this time. Default 1m.
    pub interval: Duration,
    /// Patterns with `*` and `?` of the resource attributes that become labels. Default: all.
    pub labels: Vec<String>,
}

/// `remote_write_queue`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RemoteWriteQueue {
    /// Without a queue the sender waits for the backend's answer. Default true.
    pub enabled: bool,
    /// How many OTLP requests the queue holds. Default 10000.
    pub queue_size: usize,
    /// Requests on their way at once. Default 5.
    pub num_consumers: usize,
}

/// `retry_on_failure`, with defaults of its own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct RemoteWriteRetry {
    /// Default true.
    pub enabled: bool,
    /// The first wait, before jitter. Default 50ms.
    pub initial_interval: Duration,
    /// Waits are drawn from base * (1 - this) to base * (1 + this). Default 0.1.
    pub randomization_factor: f64,
    /// What the base grows by from wait to wait. Default 2.
    pub multiplier: f64,
    /// What the base grows to. Default 5s.
    pub max_interval: Duration,
    /// Give up after this time: the last attempt is made so long after the first one; 0 for never.
    /// Default: 5m, or never where the queue is on disk.
    pub max_elapsed_time: Option<Duration>,
}

/// `drop_out_of_order`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DropOutOfOrder {
    /// Default false: the backend decides, which may take samples out of order.
    pub enabled: bool,
    /// How many series are remembered, with 16 to 40 bytes each; further ones are sent. Default
    /// 1000000.
    pub max_series: usize,
}

impl Default for TargetInfoConfig {
    fn default() -> Self {
        Self { enabled: true, interval: Duration::from_secs(60), labels: Vec::new() }
    }
}

impl Default for RemoteWriteQueue {
    fn default() -> Self {
        Self { enabled: true, queue_size: 10_000, num_consumers: 5 }
    }
}

impl Default for RemoteWriteRetry {
    fn default() -> Self {
        Self {
            enabled: true,
            initial_interval: Duration::from_millis(50),
            randomization_factor: 0.1,
            multiplier: 2.0,
            max_interval: Duration::from_secs(5),
            max_elapsed_time: None,
        }
    }
}

impl Default for DropOutOfOrder {
    fn default() -> Self {
        Self { enabled: false, max_series: 1_000_000 }
    }
}
