//! What a request costs the receiver's thread, in CPU time: `cargo bench -p nyquist-receivers`.
//!
//! One worker receives over loopback and discards; a client on another thread keeps a few requests
//! in flight. The worker's CPU time is read from `/proc/self/task/*/schedstat`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nyquist_core::batch::{Batch, Refusal, Signal};
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{Component, Consumer, Extensions, Host, Outputs, ReceiverContext};
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::net::grpc::header;
use nyquist_core::proto::common::v1::{AnyValue, KeyValue, any_value::Value};
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::Telemetry;
use nyquist_receivers::otlp::{OtlpConfig, OtlpReceiver};
use prost::Message;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Discard;

#[async_trait]
impl Consumer for Discard {
    async fn consume(&self, _: Batch) -> Result<(), Refusal> {
        Ok(())
    }
}

/// `spans` spans of ten attributes and about 410 bytes, ten to a trace.
fn request(spans: usize) -> Bytes {
    let attribute = |key: &str, value: String| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..KeyValue::default()
    };
    let span = |index: usize| Span {
        trace_id: (1 + index as u128 / 10)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C834)
            .to_be_bytes()
            .to_vec(),
        span_id: (1 + index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes().to_vec(),
        name: "GET /api/orders/{id}".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000 + index as u64,
        end_time_unix_nano: 1_700_000_000_050_000_000 + index as u64,
        attributes: (0..10)
            .map(|n| attribute(&format!("http.attribute.{n}"), format!("value-{}", index % 97 + n)))
            .collect(),
        ..Span::default()
    };
    let spans = (0..spans).map(span).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
        .encode_to_vec()
        .into()
}

/// CPU nanoseconds of the worker's thread.
fn worker_cpu() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let worker = tasks
        .map(|task| task.unwrap().path())
        .find(|path| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "nyquist-0"));
    let statistics = std::fs::read_to_string(worker.unwrap().join("schedstat")).unwrap();
    statistics.split(' ').next().unwrap().parse().unwrap()
}

async fn run(address: std::net::SocketAddr, encoding: &str, body: Bytes, requests: usize) {
    const IN_FLIGHT: usize = 4;
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake::<_, Full<Bytes>>(TokioIo::new(socket))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut lanes = Vec::new();
    for _ in 0..IN_FLIGHT {
        let (mut sender, body, encoding) = (sender.clone(), body.clone(), encoding.to_owned());
        lanes.push(tokio::spawn(async move {
            for _ in 0..requests / IN_FLIGHT {
                let uri = "http://test/opentelemetry.proto.collector.trace.v1.TraceService/Export";
                let mut request =
                    Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
                if !encoding.is_empty() {
                    request = request.header("grpc-encoding", &encoding);
                }
                sender.ready().await.unwrap();
                let response = sender.send_request(request.body(Full::new(body.clone())).unwrap()).await.unwrap();
                let body = response.into_body().collect().await.unwrap();
                assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
            }
        }));
    }
    for lane in lanes {
        lane.await.unwrap();
    }
}

fn framed(compressed: bool, message: &[u8]) -> Bytes {
    [&header(compressed, message.len() as u32)[..], message].concat().into()
}

fn main() -> Result<(), Infallible> {
    let runtimes = Runtimes::start(1).unwrap();
    let telemetry = Telemetry::new();
    let mut outputs = Outputs::default();
    outputs.set(Signal::Traces, Arc::new(Discard));
    let (config, _) = from_str::<OtlpConfig>("protocols: {grpc: {endpoint: 'localhost:0', max_recv_msg_size_mib: 64}}")
        .unwrap_or_else(|_| unreachable!());
    let clock = Arc::new(SystemClock::default());
    let context = ReceiverContext {
        id: ComponentId::of("otlp"),
        outputs,
        extensions: &Extensions::default(),
        telemetry: Arc::clone(&telemetry),
        clock: clock.clone(),
    };
    let receiver = OtlpReceiver::new(&config, &context).unwrap();
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    let host = Host { runtimes, clock, telemetry, fatal };
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    client.block_on(async {
        receiver.start(&host).await.unwrap();
        let address = receiver.addresses().grpc.unwrap();
        for spans in [10, 100, 500, 1000] {
            let message = request(spans);
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
            gzip.write_all(&message).unwrap();
            let bodies = [
                ("", framed(false, &message)),
                ("gzip", framed(true, &gzip.finish().unwrap())),
                ("zstd", framed(true, &zstd::bulk::compress(&message, 1).unwrap())),
            ];
            for (encoding, body) in bodies {
                let requests = 4_000_000 / (spans + 100);
                run(address, encoding, body.clone(), requests / 10).await;
                let (cpu, start) = (worker_cpu(), Instant::now());
                run(address, encoding, body, requests).await;
                let (cpu, wall) = (worker_cpu() - cpu, start.elapsed());
                let check = {
                    let start = Instant::now();
                    for _ in 0..200 {
                        nyquist_core::wire::check(Signal::Traces, &message).unwrap();
                    }
                    start.elapsed() / 200
                };
                println!(
                    "{spans:5} spans, {:7} bytes {encoding:5} {:8.1} us CPU/request ({:5.2} wall), {:6.0} ns/span, check {:.1} us",
                    message.len(),
                    cpu as f64 / requests as f64 / 1e3,
                    wall.as_secs_f64() * 1e6 / requests as f64,
                    cpu as f64 / requests as f64 / spans as f64,
                    check.as_secs_f64() * 1e6,
                );
            }
        }
    });
    Ok(())
}
