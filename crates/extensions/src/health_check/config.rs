//! The keys of `health_check`.

use nyquist_core::config::{Check, Validate};
use serde::Deserialize;

/// The extension's section.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct HealthCheckConfig {
    /// Where to listen, `host:port`. Default `localhost:13133`.
    pub endpoint: String,
    /// The path that is answered. Default `/`.
    pub path: String,
    /// Bodies to answer with instead of the JSON document.
    pub response_body: Option<ResponseBody>,
    /// Accepted for old configurations; has had no effect in the Collector either.
    pub check_collector_pipeline: Option<CheckCollectorPipeline>,
}

/// `response_body`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ResponseBody {
    /// The body while the gateway is available.
    pub healthy: String,
    /// The body while it is not.
    pub unhealthy: String,
}

/// `check_collector_pipeline`: accepted, without effect.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct CheckCollectorPipeline {
    /// Ignored.
    pub enabled: bool,
    /// Ignored.
    pub interval: String,
    /// Ignored.
    pub exporter_failure_threshold: u64,
}

impl Default for HealthCheckConfig {
    fn default() -> Self {
        Self {
            endpoint: "localhost:13133".into(),
            path: "/".into(),
            response_body: None,
            check_collector_pipeline: None,
        }
    }
}

impl Validate for HealthCheckConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.endpoint.is_empty() {
            check.error(&["endpoint"], "must not be empty; the usual one is localhost:13133");
        }
        if !self.path.starts_with('/') {
            check.error(&["path"], "must start with /");
        }
        if self.check_collector_pipeline.is_some() {
            check.warning(&["check_collector_pipeline"], "has no effect, as in the Collector");
        }
    }
}
