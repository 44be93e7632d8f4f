//! An OTLP/gRPC backend of tonic's that does what a test tells it to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use nyquist_core::batch::{Batch, Signal};
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{Exporter, ExporterConfig, ExporterContext, Extensions, Host};
use nyquist_core::config::ComponentId;
use nyquist_core::delivery::BatchConfig;
use nyquist_core::net::tls::ServerTls;
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::{Ledger, Telemetry};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tower_service::Service;

type Answer = Result<ExportTraceServiceResponse, Status>;

#[derive(Clone, Default)]
pub(crate) struct Backend {
    /// What to answer; `Ok` when it has run out.
    pub(crate) script: Arc<Mutex<VecDeque<Answer>>>,
    pub(crate) received: Arc<Mutex<Vec<(ExportTraceServiceRequest, MetadataMap)>>>,
    /// The longest message that it takes, in bytes; `None`: tonic's default.
    pub(crate) longest: Option<usize>,
    /// Requests with a span that has this attribute are refused for good, and counted in `refused`, not `received`.
    pub(crate) poison: Option<&'static str>,
    pub(crate) refused: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl TraceService for Backend {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let is_poison =
            |span: &Span| span.attributes.iter().any(|attribute| Some(attribute.key.as_str()) == self.poison);
        if spans(&message).any(is_poison) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Status::invalid_argument("poison"));
        }
        self.received.lock().push((message, metadata));
        let answer = self.script.lock().pop_front();
        answer.unwrap_or_else(|| Ok(ExportTraceServiceResponse::default())).map(Response::new)
    }
}

impl Backend {
    /// Serves on `address`; aborting the task closes everything.
    pub(crate) async fn serve(&self, address: &str, tls: Option<Arc<ServerTls>>) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(self.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        let service = match self.longest {
            Some(longest) => service.max_decoding_message_size(longest),
            None => service,
        };
        let task = async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (service, tls) = (service.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => connection(stream, service).await,
                        Some(tls) => {
                            if let Ok(stream) = TlsAcceptor::from(tls.current()).accept(stream).await {
                                connection(stream, service).await;
                            }
                        }
                    }
                });
            }
        };
        (address, tokio::spawn(task))
    }

    pub(crate) fn answer(&self, answer: Answer) {
        self.script.lock().push_back(answer);
    }

    pub(crate) fn spans(&self) -> Vec<usize> {
        self.received.lock().iter().map(|(request, _)| spans(request).count()).collect()
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, service: TraceServiceServer<Backend>) {
    let service = service_fn(move |request| service.clone().call(request));
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

fn spans(request: &ExportTraceServiceRequest) -> impl Iterator<Item = &Span> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans)
}

/// An exporter under test, with what it books.
pub(crate) struct Rig {
    pub(crate) exporter: Arc<dyn Exporter>,
    pub(crate) ledger: Ledger,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) host: Host,
}

impl Rig {
    /// Builds and starts.
    pub(crate) async fn start(config: &dyn ExporterConfig, batching: Option<BatchConfig>) -> Self {
        let rig = Self::build(config, batching, &Extensions::default());
        rig.exporter.start(&rig.host).await.unwrap();
        rig
    }

    pub(crate) fn build(config: &dyn ExporterConfig, batching: Option<BatchConfig>, extensions: &Extensions) -> Self {
        let telemetry = Telemetry::new();
        let ledger = Ledger::new(&telemetry, "exporter/otlp", Signal::Traces);
        let clock = Arc::new(SystemClock::default());
        let exporter = config
            .build(ExporterContext {
                id: ComponentId::of("otlp"),
                signal: Signal::Traces,
                ledger: ledger.clone(),
                batching,
                extensions,
                telemetry: Arc::clone(&telemetry),
                clock: clock.clone(),
            })
            .unwrap();
        let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
        let host = Host { runtimes: Runtimes::current(), clock, telemetry: Arc::clone(&telemetry), fatal };
        Self { exporter, ledger, telemetry, host }
    }

    pub(crate) fn metric(&self, line_start: &str) -> f64 {
        let text = self.telemetry.render("");
        let line = text.lines().find(|line| line.starts_with(line_start));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }
}

/// Spans called `name`.
pub(crate) fn batch(name: &str, spans: usize) -> Batch {
    let span = |index: usize| Span {
        name: format!("{name}-{index}"),
        trace_id: vec![7; 16],
        span_id: vec![9; 8],
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: (0..spans).map(span).collect(), ..ScopeSpans::default() }];
    let data = TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] };
    Batch::from_wire(Signal::Traces, data.encode_to_vec().into(), spans)
}

/// Waits until `condition` holds; ten seconds at the most.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}
