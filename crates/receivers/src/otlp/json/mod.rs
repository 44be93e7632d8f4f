//! OTLP/JSON (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).
//!
//! Requests are written out as protobuf while they are read: one table ([`schema`]) says which
//! JSON name is which field of which type, one routine ([`transcode`]) follows it. There is no
//! model in between, and memory is bounded by the body and by what it becomes.

mod transcode;

#[cfg(test)]
mod specification;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use nyquist_core::batch::Signal;
use nyquist_core::otlp_json::schema;
use serde_json::{Value, json};

use super::intake::{Accepted, Rejection};

/// The protobuf message that `body` stands for, of at most `limit` bytes.
///
/// What follows the first JSON value is ignored, as the Collector does.
pub(crate) fn to_wire(signal: Signal, body: &[u8], limit: usize) -> Result<Vec<u8>, serde_json::Error> {
    transcode::transcode(schema::request(signal), body, limit)
}

/// The reply to an accepted request.
pub(super) fn reply(signal: Signal, accepted: Accepted) -> Bytes {
    if accepted.rejected == 0 {
        return Bytes::from_static(b"{}");
    }
    let rejected = match signal {
        Signal::Traces => "rejectedSpans",
        Signal::Metrics => "rejectedDataPoints",
        Signal::Logs => "rejectedLogRecords",
    };
    let partial = json!({ rejected: accepted.rejected.to_string(), "errorMessage": accepted.message(signal) });
    json!({ "partialSuccess": partial }).to_string().into()
}

/// A `google.rpc.Status`.
pub(super) fn status(rejection: &Rejection) -> Bytes {
    let mut status = json!({ "code": rejection.code as i32, "message": rejection.message });
    if let Some(delay) = rejection.retry {
        let seconds = match delay.subsec_nanos() {
            0 => format!("{}s", delay.as_secs()),
            nanos => format!("{}.{nanos:09}s", delay.as_secs()),
        };
        let info = json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": seconds });
        status["details"] = Value::Array(vec![info]);
    }
    status.to_string().into()
}
