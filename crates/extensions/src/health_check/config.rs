//! The keys of `health_check`, and of what the Collector calls `healthcheckv2`.

use std::time::Duration as StdDuration;

use nyquist_core::component::{Condition, Priority, State};
use nyquist_core::config::{Check, Duration, Enabled, Validate};
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
    /// `http` and `grpc` decide where to listen, and `endpoint` and `path` do not. Default false.
    pub use_v2: bool,
    /// The HTTP service of version 2.
    pub http: Enabled<HttpConfig>,
    /// The gRPC service of version 2.
    pub grpc: Enabled<GrpcConfig>,
    /// Which errors of components make the gateway unhealthy.
    pub component_health: ComponentHealth,
}

/// `http`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpConfig {
    /// Where to listen, `host:port`. Default `localhost:13133`.
    pub endpoint: String,
    /// Where the state of the gateway is. Default: on, at `/status`.
    pub status: PathConfig,
    /// Where the Collector shows its configuration, which is not done here. Default: off.
    pub config: ConfigPath,
}

/// `http.status`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct PathConfig {
    /// Whether it is there.
    pub enabled: bool,
    /// The path.
    pub path: String,
}

/// `http.config`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ConfigPath {
    /// Whether it is asked for.
    pub enabled: bool,
    /// The path.
    pub path: String,
}

/// `grpc`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct GrpcConfig {
    /// Where to listen, `host:port`. Default `localhost:13132`.
    pub endpoint: String,
    /// `tcp`.
    pub transport: String,
}

/// `component_health`: by default no error of a component makes the gateway unhealthy, since a restart
/// does not bring a backend back.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ComponentHealth {
    /// A permanent error does. Default false.
    pub include_permanent_errors: bool,
    /// A recoverable error does, once it has lasted for `recovery_duration`. Default false.
    pub include_recoverable_errors: bool,
    /// Default 1m.
    pub recovery_duration: Duration,
}

impl ComponentHealth {
    /// Whether what is in `state` at `now` (nanoseconds since 1970) is healthy.
    pub(super) fn is_healthy(&self, state: &State, now: u64) -> bool {
        match state.condition {
            Condition::PermanentError => !self.include_permanent_errors,
            Condition::RecoverableError if self.include_recoverable_errors => {
                StdDuration::from_nanos(now.saturating_sub(state.since)) < self.recovery_duration.0
            }
            Condition::FatalError => false,
            _ => true,
        }
    }

    /// Which of several errors is told: the kind that counts.
    pub(super) fn priority(&self) -> Priority {
        if self.include_recoverable_errors && !self.include_permanent_errors {
            Priority::Recoverable
        } else {
            Priority::Permanent
        }
    }
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
            use_v2: false,
            http: Enabled::Off,
            grpc: Enabled::Off,
            component_health: ComponentHealth::default(),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { endpoint: "localhost:13133".into(), status: PathConfig::default(), config: ConfigPath::default() }
    }
}

impl Default for PathConfig {
    fn default() -> Self {
        Self { enabled: true, path: "/status".into() }
    }
}

impl Default for ConfigPath {
    fn default() -> Self {
        Self { enabled: false, path: "/config".into() }
    }
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self { endpoint: "localhost:13132".into(), transport: "tcp".into() }
    }
}

impl Default for ComponentHealth {
    fn default() -> Self {
        Self {
            include_permanent_errors: false,
            include_recoverable_errors: false,
            recovery_duration: Duration::from_secs(60),
        }
    }
}

impl Validate for HealthCheckConfig {
    fn validate(&self, check: &mut Check<'_>) {
        let endpoint = |check: &mut Check<'_>, path: &[&str], value: &str, usual: &str| {
            if value.is_empty() {
                check.error(path, format!("must not be empty; the usual one is {usual}"));
            }
        };
        let path = |check: &mut Check<'_>, path: &[&str], value: &str| {
            if !value.starts_with('/') {
                check.error(path, "must start with /");
            }
        };
        if self.check_collector_pipeline.is_some() {
            let message = "has no effect, as in the Collector; component_health makes errors of exporters count";
            check.warning(&["check_collector_pipeline"], message);
        }
        if !self.use_v2 {
            endpoint(check, &["endpoint"], &self.endpoint, "localhost:13133");
            path(check, &["path"], &self.path);
            for (key, is_on) in [("http", self.http.is_on()), ("grpc", self.grpc.is_on())] {
                if is_on {
                    check.error_with(&[key], format!("{key} is of version 2 of the extension"), "add use_v2: true");
                }
            }
            return;
        }
        if !self.http.is_on() && !self.grpc.is_on() {
            check.error(&["use_v2"], "must specify at least one protocol: add http or grpc");
        }
        if let Some(http) = self.http.as_ref() {
            endpoint(check, &["http", "endpoint"], &http.endpoint, "localhost:13133");
            path(check, &["http", "status", "path"], &http.status.path);
            path(check, &["http", "config", "path"], &http.config.path);
            if http.config.enabled {
                let message = "the configuration is not served; nyquist print-config prints it";
                check.warning(&["http", "config", "enabled"], message);
            }
        }
        if let Some(grpc) = self.grpc.as_ref() {
            endpoint(check, &["grpc", "endpoint"], &grpc.endpoint, "localhost:13132");
            if grpc.transport != "tcp" {
                check.error(&["grpc", "transport"], format!("unknown transport {:?}; write tcp", grpc.transport));
            }
        }
    }
}
