//! The keys of the `otlp_http` exporter.

use nyquist_core::batch::Signal;
use nyquist_core::config::{Check, Duration, Secret, Validate};
use nyquist_core::delivery::{QueueConfig, RetryConfig};
use nyquist_core::net::client::{AuthConfig, HeadersConfig, HttpEndpoint, Proxy};
use nyquist_core::net::compression::encode::Compression;
use nyquist_core::net::tls::ClientTlsConfig;
use serde::Deserialize;

use crate::http_connections::HttpConnections;

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

/// `compression_params`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct CompressionParams {
    /// 1 to 9 for gzip, zlib and deflate, 1 to 22 for zstd. Default 1.
    pub level: Option<i32>,
}

/// What the `otlp_http` exporter is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct OtlpHttpConfig {
    /// The URL to which `/v1/traces`, `/v1/metrics` and `/v1/logs` are appended.
    pub endpoint: String,
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
    /// `none`, `gzip`, `zlib`, `deflate`, `snappy`, `x-snappy-framed` or `zstd`. Default `gzip`.
    pub compression: String,
    /// How hard to compress.
    pub compression_params: CompressionParams,
    /// How long one attempt may take; 0 for no bound. Default 30s.
    pub timeout: Duration,
    /// Sent with every request; `Host` replaces the endpoint's.
    pub headers: HeadersConfig,
    /// TLS, for `https://` endpoints.
    pub tls: ClientTlsConfig,
    /// The proxy for every request, `http://user:password@host:port`. Default that of the environment.
    pub proxy_url: Secret,
    /// Accepted for the Collector's sake; buffers size themselves.
    pub read_buffer_size: usize,
    /// Accepted for the Collector's sake; buffers size themselves.
    pub write_buffer_size: usize,
    /// Unused connections kept, for each worker. Default 100.
    pub max_idle_conns: usize,
    /// The same: there is one host. 0 for `max_idle_conns`.
    pub max_idle_conns_per_host: usize,
    /// How long an unused connection is kept; 0 for ever. Default 90s.
    pub idle_conn_timeout: Duration,
    /// A connection for each request. Default false.
    pub disable_keep_alives: bool,
    /// Ping an HTTP/2 connection that was silent for this long; 0 for never. Default 0.
    pub http2_read_idle_timeout: Duration,
    /// How long the answer to a ping may take; 0 for 15s. Default 0.
    pub http2_ping_timeout: Duration,
    /// Use HTTP/2 where TLS can negotiate it. Default true.
    pub force_attempt_http2: bool,
    /// Who authenticates the requests.
    pub auth: Option<AuthConfig>,
    /// The queue.
    pub sending_queue: QueueConfig,
    /// The retries.
    pub retry_on_failure: RetryConfig,
}

impl Default for OtlpHttpConfig {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            traces_endpoint: String::new(),
            metrics_endpoint: String::new(),
            logs_endpoint: String::new(),
            profiles_endpoint: String::new(),
            encoding: Encoding::Proto,
            compression: "gzip".to_owned(),
            compression_params: CompressionParams::default(),
            timeout: Duration::from_secs(30),
            headers: HeadersConfig::default(),
            tls: ClientTlsConfig::default(),
            proxy_url: Secret::default(),
            read_buffer_size: 0,
            write_buffer_size: 512 << 10,
            max_idle_conns: 100,
            max_idle_conns_per_host: 0,
            idle_conn_timeout: Duration::from_secs(90),
            disable_keep_alives: false,
            http2_read_idle_timeout: Duration::default(),
            http2_ping_timeout: Duration::default(),
            force_attempt_http2: true,
            auth: None,
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
        if self.endpoint.is_empty() {
            return None;
        }
        let base = self.endpoint.trim();
        let joined = format!("{}/v1/{}", base.strip_suffix('/').unwrap_or(base), signal.name());
        Some(HttpEndpoint::parse(base).and_then(|_| HttpEndpoint::parse(&joined)))
    }

    pub(super) fn connections(&self) -> HttpConnections {
        HttpConnections {
            max_idle_conns: self.max_idle_conns,
            max_idle_conns_per_host: self.max_idle_conns_per_host,
            idle_conn_timeout: self.idle_conn_timeout.0,
            disable_keep_alives: self.disable_keep_alives,
            http2_read_idle_timeout: self.http2_read_idle_timeout.0,
            http2_ping_timeout: self.http2_ping_timeout.0,
            force_attempt_http2: self.force_attempt_http2,
        }
    }
}

impl Validate for OtlpHttpConfig {
    fn validate(&self, check: &mut Check<'_>) {
        let endpoints = [
            ("endpoint", &self.endpoint),
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
        if HttpEndpoint::parse(&self.endpoint).is_ok_and(|endpoint| endpoint.port == 4317) {
            check.warning(&["endpoint"], "4317 is the port of OTLP over gRPC; OTLP/HTTP usually listens on 4318");
        }
        if !self.profiles_endpoint.is_empty() {
            check.warning(&["profiles_endpoint"], "there is no profiles signal here; the setting has no effect");
        }
        match Compression::parse(&self.compression, Compression::HTTP) {
            Err(error) => check.error(&["compression"], error),
            Ok(compression) => self.check_level(check, compression),
        }
        if !self.proxy_url.expose().is_empty()
            && let Err(reason) = Proxy::parse_url(&self.proxy_url)
        {
            check.error(&["proxy_url"], reason);
        }
        check.nested(&["tls"], &self.tls);
        check.nested(&["headers"], &self.headers);
        check.nested(&["sending_queue"], &self.sending_queue);
        check.nested(&["retry_on_failure"], &self.retry_on_failure.beside(&self.sending_queue));
    }
}

impl OtlpHttpConfig {
    fn check_level(&self, check: &mut Check<'_>, compression: Compression) {
        let Some(level) = self.compression_params.level else { return };
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
