//! How requests are sent: the Collector's settings of HTTP clients.

use nyquist_core::config::{Check, Duration, Secret, Validate};
use nyquist_core::net::client::{AuthConfig, HeadersConfig, HttpEndpoint, Proxy};
use nyquist_core::net::tls::ClientTlsConfig;
use serde::Deserialize;

use super::super::protocol::RESERVED_HEADERS;
use super::RemoteWriteConfig;
use crate::http_connections::HttpConnections;

/// `http`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpBlock {
    /// The URL to write to.
    pub endpoint: String,
    /// How long one attempt may take; 0 for no bound. Default 5s.
    pub timeout: Duration,
    /// Sent with every request.
    pub headers: HeadersConfig,
    /// TLS, for `https` endpoints.
    pub tls: ClientTlsConfig,
    /// The proxy for every request, `http://user:password@host:port`. Default that of the environment.
    pub proxy_url: Secret,
    /// Who authenticates the requests.
    pub auth: Option<AuthConfig>,
    /// Only `snappy`.
    pub compression: String,
    /// Accepted for the Collector's sake; buffers size themselves.
    pub read_buffer_size: usize,
    /// Accepted for the Collector's sake; buffers size themselves.
    pub write_buffer_size: usize,
    /// Unused connections kept, for each worker. Default 100.
    pub max_idle_conns: usize,
    /// The same: there is one host. 0 for `max_idle_conns`.
    pub max_idle_conns_per_host: usize,
    /// Accepted for the Collector's sake: shards say how many there are.
    pub max_conns_per_host: usize,
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
}

impl Default for HttpBlock {
    fn default() -> Self {
        let top = RemoteWriteConfig::default();
        Self {
            endpoint: top.endpoint,
            timeout: top.timeout,
            headers: top.headers,
            tls: top.tls,
            proxy_url: top.proxy_url,
            auth: top.auth,
            compression: top.compression,
            read_buffer_size: top.read_buffer_size,
            write_buffer_size: top.write_buffer_size,
            max_idle_conns: top.max_idle_conns,
            max_conns_per_host: top.max_conns_per_host,
            max_idle_conns_per_host: top.max_idle_conns_per_host,
            idle_conn_timeout: top.idle_conn_timeout,
            disable_keep_alives: top.disable_keep_alives,
            http2_read_idle_timeout: top.http2_read_idle_timeout,
            http2_ping_timeout: top.http2_ping_timeout,
            force_attempt_http2: top.force_attempt_http2,
        }
    }
}

impl HttpBlock {
    pub(in super::super) fn connections(&self) -> HttpConnections {
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

impl Validate for HttpBlock {
    fn validate(&self, check: &mut Check<'_>) {
        if self.endpoint.is_empty() {
            check.error(
                &["endpoint"],
                "requires a non-empty \"endpoint\", for example http://prometheus:9090/api/v1/write",
            );
        } else if let Err(problem) = HttpEndpoint::parse(&self.endpoint) {
            check.error(&["endpoint"], problem);
        }
        if !matches!(self.compression.as_str(), "" | "snappy") {
            let message =
                format!("remote write is always compressed with snappy; remove compression: {}", self.compression);
            check.error(&["compression"], message);
        }
        if self.max_conns_per_host > 0 {
            let message = "has no effect: each shard has one request on its way; set max_batch_request_parallelism";
            check.warning(&["max_conns_per_host"], message);
        }
        for (name, _) in &self.headers.0 {
            check_header(check, &["headers", name], name);
        }
        check.nested(&["headers"], &self.headers);
        if !self.proxy_url.expose().is_empty()
            && let Err(reason) = Proxy::parse_url(&self.proxy_url)
        {
            check.error(&["proxy_url"], reason);
        }
        check.nested(&["tls"], &self.tls);
    }
}

/// Refuses the headers of the protocol.
pub(super) fn check_header(check: &mut Check<'_>, path: &[&str], name: &str) {
    if RESERVED_HEADERS.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        check.error(path, format!("the header {name:?} belongs to the remote write protocol and cannot be set"));
    }
}
