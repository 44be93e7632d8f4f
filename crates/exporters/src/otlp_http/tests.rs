use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use nyquist_core::batch::{Code, DropReason};
use nyquist_core::config::from_str;
use nyquist_core::proto::trace::v1::TracesData;
use nyquist_core::telemetry::Entry;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::reply::outcome;
use super::*;
use crate::otlp::backend::{Rig, batch};
use nyquist_core::delivery::Outcome;
use nyquist_core::net::client::Reply;

type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// An HTTP backend that does what it is told to.
#[derive(Clone, Default)]
struct Backend {
    script: Arc<Mutex<VecDeque<Answer>>>,
    received: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
}

impl Backend {
    async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backend = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let backend = backend.clone();
                let service = service_fn(move |request| backend.clone().answer(request));
                tokio::spawn(async move {
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        address
    }

    async fn answer(self, request: http::Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        self.received.lock().push((head.uri.path().to_owned(), head.headers, body));
        let (status, headers, body) = self.script.lock().pop_front().unwrap_or((200, Vec::new(), Vec::new()));
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        Ok(response)
    }

    fn then(&self, status: u16, headers: &[(&'static str, &str)], body: &[u8]) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.script.lock().push_back((status, headers, body.to_vec()));
    }

    fn requests(&self) -> usize {
        self.received.lock().len()
    }
}

fn direct(address: SocketAddr, more: &str) -> OtlpHttpConfig {
    let yaml = format!("{{endpoint: 'http://{address}/', sending_queue: {{enabled: false}}, {more}}}");
    from_str(&yaml).map(|(config, _)| config).unwrap_or_else(|problems| panic!("{problems}"))
}

const QUICK: &str = "retry_on_failure: {initial_interval: 10ms, max_interval: 20ms}";

fn span_count(body: &[u8]) -> usize {
    let data = TracesData::decode(body).unwrap();
    data.resource_spans.iter().flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.len()).sum()
}

/// Case 54.
#[tokio::test]
async fn the_path_is_appended_or_the_signals_own_url_taken() {
    let backend = Backend::default();
    let address = backend.serve().await;
    let rig = Rig::start(&direct(address, "compression: none"), None).await;
    rig.exporter.consume(batch("a", 700)).await.unwrap();
    let own = direct(address, &format!("compression: none, traces_endpoint: 'http://{address}/x'"));
    let rig = Rig::start(&own, None).await;
    rig.exporter.consume(batch("a", 1)).await.unwrap();
    let received = backend.received.lock();
    assert_eq!((received[0].0.as_str(), received[1].0.as_str()), ("/v1/traces", "/x"));
    assert_eq!(received[0].1["content-type"], "application/x-protobuf");
    assert!(!received[0].1.contains_key("content-encoding"));
    assert_eq!(span_count(&received[0].2), 700);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "bounded by `take`")]
async fn every_compression_can_be_undone() {
    use std::io::Read;
    let backend = Backend::default();
    let address = backend.serve().await;
    for compression in ["gzip", "zlib", "deflate", "zstd", "snappy", "x-snappy-framed", "lz4"] {
        let rig = Rig::start(&direct(address, &format!("compression: {compression}")), None).await;
        rig.exporter.consume(batch("a", 500)).await.unwrap();
        let (_, headers, body) = backend.received.lock().pop().unwrap();
        assert_eq!(headers["content-encoding"], compression);
        let mut plain = Vec::new();
        let limit = 1 << 20;
        match compression {
            "gzip" => flate2::read::GzDecoder::new(&body[..]).take(limit).read_to_end(&mut plain).map(|_| ()),
            "zlib" | "deflate" => {
                flate2::read::ZlibDecoder::new(&body[..]).take(limit).read_to_end(&mut plain).map(|_| ())
            }
            "zstd" => zstd::stream::Decoder::new(&body[..]).unwrap().take(limit).read_to_end(&mut plain).map(|_| ()),
            "snappy" => {
                plain = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
                Ok(())
            }
            "lz4" => lz4_flex::frame::FrameDecoder::new(&body[..]).take(limit).read_to_end(&mut plain).map(|_| ()),
            _ => snap::read::FrameDecoder::new(&body[..]).take(limit).read_to_end(&mut plain).map(|_| ()),
        }
        .unwrap();
        assert_eq!(span_count(&plain), 500, "{compression}");
    }
}

/// Case 55.
#[tokio::test]
async fn what_is_tried_again() {
    let backend = Backend::default();
    let address = backend.serve().await;
    let rig = Rig::start(&direct(address, QUICK), None).await;
    for (status, code) in [(500, Code::Internal), (400, Code::InvalidArgument), (401, Code::Unauthenticated)] {
        backend.then(status, &[], b"no");
        let refusal = rig.exporter.consume(batch("a", 1)).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.is_retryable()), (code, false), "{refusal}");
    }
    assert_eq!(backend.requests(), 3);
    assert_eq!(rig.metric("otelcol_exporter_send_failed_spans"), 3.0);
    for status in [429, 502, 503, 504] {
        backend.then(status, &[], b"");
    }
    rig.exporter.consume(batch("a", 1)).await.unwrap();
    assert_eq!(backend.requests(), 8);
    backend.then(503, &[("retry-after", "1")], b"");
    let begin = Instant::now();
    rig.exporter.consume(batch("a", 1)).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = 1_700_000_000_000_000_000;
    let after = |status: u16, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", value.parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        let reply = Reply { status, headers, body: Bytes::new(), trailers: HeaderMap::new() };
        match outcome(&reply, now) {
            Outcome::Retry { after, .. } => after,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(after(503, "7"), Some(Duration::from_secs(7)));
    assert_eq!(after(429, "Tue, 14 Nov 2023 22:13:50 GMT"), Some(Duration::from_secs(30)));
    assert_eq!(after(503, "Tue, 14 Nov 2023 22:13:10 GMT"), None, "in the past");
    assert_eq!(after(503, "soon"), None);
    assert_eq!(after(502, "7"), None, "honoured on 429 and 503 only");
}

#[tokio::test]
async fn partial_success_in_both_encodings() {
    let backend = Backend::default();
    let address = backend.serve().await;
    let rig = Rig::start(&direct(address, QUICK), None).await;
    // partial_success {rejected_spans: 3, error_message: "x"}
    backend.then(200, &[("content-type", "application/x-protobuf")], &[0x0a, 5, 0x08, 3, 0x12, 1, b'x']);
    rig.exporter.consume(batch("a", 10)).await.unwrap();
    let json = br#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"y"}}"#;
    backend.then(200, &[("content-type", "application/json")], json);
    rig.exporter.consume(batch("a", 10)).await.unwrap();
    assert_eq!(rig.ledger.dropped_count(DropReason::PartlyRejected), 5);
    assert_eq!(rig.ledger.count(Entry::Exported), 15);
    backend.then(200, &[("content-type", "application/x-protobuf")], b"\xff");
    assert!(!rig.exporter.consume(batch("a", 1)).await.unwrap_err().is_retryable());
    backend.then(200, &[("content-type", "text/html")], b"<p>welcome");
    rig.exporter.consume(batch("a", 1)).await.unwrap();
}

#[tokio::test]
async fn json_is_json() {
    let backend = Backend::default();
    let address = backend.serve().await;
    let rig = Rig::start(&direct(address, "encoding: json, compression: none"), None).await;
    rig.exporter.consume(batch("a", 2)).await.unwrap();
    let received = backend.received.lock();
    assert_eq!(received[0].1["content-type"], "application/json");
    let json: serde_json::Value = serde_json::from_slice(&received[0].2).unwrap();
    let span = &json["resourceSpans"][0]["scopeSpans"][0]["spans"][1];
    assert_eq!(span["name"], "a-1");
    assert_eq!(span["traceId"], "07070707070707070707070707070707");
}

#[tokio::test]
async fn host_and_other_headers_are_sent() {
    let backend = Backend::default();
    let address = backend.serve().await;
    let rig =
        Rig::start(&direct(address, "headers: [{name: Host, value: tenant.example}, {name: X-A, value: b}]"), None)
            .await;
    rig.exporter.consume(batch("a", 1)).await.unwrap();
    let received = backend.received.lock();
    assert_eq!(received[0].1["host"], "tenant.example");
    assert_eq!(received[0].1["x-a"], "b");
}

/// Too large for the peer: it is sent in halves.
#[tokio::test]
async fn payload_too_large_is_split() {
    let backend = Backend::default();
    let address = backend.serve().await;
    let rig = Rig::start(&direct(address, "compression: none"), None).await;
    backend.then(413, &[], b"");
    rig.exporter.consume(batch("a", 8)).await.unwrap();
    let spans: Vec<usize> = backend.received.lock().iter().map(|(_, _, body)| span_count(body)).collect();
    assert_eq!(spans, [8, 4, 4]);
}

#[tokio::test]
async fn cookies_come_back() {
    let backend = Backend::default();
    let address = backend.serve().await;
    for (more, expected) in [("cookies: {enabled: true}", [None, Some("LB=7")]), ("compression: none", [None, None])] {
        backend.received.lock().clear();
        let rig = Rig::start(&direct(address, more), None).await;
        for _ in 0..2 {
            backend.then(200, &[("set-cookie", "LB=7; Path=/v1; HttpOnly")], b"");
            rig.exporter.consume(batch("a", 1)).await.unwrap();
        }
        let received = backend.received.lock();
        let sent = received.iter().map(|(_, headers, _)| headers.get("cookie").map(|value| value.to_str().unwrap()));
        assert_eq!(sent.collect::<Vec<_>>(), expected, "{more}");
    }
}

#[test]
fn faults_are_named() {
    let errors = |yaml: &str| format!("{:?}", from_str::<OtlpHttpConfig>(yaml).unwrap_err().errors);
    assert!(errors("{}").contains("at least one endpoint must be specified"));
    assert!(errors("{endpoint: 'b:4318'}").contains("http:// or https://"), "{}", errors("{endpoint: 'b:4318'}"));
    let brotli = errors("{endpoint: 'http://b', compression: brotli}");
    assert!(brotli.contains("brotli") && brotli.contains("none, gzip, zlib"), "{brotli}");
    assert!(errors("{endpoint: 'http://b', compression_params: {level: 12}}").contains("1 to 9"));
    assert!(errors("{endpoint: 'http://b', endpont: x}").contains("unknown key"));
    for default in ["{level: 0}", "{level: -1}"] {
        let yaml = format!("{{endpoint: 'http://b', compression_params: {default}}}");
        assert_eq!(from_str::<OtlpHttpConfig>(&yaml).unwrap().0.client.compression_params.chosen(), None);
    }
    let few = "{endpoint: 'http://b', max_conns_per_host: 3}";
    let warnings = from_str::<OtlpHttpConfig>(few).unwrap().1.warnings;
    assert!(warnings[0].to_string().contains("set sending_queue.num_consumers"), "{warnings:?}");
    assert!(
        errors("{endpoint: 'http://b', compression: snappy, compression_params: {level: 1}}").contains("no levels")
    );
}
