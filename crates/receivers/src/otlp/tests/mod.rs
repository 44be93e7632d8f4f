//! A started receiver, clients that talk to it, and a pipeline that records what arrives.

mod config;
mod grpc;
mod hostile;
mod http;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Method, Request, StatusCode};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use nyquist_core::batch::{Batch, Refusal, Signal};
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{Component, Consumer, Extension, Extensions, Host, Outputs, ReceiverContext, ServerAuth};
use nyquist_core::config::ComponentId;
use nyquist_core::proto::common::v1::{AnyValue, KeyValue, any_value::Value};
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::Telemetry;
use parking_lot::Mutex;
use prost::Message;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::*;

/// What a pipeline would be: records batches, or refuses them, or keeps them waiting.
struct Sink {
    batches: Mutex<Vec<Batch>>,
    refusal: Mutex<Option<Refusal>>,
    arrived: Notify,
    gate: Semaphore,
    panics: bool,
}

impl Default for Sink {
    fn default() -> Self {
        let gate = Semaphore::new(Semaphore::MAX_PERMITS);
        Self { batches: Mutex::default(), refusal: Mutex::default(), arrived: Notify::new(), gate, panics: false }
    }
}

#[async_trait]
impl Consumer for Sink {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        assert!(!self.panics, "a bug in a processor");
        self.arrived.notify_one();
        let _pass = self.gate.acquire().await.expect("never closed");
        if let Some(refusal) = self.refusal.lock().clone() {
            return Err(refusal);
        }
        self.batches.lock().push(batch);
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Sink {
    /// A pipeline that keeps batches waiting until `release`.
    fn closed() -> Self {
        Self { gate: Semaphore::new(0), ..Self::default() }
    }

    fn release(&self) {
        self.gate.add_permits(1000);
    }

    fn refusing(refusal: Refusal) -> Self {
        Self { refusal: Mutex::new(Some(refusal)), ..Self::default() }
    }

    fn len(&self) -> usize {
        self.batches.lock().len()
    }

    fn traces(&self) -> Vec<TracesData> {
        let batches = self.batches.lock();
        batches.iter().map(|batch| TracesData::decode(batch.clone().into_wire()).expect("checked")).collect()
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
        let is_right = headers.get("x-key").is_some_and(|key| key == "right");
        is_right.then_some(()).ok_or_else(|| "wrong key".to_owned())
    }
}

/// A receiver that runs.
struct Running {
    receiver: Arc<OtlpReceiver>,
    sink: Arc<Sink>,
    telemetry: Arc<Telemetry>,
}

/// Both protocols with their defaults, on free ports.
fn defaults() -> serde_json::Value {
    json!({ "protocols": { "grpc": { "endpoint": "localhost:0" }, "http": { "endpoint": "localhost:0" } } })
}

/// The defaults with `section` merged into those of `protocol`.
fn with(protocol: &str, section: serde_json::Value) -> serde_json::Value {
    let mut config = defaults();
    for (key, value) in section.as_object().expect("a section") {
        config["protocols"][protocol][key] = value.clone();
    }
    config
}

impl Running {
    async fn start() -> Self {
        Self::with(defaults(), Sink::default(), &Signal::ALL).await
    }

    async fn with(config: serde_json::Value, sink: Sink, signals: &[Signal]) -> Self {
        let (config, _) =
            nyquist_core::config::from_str::<OtlpConfig>(&config.to_string()).expect("a good configuration");
        let sink = Arc::new(sink);
        let telemetry = Telemetry::new();
        let mut outputs = Outputs::default();
        for &signal in signals {
            outputs.set(signal, Arc::clone(&sink) as Arc<dyn Consumer>);
        }
        let mut extensions = Extensions::default();
        extensions.insert(&ComponentId::of("key"), Arc::new(KeyAuth));
        let context = ReceiverContext {
            id: ComponentId::of("otlp"),
            outputs,
            extensions: &extensions,
            telemetry: Arc::clone(&telemetry),
            clock: Arc::new(SystemClock::default()),
        };
        let receiver = Arc::new(OtlpReceiver::new(&config, &context).expect("builds"));
        let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
        let host = Host {
            runtimes: Runtimes::current(),
            clock: Arc::new(SystemClock::default()),
            telemetry: Arc::clone(&telemetry),
            fatal,
        };
        receiver.start(&host).await.expect("starts");
        Self { receiver, sink, telemetry }
    }

    fn http(&self) -> SocketAddr {
        self.receiver.addresses().http.expect("HTTP is on")
    }

    fn grpc(&self) -> SocketAddr {
        self.receiver.addresses().grpc.expect("gRPC is on")
    }

    async fn post(&self, content_type: &str, body: impl Into<Bytes>) -> Answer {
        self.send("/v1/traces", &[("content-type", content_type)], body).await
    }

    async fn post_json(&self, body: serde_json::Value) -> Answer {
        self.post("application/json", body.to_string()).await
    }

    async fn send(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        send(self.http(), Method::POST, path, headers, body).await
    }

    /// The value of the series that begins with `name{` and has all of `labels`.
    fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let page = self.telemetry.render("");
        let start = format!("{name}{{");
        let line =
            page.lines().find(|line| line.starts_with(&start) && labels.iter().all(|label| line.contains(label)));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }

    async fn shutdown(&self, within: Duration) {
        self.receiver.shutdown(Instant::now() + within).await;
    }
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let io = TokioIo::new(TcpStream::connect(address).await.expect("connects"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("shakes hands");
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Answer { status: head.status, headers: head.headers, body }
}

fn span(id: u8) -> Span {
    Span {
        trace_id: vec![id; 16],
        span_id: vec![id; 8],
        name: format!("span {id}"),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_100_000_000,
        attributes: vec![attribute("http.route", "/api")],
        ..Span::default()
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn traces(spans: Vec<Span>) -> TracesData {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}

fn wire(spans: Vec<Span>) -> Bytes {
    traces(spans).encode_to_vec().into()
}
