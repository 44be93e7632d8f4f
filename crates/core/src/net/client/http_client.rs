//! Sending a request and reading its answer.

use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::{Chunks, Connector};
use crate::runtime::Runtimes;

/// How connections are made and kept.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// HTTP/2 from the first byte; otherwise as TLS negotiates, else HTTP/1.1.
    pub http2_only: bool,
    /// Ping an HTTP/2 connection this often; `None` for never.
    pub ping_every: Option<Duration>,
    /// How long the answer to a ping may take.
    pub ping_timeout: Duration,
    /// Ping while nothing is under way, too.
    pub ping_idle: bool,
    /// How long an unused HTTP/1.1 connection is kept; `None` for ever.
    pub idle_timeout: Option<Duration>,
    /// How many unused HTTP/1.1 connections are kept for each worker.
    pub max_idle: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            http2_only: false,
            ping_every: None,
            ping_timeout: Duration::from_secs(10),
            ping_idle: false,
            idle_timeout: Some(Duration::from_secs(90)),
            max_idle: 100,
        }
    }
}

/// No answer came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SendError(pub String);

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; what comes after [`Client::MAX_REPLY`] bytes is cut off.
    pub body: Bytes,
    /// What came after the body.
    pub trailers: HeaderMap,
}

/// A client of one backend. Each worker has connections of its own.
pub struct Client {
    workers: Vec<legacy::Client<Connector, Chunks>>,
}

impl Client {
    /// How much of an answer is read, in bytes.
    pub const MAX_REPLY: usize = 64 << 10;

    /// A client for `workers` workers; connects when there is something to send.
    #[must_use]
    pub fn new(workers: usize, connector: &Connector, options: &ClientOptions) -> Self {
        let client = |_| {
            let mut builder = legacy::Client::builder(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(options.idle_timeout)
                .pool_max_idle_per_host(options.max_idle)
                .http2_only(options.http2_only)
                .http2_keep_alive_interval(options.ping_every)
                .http2_keep_alive_timeout(options.ping_timeout)
                .http2_keep_alive_while_idle(options.ping_idle);
            builder.build(connector.clone())
        };
        Self { workers: (0..workers.max(1)).map(client).collect() }
    }

    /// Sends `request` over a connection of this worker, and reads the answer.
    ///
    /// # Errors
    /// If there is no connection, or it breaks before the answer is complete.
    pub async fn send(&self, request: Request<Chunks>) -> Result<Reply, SendError> {
        let index = Runtimes::current_index() % self.workers.len();
        let response = self.workers[index].request(request).await.map_err(|error| describe(&error))?;
        let (head, mut body) = response.into_parts();
        let (body, trailers) = read(&mut body).await?;
        Ok(Reply { status: head.status, headers: head.headers, body, trailers })
    }
}

async fn read(body: &mut Incoming) -> Result<(Bytes, HeaderMap), SendError> {
    let mut data = Bytes::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| describe(&error))?.into_data() {
            Ok(piece) if data.is_empty() && piece.len() <= Client::MAX_REPLY => data = piece,
            Ok(piece) => {
                let room = Client::MAX_REPLY.saturating_sub(data.len());
                let mut joined = BytesMut::from(data);
                joined.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
                data = joined.freeze();
                if piece.len() > room {
                    break;
                }
            }
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((data, trailers))
}

/// The innermost causes say what happened; the outer ones only where.
fn describe(error: &(dyn Error + 'static)) -> SendError {
    let mut text = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let own = error.to_string();
        let is_frame = own == "client error (Connect)" || own == "client error (SendRequest)";
        if !is_frame && !text.contains(&own) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&own);
        }
        cause = error.source();
    }
    SendError(text)
}
