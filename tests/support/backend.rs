//! An OTLP backend (gRPC and HTTP on one port) that records what it gets and can be stopped, refuse
//! or be slow. Unlike a real one, it also tells when something arrives twice.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::otlp::{SpanKey, span_keys};
use super::otlp_client::frame;
use super::ports::free_port;

/// What the backend does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Records it and says OK.
    Accept,
    /// Records it and says OK after a while.
    Slow(Duration),
    /// Refuses for now: UNAVAILABLE or 503.
    Unavailable,
    /// Refuses for good: INVALID_ARGUMENT or 400.
    Invalid,
    /// Says of each request that it is out of range, which gRPC clients are to try again; 400 on HTTP.
    OutOfRange,
    /// Says nothing.
    Hang,
    /// Has no room for now: `RESOURCE_EXHAUSTED` or 429, with a hint when to come back if there is one (whole
    /// seconds on HTTP).
    Exhausted(Option<Duration>),
    /// Refuses for now, with a hint when to come back.
    Later(Duration),
    /// Breaks the stream off (HTTP/1: the connection) before it has taken anything.
    Reset,
    /// Takes it, and breaks the stream off before it has said so.
    TakeAndReset,
    /// Takes all but so many spans of each request, and says so (`partial_success`).
    Partly(usize),
    /// Takes messages of so many bytes at the most.
    Small(usize),
}

/// What arrived and was accepted.
#[derive(Debug, Default)]
struct Record {
    traces: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    headers: Vec<HeaderMap>,
    refused: usize,
    /// When requests came that were not simply taken, by their first span.
    mishandled: Vec<(SpanKey, Instant)>,
}

#[derive(Debug)]
struct Shared {
    behaviour: Mutex<Behaviour>,
    record: Mutex<Record>,
}

/// A running, or stopped, backend.
pub(crate) struct Backend {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    server: Option<Server>,
}

struct Server {
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

impl Backend {
    /// A backend that accepts everything.
    pub(crate) fn start() -> Self {
        let mut backend = Self::stopped();
        backend.restart();
        backend
    }

    /// A backend that does not listen yet.
    pub(crate) fn stopped() -> Self {
        let shared = Shared { behaviour: Mutex::new(Behaviour::Accept), record: Mutex::default() };
        Self { port: free_port(), shared: Arc::new(shared), server: None }
    }

    /// Listens again, on the same port.
    pub(crate) fn restart(&mut self) {
        assert!(self.server.is_none(), "the backend runs");
        let (stop, stopped) = watch::channel(false);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (port, shared) = (self.port, self.shared.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
                ready.send(()).expect("the test waits");
                serve(listener, shared, stopped).await;
            });
        });
        is_ready.recv().expect("the backend listens");
        self.server = Some(Server { stop, thread });
    }

    /// Stops listening and closes all connections. What was recorded has been answered: nothing is
    /// both taken and unacknowledged, so that a test may count exactly.
    pub(crate) fn stop(&mut self) {
        let Some(server) = self.server.take() else { return };
        server.stop.send(true).expect("the backend runs");
        server.thread.join().expect("the backend did not panic");
    }

    /// Changes what happens to requests from now on.
    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().expect("no thread panics with it") = behaviour;
    }

    /// How often each span has arrived.
    pub(crate) fn spans(&self) -> HashMap<SpanKey, usize> {
        let record = self.record();
        let mut counts = HashMap::new();
        for key in record.traces.iter().flat_map(span_keys) {
            *counts.entry(key).or_default() += 1;
        }
        counts
    }

    /// How many spans have arrived, each time counted.
    pub(crate) fn span_count(&self) -> usize {
        self.spans().values().sum()
    }

    /// How many requests were refused.
    pub(crate) fn refused(&self) -> usize {
        self.record().refused
    }

    /// When requests came that were not simply taken, by their first span.
    pub(crate) fn mishandled(&self) -> Vec<(SpanKey, Instant)> {
        self.record().mishandled.clone()
    }

    /// The trace requests that were accepted.
    pub(crate) fn traces(&self) -> Vec<ExportTraceServiceRequest> {
        self.record().traces.clone()
    }

    /// The metric requests that were accepted.
    pub(crate) fn metrics(&self) -> Vec<ExportMetricsServiceRequest> {
        self.record().metrics.clone()
    }

    /// The headers of the requests that were accepted.
    pub(crate) fn headers(&self) -> Vec<HeaderMap> {
        self.record().headers.clone()
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.shared.record.lock().expect("no thread panics with it")
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = server.stop.send(true);
            let _ = server.thread.join();
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.expect("accepting works").0,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let (shared, mut stopped) = (shared.clone(), stopped.clone());
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(request, shared.clone()));
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.http2().initial_stream_window_size(1 << 20).initial_connection_window_size(1 << 20);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = stopped.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
            }
            // A hanging answer must not keep the backend from stopping.
            let _ = tokio::time::timeout(Duration::from_secs(2), connection).await;
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, io::Error> {
    let behaviour = *shared.behaviour.lock().expect("no thread panics with it");
    let (head, body) = request.into_parts();
    let is_grpc = head.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    // A request that breaks off was not received.
    let Ok(body) = body.collect().await else { return Ok(respond(is_grpc, 14)) };
    let message = if is_grpc { grpc_message(&body.to_bytes()) } else { http_message(&head.headers, &body.to_bytes()) };
    let path = head.uri.path();
    let is_traces = path.contains("TraceService") || path.ends_with("/v1/traces");
    let traces = || ExportTraceServiceRequest::decode(message.as_slice()).expect("valid traces");
    if !matches!(behaviour, Behaviour::Accept | Behaviour::Slow(_)) && is_traces {
        let mut record = shared.record.lock().expect("no thread panics with it");
        record.mishandled.extend(span_keys(&traces()).into_iter().next().map(|key| (key, Instant::now())));
    }
    match behaviour {
        Behaviour::Accept | Behaviour::TakeAndReset | Behaviour::Partly(_) => {}
        Behaviour::Small(limit) if message.len() <= limit => {}
        Behaviour::Small(limit) => {
            let what = format!("grpc: received message larger than max ({} vs. {limit})", message.len());
            return Ok(respond_with(is_grpc, if is_grpc { 8 } else { 413 }, &what, None, Bytes::new()));
        }
        Behaviour::Exhausted(hint) => {
            return Ok(respond_with(is_grpc, if is_grpc { 8 } else { 429 }, "no room", hint, Bytes::new()));
        }
        Behaviour::Later(hint) => {
            return Ok(respond_with(is_grpc, if is_grpc { 14 } else { 503 }, "come back", Some(hint), Bytes::new()));
        }
        Behaviour::OutOfRange => {
            return Ok(respond_with(is_grpc, if is_grpc { 11 } else { 400 }, "too far back", None, Bytes::new()));
        }
        Behaviour::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
        Behaviour::Slow(delay) => tokio::time::sleep(delay).await,
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Unavailable | Behaviour::Invalid => {
            shared.record.lock().expect("no thread panics with it").refused += 1;
            return Ok(respond(is_grpc, if behaviour == Behaviour::Invalid { 3 } else { 14 }));
        }
    }
    let mut record = shared.record.lock().expect("no thread panics with it");
    let mut answer = Bytes::new();
    if is_traces {
        let mut request = traces();
        if let Behaviour::Partly(most) = behaviour {
            let rejected = take_spans(&mut request, most);
            let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: "not these".to_owned() };
            answer = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec().into();
        }
        record.traces.push(request);
    } else if path.contains("MetricsService") || path.ends_with("/v1/metrics") {
        record.metrics.push(ExportMetricsServiceRequest::decode(message.as_slice()).expect("valid metrics"));
    } else if !path.contains("LogsService") && !path.ends_with("/v1/logs") {
        return Ok(respond(is_grpc, 12));
    }
    record.headers.push(head.headers);
    if behaviour == Behaviour::TakeAndReset {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(respond_with(is_grpc, if is_grpc { 0 } else { 200 }, "", None, answer))
}

/// Takes up to `most` spans out of `request`; returns how many.
fn take_spans(request: &mut ExportTraceServiceRequest, most: usize) -> i64 {
    let mut taken = 0;
    for spans in request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
        while taken < most && spans.spans.pop().is_some() {
            taken += 1;
        }
    }
    i64::try_from(taken).expect("a few")
}

fn grpc_message(body: &[u8]) -> Vec<u8> {
    let (prefix, message) = body.split_at(5);
    if prefix[0] == 0 { message.to_vec() } else { gunzip(message) }
}

fn http_message(headers: &HeaderMap, body: &[u8]) -> Vec<u8> {
    match headers.get("content-encoding").map(|value| value.as_bytes()) {
        None => body.to_vec(),
        Some(b"gzip") => gunzip(body),
        Some(other) => panic!("this backend has no {}", String::from_utf8_lossy(other)),
    }
}

fn gunzip(compressed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut reader = flate2::read::GzDecoder::new(compressed).take(1 << 30);
    #[allow(clippy::disallowed_methods, reason = "bounded by take, and the sender is under test")]
    reader.read_to_end(&mut plain).expect("valid gzip");
    plain
}

fn respond(is_grpc: bool, status: i32) -> Response<Body> {
    let code = match status {
        _ if is_grpc => status,
        0 => 200,
        3 => 400,
        12 => 404,
        _ => 503,
    };
    respond_with(is_grpc, code, "", None, Bytes::new())
}

/// An answer with this gRPC or HTTP status, a message for people if it is no success, when to come back, and what the
/// answer says.
fn respond_with(is_grpc: bool, code: i32, what: &str, hint: Option<Duration>, answer: Bytes) -> Response<Body> {
    if is_grpc {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.into());
        trailers.insert("grpc-message", what.parse().expect("plain text"));
        if let Some(hint) = hint {
            let details = BASE64_STANDARD_NO_PAD.encode(retry_info(code, hint));
            trailers.insert("grpc-status-details-bin", details.parse().expect("base64"));
        }
        let body = Full::new(frame(false, &answer));
        let body = body.with_trailers(async move { Some(Ok(trailers)) }).boxed_unsync();
        return Response::builder().header("content-type", "application/grpc").body(body).expect("a valid response");
    }
    let code = u16::try_from(code).expect("an HTTP status");
    let mut response = Response::builder().status(code).header("content-type", "application/x-protobuf");
    if let Some(hint) = hint {
        response = response.header("retry-after", hint.as_secs());
    }
    response.body(Full::new(answer).boxed_unsync()).expect("a valid response")
}

/// A `google.rpc.Status` with a `google.rpc.RetryInfo`.
fn retry_info(code: i32, hint: Duration) -> Vec<u8> {
    let varint = |number: u32, value: u64| {
        let mut out = Vec::new();
        prost::encoding::uint64::encode(number, &value, &mut out);
        out
    };
    let bytes = |number: u32, value: Vec<u8>| {
        let mut out = Vec::new();
        prost::encoding::bytes::encode(number, &value, &mut out);
        out
    };
    let delay = [varint(1, hint.as_secs()), varint(2, u64::from(hint.subsec_nanos()))].concat();
    let any = [bytes(1, b"type.googleapis.com/google.rpc.RetryInfo".to_vec()), bytes(2, bytes(1, delay))].concat();
    [varint(1, u64::from(code.unsigned_abs())), bytes(3, any)].concat()
}
