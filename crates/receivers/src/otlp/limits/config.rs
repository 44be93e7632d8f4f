//! `client_limits`.

use ::http::HeaderName;
use nyquist_core::config::{ByteSize, Check, Duration, Validate};
use serde::Deserialize;

/// One of `client_limits`: what each client may send. Not a key of the Collector.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClientLimit {
    /// What makes a client: `client.address`, `metadata.<header>`, `auth.<attribute>`. Those without it (a
    /// request without the header) are one client together.
    pub per: String,
    /// Requests a second.
    pub requests_per_second: Option<f64>,
    /// Bytes of requests a second, decoded.
    pub bytes_per_second: Option<ByteSize>,
    /// Spans, data points and log records a second.
    pub items_per_second: Option<f64>,
    /// A client that was quiet may send what it saved up in this time at once; default 10s.
    pub burst: Duration,
    /// Bytes of its requests that may be in the process at once.
    pub max_in_flight: Option<ByteSize>,
    /// Clients that are told apart, default 10000; the ones beyond are one client together.
    pub max_clients: usize,
}

impl Default for ClientLimit {
    fn default() -> Self {
        Self {
            per: String::new(),
            requests_per_second: None,
            bytes_per_second: None,
            items_per_second: None,
            burst: Duration::from_secs(10),
            max_in_flight: None,
            max_clients: 10_000,
        }
    }
}

/// What makes a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Per {
    /// Its address.
    Address,
    /// The value of a header.
    Header(HeaderName),
    /// What the authenticator knows of it.
    Auth(String),
}

impl ClientLimit {
    pub(super) fn per(&self) -> Option<Per> {
        if self.per == "client.address" {
            return Some(Per::Address);
        }
        if let Some(header) = self.per.strip_prefix("metadata.") {
            return HeaderName::try_from(header).ok().map(Per::Header);
        }
        let attribute = self.per.strip_prefix("auth.").filter(|attribute| !attribute.is_empty())?;
        Some(Per::Auth(attribute.to_owned()))
    }

    /// Does it need an authenticator?
    pub(in crate::otlp) fn asks_who(&self) -> bool {
        matches!(self.per(), Some(Per::Auth(_)))
    }
}

impl Validate for ClientLimit {
    fn validate(&self, check: &mut Check<'_>) {
        if self.per().is_none() {
            let message = format!(
                "{:?} is not what makes a client: one of client.address, metadata.<header>, auth.<attribute>",
                self.per
            );
            check.error(&["per"], message);
        }
        let sizes = [("bytes_per_second", self.bytes_per_second), ("max_in_flight", self.max_in_flight)];
        let rates = [("requests_per_second", self.requests_per_second), ("items_per_second", self.items_per_second)];
        for (key, _) in sizes.iter().filter(|(_, size)| size.is_some_and(|size| size.0 == 0)) {
            check.error(&[key], "nothing could come in: leave it out for no limit");
        }
        for (key, _) in rates.iter().filter(|(_, rate)| rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0)) {
            check.error(&[key], "must be a number above 0; leave it out for no limit");
        }
        if sizes.iter().all(|(_, size)| size.is_none()) && rates.iter().all(|(_, rate)| rate.is_none()) {
            let message =
                "limits nothing: set requests_per_second, bytes_per_second, items_per_second or max_in_flight";
            check.error(&[], message);
        }
        if self.burst.0.is_zero() {
            check.error(&["burst"], "must be more than 0s");
        }
        if self.max_clients == 0 {
            check.error(&["max_clients"], "must be at least 1");
        }
    }
}
