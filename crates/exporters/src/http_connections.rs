//! What the Collector's keys for the connections of HTTP clients mean.

use std::time::Duration;

use nyquist_core::net::client::ClientOptions;

/// The time that the answer to a ping may take where nothing is set.
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// The keys, as they are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HttpConnections {
    pub(crate) max_idle_conns: usize,
    /// 0 for `max_idle_conns`: there is one host.
    pub(crate) max_idle_conns_per_host: usize,
    /// 0 for ever.
    pub(crate) idle_conn_timeout: Duration,
    pub(crate) disable_keep_alives: bool,
    /// 0 for never.
    pub(crate) http2_read_idle_timeout: Duration,
    /// 0 for 15s.
    pub(crate) http2_ping_timeout: Duration,
    pub(crate) force_attempt_http2: bool,
}

impl HttpConnections {
    /// How connections are kept.
    pub(crate) fn options(&self) -> ClientOptions {
        let set = |duration: Duration| Some(duration).filter(|duration| !duration.is_zero());
        ClientOptions {
            http2_only: false,
            ping_every: set(self.http2_read_idle_timeout),
            ping_timeout: set(self.http2_ping_timeout).unwrap_or(PING_TIMEOUT),
            ping_idle: true,
            idle_timeout: set(self.idle_conn_timeout),
            max_idle: match (self.disable_keep_alives, self.max_idle_conns_per_host) {
                (true, _) => 0,
                (false, 0) => self.max_idle_conns,
                (false, per_host) => per_host,
            },
        }
    }

    /// What TLS may negotiate.
    pub(crate) fn alpn(&self) -> &'static [&'static str] {
        if self.force_attempt_http2 && !self.disable_keep_alives { &["h2", "http/1.1"] } else { &["http/1.1"] }
    }
}
