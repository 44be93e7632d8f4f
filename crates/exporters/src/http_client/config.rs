//! The Collector's settings of HTTP clients (`confighttp.ClientConfig`).

use std::sync::Arc;
use std::time;

use nyquist_core::clock::Clock;
use nyquist_core::component::{BuildError, ClientAuth, Extensions, StartError};
use nyquist_core::config::{Check, Duration, Enabled, Secret, Validate};
use nyquist_core::net::client::{AuthConfig, Client, ClientOptions, Connector, HeadersConfig, HttpEndpoint, Proxy};
use nyquist_core::net::tls::{ClientTls, ClientTlsConfig};
use serde::Deserialize;

use super::HttpClient;
use super::cookies::Jar;

/// The time that the answer to a ping may take where nothing is set.
const PING_TIMEOUT: time::Duration = time::Duration::from_secs(15);

/// How to talk to a backend over HTTP. What each exporter has a default of its own for is an option.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpClientConfig {
    /// The URL of the backend.
    pub endpoint: String,
    /// How long one attempt may take; 0 for no bound.
    pub timeout: Option<Duration>,
    /// Sent with every request.
    pub headers: HeadersConfig,
    /// TLS, for `https` endpoints.
    pub tls: ClientTlsConfig,
    /// The proxy for every request, `http://user:password@host:port`. Default that of the environment.
    pub proxy_url: Secret,
    /// Who authenticates the requests.
    pub auth: Option<AuthConfig>,
    /// How requests are compressed.
    pub compression: Option<String>,
    /// How hard to compress.
    pub compression_params: CompressionParams,
    /// Accepted for the Collector's sake; buffers size themselves.
    pub read_buffer_size: usize,
    /// Accepted for the Collector's sake; buffers size themselves.
    pub write_buffer_size: usize,
    /// Unused connections kept, for each worker; 0 for as many as there are. Default 100.
    pub max_idle_conns: usize,
    /// The same: there is one host. 0 for `max_idle_conns`.
    pub max_idle_conns_per_host: usize,
    /// Accepted for the Collector's sake: exporters bound their requests.
    pub max_conns_per_host: usize,
    /// How long an unused connection is kept; 0 for ever. Default 90s.
    pub idle_conn_timeout: Duration,
    /// A connection for each request. Default false.
    pub disable_keep_alives: bool,
    /// The same four in a block of their own.
    pub keepalive: Option<Enabled<KeepaliveConfig>>,
    /// Ping an HTTP/2 connection that was silent for this long; 0 for never. Default 0.
    pub http2_read_idle_timeout: Duration,
    /// How long the answer to a ping may take; 0 for 15s. Default 0.
    pub http2_ping_timeout: Duration,
    /// Use HTTP/2 where TLS can negotiate it. Default true.
    pub force_attempt_http2: bool,
    /// Send the backend's cookies back to it. Default off.
    pub cookies: Enabled<CookiesConfig>,
    /// Extensions that requests go through; there are none that can.
    pub middlewares: Vec<MiddlewareConfig>,
}

/// `compression_params`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct CompressionParams {
    /// 1 to 9 for gzip, zlib and deflate, 1 to 22 for zstd; 0 and -1 for the default, which is 1.
    pub level: i32,
}

impl CompressionParams {
    /// The level, if one is chosen.
    pub(crate) fn chosen(self) -> Option<i32> {
        Some(self.level).filter(|level| !matches!(level, 0 | -1))
    }
}

/// `keepalive`: `enabled: false` is `disable_keep_alives: true`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KeepaliveConfig {
    /// How long an unused connection is kept; 0 for ever. Default 90s.
    pub idle_conn_timeout: Duration,
    /// Unused connections kept, for each worker; 0 for as many as there are. Default 100.
    pub max_idle_conns: usize,
    /// The same: there is one host. 0 for `max_idle_conns`.
    pub max_idle_conns_per_host: usize,
}

/// `cookies`, which can only be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct CookiesConfig {}

/// An entry of `middlewares`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct MiddlewareConfig {
    /// The extension's id.
    pub id: String,
}

impl Default for HttpClientConfig {
    fn default() -> Self {
        let KeepaliveConfig { idle_conn_timeout, max_idle_conns, max_idle_conns_per_host } = KeepaliveConfig::default();
        Self {
            endpoint: String::new(),
            timeout: None,
            headers: HeadersConfig::default(),
            tls: ClientTlsConfig::default(),
            proxy_url: Secret::default(),
            auth: None,
            compression: None,
            compression_params: CompressionParams::default(),
            read_buffer_size: 0,
            write_buffer_size: 512 << 10,
            max_idle_conns,
            max_idle_conns_per_host,
            max_conns_per_host: 0,
            idle_conn_timeout,
            disable_keep_alives: false,
            keepalive: None,
            http2_read_idle_timeout: Duration::default(),
            http2_ping_timeout: Duration::default(),
            force_attempt_http2: true,
            cookies: Enabled::Off,
            middlewares: Vec::new(),
        }
    }
}

impl Default for KeepaliveConfig {
    fn default() -> Self {
        Self { idle_conn_timeout: Duration::from_secs(90), max_idle_conns: 100, max_idle_conns_per_host: 0 }
    }
}

impl HttpClientConfig {
    /// How connections are kept; `None` for one for each request.
    fn kept(&self) -> Option<KeepaliveConfig> {
        match self.keepalive {
            Some(Enabled::On(block)) => Some(block),
            Some(Enabled::Off) => None,
            None if self.disable_keep_alives => None,
            None => Some(KeepaliveConfig {
                idle_conn_timeout: self.idle_conn_timeout,
                max_idle_conns: self.max_idle_conns,
                max_idle_conns_per_host: self.max_idle_conns_per_host,
            }),
        }
    }

    pub(super) fn options(&self) -> ClientOptions {
        let set = |duration: Duration| Some(duration.0).filter(|duration| !duration.is_zero());
        let kept = self.kept();
        ClientOptions {
            http2_only: false,
            ping_every: set(self.http2_read_idle_timeout),
            ping_timeout: set(self.http2_ping_timeout).unwrap_or(PING_TIMEOUT),
            ping_idle: true,
            idle_timeout: kept.and_then(|kept| set(kept.idle_conn_timeout)),
            max_idle: kept.map_or(0, |kept| match (kept.max_idle_conns, kept.max_idle_conns_per_host) {
                (0, 0) => usize::MAX,
                (all, 0) => all,
                (_, per_host) => per_host,
            }),
        }
    }

    /// What TLS may negotiate.
    pub(super) fn alpn(&self) -> &'static [&'static str] {
        if self.force_attempt_http2 && self.kept().is_some() { &["h2", "http/1.1"] } else { &["http/1.1"] }
    }

    /// Who authenticates the requests.
    ///
    /// # Errors
    /// If an extension that is named cannot do what it is named for; `at` is where these settings stand in the section.
    pub(crate) fn extensions(
        &self,
        at: &[&str],
        extensions: &Extensions,
    ) -> Result<Option<Arc<dyn ClientAuth>>, BuildError> {
        if let Some(MiddlewareConfig { id }) = self.middlewares.first() {
            let Err(problem) = extensions.client_middleware(id);
            return Err(BuildError::new(&[at, &["middlewares", "0", "id"]].concat(), problem));
        }
        let Some(AuthConfig { authenticator }) = &self.auth else { return Ok(None) };
        let found = extensions.client_auth(authenticator);
        found.map(Some).map_err(|problem| BuildError::new(&[at, &["auth", "authenticator"]].concat(), problem))
    }

    /// A client of `endpoint`; connects when there is something to send.
    ///
    /// # Errors
    /// If there is something wrong with certificates, or with the environment's proxy.
    pub(crate) fn connect(
        &self,
        endpoint: &HttpEndpoint,
        workers: usize,
        clock: &Arc<dyn Clock>,
    ) -> Result<HttpClient, StartError> {
        let tls = endpoint.is_https.then(|| ClientTls::new(&self.tls, self.alpn()));
        let tls = tls.transpose().map_err(|error| StartError(format!("tls: {error}")))?;
        let proxy = Proxy::configured(&self.proxy_url, endpoint.is_https, &endpoint.host, endpoint.port);
        let connector = Connector::new(&endpoint.host, endpoint.port, tls).through(proxy.map_err(StartError)?);
        Ok(HttpClient {
            client: Client::new(workers, &connector, &self.options()),
            closes: self.kept().is_none(),
            jar: self.cookies.is_on().then(|| Jar::new(endpoint, Arc::clone(clock))),
        })
    }

    fn check_connections(&self, check: &mut Check<'_>) {
        if self.keepalive.is_none() {
            return;
        }
        for key in ["idle_conn_timeout", "max_idle_conns", "max_idle_conns_per_host", "disable_keep_alives"] {
            if check.is_written(&[key]) {
                check.error(&[key], "keepalive is set, too, and says the same: remove one of the two");
            }
        }
    }
}

/// What all exporters have to say of these settings. `endpoint`, `compression` and `max_conns_per_host` are theirs.
impl Validate for HttpClientConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if !self.proxy_url.expose().is_empty()
            && let Err(reason) = Proxy::parse_url(&self.proxy_url)
        {
            check.error(&["proxy_url"], reason);
        }
        check.without_effect(&["read_buffer_size", "write_buffer_size"], "buffers size themselves");
        check.nested(&["tls"], &self.tls);
        check.nested(&["headers"], &self.headers);
        self.check_connections(check);
        for (index, MiddlewareConfig { id }) in self.middlewares.iter().enumerate() {
            if id.is_empty() {
                check.error(&["middlewares", &index.to_string()], "an entry needs the id of an extension: {id: ...}");
            }
        }
    }
}
