//! The keys of the `otlp_http` exporter.

use nyquist_core::batch::Signal;
use std::time::Duration;

use nyquist_core::config::{Check, Validate};
use nyquist_core::delivery::{QueueConfig, RetryConfig};
use nyquist_core::net::client::HttpEndpoint;
use nyquist_core::net::compression::encode::Compression;
use serde::Deserialize;

use crate::http_client::HttpClientConfig;

const TIMEOUT: Duration = Duration::from_secs(30);

/// How requests are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Protobuf.
    #[default]
    Proto,
    /// JSON.
    Json,
}

/// What the `otlp_http` exporter is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct OtlpHttpConfig {
    /// The common settings. `endpoint` is the URL to which `/v1/traces`, `/v1/metrics` and `/v1/logs` are appended,
    /// `timeout` is 30s by default, and `compression` one of `none`, `gzip` (the default), `zlib`, `deflate`,
    /// `snappy`, `x-snappy-framed`, `zstd` and `lz4`. `Host` among the `headers` replaces the endpoint's.
    #[serde(rename = "nyquist::flat")]
    pub client: HttpClientConfig,
    /// The URL for traces, used as it is.
    pub traces_endpoint: String,
    /// The URL for metrics, used as it is.
    pub metrics_endpoint: String,
    /// The URL for logs, used as it is.
    pub logs_endpoint: String,
    /// Accepted for the Collector's sake: there is no profiles signal here.
    pub profiles_endpoint: String,
    /// `proto` or `json`. Default `proto`.
    pub encoding: Encoding,
    /// The queue.
    pub sending_queue: QueueConfig,
    /// The retries.
    pub retry_on_failure: RetryConfig,
}

impl Default for OtlpHttpConfig {
    fn default() -> Self {
        Self {
            client: HttpClientConfig::default(),
            traces_endpoint: String::new(),
            metrics_endpoint: String::new(),
            logs_endpoint: String::new(),
            profiles_endpoint: String::new(),
            encoding: Encoding::Proto,
            sending_queue: QueueConfig::default(),
            retry_on_failure: RetryConfig::default(),
        }
    }
}

pub(super) fn endpoint_key(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "traces_endpoint",
        Signal::Metrics => "metrics_endpoint",
        Signal::Logs => "logs_endpoint",
    }
}

impl OtlpHttpConfig {
    /// The URL for `signal`: its own, or the common one with the signal's path. `None` if neither
    /// is set.
    pub(super) fn endpoint_for(&self, signal: Signal) -> Option<Result<HttpEndpoint, String>> {
        let own = match signal {
            Signal::Traces => &self.traces_endpoint,
            Signal::Metrics => &self.metrics_endpoint,
            Signal::Logs => &self.logs_endpoint,
        };
        if !own.is_empty() {
            return Some(HttpEndpoint::parse(own));
        }
        if self.client.endpoint.is_empty() {
            return None;
        }
        let base = self.client.endpoint.trim();
        let joined = format!("{}/v1/{}", base.strip_suffix('/').unwrap_or(base), signal.name());
        Some(HttpEndpoint::parse(base).and_then(|_| HttpEndpoint::parse(&joined)))
    }

    pub(super) fn timeout(&self) -> Duration {
        self.client.timeout.map_or(TIMEOUT, |timeout| timeout.0)
    }

    pub(super) fn compression(&self) -> Result<Compression, String> {
        Compression::parse(self.client.compression.as_deref().unwrap_or("gzip"), Compression::HTTP)
    }
}

impl Validate for OtlpHttpConfig {
    fn validate(&self, check: &mut Check<'_>) {
        let endpoints = [
            ("endpoint", &self.client.endpoint),
            ("traces_endpoint", &self.traces_endpoint),
            ("metrics_endpoint", &self.metrics_endpoint),
            ("logs_endpoint", &self.logs_endpoint),
        ];
        if endpoints.iter().all(|(_, url)| url.is_empty()) && self.profiles_endpoint.is_empty() {
            check.error(
                &["endpoint"],
                "at least one endpoint must be specified, for example endpoint: http://backend:4318",
            );
        }
        for (key, url) in endpoints.into_iter().filter(|(_, url)| !url.is_empty()) {
            if let Err(error) = HttpEndpoint::parse(url) {
                check.error(&[key], error);
            }
        }
        if HttpEndpoint::parse(&self.client.endpoint).is_ok_and(|endpoint| endpoint.port == 4317) {
            check.warning(&["endpoint"], "4317 is the port of OTLP over gRPC; OTLP/HTTP usually listens on 4318");
        }
        if !self.profiles_endpoint.is_empty() {
            check.warning(&["profiles_endpoint"], "there is no profiles signal here; the setting has no effect");
        }
        match self.compression() {
            Err(error) => check.error(&["compression"], error),
            Ok(compression) => self.check_level(check, compression),
        }
        if self.client.max_conns_per_host > 0 {
            let message =
                "has no effect: a request has a connection; set sending_queue.num_consumers, which bounds them";
            check.warning(&["max_conns_per_host"], message);
        }
        check.nested(&[], &self.client);
        check.nested(&["sending_queue"], &self.sending_queue);
        check.nested(&["retry_on_failure"], &self.retry_on_failure.beside(&self.sending_queue));
    }
}

impl OtlpHttpConfig {
    fn check_level(&self, check: &mut Check<'_>, compression: Compression) {
        let Some(level) = self.client.compression_params.chosen() else { return };
        let path = ["compression_params", "level"];
        match compression.levels() {
            None => check.error(&path, format!("{} has no levels; remove the setting", compression.name())),
            Some(levels) if !levels.contains(&level) => {
                let message =
                    format!("{level} is not a level of {}: {} to {}", compression.name(), levels.start(), levels.end());
                check.error(&path, message);
            }
            Some(_) => {}
        }
    }
}
