//! Sending a request and reading its answer.

use std::error::Error;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::connect::MOST_WAYS;
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

/// A way to the backend that did not work is left alone for this long, while there are others.
const REST: Duration = Duration::from_secs(5);

/// A client of one backend. Each worker has connections of its own.
///
/// Over HTTP/2, where all requests share one connection, there is a connection to each address that the backend's name
/// has, and requests take them in turn, as gRPC's `round_robin` does: a way that fails is passed over and tried again
/// later. Over HTTP/1.1 each new connection goes to the next address.
pub struct Client {
    workers: Vec<Ways>,
}

/// The connections of one worker.
struct Ways {
    connector: Connector,
    options: ClientOptions,
    /// Those that have been used; more than one over HTTP/2 only.
    ways: Vec<Way>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Way {
    client: OnceLock<legacy::Client<Connector, Chunks>>,
    /// It did not work, and is left alone until then.
    rests_until: Mutex<Option<Instant>>,
}

impl Way {
    fn rests(&self) -> bool {
        self.rests_until.lock().is_some_and(|until| Instant::now() < until)
    }
}

/// A use of a way. Dropped before it has worked, also by who has waited long enough, the way has a rest.
struct Use<'a>(&'a Way);

impl Use<'_> {
    fn worked(self) {
        *self.0.rests_until.lock() = None;
        std::mem::forget(self);
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        *self.0.rests_until.lock() = Some(Instant::now() + REST);
    }
}

impl Ways {
    fn new(connector: &Connector, options: &ClientOptions) -> Self {
        let most = if options.http2_only { MOST_WAYS } else { 1 };
        Self {
            connector: connector.clone(),
            options: options.clone(),
            ways: (0..most).map(|_| Way::default()).collect(),
            next: AtomicUsize::new(0),
        }
    }

    async fn send(&self, mut request: Request<Chunks>) -> Result<Response<Incoming>, legacy::Error> {
        let count = self.connector.ways().min(self.ways.len());
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let order = (0..count).map(|step| turn.wrapping_add(step) % count);
        let mut usable = order.filter(|&index| !self.ways[index].rests()).peekable();
        // If all rest, the one whose turn it is must do.
        let mut index = usable.next().unwrap_or_else(|| turn.checked_rem(count).unwrap_or_default());
        loop {
            let way = &self.ways[index];
            let client = way.client.get_or_init(|| self.client(index));
            let used = Use(way);
            let again = usable.peek().map(|&another| (another, request.clone()));
            match (client.request(request).await, again) {
                (Ok(response), _) => {
                    used.worked();
                    return Ok(response);
                }
                // Nothing was sent: another way may do.
                (Err(error), Some(again)) if error.is_connect() => {
                    usable.next();
                    (index, request) = again;
                }
                (Err(error), _) => return Err(error),
            }
        }
    }

    fn client(&self, index: usize) -> legacy::Client<Connector, Chunks> {
        let (connector, options) = (&self.connector, &self.options);
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
        builder.build(if options.http2_only { connector.way(index) } else { connector.clone() })
    }
}

impl Client {
    /// How much of an answer is read, in bytes.
    pub const MAX_REPLY: usize = 64 << 10;

    /// A client for `workers` workers; connects when there is something to send.
    #[must_use]
    pub fn new(workers: usize, connector: &Connector, options: &ClientOptions) -> Self {
        Self { workers: (0..workers.max(1)).map(|_| Ways::new(connector, options)).collect() }
    }

    /// Sends `request` over a connection of this worker, and reads the answer.
    ///
    /// # Errors
    /// If there is no connection, or it breaks before the answer is complete.
    pub async fn send(&self, request: Request<Chunks>) -> Result<Reply, SendError> {
        let index = Runtimes::current_index() % self.workers.len();
        let response = self.workers[index].send(request).await.map_err(|error| describe(&error))?;
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
