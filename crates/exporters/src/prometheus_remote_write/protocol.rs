//! The versions of the protocol, and which one the backend takes.

use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use nyquist_core::net::client::user_agent;
use parking_lot::Mutex;

/// The message of remote write 1.0, as `protobuf_message` names it.
pub(super) const MESSAGE_V1: &str = "prometheus.WriteRequest";

/// The message of remote write 2.0.
pub(super) const MESSAGE_V2: &str = "io.prometheus.write.v2.Request";

/// 2.0 where the backend takes it, else 1.0.
pub(super) const AUTO: &str = "auto";

/// Headers that the protocol sets.
pub(super) const RESERVED_HEADERS: [&str; 4] =
    ["content-encoding", "content-type", "x-prometheus-remote-write-version", "user-agent"];

/// A backend that turned 2.0 down is asked again after this time: it may have been updated.
const ASK_AGAIN: Duration = Duration::from_secs(3600);

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// 1.0, `prometheus.WriteRequest`.
    V1,
    /// 2.0, `io.prometheus.write.v2.Request`.
    V2,
}

impl Version {
    /// Sets the headers that the protocol prescribes; nobody overrides them.
    pub(super) fn set_headers(self, headers: &mut HeaderMap) {
        let (content_type, version) = match self {
            Self::V1 => ("application/x-protobuf", "0.1.0"),
            Self::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        headers.insert(HeaderName::from_static("x-prometheus-remote-write-version"), HeaderValue::from_static(version));
        if let Ok(agent) = HeaderValue::try_from(user_agent()) {
            headers.insert(USER_AGENT, agent);
        }
    }
}

/// Which version an endpoint is sent.
#[derive(Debug)]
pub(super) struct Negotiation {
    /// `None`: whatever it takes.
    fixed: Option<Version>,
    known: Mutex<Known>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing yet.
    Nothing,
    /// It has taken 2.0.
    TakesV2,
    /// It turned 2.0 down, at this time of the clock.
    TakesV1 { since: Duration },
}

impl Negotiation {
    /// What `protobuf_message` says; the configuration has been checked.
    pub(super) fn new(protobuf_message: &str) -> Self {
        let fixed = match protobuf_message {
            MESSAGE_V1 => Some(Version::V1),
            MESSAGE_V2 => Some(Version::V2),
            _ => None,
        };
        Self { fixed, known: Mutex::new(Known::Nothing) }
    }

    /// The version for the next request. `now` is the clock's.
    pub(super) fn version(&self, now: Duration) -> Version {
        let learned = || match *self.known.lock() {
            Known::TakesV1 { since } if now.saturating_sub(since) < ASK_AGAIN => Version::V1,
            _ => Version::V2,
        };
        self.fixed.unwrap_or_else(learned)
    }

    /// May 1.0 be tried when 2.0 is turned down?
    pub(super) fn may_fall_back(&self) -> bool {
        self.fixed.is_none()
    }

    /// May 1.0 be tried, because the backend has not shown yet that it knows 2.0?
    pub(super) fn is_in_doubt(&self) -> bool {
        self.may_fall_back() && *self.known.lock() != Known::TakesV2
    }

    /// The backend has answered a request of 2.0 as only those do that know it.
    pub(super) fn prove_v2(&self) {
        *self.known.lock() = Known::TakesV2;
    }

    /// The backend turned 2.0 down, and 1.0 is to be used from now on. `false` if that was known.
    pub(super) fn fall_back(&self, now: Duration) -> bool {
        let before = std::mem::replace(&mut *self.known.lock(), Known::TakesV1 { since: now });
        !matches!(before, Known::TakesV1 { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decision_is_remembered_for_an_hour() {
        let negotiation = Negotiation::new(AUTO);
        assert!(negotiation.is_in_doubt());
        let at = Duration::from_secs;
        assert_eq!(negotiation.version(at(0)), Version::V2);
        assert!(negotiation.fall_back(at(10)));
        assert!(!negotiation.fall_back(at(11)));
        assert_eq!(negotiation.version(at(3610)), Version::V1);
        assert_eq!(negotiation.version(at(3611)), Version::V2);
        negotiation.prove_v2();
        assert!(!negotiation.is_in_doubt());
        assert_eq!(negotiation.version(at(3612)), Version::V2);
    }

    #[test]
    fn a_fixed_version_stays() {
        for (message, version) in [(MESSAGE_V1, Version::V1), (MESSAGE_V2, Version::V2)] {
            let negotiation = Negotiation::new(message);
            assert!(!negotiation.may_fall_back() && !negotiation.is_in_doubt());
            assert_eq!(negotiation.version(Duration::ZERO), version);
        }
    }
}
