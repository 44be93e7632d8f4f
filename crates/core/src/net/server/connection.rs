//! One connection: handshake, protocol, service, and its end.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, Service};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::sniff::{Protocol, Sniffed, sniff};
use super::socket::Stream;
use super::{Handler, Keepalive, Peer, Phase, Settings, Shared};
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

/// Serves `socket` to its end.
///
/// Connections are many and mostly idle, and an idle one costs what its future holds: each stage is
/// a box of its own, gone when the next one begins.
pub(super) async fn run<H: Handler>(socket: Stream, shared: &Arc<Shared<H>>) {
    match socket {
        Stream::Tcp(socket) => {
            let peer = socket.peer_addr().ok().map(|address| Peer(address.ip()));
            match &shared.settings.tls {
                None => Box::pin(serve(socket, peer, shared)).await,
                Some(tls) => Box::pin(secure(socket, peer, tls, shared)).await,
            }
        }
        Stream::Unix(socket) => match &shared.settings.tls {
            None => Box::pin(serve(socket, None, shared)).await,
            Some(tls) => Box::pin(secure(socket, None, tls, shared)).await,
        },
    }
}

async fn secure<S, H>(socket: S, peer: Option<Peer>, tls: &ServerTls, shared: &Arc<Shared<H>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let accepting = Box::pin(TlsAcceptor::from(tls.current()).accept(socket));
    match timeout(shared.settings.head_timeout, accepting).await {
        Some(Ok(stream)) => serve(Box::new(stream), peer, shared).await,
        Some(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        None => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn serve<S, H>(stream: S, peer: Option<Peer>, shared: &Arc<Shared<H>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let settings = &shared.settings;
    let Some((protocol, mut stream)) = Box::pin(recognized(stream, shared)).await else { return };
    stream.set_write_timeout(settings.write_timeout);
    let mut io = TokioIo::new(stream);
    let activity = settings.keepalive.max_idle.map(|_| Activity::new());
    let service = Call { handler: Arc::clone(&shared.handler), peer, activity: activity.clone() };
    match protocol {
        Protocol::Http1 => {
            let connection = Box::pin(http1_builder(settings).serve_connection(io, service));
            Box::pin(drive(connection, shared, activity)).await;
        }
        Protocol::Http2 => {
            io.inner_mut().set_frame_timeout(settings.head_timeout);
            let connection = Box::pin(http2_builder(settings).serve_connection(io, service));
            Box::pin(drive(connection, shared, activity)).await;
        }
    }
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

/// Runs `connection` to its end, however that comes: by itself, by age, idleness or shutdown.
async fn drive<C: Connection, H>(mut connection: Pin<Box<C>>, shared: &Shared<H>, activity: Option<Arc<Activity>>) {
    let (mut phase, mut last_phase) = (shared.phase.clone(), shared.phase.clone());
    let mut draining = pin!(phase.wait_for(|phase| *phase != Phase::Running));
    let mut closed = pin!(last_phase.wait_for(|phase| *phase == Phase::Closed));
    let mut life = Life::new(&shared.settings.keepalive, activity);
    let mut finishing = false;
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection broke");
                }
                return;
            }
            _ = &mut draining, if !finishing => {}
            _ = &mut closed => return,
            () = life.wait() => match life.expire() {
                Verdict::Live => continue,
                Verdict::Finish if finishing => continue,
                Verdict::Finish => {}
                Verdict::Close => return,
            }
        }
        finishing = true;
        connection.as_mut().finish();
    }
}

/// What HTTP/1 and HTTP/2 connections have in common.
trait Connection: Future<Output = hyper::Result<()>> {
    /// Lets the requests that have begun end, then closes.
    fn finish(self: Pin<&mut Self>);
}

impl<I, S> Connection for http1::Connection<I, S>
where
    I: Read + Write + Unpin + 'static,
    S: HttpService<Incoming, ResBody = Reply>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, H> Connection for http2::Connection<I, Call<H>, TokioExecutor>
where
    I: Read + Write + Unpin + 'static,
    H: Handler,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// The handler as hyper wants it.
struct Call<H> {
    handler: Arc<H>,
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
        let handler = Arc::clone(&self.handler);
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
    fn new(keepalive: &Keepalive, activity: Option<Arc<Activity>>) -> Self {
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
        life
    }

    fn arm(&mut self) {
        let idle_at = self.idle.as_ref().map(|(limit, activity)| activity.idle_since() + *limit);
        let next = [self.finish_at, self.close_at, idle_at].into_iter().flatten().min();
        self.timer = next.map(|at| Box::pin(tokio::time::sleep_until(at)));
    }

    /// Until something may have expired.
    async fn wait(&mut self) {
        match &mut self.timer {
            Some(timer) => timer.as_mut().await,
            None => std::future::pending().await,
        }
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
