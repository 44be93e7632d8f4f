//! A blocking OTLP/gRPC client that sends any bytes: hostile ones too.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;

/// The gRPC path of each signal.
pub(crate) const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub(crate) const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
pub(crate) const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// Statuses that tests name.
pub(crate) const OK: i32 = 0;
pub(crate) const INVALID_ARGUMENT: i32 = 3;
pub(crate) const DEADLINE_EXCEEDED: i32 = 4;
pub(crate) const RESOURCE_EXHAUSTED: i32 = 8;
pub(crate) const UNIMPLEMENTED: i32 = 12;
pub(crate) const UNAVAILABLE: i32 = 14;

/// A connection.
pub(crate) struct OtlpClient {
    runtime: Runtime,
    port: u16,
    sender: SendRequest<Full<Bytes>>,
    reconnected: usize,
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) message: String,
    pub(crate) body: Bytes,
    /// Whether the status carries details (RetryInfo).
    pub(crate) has_details: bool,
}

impl OtlpClient {
    /// Connects to the server on `port`.
    pub(crate) fn connect(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let sender = runtime.block_on(connect(port)).unwrap_or_else(|error| panic!("port {port}: {error}"));
        Self { runtime, port, sender, reconnected: 0 }
    }

    /// How often the server had closed the connection before a call.
    pub(crate) fn reconnected(&self) -> usize {
        self.reconnected
    }

    /// Sends traces once.
    pub(crate) fn traces(&mut self, request: &ExportTraceServiceRequest) -> Outcome {
        self.call(TRACES, &request.encode_to_vec()).expect("the gateway answers")
    }

    /// Sends metrics once.
    pub(crate) fn metrics(&mut self, request: &ExportMetricsServiceRequest) -> Outcome {
        self.call(METRICS, &request.encode_to_vec()).expect("the gateway answers")
    }

    /// Sends traces until they are accepted, as an SDK does; gives the number of refusals.
    pub(crate) fn traces_with_retry(&mut self, request: &ExportTraceServiceRequest) -> usize {
        let message = request.encode_to_vec();
        let mut refusals = 0;
        loop {
            let outcome = self.call(TRACES, &message).expect("the gateway answers");
            match outcome.status {
                OK => return refusals,
                UNAVAILABLE | RESOURCE_EXHAUSTED => refusals += 1,
                _ => panic!("a refusal that is not retryable: {outcome:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One unary call with `message` as it is.
    pub(crate) fn call(&mut self, path: &str, message: &[u8]) -> Result<Outcome, String> {
        self.call_raw(path, "", frame(false, message))
    }

    /// One unary call with a message that is compressed by `encoding` already.
    pub(crate) fn call_compressed(&mut self, path: &str, encoding: &str, message: &[u8]) -> Result<Outcome, String> {
        self.call_raw(path, encoding, frame(true, message))
    }

    /// One call with any body; an error if the connection or the stream broke.
    pub(crate) fn call_raw(&mut self, path: &str, encoding: &str, body: Bytes) -> Result<Outcome, String> {
        if self.sender.is_closed() {
            self.sender = self.runtime.block_on(connect(self.port))?;
            self.reconnected += 1;
        }
        let uri = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        if !encoding.is_empty() {
            request = request.header("grpc-encoding", encoding);
        }
        let request = request.body(Full::new(body)).expect("a valid request");
        let sender = &mut self.sender;
        let exchange = async {
            sender.ready().await.map_err(|error| format!("{error:?}"))?;
            let response = sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| format!("{error:?}"))?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            let trailers = if trailers.contains_key("grpc-status") { trailers } else { head.headers };
            outcome(&trailers, body.to_bytes())
        };
        self.runtime.block_on(async {
            let limited = tokio::time::timeout(Duration::from_secs(60), exchange).await;
            limited.unwrap_or_else(|_| Err("no answer within 60 s".to_owned()))
        })
    }
}

impl Outcome {
    /// How many spans the answer's partial success rejected, and why.
    pub(crate) fn rejected_spans(&self) -> (i64, String) {
        let message = self.body.get(5..).unwrap_or_default();
        let response = ExportTraceServiceResponse::decode(message).expect("an export response");
        response.partial_success.map_or((0, String::new()), |partial| (partial.rejected_spans, partial.error_message))
    }
}

/// One unary call over a connection of its own, with headers of the caller's.
pub(crate) async fn call_over<S>(
    stream: S,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Outcome, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| format!("{error:?}"))?;
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://localhost{path}")).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body)).expect("a valid request");
    let response = sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| format!("{error:?}"))?;
    let trailers = body.trailers().cloned().unwrap_or(head.headers);
    outcome(&trailers, body.to_bytes())
}

/// The length-prefixed message of gRPC.
pub(crate) fn frame(compressed: bool, message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.extend_from_slice(&[u8::from(compressed)]);
    framed.extend_from_slice(&u32::try_from(message.len()).expect("under 4 GiB").to_be_bytes());
    framed.extend_from_slice(message);
    framed.freeze()
}

async fn connect(port: u16) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

fn outcome(trailers: &HeaderMap, body: Bytes) -> Result<Outcome, String> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let status = text("grpc-status").parse().map_err(|_| format!("no grpc-status in {trailers:?}"))?;
    let has_details = trailers.contains_key("grpc-status-details-bin");
    Ok(Outcome { status, message: text("grpc-message"), body, has_details })
}
