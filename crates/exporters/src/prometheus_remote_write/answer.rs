//! What an answer means for the request (remote write specification, "Retries & Backoff").

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};

use crate::http_client::retry_after;

/// What came of one attempt at a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// Taken.
    Delivered {
        /// What the backend says it has written.
        written: Option<Written>,
    },
    /// Not taken; worth another attempt.
    Retry {
        /// How long the backend asks to be left alone.
        after: Option<Duration>,
        /// What happened.
        message: String,
    },
    /// Refused for good.
    Refused {
        /// The backend's status.
        status: StatusCode,
        /// What it says it has written all the same.
        written: Option<Written>,
        /// What happened, the backend's words included.
        message: String,
    },
}

/// What a backend has written of a request: the `X-Prometheus-Remote-Write-*-Written` headers of
/// remote write 2.0. One that is missing beside others counts as 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) samples: u64,
    pub(super) histograms: u64,
    pub(super) exemplars: u64,
}

impl Written {
    /// `None` if there is none of the headers: the backend does not know remote write 2.0.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let names = ["samples", "histograms", "exemplars"];
        let values = names.map(|name| headers.get(format!("x-prometheus-remote-write-{name}-written")));
        if values.iter().all(Option::is_none) {
            return None;
        }
        let number = |value: Option<&HeaderValue>| value?.to_str().ok()?.trim().parse().ok();
        let [samples, histograms, exemplars] = values.map(|value| number(value).unwrap_or_default());
        Some(Self { samples, histograms, exemplars })
    }
}

impl Answer {
    /// What a status means. `body` is logged as it is and never interpreted; `unix_seconds` is
    /// now.
    pub(super) fn of(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        retry_on_429: bool,
        unix_seconds: u64,
    ) -> Self {
        let written = Written::of(headers);
        if status.is_success() {
            return Self::Delivered { written };
        }
        let message = describe(status, body);
        let is_too_many = status == StatusCode::TOO_MANY_REQUESTS && retry_on_429;
        if status.is_server_error() || is_too_many {
            return Self::Retry { after: retry_after(headers, Duration::from_secs(unix_seconds)), message };
        }
        Self::Refused { status, written, message }
    }
}

fn describe(status: StatusCode, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => " (check auth and headers)",
        StatusCode::NOT_FOUND => " (check the path of endpoint; is the remote write receiver enabled?)",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            " (the backend does not take this version of remote write: set protobuf_message)"
        }
        status if status.is_redirection() => " (redirects are not followed: set endpoint to the final address)",
        _ => "",
    };
    format!("{status}{hint}: {}", body.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_written_headers_count_as_zero_unless_all_are() {
        let mut headers = HeaderMap::new();
        assert_eq!(Written::of(&headers), None);
        headers.insert("X-Prometheus-Remote-Write-Samples-Written", "7".parse().unwrap());
        headers.insert("X-Prometheus-Remote-Write-Exemplars-Written", "many".parse().unwrap());
        assert_eq!(Written::of(&headers), Some(Written { samples: 7, histograms: 0, exemplars: 0 }));
    }

    #[test]
    fn statuses_mean_what_the_specification_says() {
        let answer = |status: u16, retry_429| {
            Answer::of(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), b"why", retry_429, 0)
        };
        assert_eq!(answer(204, true), Answer::Delivered { written: None });
        assert_eq!(answer(200, true), Answer::Delivered { written: None });
        for status in [301, 400, 401, 404, 409, 413, 415, 422] {
            assert!(
                matches!(answer(status, true), Answer::Refused { message, .. } if message.ends_with(": why")),
                "{status}"
            );
        }
        for status in [500, 502, 503, 504, 429] {
            assert!(matches!(answer(status, true), Answer::Retry { .. }), "{status}");
        }
        assert!(matches!(answer(429, false), Answer::Refused { .. }));
    }
}
