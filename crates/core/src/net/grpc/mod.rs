//! gRPC over hyper, by hand: unary calls, their framing and their statuses.
//!
//! Protocol: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>. Why by hand:
//! docs/decisions/2026-11-22-grpc-by-hand.md. Both ends use this module: servers read requests and
//! write replies with it, clients the other way round.

mod frame;
mod status;

#[cfg(test)]
mod tests;

pub use frame::{HEADER_LEN, MessageError, encode_message, header, read_message};
pub use status::{encode_status, http_status, retry_delay, status_from_headers, with_retry};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::body::Reply;

/// `application/grpc`.
pub const CONTENT_TYPE_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The encodings of messages that [`read_message`] decodes: `grpc-accept-encoding`.
pub const ACCEPT_ENCODING: HeaderValue = HeaderValue::from_static("gzip,zstd,snappy");

/// Is `content_type` one of gRPC's: `application/grpc`, with `+proto` or nothing behind it?
#[must_use]
pub fn is_grpc(content_type: Option<&HeaderValue>) -> bool {
    let Some(value) = content_type else { return false };
    let Some(rest) = value.as_bytes().strip_prefix(b"application/grpc") else { return false };
    rest.is_empty() || rest.starts_with(b";") || rest == b"+proto" || rest.starts_with(b"+proto;")
}

/// The reply to a call that went well: `message` is the encoded response.
#[must_use]
pub fn reply(message: &[u8]) -> Response<Reply> {
    respond(Reply::with_trailers(encode_message(message), well()))
}

/// The reply to a call that goes well and has an answer now and then: `messages` are framed ([`encode_message`]).
#[must_use]
pub fn reply_streaming(messages: mpsc::Receiver<Bytes>) -> Response<Reply> {
    respond(Reply::streaming(messages, well()))
}

fn well() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", unindexed(HeaderValue::from_static("0")));
    trailers
}

fn respond(reply: Reply) -> Response<Reply> {
    let mut response = Response::new(reply);
    response.headers_mut().insert(CONTENT_TYPE, unindexed(CONTENT_TYPE_GRPC));
    response
}

/// `value`, kept out of HPACK's dynamic table. Without one an idle connection takes half a kilobyte less, and a reply
/// two dozen bytes more.
fn unindexed(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// A status without details, to [`refuse`] with.
#[must_use]
pub fn refusal(code: Code, message: &str) -> Status {
    Status::new(code, message)
}

/// The reply to a call that failed: headers only.
#[must_use]
pub fn refuse(status: &Status) -> Response<Reply> {
    let mut response = Response::new(Reply::default());
    let headers = response.headers_mut();
    // A status that cannot be written as headers loses its details, not its code.
    if status.add_header(headers).is_err() {
        headers.insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    headers.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
    if status.code() == Code::Unimplemented {
        headers.insert("grpc-accept-encoding", ACCEPT_ENCODING);
    }
    response
}
