//! Requests over HTTP, and their answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use nyquist_core::batch::{Batch, Code, Refusal, Signal};
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{Component, Consumer, Extension, Extensions, Host, Outputs, ReceiverContext, ServerAuth};
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::proto::metrics::v1::MetricsData;
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::Telemetry;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::prompb::*;
use crate::prometheus_remote_write::{RemoteWriteConfig, RemoteWriteReceiver};
use crate::shown::points;

const V1: &str = "application/x-protobuf";
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// A pipeline: records what it takes, or refuses it.
#[derive(Default)]
struct Sink {
    batches: Mutex<Vec<MetricsData>>,
    refusal: Mutex<Option<Refusal>>,
}

#[async_trait]
impl Consumer for Sink {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        if let Some(refusal) = self.refusal.lock().clone() {
            return Err(refusal);
        }
        self.batches.lock().push(MetricsData::decode(batch.into_wire()).expect("OTLP"));
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Lets in who brings `x-key: right`.
struct KeyAuth;

impl Component for KeyAuth {}

impl Extension for KeyAuth {
    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        Some(Arc::new(Self))
    }
}

impl ServerAuth for KeyAuth {
    fn authenticate(&self, headers: &HeaderMap) -> Result<(), String> {
        headers.get("x-key").filter(|key| *key == "right").map(drop).ok_or_else(|| "wrong key".to_owned())
    }
}

struct Running {
    receiver: RemoteWriteReceiver,
    sink: Arc<Sink>,
    telemetry: Arc<Telemetry>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// What the Written headers of 2.0 say: samples, histograms, exemplars.
    fn written(&self) -> [&str; 3] {
        ["samples", "histograms", "exemplars"]
            .map(|what| self.header(&format!("x-prometheus-remote-write-{what}-written")))
    }
}

impl Running {
    async fn start(keys: &str) -> Self {
        let text = format!("endpoint: localhost:0\n{keys}");
        let (config, _) = from_str::<RemoteWriteConfig>(&text).unwrap_or_else(|findings| panic!("{findings:?}"));
        let sink = Arc::new(Sink::default());
        let telemetry = Telemetry::new();
        let mut outputs = Outputs::default();
        outputs.set(Signal::Metrics, Arc::clone(&sink) as Arc<dyn Consumer>);
        let mut extensions = Extensions::default();
        extensions.insert(&ComponentId::of("key"), Arc::new(KeyAuth));
        let clock = Arc::new(SystemClock::default());
        let context = ReceiverContext {
            id: ComponentId::of("prometheus_remote_write"),
            outputs,
            extensions: &extensions,
            telemetry: Arc::clone(&telemetry),
            clock: Arc::clone(&clock) as Arc<dyn nyquist_core::clock::Clock>,
        };
        let receiver = RemoteWriteReceiver::new(&config, &context).expect("a receiver");
        let host = Host {
            runtimes: Runtimes::current(),
            clock,
            telemetry: Arc::clone(&telemetry),
            fatal: tokio::sync::mpsc::unbounded_channel().0,
        };
        receiver.start(&host).await.expect("starts");
        Self { receiver, sink, telemetry }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let address = self.receiver.address().expect("listening");
        let stream = TcpStream::connect(address).await.expect("connected");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let response = sender.send_request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("text");
        Answer { status: head.status.as_u16(), headers: head.headers, text }
    }

    /// Sends `message`, compressed, as `kind`.
    async fn write(&self, kind: &str, message: &[u8]) -> Answer {
        self.send(request(kind, compressed(message))).await
    }
}

fn compressed(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).expect("compressed")
}

fn request(kind: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    let request = Request::post("/api/v1/write")
        .header("host", "localhost")
        .header("content-type", kind)
        .header("content-encoding", "snappy");
    request.body(Full::new(body.into())).expect("a request")
}

fn good() -> Vec<u8> {
    let mut request = Request2::new();
    request.add("a_total{job=a}", 1, &[(1.0, 2, 0), (2.0, 3, 0)]);
    request.encode_to_vec()
}

fn old() -> Vec<u8> {
    WriteRequest { timeseries: vec![series("a{job=a}", &[(1.0, 2)])], ..WriteRequest::default() }.encode_to_vec()
}

#[tokio::test]
async fn both_protocols_are_taken() {
    let running = Running::start("").await;
    let answer = running.write(V2, &good()).await;
    assert_eq!((answer.status, answer.text.as_str(), answer.written()), (204, "", ["2", "0", "0"]));
    for kind in [V1, "application/x-protobuf;proto=prometheus.WriteRequest", "Application/X-Protobuf; charset=utf-8"] {
        let answer = running.write(kind, &old()).await;
        assert_eq!((answer.status, answer.written()), (204, ["", "", ""]), "{kind}");
    }
    let lines: Vec<String> = running.sink.batches.lock().iter().flat_map(points).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(running.telemetry.sum("otelcol_receiver_accepted_metric_points", &[]), 5);
    assert_eq!(running.telemetry.sum("otelcol_receiver_requests", &[("outcome", "success")]), 4);
    running.receiver.shutdown(Instant::now() + Duration::from_secs(60)).await;
}

#[tokio::test]
async fn the_good_part_of_a_request_is_taken() {
    let running = Running::start("").await;
    let mut request = Request2::new();
    request.add("a_total{job=a}", 1, &[(1.0, 2, 0)]);
    request.add("{job=a}", 1, &[(1.0, 2, 0)]);
    let answer = running.write(V2, &request.encode_to_vec()).await;
    assert_eq!((answer.status, answer.written()), (400, ["1", "0", "0"]));
    assert!(answer.text.contains("series {job=\"a\"}: there is no metric name"), "{}", answer.text);
    assert_eq!(running.sink.batches.lock().len(), 1);
    let dropped = [("account", "receiver/prometheus_remote_write"), ("reason", "rejected")];
    assert_eq!(running.telemetry.sum("nyquist_ledger_dropped_items", &dropped), 1);
}

#[tokio::test]
async fn what_is_no_remote_write_is_refused() {
    let running = Running::start("max_request_body_size: 1000\n").await;
    let bomb = compressed(&vec![0; 1 << 20]);
    assert!(bomb.len() > 1000, "the compressed size is over the limit as well");
    let small_bomb = compressed(&[0; 10_000]);
    assert!(small_bomb.len() < 1000);
    let cases = [
        ("text/plain", compressed(&good()), 415, "content type \"text/plain\" is not supported"),
        ("application/x-protobuf;proto=other", compressed(&good()), 415, "proto \"other\" is not supported"),
        (V2, b"not snappy".to_vec(), 400, "cannot decompress the request"),
        (V2, compressed(b"\xff\xff"), 400, "cannot decode the request"),
        (V2, bomb, 413, "more than 1000 bytes (max_request_body_size)"),
        (V2, small_bomb, 413, "more than 1000 bytes (max_request_body_size)"),
    ];
    for (kind, body, status, message) in cases {
        let answer = running.send(request(kind, body)).await;
        assert_eq!(answer.status, status, "{message}: {}", answer.text);
        assert!(answer.text.contains(message), "{message}: {}", answer.text);
    }
    let mut odd = request(V2, compressed(&good()));
    odd.headers_mut().insert("content-encoding", "gzip".parse().expect("a value"));
    assert_eq!(running.send(odd).await.status, 415);
    let mut odd = request(V2, compressed(&good()));
    *odd.method_mut() = Method::PUT;
    assert_eq!(running.send(odd).await.status, 405);
    let mut odd = request(V2, compressed(&good()));
    *odd.uri_mut() = "/write".parse().expect("a path");
    assert_eq!(running.send(odd).await.status, 404);
    assert_eq!(running.sink.batches.lock().len(), 0);
}

#[tokio::test]
async fn refusals_say_whether_to_come_back() {
    let running = Running::start("").await;
    let cases = [
        (Refusal::retryable(Some(Duration::from_secs(7)), "full"), 503, "7"),
        (Refusal::retryable(None, "full"), 503, "1"),
        // Prometheus gives up on 429.
        (Refusal::retryable(None, "full").with_code(Code::ResourceExhausted), 503, "1"),
        // And sends again for ever on 500.
        (Refusal::permanent("never"), 400, ""),
    ];
    for (refusal, status, delay) in cases {
        *running.sink.refusal.lock() = Some(refusal);
        let answer = running.write(V2, &good()).await;
        assert_eq!((answer.status, answer.header("retry-after")), (status, delay));
        assert_eq!(answer.written(), ["", "", ""]);
    }
    assert_eq!(running.telemetry.sum("otelcol_receiver_refused_metric_points", &[]), 8);
}

#[tokio::test]
async fn only_who_is_let_in_may_write() {
    let running = Running::start("auth: {authenticator: key}\n").await;
    let answer = running.write(V2, &good()).await;
    assert_eq!((answer.status, answer.text.as_str()), (401, "wrong key"));
    let mut request = request(V2, compressed(&good()));
    request.headers_mut().insert("x-key", "right".parse().expect("a value"));
    assert_eq!(running.send(request).await.status, 204);
}

#[test]
fn mistakes_in_the_configuration_are_explained() {
    for (text, message) in [
        ("endpoint: here", "\"here\" is not host:port"),
        ("cors: {}", "cors is not supported"),
        ("response_headers: {}", "response_headers is not supported"),
        ("compression_algorithms: [gzip]", "compression_algorithms is not supported"),
        ("middlewares: [{id: a}]", "middlewares is not supported"),
        ("transport: unix", "unknown transport \"unix\""),
        ("auth: {}", "name the extension that authenticates requests"),
        ("max_in_flight: 0", "nothing could come in"),
        ("max_connections: 0", "nobody could connect"),
        ("path: /x", "unknown key \"path\""),
    ] {
        let findings = from_str::<RemoteWriteConfig>(text).expect_err("a bad configuration");
        let errors: String = findings.errors.iter().map(ToString::to_string).collect();
        assert!(errors.contains(message), "{text}: {errors}");
    }
}
