//! The keys of the `otlp` exporter.

use nyquist_core::config::{Check, Duration, Validate};
use nyquist_core::delivery::{QueueConfig, RetryConfig};
use nyquist_core::net::client::{AuthConfig, GrpcEndpoint, HeadersConfig};
use nyquist_core::net::compression::encode::Compression;
use nyquist_core::net::tls::ClientTlsConfig;
use serde::Deserialize;

/// What the `otlp` exporter is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct OtlpConfig {
    /// `host:port` of the backend. Required.
    pub endpoint: String,
    /// `none`, `gzip`, `snappy` or `zstd`. Default `gzip`.
    pub compression: String,
    /// TLS, which is on unless it says `insecure: true`.
    pub tls: ClientTlsConfig,
    /// Sent with every request.
    pub headers: HeadersConfig,
    /// How long one attempt may take; 0 for no bound. Default 5s.
    pub timeout: Duration,
    /// HTTP/2 pings. Default none.
    pub keepalive: Option<KeepaliveConfig>,
    /// Accepted for the Collector's sake; buffers size themselves.
    pub read_buffer_size: usize,
    /// Accepted for the Collector's sake; buffers size themselves.
    pub write_buffer_size: usize,
    /// Accepted for the Collector's sake: `retry_on_failure` waits for the backend.
    pub wait_for_ready: bool,
    /// `round_robin` or `pick_first`. Default `round_robin`.
    pub balancer_name: String,
    /// Sent as `:authority` instead of the endpoint.
    pub authority: String,
    /// Sent instead of Nyquist's own.
    pub user_agent: String,
    /// Who authenticates the requests.
    pub auth: Option<AuthConfig>,
    /// Try again after `RESOURCE_EXHAUSTED` without a delay, too. Default false, as OTLP has it.
    pub retry_resource_exhausted: bool,
    /// The queue.
    pub sending_queue: QueueConfig,
    /// The retries.
    pub retry_on_failure: RetryConfig,
}

/// `keepalive`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct KeepaliveConfig {
    /// How often to ping. Default 10s.
    pub time: Duration,
    /// How long the answer may take. Default 10s.
    pub timeout: Duration,
    /// Ping while no request is under way, too. Default false.
    pub permit_without_stream: bool,
}

impl Default for KeepaliveConfig {
    fn default() -> Self {
        Self { time: Duration::from_secs(10), timeout: Duration::from_secs(10), permit_without_stream: false }
    }
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            compression: "gzip".to_owned(),
            tls: ClientTlsConfig::default(),
            headers: HeadersConfig::default(),
            timeout: Duration::from_secs(5),
            keepalive: None,
            read_buffer_size: 0,
            write_buffer_size: 512 << 10,
            wait_for_ready: false,
            balancer_name: "round_robin".to_owned(),
            authority: String::new(),
            user_agent: String::new(),
            auth: None,
            retry_resource_exhausted: false,
            sending_queue: QueueConfig::default(),
            retry_on_failure: RetryConfig::default(),
        }
    }
}

impl OtlpConfig {
    /// The compressions that gRPC knows.
    pub const COMPRESSIONS: &[Compression] =
        &[Compression::None, Compression::Gzip, Compression::Snappy, Compression::Zstd];
}

impl Validate for OtlpConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if let Err(error) = GrpcEndpoint::parse(&self.endpoint) {
            check.error(&["endpoint"], error);
        }
        if let Err(error) = Compression::parse(&self.compression, Self::COMPRESSIONS) {
            check.error(&["compression"], error);
        }
        if !matches!(self.balancer_name.as_str(), "" | "round_robin" | "pick_first") {
            let message = format!("unknown balancer {:?}; use round_robin or pick_first", self.balancer_name);
            check.error(&["balancer_name"], message);
        }
        if !self.authority.is_empty() && self.authority.parse::<http::uri::Authority>().is_err() {
            check.error(&["authority"], format!("{:?} is not a host, with or without a port", self.authority));
        }
        if http::HeaderValue::try_from(&self.user_agent).is_err() {
            check.error(&["user_agent"], "it has characters that cannot be sent");
        }
        check.without_effect(&["read_buffer_size", "write_buffer_size"], "buffers size themselves");
        check.without_effect(
            &["wait_for_ready"],
            "a request that finds no connection is tried again (retry_on_failure)",
        );
        check.nested(&["tls"], &self.tls);
        check.nested(&["headers"], &self.headers);
        check.nested(&["sending_queue"], &self.sending_queue);
        check.nested(&["retry_on_failure"], &self.retry_on_failure.beside(&self.sending_queue));
    }
}
