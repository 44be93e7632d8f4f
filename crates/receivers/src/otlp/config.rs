//! The `otlp` receiver's section of the configuration.

use std::collections::BTreeMap;
use std::time;

use http::{HeaderName, HeaderValue};
use nyquist_core::config::{ByteSize, Check, Duration, Enabled, Secret, Validate};
use nyquist_core::net::body::MinRate;
use nyquist_core::net::compression::decode::Encoding;
use nyquist_core::net::server::Family;
use nyquist_core::net::tls::ServerTlsConfig;
use serde::Deserialize;

use super::limits::ClientLimit;

/// `receivers.otlp`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct OtlpConfig {
    /// The protocols to serve.
    pub protocols: Protocols,
    /// Bytes of requests that may be in the process at once; default 64 MiB a core. More is
    /// refused before it is read, and the client asked to come back. Not a key of the Collector.
    pub max_in_flight: Option<ByteSize>,
    /// Connections that each protocol may have open, default 8192. Not a key of the Collector.
    pub max_connections: Option<usize>,
    /// What each client may send. Not a key of the Collector.
    pub client_limits: Vec<ClientLimit>,
    /// How fast bodies have to come. Not a key of the Collector.
    pub min_body_rate: MinBodyRate,
}

/// `min_body_rate`: Kestrel's `MinRequestBodyDataRate`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct MinBodyRate {
    /// Bytes a second, 240 by default; 0 for any.
    pub bytes_per_second: u64,
    /// For how long a body may be slower, 10s by default.
    pub grace_period: Duration,
}

impl Default for MinBodyRate {
    fn default() -> Self {
        Self { bytes_per_second: 240, grace_period: Duration::from_secs(10) }
    }
}

impl MinBodyRate {
    pub(super) fn rate(&self) -> Option<MinRate> {
        let Self { bytes_per_second, grace_period: Duration(grace_period) } = *self;
        (bytes_per_second > 0).then_some(MinRate { bytes_per_second, grace_period })
    }
}

/// `protocols`: at least one of them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Protocols {
    /// OTLP/gRPC.
    pub grpc: Enabled<GrpcConfig>,
    /// OTLP/HTTP.
    pub http: Enabled<HttpConfig>,
}

/// `protocols.grpc`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct GrpcConfig {
    /// `host:port`.
    pub endpoint: String,
    /// `tcp`, `tcp4`, `tcp6`, or `unix`: the endpoint is the path of a socket.
    pub transport: String,
    /// TLS; plaintext without it.
    pub tls: Option<ServerTlsConfig>,
    /// Largest message after decompression, in MiB; 0 for 4.
    pub max_recv_msg_size_mib: i64,
    /// Open requests a connection may have; 0 for 1024.
    pub max_concurrent_streams: u32,
    /// Accepted as the Collector does, with a warning; read buffers size themselves.
    pub read_buffer_size: i64,
    /// Accepted as the Collector does, with a warning; replies are too small to need it.
    pub write_buffer_size: i64,
    /// How long connections live.
    pub keepalive: Option<Keepalive>,
    /// Who may come in.
    pub auth: Option<AuthConfig>,
    /// Keep the request's headers with its data: all but those with secrets, unless `metadata_keys` says which.
    pub include_metadata: bool,
    /// Keep these headers, and no others. Default: all but those with secrets. Not a key of the Collector.
    pub metadata_keys: Vec<String>,
    /// Refused unless empty: there are no middleware extensions.
    pub middlewares: Vec<Middleware>,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            endpoint: "localhost:4317".to_owned(),
            transport: "tcp".to_owned(),
            tls: None,
            max_recv_msg_size_mib: 0,
            max_concurrent_streams: 0,
            read_buffer_size: 512 << 10,
            write_buffer_size: 0,
            keepalive: None,
            auth: None,
            include_metadata: false,
            metadata_keys: Vec::new(),
            middlewares: Vec::new(),
        }
    }
}

/// `protocols.http`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpConfig {
    /// `host:port`.
    pub endpoint: String,
    /// `tcp`, `tcp4`, `tcp6`, or `unix`: the endpoint is the path of a socket.
    pub transport: String,
    /// TLS; plaintext without it.
    pub tls: Option<ServerTlsConfig>,
    /// Largest body, in bytes, as it comes and again when decoded; 0 for 20 MiB.
    pub max_request_body_size: i64,
    /// The path for traces.
    pub traces_url_path: String,
    /// The path for metrics.
    pub metrics_url_path: String,
    /// The path for logs.
    pub logs_url_path: String,
    /// Which web pages may send.
    pub cors: Option<CorsConfig>,
    /// Who may come in.
    pub auth: Option<AuthConfig>,
    /// Keep the request's headers with its data: all but those with secrets, unless `metadata_keys` says which.
    pub include_metadata: bool,
    /// Keep these headers, and no others. Default: all but those with secrets. Not a key of the Collector.
    pub metadata_keys: Vec<String>,
    /// Headers of every reply.
    pub response_headers: BTreeMap<String, Secret>,
    /// Which encodings are decoded; all by default. An empty list decodes none.
    pub compression_algorithms: Option<Vec<String>>,
    /// How long a request's body may take; 0 for ever (as long as it makes progress).
    pub read_timeout: Duration,
    /// How long a request's head may take, and how long an HTTP/1 connection may wait for its next
    /// request: 90s by default (the Collector: for ever), 0 for ever.
    pub read_header_timeout: Option<Duration>,
    /// How long a reply may find no reader; 0 for ever.
    pub write_timeout: Duration,
    /// Connections without requests are closed after this time; 0 for never.
    pub idle_timeout: Duration,
    /// May HTTP/1 connections carry more than one request?
    pub keep_alives_enabled: bool,
    /// Refused unless empty: there are no middleware extensions.
    pub middlewares: Vec<Middleware>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            endpoint: "localhost:4318".to_owned(),
            transport: "tcp".to_owned(),
            tls: None,
            max_request_body_size: 0,
            traces_url_path: "/v1/traces".to_owned(),
            metrics_url_path: "/v1/metrics".to_owned(),
            logs_url_path: "/v1/logs".to_owned(),
            cors: None,
            auth: None,
            include_metadata: false,
            metadata_keys: Vec::new(),
            response_headers: BTreeMap::new(),
            compression_algorithms: None,
            read_timeout: Duration::default(),
            read_header_timeout: None,
            write_timeout: Duration::default(),
            idle_timeout: Duration::default(),
            keep_alives_enabled: true,
            middlewares: Vec::new(),
        }
    }
}

/// `keepalive`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Keepalive {
    /// What the server does.
    pub server_parameters: Option<ServerParameters>,
    /// Accepted as the Collector does, with a warning. Clients that ping often are not disconnected: frames
    /// without data are bounded by the HTTP/2 library instead.
    pub enforcement_policy: Option<EnforcementPolicy>,
}

/// `keepalive.server_parameters`; zero means the default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServerParameters {
    /// Close connections without requests after this time; default never.
    pub max_connection_idle: Duration,
    /// Close connections of this age, give or take 10 %; default never.
    pub max_connection_age: Duration,
    /// How long their requests may go on then; default for ever.
    pub max_connection_age_grace: Duration,
    /// Ask silent connections whether they are alive; default 2h.
    pub time: Duration,
    /// How long they may take to answer; default 20s.
    pub timeout: Duration,
}

/// `keepalive.enforcement_policy`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EnforcementPolicy {
    /// How often a client may ping.
    pub min_time: Duration,
    /// Whether it may without open requests.
    pub permit_without_stream: bool,
}

/// `auth`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    /// The extension that decides.
    pub authenticator: String,
    /// Query parameters that it sees as if they were headers; HTTP only.
    pub request_params: Vec<String>,
}

/// `cors`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CorsConfig {
    /// Origins, each with at most one `*` for any text.
    pub allowed_origins: Vec<String>,
    /// Headers beyond the safe ones; `*` for all.
    pub allowed_headers: Vec<String>,
    /// Reply headers that pages may read.
    pub exposed_headers: Vec<String>,
    /// How long browsers may remember the answer, in seconds; 0 for their default.
    pub max_age: u64,
}

/// One of `middlewares`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Middleware {
    /// The extension.
    pub id: String,
}

impl OtlpConfig {
    /// The gRPC protocol, if it is on.
    #[must_use]
    pub fn grpc(&self) -> Option<&GrpcConfig> {
        self.protocols.grpc.as_ref()
    }

    /// The HTTP protocol, if it is on.
    #[must_use]
    pub fn http(&self) -> Option<&HttpConfig> {
        self.protocols.http.as_ref()
    }
}

/// Where messages of gRPC end: their length is a 32-bit number.
const MAX_MESSAGE_MIB: i64 = 4095;

impl Validate for OtlpConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.grpc().is_none() && self.http().is_none() {
            check.error(&["protocols"], "must specify at least one protocol when using the OTLP receiver");
        }
        if self.max_in_flight.is_some_and(|bytes| bytes.0 == 0) {
            check.error(&["max_in_flight"], "nothing could come in: leave it out for 64 MiB a core");
        }
        if self.max_connections == Some(0) {
            check.error(&["max_connections"], "nobody could connect: leave it out for 8192");
        }
        if self.min_body_rate.bytes_per_second > 0 && self.min_body_rate.grace_period.0.is_zero() {
            check.error(&["min_body_rate", "grace_period"], "no body could come in: leave it out for 10s");
        }
        self.validate_limits(check);
        if let Some(grpc) = self.grpc() {
            check.nested(&["protocols", "grpc"], grpc);
        }
        if let Some(http) = self.http() {
            check.nested(&["protocols", "http"], http);
        }
    }
}

impl OtlpConfig {
    fn validate_limits(&self, check: &mut Check<'_>) {
        let has_auth = [self.grpc().map(|grpc| grpc.auth.is_some()), self.http().map(|http| http.auth.is_some())];
        let nobody_asks = has_auth.into_iter().flatten().any(|has_auth| !has_auth);
        for (index, limit) in self.client_limits.iter().enumerate() {
            let index = index.to_string();
            check.nested(&["client_limits", &index], limit);
            if limit.asks_who() && nobody_asks {
                let message = "needs auth.authenticator in each protocol: without it clients cannot be told apart";
                check.error(&["client_limits", &index, "per"], message);
            }
        }
    }
}

impl Validate for GrpcConfig {
    fn validate(&self, check: &mut Check<'_>) {
        validate_endpoint(&self.endpoint, &self.transport, check);
        if let Some(tls) = &self.tls {
            check.nested(&["tls"], tls);
        }
        if !(0..=MAX_MESSAGE_MIB).contains(&self.max_recv_msg_size_mib) {
            let message = format!(
                "invalid max_recv_msg_size_mib value, must be between 1 and {MAX_MESSAGE_MIB}, or 0 for 4: {}",
                self.max_recv_msg_size_mib
            );
            check.error(&["max_recv_msg_size_mib"], message);
        }
        for (key, value) in [("read_buffer_size", self.read_buffer_size), ("write_buffer_size", self.write_buffer_size)]
        {
            if value < 0 {
                check.error(&[key], format!("invalid {key} value: {value}"));
            }
        }
        check.without_effect(&["read_buffer_size", "write_buffer_size"], "buffers size themselves");
        if let Some(keepalive) = &self.keepalive {
            check.nested(&["keepalive"], keepalive);
        }
        validate_auth(self.auth.as_ref(), check);
        if self.auth.as_ref().is_some_and(|auth| !auth.request_params.is_empty()) {
            check.error(&["auth", "request_params"], "gRPC requests have no query parameters");
        }
        validate_metadata(self.include_metadata, &self.metadata_keys, check);
        validate_middlewares(&self.middlewares, check);
    }
}

impl Validate for Keepalive {
    fn validate(&self, check: &mut Check<'_>) {
        let why = "clients that ping often are answered; only floods end a connection";
        check.without_effect(&["enforcement_policy"], why);
    }
}

impl Validate for HttpConfig {
    fn validate(&self, check: &mut Check<'_>) {
        validate_endpoint(&self.endpoint, &self.transport, check);
        if let Some(tls) = &self.tls {
            check.nested(&["tls"], tls);
        }
        if self.max_request_body_size < 0 {
            let message = format!("invalid max_request_body_size value: {}", self.max_request_body_size);
            check.error(&["max_request_body_size"], message);
        }
        let paths = self.paths();
        for (key, path) in ["traces_url_path", "metrics_url_path", "logs_url_path"].iter().zip(&paths) {
            if http::uri::PathAndQuery::try_from(path.as_str()).map_or(true, |parsed| parsed.path() != path) {
                check.error(&[key], format!("{path:?} is not a path"));
            }
            if paths.iter().filter(|other| *other == path).count() > 1 {
                check.error(&[key], format!("{path:?} is the path of two signals"));
            }
        }
        if let Some(cors) = &self.cors {
            validate_cors(cors, check);
        }
        for (name, value) in &self.response_headers {
            if HeaderName::try_from(name).is_err() {
                check.error(&["response_headers", name], "is not a header name");
            } else if HeaderValue::from_str(value.expose()).is_err() {
                check.error(&["response_headers", name], "its value has characters that headers cannot have");
            }
        }
        for algorithm in self.compression_algorithms.iter().flatten() {
            if Encoding::from_name(algorithm).is_none() {
                let known = "gzip, zstd, zlib, snappy, deflate, lz4, x-snappy-framed";
                check.error(&["compression_algorithms"], format!("unknown algorithm {algorithm:?}: there are {known}"));
            }
        }
        validate_auth(self.auth.as_ref(), check);
        validate_metadata(self.include_metadata, &self.metadata_keys, check);
        validate_middlewares(&self.middlewares, check);
    }
}

fn validate_endpoint(endpoint: &str, transport: &str, check: &mut Check<'_>) {
    let is_complete = endpoint.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if transport == "unix" {
        if !endpoint.contains('/') {
            let message = format!("{endpoint:?} is not the path of a socket; write it like /run/nyquist/otlp.sock");
            check.error(&["endpoint"], message);
        }
    } else if !is_complete {
        check.error(&["endpoint"], format!("{endpoint:?} is not host:port; write it like 0.0.0.0:4317"));
    }
    if family(transport).is_none() {
        let message = match transport {
            "npipe" => "transport \"npipe\" is not there; use tcp or unix".to_owned(),
            _ => format!("unknown transport {transport:?}: there are tcp, tcp4, tcp6 and unix"),
        };
        check.error(&["transport"], message);
    }
}

fn validate_auth(auth: Option<&AuthConfig>, check: &mut Check<'_>) {
    if auth.is_some_and(|auth| auth.authenticator.is_empty()) {
        check.error(&["auth", "authenticator"], "name the extension that authenticates requests");
    }
}

fn validate_metadata(include_metadata: bool, keys: &[String], check: &mut Check<'_>) {
    if !include_metadata && !keys.is_empty() {
        check.warning(&["metadata_keys"], "has no effect without include_metadata: true");
    }
    for key in keys.iter().filter(|key| HeaderName::try_from(*key).is_err()) {
        check.error(&["metadata_keys"], format!("{key:?} is not the name of a header"));
    }
}

fn validate_middlewares(middlewares: &[Middleware], check: &mut Check<'_>) {
    if !middlewares.is_empty() {
        check.error(&["middlewares"], "there are no middleware extensions; remove the key");
    }
}

fn validate_cors(cors: &CorsConfig, check: &mut Check<'_>) {
    let has_more = !cors.allowed_headers.is_empty() || !cors.exposed_headers.is_empty() || cors.max_age > 0;
    if cors.allowed_origins.is_empty() && has_more {
        check.warning(&["cors"], "has no effect without allowed_origins");
    }
    for origin in &cors.allowed_origins {
        if origin.matches('*').count() > 1 {
            check.error(&["cors", "allowed_origins"], format!("{origin:?} has more than one *"));
        }
    }
    for (key, names) in [("allowed_headers", &cors.allowed_headers), ("exposed_headers", &cors.exposed_headers)] {
        for name in names.iter().filter(|name| *name != "*") {
            if HeaderName::try_from(name).is_err() {
                check.error(&["cors", key], format!("{name:?} is not a header name"));
            }
        }
    }
}

/// What kind of address `transport` stands for; `None` if there is none of that name.
pub(crate) fn family(transport: &str) -> Option<Family> {
    match transport {
        "" | "tcp" => Some(Family::Any),
        "tcp4" => Some(Family::V4),
        "tcp6" => Some(Family::V6),
        "unix" => Some(Family::Unix),
        _ => None,
    }
}

/// `duration`, where zero means none.
pub(crate) fn nonzero(duration: Duration) -> Option<time::Duration> {
    (!duration.0.is_zero()).then_some(duration.0)
}

impl GrpcConfig {
    /// The largest message, in bytes.
    pub(super) fn max_message(&self) -> usize {
        let mebibytes = usize::try_from(self.max_recv_msg_size_mib).unwrap_or_default();
        if mebibytes == 0 { 4 << 20 } else { mebibytes << 20 }
    }
}

impl HttpConfig {
    /// The largest body, in bytes.
    pub(super) fn max_body(&self) -> usize {
        match usize::try_from(self.max_request_body_size) {
            Ok(bytes) if bytes > 0 => bytes,
            _ => 20 << 20,
        }
    }

    /// The paths, in the order of `Signal::ALL`, each with its leading slash.
    pub(super) fn paths(&self) -> [String; 3] {
        [&self.traces_url_path, &self.metrics_url_path, &self.logs_url_path]
            .map(|path| if path.starts_with('/') { path.clone() } else { format!("/{path}") })
    }
}
