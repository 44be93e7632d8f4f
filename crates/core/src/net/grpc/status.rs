//! `google.rpc.Status`, `google.rpc.RetryInfo`, and how gRPC codes read in HTTP.
//!
//! Messages: <https://github.com/googleapis/googleapis/tree/master/google/rpc>.

use std::time::Duration;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tonic::{Code, Status};

use crate::wire::{Fields, Value, put_len_field, put_tag, put_varint};

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// A `google.rpc.Status`, encoded; with a `RetryInfo` if `retry` is given.
#[must_use]
pub fn encode_status(code: Code, message: &str, retry: Option<Duration>) -> Bytes {
    let mut status = Vec::with_capacity(message.len() + 80);
    if code != Code::Ok {
        put_tag(&mut status, 1, 0);
        put_varint(&mut status, code as u64);
    }
    if !message.is_empty() {
        put_len_field(&mut status, 2, message.as_bytes());
    }
    if let Some(delay) = retry {
        let mut duration = Vec::new();
        if delay.as_secs() > 0 {
            put_tag(&mut duration, 1, 0);
            put_varint(&mut duration, delay.as_secs());
        }
        if delay.subsec_nanos() > 0 {
            put_tag(&mut duration, 2, 0);
            put_varint(&mut duration, u64::from(delay.subsec_nanos()));
        }
        let mut retry_info = Vec::new();
        put_len_field(&mut retry_info, 1, &duration);
        let mut any = Vec::new();
        put_len_field(&mut any, 1, RETRY_INFO.as_bytes());
        put_len_field(&mut any, 2, &retry_info);
        put_len_field(&mut status, 3, &any);
    }
    status.into()
}

/// A status that asks the client to come back after `delay`.
#[must_use]
pub fn with_retry(code: Code, message: &str, delay: Duration) -> Status {
    Status::with_details(code, message, encode_status(code, message, Some(delay)))
}

/// The delay of the `RetryInfo` in an encoded `google.rpc.Status`, if it has one. Hostile bytes
/// are an absent delay.
#[must_use]
pub fn retry_delay(status: &[u8]) -> Option<Duration> {
    let mut delay = None;
    for any in messages(status, 3) {
        let is_retry_info = messages(any, 1).last() == Some(RETRY_INFO.as_bytes());
        if !is_retry_info {
            continue;
        }
        for duration in messages(any, 2).flat_map(|retry_info| messages(retry_info, 1)) {
            let mut seconds = 0u64;
            let mut nanos = 0u64;
            for field in Fields::new(duration) {
                match (field.number, field.value) {
                    (1, Value::Varint(value)) => seconds = value,
                    (2, Value::Varint(value)) => nanos = value,
                    _ => {}
                }
            }
            // Both are signed; what is negative is no delay to wait for.
            let is_sane = i64::try_from(seconds).is_ok() && nanos < 1_000_000_000;
            delay = is_sane.then(|| Duration::new(seconds, nanos as u32));
        }
    }
    delay
}

fn messages(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    Fields::new(message).filter_map(move |field| match field.value {
        Value::Len(bytes) if field.number == number => Some(bytes),
        _ => None,
    })
}

/// The status in the headers or trailers of a reply; `None` if there is none.
///
/// tonic's own reader panics on details that are not base64, which is the peer's to choose.
#[must_use]
pub fn status_from_headers(headers: &HeaderMap) -> Option<Status> {
    let code = Code::from_bytes(headers.get("grpc-status")?.as_bytes());
    let message = headers.get("grpc-message").map_or_else(String::new, |value| percent_decode(value.as_bytes()));
    let details = headers.get("grpc-status-details-bin").and_then(|value| {
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        GeneralPurpose::new(&STANDARD, config).decode(value.as_bytes()).ok()
    });
    Some(Status::with_details(code, message, details.unwrap_or_default().into()))
}

fn percent_decode(text: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%').then(|| after.first_chunk::<2>()).flatten();
        let byte = escaped.and_then(|digits| {
            let high = char::from(digits[0]).to_digit(16)?;
            let low = char::from(digits[1]).to_digit(16)?;
            Some((high << 4 | low) as u8)
        });
        match byte {
            Some(byte) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            None => {
                decoded.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The HTTP status for a refusal with `code`, as the Collector's OTLP receiver maps it.
#[must_use]
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => StatusCode::SERVICE_UNAVAILABLE,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unimplemented => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
