//! What a gRPC answer means.

use nyquist_core::batch::Code;
use nyquist_core::delivery::Outcome;
use nyquist_core::net::client::Reply;
use nyquist_core::net::grpc::{HEADER_LEN, retry_delay, status_from_headers};
use nyquist_core::wire::{Fields, Value};

/// The outcome that `reply` stands for, by the table of the OTLP specification.
pub(super) fn outcome(reply: &Reply, retry_resource_exhausted: bool) -> Outcome {
    let status = status_from_headers(&reply.trailers).or_else(|| status_from_headers(&reply.headers));
    let Some(status) = status else {
        let code = code_of(reply.status);
        let message = format!("the backend answered HTTP {} without a gRPC status; does it speak gRPC?", reply.status);
        return if is_retryable(code) {
            Outcome::Retry { code, after: None, message }
        } else {
            Outcome::Refused { code, message }
        };
    };
    let code = status.code();
    if code == Code::Ok {
        // The message begins behind its flag and length.
        return partial_success(reply.body.get(HEADER_LEN..).unwrap_or_default()).unwrap_or(Outcome::Delivered);
    }
    let message = format!("the backend answered {code:?}: {}", status.message());
    let after = retry_delay(status.details());
    let is_exhausted = code == Code::ResourceExhausted;
    if is_about_size(code, status.message()) {
        return Outcome::TooLarge { message };
    }
    if is_retryable(code) || is_exhausted && (after.is_some() || retry_resource_exhausted) {
        return Outcome::Retry { code, after, message };
    }
    Outcome::Refused { code, message }
}

/// Does the answer say that the message was too large for the server? gRPC has no status for that, so each library has
/// words of its own. What is none of them is what its code says.
fn is_about_size(code: Code, message: &str) -> bool {
    let words: &[&str] = match code {
        Code::ResourceExhausted => &[
            // Go, C++ and what is built on it, JavaScript, this gateway.
            "larger than max",
            // Java.
            "exceeds maximum size",
            // .NET.
            "exceeds the maximum configured message size",
            // tonic, of a message that was compressed.
            "exceeded while decompressing message",
        ],
        // tonic.
        Code::OutOfRange => &["message length too large"],
        _ => &[],
    };
    words.iter().any(|words| message.contains(words))
}

fn is_retryable(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// The status of an answer that is no gRPC:
/// <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>.
fn code_of(status: http::StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// What an `Export*ServiceResponse` says of items that were not taken; `None` if it says nothing.
/// The field numbers are the same for all signals.
pub(crate) fn partial_success(response: &[u8]) -> Option<Outcome> {
    let mut rejected = 0;
    let mut message = String::new();
    for field in Fields::new(response) {
        let (1, Value::Len(partial)) = (field.number, field.value) else { continue };
        for field in Fields::new(partial) {
            match (field.number, field.value) {
                // A negative number is as good as none.
                (1, Value::Varint(count)) => rejected = i64::try_from(count).map_or(0, |_| count),
                (2, Value::Len(text)) => message = String::from_utf8_lossy(text).into_owned(),
                _ => {}
            }
        }
    }
    if rejected == 0 && message.is_empty() {
        return None;
    }
    Some(Outcome::Partly { rejected: usize::try_from(rejected).unwrap_or(usize::MAX), message })
}
