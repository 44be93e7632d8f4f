//! The keys of the `debug` exporter.

use nyquist_core::config::{Check, Validate};
use nyquist_core::delivery::QueueConfig;
use serde::Deserialize;

/// How much is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verbosity {
    /// A line with counts for each request.
    #[default]
    Basic,
    /// A line for each span, data point and log record.
    Normal,
    /// Everything.
    Detailed,
}

/// What the `debug` exporter is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct DebugConfig {
    /// `basic`, `normal` or `detailed`. Default `basic`.
    pub verbosity: Verbosity,
    /// How many requests of each second are written for sure. Default 2.
    pub sampling_initial: u64,
    /// Of those that follow, each how-many-th is written; 0 for none. Default 1: all.
    pub sampling_thereafter: u64,
    /// Write to the gateway's own log. Default true.
    pub use_internal_logger: bool,
    /// Where to write otherwise: `stdout` or `stderr`. Default `stdout`.
    pub output_paths: Vec<String>,
    /// The queue. Default: off.
    pub sending_queue: QueueConfig,
}

impl Default for DebugConfig {
    fn default() -> Self {
        Self {
            verbosity: Verbosity::Basic,
            sampling_initial: 2,
            sampling_thereafter: 1,
            use_internal_logger: true,
            output_paths: vec!["stdout".to_owned()],
            sending_queue: QueueConfig::disabled(),
        }
    }
}

impl Validate for DebugConfig {
    fn validate(&self, check: &mut Check<'_>) {
        for path in self.output_paths.iter().filter(|path| *path != "stdout" && *path != "stderr") {
            check.error(&["output_paths"], format!("{path:?} is not supported yet; use stdout or stderr"));
        }
        check.nested(&["sending_queue"], &self.sending_queue);
    }
}
