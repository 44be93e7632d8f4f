//! An OTLP backend (gRPC and HTTP on one port) that records what it gets and can be stopped, refuse
//! or be slow. Unlike a real one, it also tells when something arrives twice.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
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
    /// Says nothing.
    Hang,
}

/// What arrived and was accepted.
#[derive(Debug, Default)]
struct Record {
    traces: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    headers: Vec<HeaderMap>,
    refused: usize,
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

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Infallible> {
    let behaviour = *shared.behaviour.lock().expect("no thread panics with it");
    let (head, body) = request.into_parts();
    let is_grpc = head.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    // A request that breaks off was not received.
    let Ok(body) = body.collect().await else { return Ok(respond(is_grpc, 14)) };
    match behaviour {
        Behaviour::Accept => {}
        Behaviour::Slow(delay) => tokio::time::sleep(delay).await,
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Unavailable | Behaviour::Invalid => {
            shared.record.lock().expect("no thread panics with it").refused += 1;
            return Ok(respond(is_grpc, if behaviour == Behaviour::Invalid { 3 } else { 14 }));
        }
    }
    let message = if is_grpc { grpc_message(&body.to_bytes()) } else { http_message(&head.headers, &body.to_bytes()) };
    let mut record = shared.record.lock().expect("no thread panics with it");
    let path = head.uri.path();
    if path.contains("TraceService") || path.ends_with("/v1/traces") {
        record.traces.push(ExportTraceServiceRequest::decode(message.as_slice()).expect("valid traces"));
    } else if path.contains("MetricsService") || path.ends_with("/v1/metrics") {
        record.metrics.push(ExportMetricsServiceRequest::decode(message.as_slice()).expect("valid metrics"));
    } else if !path.contains("LogsService") && !path.ends_with("/v1/logs") {
        return Ok(respond(is_grpc, 12));
    }
    record.headers.push(head.headers);
    Ok(respond(is_grpc, 0))
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
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.into());
    let body = if is_grpc { frame(false, &[]) } else { Bytes::new() };
    let body = Full::new(body);
    if is_grpc {
        let body = body.with_trailers(async move { Some(Ok(trailers)) }).boxed_unsync();
        return Response::builder().header("content-type", "application/grpc").body(body).expect("a valid response");
    }
    let code = match status {
        0 => 200,
        3 => 400,
        12 => 404,
        _ => 503,
    };
    let response = Response::builder().status(code).header("content-type", "application/x-protobuf");
    response.body(body.boxed_unsync()).expect("a valid response")
}
