//! One connection: handshake, protocol, service, and its end.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::sniff::{Protocol, Sniffed, sniff};
use super::socket::{Socket, Stream};
use super::suspects::is_foul;
use super::{Handler, Keepalive, Peer, Phase, Settings, Shared, Slot};
use crate::net::body::{MAX_READ_BUFFER, Reply};
use crate::net::tls::ServerTls;
use crate::net::turns::{TURN, spend};

/// Large windows and frames: measured to halve the cost of large requests.
const WINDOW: u32 = 1 << 20;
const FRAME: u32 = 64 << 10;
/// Headers of one request, as HTTP/2 counts them: names, values and 32 bytes for each. One byte can stand for a header
/// that was sent before, so that what comes is no measure of what it becomes.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// What a request takes of its connection's turn: some 16 begin in one.
const REQUEST_UNITS: usize = TURN / 16;

/// Serves `socket` to its end, however that comes: by itself, by age, idleness or shutdown.
///
/// Connections are many and mostly idle, and an idle one costs what this future holds: what leads up to the
/// connection is a box of its own, gone when the connection is there.
#[allow(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
pub(super) fn run<H: Handler>(socket: Socket, slot: Slot<H>) -> impl Future<Output = ()> + Send {
    async move {
        let opening: Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(open(socket, &slot));
        let Some(Open { mut connection, mut life }) = opening.await else { return };
        let mut phase = slot.shared.phase.clone();
        let mut finishing = false;
        loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => {
                    return result.err().iter().for_each(|error| slot.shared.broke(error, slot.place.peer()));
                }
                changed = phase.changed() => {
                    // Who is gone cannot say more.
                    if changed.is_err() || *phase.borrow_and_update() == Phase::Closed {
                        return;
                    }
                }
                verdict = poll_fn(|cx| Life::poll(&mut life, cx)) => match verdict {
                    Verdict::Live => continue,
                    Verdict::Finish => {}
                    Verdict::Close => return,
                }
            }
            if !finishing {
                finishing = true;
                connection.as_mut().finish();
            }
        }
    }
}

impl<H> Shared<H> {
    /// A connection of `peer` ended with `error`.
    fn broke(&self, error: &hyper::Error, peer: Option<Peer>) {
        tracing::debug!(%error, "a connection broke");
        if is_foul(error) && self.suspects.add(peer, Instant::now()) {
            let (endpoint, reason) = (&self.settings.endpoint, error.source().map(ToString::to_string));
            let (client, reason) = (peer.map(|peer| peer.0), reason.unwrap_or_else(|| error.to_string()));
            tracing::warn!(endpoint, ?client, reason, "a client breaks the rules of HTTP: its next connections wait");
        }
    }
}

/// A connection that is served, and when it has to end, if ever.
struct Open {
    connection: Pin<Box<dyn Connection>>,
    life: Option<Box<Life>>,
}

async fn open<H: Handler>(socket: Socket, slot: &Slot<H>) -> Option<Open> {
    if let Some(pause) = slot.shared.suspects.pause(slot.place.peer(), Instant::now()) {
        tokio::time::sleep(pause).await;
    }
    // A socket is tied to the poller of one runtime: to this one's, from here on.
    let stream = socket.into_stream().inspect_err(|error| tracing::debug!(%error, "cannot register a connection"));
    match (stream.ok()?, &slot.shared.settings.tls) {
        (Stream::Tcp(stream), None) => serve(stream, slot).await,
        (Stream::Tcp(stream), Some(tls)) => Box::pin(secure(stream, tls, slot)).await,
        (Stream::Unix(stream), None) => serve(stream, slot).await,
        (Stream::Unix(stream), Some(tls)) => Box::pin(secure(stream, tls, slot)).await,
    }
}

async fn secure<S, H>(socket: S, tls: &ServerTls, slot: &Slot<H>) -> Option<Open>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let accepting = TlsAcceptor::from(tls.current()).accept(socket);
    match timeout(slot.shared.settings.head_timeout, accepting).await {
        Some(Ok(stream)) => return serve(Box::new(stream), slot).await,
        Some(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        None => tracing::debug!("a TLS handshake took too long"),
    }
    None
}

async fn serve<S, H>(stream: S, slot: &Slot<H>) -> Option<Open>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let settings = &slot.shared.settings;
    let (protocol, mut stream) = recognized(stream, &slot.shared).await?;
    stream.set_write_timeout(settings.write_timeout);
    let mut io = TokioIo::new(stream);
    let activity = settings.keepalive.max_idle.map(|_| Activity::new());
    let life = Life::new(&settings.keepalive, activity.clone());
    let service = Call { shared: Arc::clone(&slot.shared), peer: slot.place.peer(), activity };
    let connection: Pin<Box<dyn Connection>> = match protocol {
        Protocol::Http1 => Box::pin(http1_builder(settings).serve_connection(io, service)),
        Protocol::Http2 => {
            io.inner_mut().set_frame_timeout(settings.head_timeout);
            Box::pin(http2_builder(settings).serve_connection(io, service))
        }
    };
    Some(Open { connection, life })
}

/// What `stream` speaks; `None` if it does not say so, or the server ends first.
async fn recognized<S, H>(stream: S, shared: &Shared<H>) -> Option<(Protocol, Sniffed<S>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut draining = shared.phase.clone();
    tokio::select! {
        sniffed = timeout(shared.settings.head_timeout, sniff(stream)) => sniffed?.ok()?,
        // Nothing has been asked on it: it can go at once.
        _ = draining.wait_for(|phase| *phase != Phase::Running) => None,
    }
}

fn http1_builder(settings: &Settings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.head_timeout)
        .keep_alive(settings.reuse_http1)
        .max_buf_size(MAX_READ_BUFFER);
    builder
}

fn http2_builder(settings: &Settings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(settings.keepalive.time)
        .keep_alive_timeout(settings.keepalive.timeout)
        .auto_date_header(false);
    builder
}

async fn timeout<F: Future>(limit: Option<Duration>, future: F) -> Option<F::Output> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, future).await.ok(),
        None => Some(future.await),
    }
}

/// What HTTP/1 and HTTP/2 connections have in common.
trait Connection: Future<Output = hyper::Result<()>> + Send {
    /// Lets the requests that have begun end, then closes.
    fn finish(self: Pin<&mut Self>);
}

impl<I, H> Connection for http1::Connection<I, Call<H>>
where
    I: Read + Write + Unpin + Send + 'static,
    H: Handler,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, H> Connection for http2::Connection<I, Call<H>, TokioExecutor>
where
    I: Read + Write + Unpin + Send + 'static,
    H: Handler,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// The handler as hyper wants it.
struct Call<H> {
    shared: Arc<Shared<H>>,
    peer: Option<Peer>,
    activity: Option<Arc<Activity>>,
}

impl<H: Handler> Service<Request<Incoming>> for Call<H> {
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        spend(REQUEST_UNITS);
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        let handler = Arc::clone(&self.shared.handler);
        let busy = self.activity.as_ref().map(Activity::begin);
        Box::pin(async move {
            let response = handler.handle(request).await;
            drop(busy);
            Ok(response)
        })
    }
}

/// How many requests a connection has open, and since when it has none.
struct Activity {
    state: Mutex<(usize, Instant)>,
}

struct Busy(Arc<Activity>);

impl Activity {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new((0, Instant::now())) })
    }

    fn begin(self: &Arc<Self>) -> Busy {
        self.state.lock().0 += 1;
        Busy(Arc::clone(self))
    }

    /// Since when nothing is open; now, if something is.
    fn idle_since(&self) -> Instant {
        match *self.state.lock() {
            (0, since) => since,
            _ => Instant::now(),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        *state = (state.0 - 1, Instant::now());
    }
}

enum Verdict {
    Live,
    Finish,
    Close,
}

/// When a connection has to end, by age or idleness.
struct Life {
    finish_at: Option<Instant>,
    grace: Option<Duration>,
    close_at: Option<Instant>,
    idle: Option<(Duration, Arc<Activity>)>,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Life {
    /// `None` for one that may go on for ever.
    fn new(keepalive: &Keepalive, activity: Option<Arc<Activity>>) -> Option<Box<Self>> {
        if keepalive.max_age.is_none() && activity.is_none() {
            return None;
        }
        // Connections that came together should not leave together.
        let jitter = rand::random_range(0.9..1.1);
        let mut life = Self {
            finish_at: keepalive.max_age.map(|age| Instant::now() + age.mul_f64(jitter)),
            grace: keepalive.max_age_grace,
            close_at: None,
            idle: keepalive.max_idle.zip(activity),
            timer: None,
        };
        life.arm();
        Some(Box::new(life))
    }

    fn arm(&mut self) {
        let idle_at = self.idle.as_ref().map(|(limit, activity)| activity.idle_since() + *limit);
        let next = [self.finish_at, self.close_at, idle_at].into_iter().flatten().min();
        self.timer = next.map(|at| Box::pin(tokio::time::sleep_until(at)));
    }

    /// What follows when the next thing has expired in `life`.
    fn poll(life: &mut Option<Box<Self>>, cx: &mut Context<'_>) -> Poll<Verdict> {
        let Some(life) = life else { return Poll::Pending };
        let Some(timer) = &mut life.timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(life.expire())
    }

    fn expire(&mut self) -> Verdict {
        let now = Instant::now();
        if self.close_at.is_some_and(|at| at <= now) {
            return Verdict::Close;
        }
        let is_old = self.finish_at.is_some_and(|at| at <= now);
        let is_idle = self.idle.as_ref().is_some_and(|(limit, activity)| activity.idle_since() + *limit <= now);
        if is_old || is_idle {
            self.finish_at = None;
            self.idle = None;
            self.close_at = self.grace.map(|grace| now + grace);
            self.arm();
            return Verdict::Finish;
        }
        self.arm();
        Verdict::Live
    }
}
