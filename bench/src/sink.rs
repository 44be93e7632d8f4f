//! The backend of the measurement: takes OTLP/gRPC and remote write, counts items, says OK. It does
//! as little as it can, because it shares a core with the load generator.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::load::LocalExecutor;

/// What arrived.
#[derive(Default)]
pub struct Received {
    pub items: AtomicU64,
    pub bytes: AtomicU64,
    pub requests: AtomicU64,
}

/// Serves on `listener` for ever.
pub async fn run(listener: TcpListener, received: &'static Received) {
    loop {
        let (stream, _) = listener.accept().await.expect("accepting works");
        stream.set_nodelay(true).expect("a TCP socket");
        tokio::task::spawn_local(async move {
            let service = hyper::service::service_fn(move |request| answer(request, received));
            // Remote write comes as HTTP/1.1, OTLP/gRPC as HTTP/2: the first bytes tell.
            let mut first = [0; 3];
            let is_http2 = stream.peek(&mut first).await.is_ok() && &first == b"PRI";
            let stream = TokioIo::new(stream);
            let result = if is_http2 {
                let mut server = hyper::server::conn::http2::Builder::new(LocalExecutor);
                server.initial_stream_window_size(4 << 20).initial_connection_window_size(16 << 20);
                server.max_frame_size(1 << 16).serve_connection(stream, service).await
            } else {
                hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
            };
            // A peer that leaves is how every run ends.
            drop(result);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    received: &'static Received,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let is_grpc =
        request.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let Ok(body) = request.into_body().collect().await else { return Ok(Response::new(Full::default().boxed())) };
    let body = body.to_bytes();
    let items = if is_grpc { spans(body.get(5..).unwrap_or_default()) } else { series(&body) };
    received.items.fetch_add(items, Ordering::Relaxed);
    received.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    received.requests.fetch_add(1, Ordering::Relaxed);
    if !is_grpc {
        return Ok(Response::builder().status(204).body(Full::default().boxed()).expect("a valid response"));
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async move { Some(Ok(trailers)) });
    let response = Response::builder().header("content-type", "application/grpc").body(BodyExt::boxed(body));
    Ok(response.expect("a valid response"))
}

/// Spans in a trace request: resource_spans (1), scope_spans (2), spans (2).
fn spans(message: &[u8]) -> u64 {
    let mut count = 0;
    each(message, 1, |resource| each(resource, 2, |scope| each(scope, 2, |_| count += 1)));
    count
}

/// Samples in a remote-write request: timeseries (1), samples (2).
fn series(compressed: &[u8]) -> u64 {
    let message = snap::raw::Decoder::new().decompress_vec(compressed).unwrap_or_default();
    let mut count = 0;
    each(&message, 1, |series| each(series, 2, |_| count += 1));
    count
}

/// Calls `found` with the content of every length-delimited field `wanted`.
fn each(mut message: &[u8], wanted: u64, mut found: impl FnMut(&[u8])) {
    while let Some((tag, rest)) = varint(message) {
        message = rest;
        let skip = match tag & 7 {
            0 => {
                let Some((_, rest)) = varint(message) else { return };
                message = rest;
                continue;
            }
            1 => 8,
            5 => 4,
            2 => {
                let Some((length, rest)) = varint(message) else { return };
                message = rest;
                let Some(content) = message.get(..length as usize) else { return };
                if tag >> 3 == wanted {
                    found(content);
                }
                length as usize
            }
            _ => return,
        };
        message = message.get(skip..).unwrap_or_default();
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}
