//! What an HTTP answer means.

use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use nyquist_core::batch::Code;
use nyquist_core::delivery::Outcome;
use nyquist_core::net::client::Reply;
use nyquist_core::wire::{Fields, Value};

use crate::http_client::retry_after;
use crate::otlp::partial_success;

/// The outcome that `reply` stands for, by the table of the OTLP specification. `now` is the wall
/// clock, in nanoseconds since 1970.
pub(super) fn outcome(reply: &Reply, now: u64) -> Outcome {
    let status = reply.status;
    let content_type = reply.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    if status.is_success() {
        return success(content_type, &reply.body);
    }
    let message = match error_message(content_type, &reply.body) {
        Some(text) => format!("the backend answered HTTP {status}: {text}"),
        None => format!("the backend answered HTTP {status}"),
    };
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let code =
                if status == StatusCode::TOO_MANY_REQUESTS { Code::ResourceExhausted } else { Code::Unavailable };
            let after = retry_after(&reply.headers, Duration::from_nanos(now));
            Outcome::Retry { code, after, message }
        }
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            Outcome::Retry { code: Code::Unavailable, after: None, message }
        }
        StatusCode::PAYLOAD_TOO_LARGE => Outcome::TooLarge { message },
        // The Collector's answer, and this gateway's, to what is over max_request_body_size.
        StatusCode::BAD_REQUEST if message.contains("request body too large") => Outcome::TooLarge { message },
        _ => Outcome::Refused { code: code_of(status), message },
    }
}

fn success(content_type: &str, body: &[u8]) -> Outcome {
    match content_type {
        "application/x-protobuf" => {
            let mut fields = Fields::new(body);
            loop {
                match fields.next_field() {
                    Ok(Some(_)) => {}
                    Ok(None) => return partial_success(body).unwrap_or(Outcome::Delivered),
                    Err(error) => return unreadable(&error),
                }
            }
        }
        "application/json" if !body.is_empty() => match serde_json::from_slice(body) {
            Ok(answer) => partial_success_in_json(&answer).unwrap_or(Outcome::Delivered),
            Err(error) => unreadable(&error),
        },
        _ => Outcome::Delivered,
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Outcome {
    Outcome::Refused { code: Code::Internal, message: format!("the backend's answer cannot be read: {error}") }
}

/// The counterpart of [`partial_success`] for JSON, where 64-bit numbers may be text.
fn partial_success_in_json(answer: &serde_json::Value) -> Option<Outcome> {
    let partial = answer.get("partialSuccess")?;
    let keys = ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"];
    let rejected = keys.iter().find_map(|key| {
        let count = partial.get(key)?;
        count.as_u64().or_else(|| count.as_str()?.parse().ok())
    });
    let rejected = rejected.unwrap_or(0);
    let message = partial.get("errorMessage").and_then(|text| text.as_str()).unwrap_or_default().to_owned();
    if rejected == 0 && message.is_empty() {
        return None;
    }
    Some(Outcome::Partly { rejected: usize::try_from(rejected).unwrap_or(usize::MAX), message })
}

/// What the body says went wrong: a `google.rpc.Status`, in either encoding, or plain text.
fn error_message(content_type: &str, body: &[u8]) -> Option<String> {
    const MAX_CHARS: usize = 512;
    let text = match content_type {
        "application/x-protobuf" => Fields::new(body).find_map(|field| match (field.number, field.value) {
            (2, Value::Len(text)) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        })?,
        "application/json" => {
            let status: serde_json::Value = serde_json::from_slice(body).ok()?;
            status.get("message")?.as_str()?.to_owned()
        }
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_CHARS).collect();
    Some(text).filter(|text| !text.is_empty())
}

fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        _ => Code::Internal,
    }
}
