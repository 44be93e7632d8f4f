//! What is proved here: messages come out whole however they are cut into frames, limits hold
//! before memory is spent, statuses survive the way through headers, hostile bytes do no harm.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::BodyExt;
use proptest::prelude::*;
use tonic::{Code, Status};

use super::*;
use crate::net::admission::Admission;
use crate::net::body::ReadError;
use crate::net::compression::decode::Encoding;

const LIMIT: usize = 4 << 20;

/// A body that comes in the given pieces.
struct Pieces(VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

fn pieces(bytes: &[u8], size: usize) -> Pieces {
    Pieces(bytes.chunks(size.max(1)).map(Bytes::copy_from_slice).collect())
}

fn framed(compressed: bool, message: &[u8]) -> Vec<u8> {
    [&header(compressed, message.len() as u32)[..], message].concat()
}

async fn read(bytes: &[u8], piece: usize, encoding: Encoding, limit: usize) -> Result<Bytes, MessageError> {
    let admission = Admission::new(1 << 30);
    let mut room = admission.admit(1).expect("there is room");
    read_message(&mut pieces(bytes, piece), encoding, limit, &mut room).await
}

#[tokio::test]
async fn a_message_is_the_same_however_it_is_cut() {
    let message: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let bytes = framed(false, &message);
    for piece in [1, 3, 5, 6, 1000, 16 << 10, 64 << 10, bytes.len()] {
        let read = read(&bytes, piece, Encoding::Identity, LIMIT).await.expect("a good message");
        assert!(read == message, "in pieces of {piece}");
    }
}

#[tokio::test]
async fn compressed_messages_are_decoded_by_the_encoding_of_the_call() {
    let message = b"some telemetry ".repeat(1000);
    let bytes = framed(true, &zstd::bulk::compress(&message, 1).unwrap());
    assert!(read(&bytes, 100, Encoding::Zstd, LIMIT).await.unwrap() == message);
    let error = read(&bytes, 100, Encoding::Identity, LIMIT).await.expect_err("no encoding");
    assert!(matches!(error, MessageError::NoEncoding));
    let error = read(&bytes, 100, Encoding::Gzip, LIMIT).await.expect_err("the wrong encoding");
    assert!(matches!(error, MessageError::Decode(_)));
    // A call may name an encoding and still send a message as it is.
    assert!(read(&framed(false, &message), 100, Encoding::Zstd, LIMIT).await.unwrap() == message);
}

#[tokio::test]
async fn limits_are_those_of_grpc_go() {
    let error = read(&header(false, 5 << 20), 5, Encoding::Identity, LIMIT).await.expect_err("too large");
    assert_eq!(error.to_string(), "grpc: received message larger than max (5242880 vs. 4194304)");
    let bomb = framed(true, &zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap());
    let error = read(&bomb, 16 << 10, Encoding::Zstd, LIMIT).await.expect_err("too large");
    let expected = "grpc: received message after decompression larger than max (4194305 vs. 4194304)";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn bodies_that_are_not_one_message_are_refused() {
    let read = |bytes: Vec<u8>| async move { read(&bytes, 7, Encoding::Identity, LIMIT).await };
    assert!(matches!(read(vec![]).await, Err(MessageError::Truncated { received: 0, expected: 5 })));
    assert!(matches!(read(vec![0, 0]).await, Err(MessageError::Truncated { .. })));
    assert!(matches!(read(vec![0, 0, 0, 0, 9, 1]).await, Err(MessageError::Truncated { received: 1, expected: 9 })));
    assert!(matches!(read(vec![2, 0, 0, 0, 0]).await, Err(MessageError::Flag(2))));
    assert!(matches!(read([framed(false, b"a"), framed(false, b"b")].concat()).await, Err(MessageError::Trailing)));
    assert!(matches!(read([framed(false, b""), framed(false, b"")].concat()).await, Err(MessageError::Trailing)));
}

#[tokio::test]
async fn a_message_is_refused_when_more_has_come_than_there_is_room_for() {
    let admission = Admission::new(1 << 20);
    let _other = admission.admit(1 << 19).expect("there is room");
    let mut room = admission.admit(1).expect("there is room");
    let announced = header(false, 1 << 20);
    let result = read_message(&mut pieces(&announced, 5), Encoding::Identity, LIMIT, &mut room).await;
    assert!(matches!(result, Err(MessageError::Truncated { received: 0, .. })), "{result:?}");
    assert!(room.bytes() <= 64 << 10, "what was announced takes no room: {}", room.bytes());
    let whole = framed(false, &vec![0; 1 << 20]);
    let result = read_message(&mut pieces(&whole, 10_000), Encoding::Identity, LIMIT, &mut room).await;
    assert!(matches!(result, Err(MessageError::Body(ReadError::NoRoom))), "{result:?}");
}

#[tokio::test]
async fn replies_are_a_message_and_a_status() {
    let response = reply(b"abc");
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
    assert_eq!(body.to_bytes(), &b"\0\0\0\0\x03abc"[..]);
}

#[test]
fn a_refusal_is_read_back_as_it_was_meant() {
    let message = "queue is full: 100 % – später";
    let delay = Duration::new(2, 900_000_000);
    let response = refuse(&with_retry(Code::Unavailable, message, delay));
    assert!(http_body::Body::is_end_stream(response.body()));
    let status = status_from_headers(response.headers()).expect("a status");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, message));
    assert_eq!(retry_delay(status.details()), Some(delay));
    // The way tonic reads it is the way other clients do.
    let tonics = Status::from_header_map(response.headers()).expect("a status");
    assert_eq!((tonics.code(), tonics.message(), tonics.details()), (status.code(), message, status.details()));
}

#[test]
fn statuses_of_hostile_peers_are_read_without_harm() {
    let mut headers = HeaderMap::new();
    assert!(status_from_headers(&headers).is_none());
    headers.insert("grpc-status", HeaderValue::from_static("99999999999"));
    headers.insert("grpc-message", HeaderValue::from_bytes(b"%FF%zz%4").unwrap());
    headers.insert("grpc-status-details-bin", HeaderValue::from_static("!!!"));
    let status = status_from_headers(&headers).expect("a status");
    assert_eq!(status.code(), Code::Unknown);
    assert_eq!(status.message(), "\u{fffd}%zz%4");
    assert!(status.details().is_empty());
}

#[test]
fn content_types_of_grpc() {
    let is = |value: &'static str| is_grpc(Some(&HeaderValue::from_static(value)));
    assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;charset=utf-8"));
    assert!(!is("application/grpc-web") && !is("application/grpc+json") && !is("application/json"));
    assert!(!is_grpc(None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever comes in whatever pieces: an answer, no panic, and never more than the limit.
    #[test]
    fn arbitrary_bodies(bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..50) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd, Encoding::Snappy] {
            let wrapped = framed(true, &bytes);
            for body in [&bytes, &wrapped] {
                if let Ok(message) = runtime.block_on(read(body, piece, encoding, 200)) {
                    prop_assert!(message.len() <= 200);
                }
            }
        }
    }

    #[test]
    fn arbitrary_details(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = retry_delay(&bytes);
    }
}
