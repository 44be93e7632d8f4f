//! Clients that attack the real binary do not harm the others, and idle ones cost little.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use support::otlp::{trace, traces_request};
use support::otlp_client::{OK, TRACES, frame};
use support::{Gateway, http};

const PROTOBUF: &str = "application/x-protobuf";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn message(service: &str, number: u64) -> Vec<u8> {
    traces_request(service, trace(number, 2)).encode_to_vec()
}

/// How long each of `count` good requests took, sorted.
fn latencies(gateway: &Gateway, count: u64) -> Vec<Duration> {
    let mut client = gateway.client();
    let mut taken: Vec<_> = (0..count)
        .map(|number| {
            let request = traces_request("good", trace(number + 1, 2));
            let begun = Instant::now();
            let outcome = client.traces(&request);
            assert_eq!(outcome.status, OK, "{outcome:?}");
            begun.elapsed()
        })
        .collect();
    taken.sort();
    taken
}

fn p99(latencies: &[Duration]) -> Duration {
    latencies[latencies.len() * 99 / 100]
}

/// Does `attack` again and again on a thread of its own until `stop`; gives how often.
fn attack(stop: &Arc<AtomicBool>, done: &Arc<AtomicUsize>, attack: impl Fn() + Send + 'static) -> JoinHandle<()> {
    let (stop, done) = (Arc::clone(stop), Arc::clone(done));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            attack();
            done.fetch_add(1, Ordering::Relaxed);
            // An attacker has a machine of its own; here it shares two cores with the gateway.
            std::thread::sleep(Duration::from_millis(5));
        }
    })
}

/// 200 requests that are taken back as soon as they are sent (CVE-2023-44487).
fn rapid_reset(port: u16) {
    runtime().block_on(async {
        let Ok(stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else { return };
        let Ok((mut sender, connection)) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await
        else {
            return;
        };
        let connection = tokio::spawn(connection);
        for _ in 0..200 {
            if sender.ready().await.is_err() {
                break;
            }
            let request = Request::post(format!("http://a{TRACES}")).header("content-type", "application/grpc");
            drop(sender.send_request(request.body(Full::new(Bytes::from_static(&[0; 5]))).unwrap()));
            tokio::task::yield_now().await;
        }
        drop(sender);
        let _ = tokio::time::timeout(Duration::from_secs(5), connection).await;
    });
}

/// The beginning of the answer to a head of 1 MiB.
fn header_flood(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = stream.write_all(b"POST /v1/traces HTTP/1.1\r\nhost: a\r\n");
    let line = format!("x-flood: {}\r\n", "x".repeat(8 << 10));
    for _ in 0..128 {
        if stream.write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    let mut answer = [0; 12];
    let read = stream.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// 64 MiB of zeros in every encoding that is decoded, each a few hundred kilobytes or less.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let zeros = vec![0; 64 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&zeros).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(&zeros).unwrap();
    let zlib = zlib.finish().unwrap();
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(&zeros).unwrap();
    let mut framed = snap::write::FrameEncoder::new(Vec::new());
    framed.write_all(&zeros).unwrap();
    vec![
        ("gzip", gzip.finish().unwrap()),
        ("zlib", zlib.clone()),
        ("deflate", zlib),
        ("zstd", zstd::encode_all(&zeros[..], 3).unwrap()),
        ("snappy", snap::raw::Encoder::new().compress_vec(&zeros).unwrap()),
        ("x-snappy-framed", framed.into_inner().unwrap()),
        ("lz4", lz4.finish().unwrap()),
    ]
}

const OPEN: &str = "
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}, http: {endpoint: 127.0.0.1:@HTTP@}}}
exporters: {nop: {}}
service:
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]}}
  pipelines: {traces: {receivers: [otlp], exporters: [nop]}}
";

/// Scenario: rapid resets, floods of headers, bombs in every encoding, oversize bodies, what is no TLS, and heads
/// and bodies that come a byte at a time. Guarantee: the right answers, bounded memory, and the p99 of a good
/// client stays within twice what it was, up to what a shared test machine adds.
#[test]
fn a_good_client_does_not_notice_the_bad_ones() {
    let mut gateway = Gateway::start(OPEN);
    let (grpc, port) = (gateway.grpc_port, gateway.http_port);
    assert_eq!(header_flood(port), "HTTP/1.1 431");
    let bombs = bombs();
    for (encoding, bomb) in &bombs {
        let answer = http::post(port, "/v1/traces", PROTOBUF, encoding, bomb.clone()).unwrap();
        assert_eq!(answer.status, 400, "{encoding}: {}", answer.text());
        assert!(answer.text().contains("http: request body too large"), "{encoding}: {}", answer.text());
    }
    latencies(&gateway, 100);
    let quiet = p99(&latencies(&gateway, 500));

    let beginnings: [&[u8]; 4] = [
        b"POST /v1/traces HTTP/1.1\r\nhost: a\r\nx-slow: ",
        b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: 10000\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    let loris = (0..400).map(|number| {
        let mut stream = TcpStream::connect(("127.0.0.1", if number % 8 == 2 { grpc } else { port })).unwrap();
        stream.write_all(beginnings[number % 4]).unwrap();
        stream
    });
    let mut loris: Vec<TcpStream> = loris.collect();
    let (stop, counts) = (Arc::new(AtomicBool::new(false)), [(); 4].map(|()| Arc::new(AtomicUsize::new(0))));
    let attackers = [
        attack(&stop, &counts[0], move || rapid_reset(grpc)),
        attack(&stop, &counts[1], move || drop(header_flood(port))),
        attack(&stop, &counts[2], move || {
            for (encoding, bomb) in bombs.iter().filter(|(_, bomb)| bomb.len() < 1 << 20) {
                let _ = http::post(port, "/v1/traces", PROTOBUF, encoding, bomb.clone());
            }
        }),
        attack(&stop, &counts[3], move || {
            let _ = http::post(port, "/v1/traces", PROTOBUF, "", vec![0; 21 << 20]);
        }),
    ];
    let mut under_attack = Vec::new();
    while counts.iter().any(|count| count.load(Ordering::Relaxed) < 3) || under_attack.len() < 1000 {
        under_attack.extend(latencies(&gateway, 100));
        for stream in &mut loris {
            let _ = stream.write(b"x");
        }
    }
    stop.store(true, Ordering::Relaxed);
    attackers.into_iter().for_each(|attacker| attacker.join().unwrap());
    under_attack.sort();
    let attacked = p99(&under_attack);
    let (_, peak) = gateway.process.resident();
    eprintln!("p99 {quiet:?} quiet, {attacked:?} under attack; peak {} MiB", peak >> 20);
    gateway.assert_alive();
    assert!(peak < 400 << 20, "{} MiB at the peak", peak >> 20);
    let margin = Duration::from_millis(250);
    assert!(attacked <= quiet * 2 + margin, "p99 {quiet:?} when quiet, {attacked:?} under attack");
    drop(loris);
    assert_eq!(gateway.client().traces(&traces_request("good", trace(9, 1))).status, OK);
}

/// What an idle connection that has sent a request costs, printed. The goal is 20 KiB, which it does not meet: about
/// 48 KiB in a debug build. Guarantee: it is not much more than that.
#[test]
fn idle_connections_are_cheap() {
    const CONNECTIONS: usize = 1000;
    let gateway = Gateway::start(OPEN);
    latencies(&gateway, 200);
    let (before, _) = gateway.process.resident();
    let runtime = runtime();
    let body = frame(false, &message("idle", 1));
    let open: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            runtime.block_on(async {
                let stream = tokio::net::TcpStream::connect(("127.0.0.1", gateway.grpc_port)).await.unwrap();
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                let request = Request::post(format!("http://a{TRACES}")).header("content-type", "application/grpc");
                let response = sender.send_request(request.body(Full::new(body.clone())).unwrap()).await.unwrap();
                assert_eq!(response.status(), 200);
                sender
            })
        })
        .collect();
    let (after, _) = gateway.process.resident();
    let each = after.saturating_sub(before) / CONNECTIONS as u64;
    eprintln!("{each} bytes of memory for each idle connection");
    assert!(each < 96 << 10, "{each} bytes for each connection");
    drop(open);
}
