//! The keys of the `prometheus_remote_write` receiver.

use nyquist_core::config::{ByteSize, Check, Duration, Validate};
use nyquist_core::net::server::Family;
use nyquist_core::net::tls::ServerTlsConfig;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::otlp::{AuthConfig, family};

/// What the `prometheus_remote_write` receiver is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct RemoteWriteConfig {
    /// Where to listen: `host:port`. Default `localhost:9090`.
    pub endpoint: String,
    /// `tcp`, `tcp4` or `tcp6`.
    pub transport: String,
    /// TLS; plaintext without it.
    pub tls: Option<ServerTlsConfig>,
    /// Who authenticates the senders.
    pub auth: Option<AuthConfig>,
    /// Keep the headers of requests beside their data, all but those with secrets. Default false.
    pub include_metadata: bool,
    /// Largest body, in bytes, as it comes and again when decoded; 0 for 20 MiB.
    pub max_request_body_size: u64,
    /// How long a request's body may take; 0 for ever.
    pub read_timeout: Duration,
    /// How long a request's head may take, and how long a connection may wait for its next request.
    pub read_header_timeout: Option<Duration>,
    /// How long an answer may find no taker; 0 for ever.
    pub write_timeout: Duration,
    /// Connections without requests are closed after this time; 0 for never.
    pub idle_timeout: Duration,
    /// May connections carry more than one request? Default true.
    pub keep_alives_enabled: bool,
    /// Bytes of requests in the process at once; more is refused with 503. Default 64 MiB a core.
    pub max_in_flight: Option<ByteSize>,
    /// Connections at once. Default 8192.
    pub max_connections: Option<usize>,
    cors: Option<IgnoredAny>,
    response_headers: Option<IgnoredAny>,
    compression_algorithms: Option<IgnoredAny>,
    middlewares: Vec<IgnoredAny>,
}

impl Default for RemoteWriteConfig {
    fn default() -> Self {
        Self {
            endpoint: "localhost:9090".to_owned(),
            transport: "tcp".to_owned(),
            tls: None,
            auth: None,
            include_metadata: false,
            max_request_body_size: 0,
            read_timeout: Duration::default(),
            read_header_timeout: None,
            write_timeout: Duration::default(),
            idle_timeout: Duration::default(),
            keep_alives_enabled: true,
            max_in_flight: None,
            max_connections: None,
            cors: None,
            response_headers: None,
            compression_algorithms: None,
            middlewares: Vec::new(),
        }
    }
}

impl RemoteWriteConfig {
    /// The largest body, in bytes.
    pub(super) fn max_body(&self) -> usize {
        match usize::try_from(self.max_request_body_size) {
            Ok(0) => 20 << 20,
            Ok(bytes) => bytes,
            Err(_) => usize::MAX,
        }
    }
}

impl Validate for RemoteWriteConfig {
    fn validate(&self, check: &mut Check<'_>) {
        let is_complete = self.endpoint.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if !is_complete {
            let message = format!("{:?} is not host:port; write it like 0.0.0.0:9090", self.endpoint);
            check.error(&["endpoint"], message);
        }
        if family(&self.transport).is_none_or(|family| family == Family::Unix) {
            let message = format!("unknown transport {:?}: there are tcp, tcp4 and tcp6", self.transport);
            check.error(&["transport"], message);
        }
        if let Some(tls) = &self.tls {
            check.nested(&["tls"], tls);
        }
        if let Some(auth) = &self.auth {
            if auth.authenticator.is_empty() {
                check.error(&["auth", "authenticator"], "name the extension that authenticates requests");
            }
            if !auth.request_params.is_empty() {
                check.error(&["auth", "request_params"], "query parameters are not looked at: send a header");
            }
        }
        if self.max_in_flight.is_some_and(|bytes| bytes.0 == 0) {
            check.error(&["max_in_flight"], "nothing could come in: leave it out for 64 MiB a core");
        }
        if self.max_connections == Some(0) {
            check.error(&["max_connections"], "nobody could connect: leave it out for 8192");
        }
        for (key, is_set, instead) in [
            ("cors", self.cors.is_some(), "remove it: web pages do not send remote write"),
            ("response_headers", self.response_headers.is_some(), "remove it: senders read none"),
            (
                "compression_algorithms",
                self.compression_algorithms.is_some(),
                "remove it: remote write is always snappy",
            ),
            ("middlewares", !self.middlewares.is_empty(), "remove it: there are no middleware extensions"),
        ] {
            if is_set {
                check.error_with(&[key], format!("{key} is not supported"), instead);
            }
        }
    }
}
