//! What bad clients do, each kind by itself and all at once, beside a good one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use crate::support::otlp::{trace, traces_request};
use crate::support::otlp_client::{OK, RESOURCE_EXHAUSTED, TRACES};
use crate::support::ports::free_port;
use crate::support::{Gateway, OtlpClient, http};
use crate::{PROTOBUF, is_release};

const CONFIG: &str = "
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}, http: {endpoint: 127.0.0.1:@HTTP@}}}
  otlp/locked:
    protocols:
      http: {endpoint: 127.0.0.1:@LOCKED@, auth: {authenticator: bearertokenauth}}
  otlp/tls:
    protocols:
      http: {endpoint: 127.0.0.1:@TLS@, tls: {cert_file: @DIR@/../server.pem, key_file: @DIR@/../server.key}}
extensions: {bearertokenauth: {token: right}}
exporters: {nop: {}}
service:
  extensions: [bearertokenauth]
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]}}
  pipelines: {traces: {receivers: [otlp, otlp/locked, otlp/tls], exporters: [nop]}}
";

/// Whom the attacks hit.
#[derive(Clone)]
struct Target {
    grpc: u16,
    http: u16,
    locked: u16,
    tls: u16,
    bombs: Arc<Vec<(&'static str, Vec<u8>)>>,
    /// A large document that is valid JSON and no telemetry.
    document: Bytes,
}

/// An attack: done again and again. It checks the answers that it gets.
type Attack = fn(&Target);

const ATTACKS: [(&str, Attack); 8] = [
    ("rapid reset", rapid_reset),
    ("header flood", |target| assert_answer(&header_flood(target.http), "HTTP/1.1 431")),
    ("bombs over HTTP", bombs_over_http),
    ("bombs over gRPC", bombs_over_grpc),
    ("oversize", oversize),
    ("large JSON", large_json),
    ("bad TLS", bad_tls),
    ("wrong credentials", wrong_credentials),
];

/// Under load a client may see its connection end before the answer; what it must not see is another answer.
fn assert_answer(answer: &str, expected: &str) {
    assert!(answer.is_empty() || answer == expected, "{answer:?} instead of {expected:?}");
}

/// 200 requests that are taken back as soon as they are sent (CVE-2023-44487): `ENHANCE_YOUR_CALM` is the answer.
fn rapid_reset(target: &Target) {
    let mut stream = TcpStream::connect(("127.0.0.1", target.grpc)).unwrap();
    let mut requests = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        requests.extend(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
        requests.extend([kind, flags]);
        requests.extend(stream.to_be_bytes());
        requests.extend(payload);
    };
    let (settings, headers, reset, end_of_headers, cancel) = (4, 1, 3, 4, 8_u32);
    frame(settings, 0, 0, &[]);
    // POST, http, the path, authority "a", application/grpc.
    let length = u8::try_from(TRACES.len()).unwrap();
    let content_type = b"\x0f\x10\x10application/grpc".as_slice();
    let head = [b"\x83\x86\x04".as_slice(), &[length], TRACES.as_bytes(), b"\x01\x01a", content_type].concat();
    for number in 0..200 {
        frame(headers, end_of_headers, number * 2 + 1, &head);
        frame(reset, 0, number * 2 + 1, &cancel.to_be_bytes());
    }
    let _ = stream.write_all(&requests);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = Vec::new();
    // The end may be a reset: the gateway has not read all of it.
    let _ = stream.read_to_end(&mut answer);
    assert!(is_calmed(&answer), "{answer:?}");
}

/// Whether the frames of `answer` end with a `GOAWAY` for `ENHANCE_YOUR_CALM`.
fn is_calmed(mut answer: &[u8]) -> bool {
    while let Some((head, rest)) = answer.split_at_checked(9) {
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, rest)) = rest.split_at_checked(length) else { return false };
        if head[3] == 7 && payload.get(4..8) == Some(&[0, 0, 0, 11]) {
            return true;
        }
        answer = rest;
    }
    false
}

/// The beginning of the answer to a head of 1 MiB.
fn header_flood(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let _ = stream.write_all(b"POST /v1/traces HTTP/1.1\r\nhost: a\r\n");
    let line = format!("x-flood: {}\r\n", "x".repeat(8 << 10));
    for _ in 0..128 {
        if stream.write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    beginning(&mut stream)
}

fn beginning(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = [0; 12];
    let read = stream.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// 64 MiB of zeros in every encoding that is decoded.
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

fn bombs_over_http(target: &Target) {
    for (encoding, bomb) in target.bombs.iter() {
        let Ok(answer) = http::post(target.http, "/v1/traces", PROTOBUF, encoding, bomb.clone()) else { continue };
        assert_eq!(answer.status, 400, "{encoding}: {}", answer.text());
        assert!(answer.text().contains("http: request body too large"), "{encoding}: {}", answer.text());
    }
}

fn bombs_over_grpc(target: &Target) {
    let mut client = OtlpClient::connect(target.grpc);
    for (encoding, bomb) in target.bombs.iter().filter(|(_, bomb)| bomb.len() < 4 << 20) {
        let Ok(outcome) = client.call_compressed(TRACES, encoding, bomb) else { continue };
        assert_eq!(outcome.status, RESOURCE_EXHAUSTED, "{encoding}: {outcome:?}");
        assert!(outcome.message.contains("larger"), "{encoding}: {outcome:?}");
    }
}

/// 1 MiB more than may come.
fn oversize(target: &Target) {
    let Ok(answer) = http::post(target.http, "/v1/traces", PROTOBUF, "", vec![0; 21 << 20]) else { return };
    assert_eq!(answer.status, 400, "{}", answer.text());
}

/// 16 MiB of fields that nobody knows.
fn document() -> Bytes {
    let mut document = String::from("{\"unknown\": [");
    while document.len() < 16 << 20 {
        document.push_str("{\"a\": [1, 2.5e3, \"text\", null, {}]}, ");
    }
    document.push_str("0]}");
    document.into()
}

fn large_json(target: &Target) {
    let answer = http::post(target.http, "/v1/traces", "application/json", "", target.document.clone());
    let Ok(answer) = answer else { return };
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// What is no TLS, and a hello that breaks off.
fn bad_tls(target: &Target) {
    let hellos: [&[u8]; 3] =
        [b"POST /v1/traces HTTP/1.1\r\nhost: a\r\n\r\n", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff", &[0x16; 4096]];
    for hello in hellos {
        let mut stream = TcpStream::connect(("127.0.0.1", target.tls)).unwrap();
        let _ = stream.write_all(hello);
        let answer = beginning(&mut stream);
        assert!(!answer.starts_with("HTTP"), "an alert or the end, not {answer:?}");
    }
}

fn wrong_credentials(target: &Target) {
    for _ in 0..20 {
        let request = Request::post("/v1/traces").header("host", "a").header("content-type", PROTOBUF);
        let request = request.header("authorization", "Bearer wrong").body(Full::new(Bytes::from_static(&[0; 100])));
        let Ok(answer) = http::send(target.locked, request.unwrap()) else { continue };
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
}

/// Connections that say a byte at a time what they have to say.
fn slow_ones(target: &Target) -> Vec<TcpStream> {
    let beginnings: [&[u8]; 4] = [
        b"POST /v1/traces HTTP/1.1\r\nhost: a\r\nx-slow: ",
        b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: 10000\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    let ports = [target.http, target.http, target.grpc, target.tls];
    let open = (0..400).map(|number| {
        let mut stream = TcpStream::connect(("127.0.0.1", ports[number % 4])).unwrap();
        stream.write_all(beginnings[number % 4]).unwrap();
        stream
    });
    open.collect()
}

/// Attackers, one thread each, that are let loose and held.
struct Attackers {
    /// Which of `ATTACKS` go on now, as bits.
    active: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    done: [Arc<AtomicUsize>; ATTACKS.len()],
    threads: Vec<JoinHandle<()>>,
}

impl Attackers {
    fn start(target: &Target) -> Self {
        let (active, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let done = [(); ATTACKS.len()].map(|()| Arc::new(AtomicUsize::new(0)));
        let thread = |index: usize| {
            let (active, stop, done, target) = (active.clone(), stop.clone(), done[index].clone(), target.clone());
            std::thread::spawn(move || {
                step_back();
                while !stop.load(Ordering::Relaxed) {
                    if active.load(Ordering::Relaxed) & (1 << index) != 0 {
                        (ATTACKS[index].1)(&target);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        };
        let threads = (0..ATTACKS.len()).map(thread).collect();
        Self { active, stop, done, threads }
    }

    /// Ends all of them; an attacker that got a wrong answer fails the test.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("the answers were right"));
    }
}

/// An attacker has a machine of its own. Here it shares the gateway's cores: it gets what others leave.
fn step_back() {
    let thread = std::fs::read_link("/proc/thread-self").unwrap();
    let thread = thread.file_name().unwrap().to_owned();
    let status = Command::new("renice").args(["-n", "19", "-p"]).arg(thread).output().expect("renice exists").status;
    assert!(status.success());
}

/// How long each of `count` good requests took, sorted.
fn latencies(client: &mut OtlpClient, count: u64) -> Vec<Duration> {
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

fn p99(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort();
    latencies[latencies.len() * 99 / 100]
}

/// The p99 of a good client without and with the attacks in `active`, measured in turns, so that what else goes
/// on on the machine hits both.
fn compare(gateway: &Gateway, attackers: &Attackers, active: usize) -> (Duration, Duration) {
    let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
    let counts = || attackers.done.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
    // Two connections: one at each worker, if there are two.
    let mut clients = [gateway.client(), gateway.client()];
    clients.iter_mut().for_each(|client| drop(latencies(client, 20)));
    let before = counts();
    let is_done = |now: &[usize]| {
        now.iter()
            .zip(&before)
            .enumerate()
            .all(|(index, (now, before))| active & (1 << index) == 0 || now - before >= 3)
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    while attacked.len() < 1500 || !is_done(&counts()) {
        assert!(Instant::now() < deadline, "the attacks are not answered");
        clients.iter_mut().for_each(|client| quiet.extend(latencies(client, 100)));
        attackers.active.store(active, Ordering::Relaxed);
        clients.iter_mut().for_each(|client| attacked.extend(latencies(client, 100)));
        attackers.active.store(0, Ordering::Relaxed);
    }
    (p99(quiet), p99(attacked))
}

/// Scenario: rapid resets, floods of headers, bombs in every encoding, oversize bodies, large documents, what is no
/// TLS, wrong credentials, and heads and bodies that come a byte at a time: one by one, then all together.
/// Guarantee: the right answers, bounded memory, and the p99 of a good client stays within twice what it was. In a
/// debug build, where the gateway's own part takes some ten times as long, and on a machine that others
/// use: within ten times and 50 ms.
#[test]
fn a_good_client_does_not_notice_the_bad_ones() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("server.pem"), certificate.cert.pem()).unwrap();
    std::fs::write(files.path().join("server.key"), certificate.signing_key.serialize_pem()).unwrap();
    let (locked, tls) = (free_port(), free_port());
    let config = CONFIG
        .replace("@LOCKED@", &locked.to_string())
        .replace("@TLS@", &tls.to_string())
        .replace("@DIR@/..", &files.path().display().to_string());
    let mut gateway = Gateway::start(&config);
    let (grpc, http) = (gateway.grpc_port, gateway.http_port);
    let target = Target { grpc, http, locked, tls, bombs: Arc::new(bombs()), document: document() };
    assert_eq!(header_flood(http), "HTTP/1.1 431");
    ATTACKS.iter().for_each(|(_, attack)| attack(&target));

    let attackers = Attackers::start(&target);
    let mut results = Vec::new();
    for (index, (name, _)) in ATTACKS.iter().enumerate() {
        results.push((*name, compare(&gateway, &attackers, 1 << index)));
    }
    let mut slow = slow_ones(&target);
    results.push(("slow-loris", compare(&gateway, &attackers, 0)));
    slow.retain_mut(|stream| stream.write_all(b"x").is_ok());
    results.push(("all together", compare(&gateway, &attackers, (1 << ATTACKS.len()) - 1)));
    attackers.end();
    let (_, peak) = gateway.process.resident();
    for (name, (quiet, attacked)) in &results {
        let ratio = attacked.as_secs_f64() / quiet.as_secs_f64();
        eprintln!("{name:>20}: p99 {quiet:>10.1?} quiet, {attacked:>10.1?} under attack: {ratio:.1}");
    }
    eprintln!("peak {} MiB", peak >> 20);
    gateway.assert_alive();
    assert!(peak < 400 << 20, "{} MiB at the peak", peak >> 20);
    // The timer of the kernel's scheduler ticks once a millisecond or slower: less than that is not the gateway's.
    let (factor, margin) = if is_release() { (2, Duration::from_millis(1)) } else { (10, Duration::from_millis(50)) };
    for (name, (quiet, attacked)) in results {
        assert!(attacked <= quiet * factor + margin, "{name}: p99 {quiet:?} when quiet, {attacked:?} under attack");
    }
    drop(slow);
    assert_eq!(gateway.client().traces(&traces_request("good", trace(9, 1))).status, OK);
}
