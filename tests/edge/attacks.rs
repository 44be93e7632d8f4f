//! What bad clients do, each kind by itself and all at once, beside a good one.

use std::io::{ErrorKind, Read, Write};
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
use crate::support::{Gateway, OtlpClient, eventually, http};
use crate::{PROTOBUF, floods, is_release};

const CONFIG: &str = "
receivers:
  otlp:
    min_body_rate: {grace_period: 3s}
    protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}, http: {endpoint: 127.0.0.1:@HTTP@, read_header_timeout: 3s}}
  otlp/locked:
    protocols:
      http: {endpoint: 127.0.0.1:@LOCKED@, auth: {authenticator: bearertokenauth}}
  otlp/tls:
    protocols:
      http:
        endpoint: 127.0.0.1:@TLS@
        read_header_timeout: 3s
        tls: {cert_file: @DIR@/../server.pem, key_file: @DIR@/../server.key}
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

const ATTACKS: [(&str, Attack); 10] = [
    ("rapid reset", |target| floods::assert_calm(&floods::resets(target.grpc))),
    ("header flood", |target| assert_answer(&header_flood(target.http), "HTTP/1.1 431")),
    ("endless headers", |target| floods::assert_calm(&floods::continuations(target.grpc))),
    ("header bomb", |target| floods::assert_calm(&floods::header_bomb(target.grpc))),
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

/// Connections that say a byte at a time what they have to say: how they begin, and how they are to end.
const SLOW: [(&str, &[u8], Port, &str); 5] = [
    ("head", b"POST /v1/traces HTTP/1.1\r\nhost: a\r\nx-slow: ", |target| target.http, ""),
    (
        "body",
        b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: 10000\r\n\r\n",
        |target| target.http,
        "HTTP/1.1 408",
    ),
    // No settings, but a frame of a kind that nobody knows, which is to have 8192 bytes.
    ("settings", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\x20\0\xfa\0\0\0\0\0", |target| target.http, ""),
    // A block of headers that is to have 4096 bytes.
    (
        "block",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\x10\0\x01\0\0\0\0\x01",
        |target| target.http,
        "",
    ),
    ("hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", |target| target.tls, ""),
];

type Port = fn(&Target) -> u16;

/// How many of each kind are open at once.
const SLOW_OPEN: usize = 80;

/// Slow connections, kept up by a thread: what is closed is counted and begun anew.
struct SlowOnes {
    stop: Arc<AtomicBool>,
    closed: [Arc<AtomicUsize>; SLOW.len()],
    thread: JoinHandle<()>,
}

impl SlowOnes {
    fn start(target: &Target) -> Self {
        let (stop, target) = (Arc::new(AtomicBool::new(false)), target.clone());
        let closed = [(); SLOW.len()].map(|()| Arc::new(AtomicUsize::new(0)));
        let (ended, counts) = (Arc::clone(&stop), closed.clone());
        let thread = std::thread::spawn(move || {
            let begin = |kind: usize| {
                let (_, beginning, port, _) = SLOW[kind];
                let mut stream = TcpStream::connect(("127.0.0.1", port(&target))).unwrap();
                stream.write_all(beginning).unwrap();
                stream.set_nonblocking(true).unwrap();
                stream
            };
            let mut open: Vec<_> =
                (0..SLOW.len() * SLOW_OPEN).map(|number| (number % SLOW.len(), begin(number % SLOW.len()))).collect();
            while !ended.load(Ordering::Relaxed) {
                for (kind, stream) in &mut open {
                    if let Some(answer) = dribble(stream, *kind) {
                        let (name, _, _, expected) = SLOW[*kind];
                        assert!(answer.is_empty() || answer.starts_with(expected), "{name}: {answer:?}");
                        // An answer may get lost when the connection ends; most do not.
                        counts[*kind].fetch_add(usize::from(answer.starts_with(expected)), Ordering::Relaxed);
                        *stream = begin(*kind);
                    }
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { stop, closed, thread }
    }

    /// Waits until, of every kind, as many have been closed (and told why) as there are at once; gives how many were.
    fn end(self) -> usize {
        eventually("slow connections are closed", || {
            let counts: Vec<_> = self.closed.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            if counts.iter().all(|count| *count >= SLOW_OPEN) { Ok(()) } else { Err(counts) }
        });
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("they were told what they should be");
        self.closed.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// Sends a byte; if the connection is over (or was answered), what was said.
fn dribble(stream: &mut TcpStream, kind: usize) -> Option<String> {
    let mut answer = [0; 256];
    let is_http2 = SLOW[kind].1.starts_with(b"PRI");
    match stream.read(&mut answer) {
        // HTTP/2 servers have something to say before they are asked.
        Ok(read) if read > 0 && is_http2 => return None,
        Ok(read) => return Some(String::from_utf8_lossy(&answer[..read]).into_owned()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(_) => return Some(String::new()),
    }
    match stream.write(b"x") {
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(_) => Some(String::new()),
    }
}

/// Attackers, one thread each, that are let loose and held.
struct Attackers {
    /// Which of `ATTACKS` go on now, as bits.
    active: Arc<AtomicUsize>,
    /// How many are at it.
    busy: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    done: [Arc<AtomicUsize>; ATTACKS.len()],
    threads: Vec<JoinHandle<()>>,
}

impl Attackers {
    fn start(target: &Target) -> Self {
        let (active, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let busy = Arc::new(AtomicUsize::new(0));
        let done = [(); ATTACKS.len()].map(|()| Arc::new(AtomicUsize::new(0)));
        let thread = |index: usize| {
            let (active, stop, done, target) = (active.clone(), stop.clone(), done[index].clone(), target.clone());
            let busy = Arc::clone(&busy);
            let body = move || {
                step_back();
                while !stop.load(Ordering::Relaxed) {
                    busy.fetch_add(1, Ordering::SeqCst);
                    if active.load(Ordering::SeqCst) & (1 << index) != 0 {
                        (ATTACKS[index].1)(&target);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    busy.fetch_sub(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                }
            };
            std::thread::Builder::new().name(ATTACKS[index].0.to_owned()).spawn(body).unwrap()
        };
        let threads = (0..ATTACKS.len()).map(thread).collect();
        Self { active, busy, stop, done, threads }
    }

    fn hold(&self) {
        self.active.store(0, Ordering::SeqCst);
        // What was begun is no part of the quiet.
        while self.busy.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends all of them; an attacker that got a wrong answer fails the test.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("the answers were right"));
    }
}

/// An attacker has a machine of its own. Here it shares the gateway's cores: it gets what others leave, and gives it back
/// at once (`SCHED_IDLE`; a thread of any other class, however nice, may keep its core until the next tick of the
/// scheduler, which comes every 1 to 10 ms, and that would be measured instead of the gateway).
fn step_back() {
    let thread = std::fs::read_link("/proc/thread-self").unwrap();
    let thread = thread.file_name().unwrap().to_owned();
    let status = Command::new("chrt").args(["--idle", "--pid", "0"]).arg(thread).status().expect("chrt exists");
    assert!(status.success());
}

/// How long each of `count` good requests took.
fn latencies(client: &mut OtlpClient, count: u64) -> Vec<Duration> {
    let request = |number: u64| {
        let request = traces_request("good", trace(number + 1, 2));
        let begun = Instant::now();
        let outcome = client.traces(&request);
        assert_eq!(outcome.status, OK, "{outcome:?}");
        begun.elapsed()
    };
    (0..count).map(request).collect()
}

/// How many turns there are without and with an attack at the least, and how many requests count in each.
fn measure() -> (usize, u64) {
    if is_release() { (15, 300) } else { (5, 200) }
}

/// The p99 of a good client in one turn. A connection's first requests do not count: they find cold caches and a
/// core that has to wake up.
fn turn(clients: &mut [OtlpClient; 2]) -> Duration {
    let (_, requests) = measure();
    let mut taken = Vec::new();
    for client in clients {
        drop(latencies(client, 10));
        taken.extend(latencies(client, requests / 2));
    }
    taken.sort();
    taken[taken.len() * 99 / 100]
}

fn median(mut turns: Vec<Duration>) -> Duration {
    turns.sort();
    turns[turns.len() / 2]
}

/// The p99 of a good client while nobody attacks: the median of the turns.
fn quiet(gateway: &Gateway) -> Duration {
    let mut clients = [gateway.client(), gateway.client()];
    let (turns, _) = measure();
    median((0..turns).map(|_| turn(&mut clients)).collect())
}

/// The p99 of a good client without and with the attacks in `active`: the median of many short turns of each, which take
/// turns, so that what else goes on on the machine hits both, and a moment of it none. And how often the attacks were done.
fn compare(gateway: &Gateway, attackers: &Attackers, active: usize) -> (Duration, Duration, usize) {
    let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
    let counts = || attackers.done.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
    // Two connections: one at each worker, if there are two.
    let mut clients = [gateway.client(), gateway.client()];
    let before = counts();
    let is_done = |now: &[usize]| {
        now.iter()
            .zip(&before)
            .enumerate()
            .all(|(index, (now, before))| active & (1 << index) == 0 || now - before >= 3)
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    let (turns, _) = measure();
    while attacked.len() < turns || !is_done(&counts()) {
        assert!(Instant::now() < deadline, "the attacks are not answered");
        quiet.push(turn(&mut clients));
        attackers.active.store(active, Ordering::SeqCst);
        attacked.push(turn(&mut clients));
        attackers.hold();
    }
    let done = counts().iter().zip(&before).map(|(now, before)| now - before).sum();
    (median(quiet), median(attacked), done)
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
    let only = std::env::var("NYQUIST_ATTACKS").unwrap_or_default();
    for (index, (name, _)) in ATTACKS.iter().enumerate().filter(|(_, (name, _))| name.contains(&only)) {
        results.push((*name, compare(&gateway, &attackers, 1 << index)));
    }
    if only.is_empty() {
        // Slow connections live for seconds, so these two cannot take turns with the quiet: it is measured before and after.
        let before = quiet(&gateway);
        let slow = SlowOnes::start(&target);
        let (_, alone, _) = compare(&gateway, &attackers, 0);
        let (_, with_all, done) = compare(&gateway, &attackers, (1 << ATTACKS.len()) - 1);
        let closed = slow.end();
        let quiet = quiet(&gateway).max(before);
        results.extend([("slow-loris", (quiet, alone, closed)), ("all together", (quiet, with_all, done))]);
    }
    attackers.end();
    let (_, peak) = gateway.process.resident();
    for (name, (quiet, attacked, done)) in &results {
        let ratio = attacked.as_secs_f64() / quiet.as_secs_f64();
        eprintln!("{name:>20}: p99 {quiet:>10.1?} quiet, {attacked:>10.1?} under {done} attacks: {ratio:.1}");
    }
    eprintln!("peak {} MiB", peak >> 20);
    gateway.assert_alive();
    assert!(peak < 400 << 20, "{} MiB at the peak", peak >> 20);
    assert!(!results.is_empty(), "there is no attack like {only:?}");
    // A worker that wakes up may find its core taken by another one, which is busy with an attacker's body; the kernel's
    // scheduler lets that one go on until its next tick.
    let (factor, margin) = if is_release() { (2, Duration::from_micros(750)) } else { (10, Duration::from_millis(50)) };
    for (name, (quiet, attacked, _)) in results {
        assert!(attacked <= quiet * factor + margin, "{name}: p99 {quiet:?} when quiet, {attacked:?} under attack");
    }
    assert_eq!(gateway.client().traces(&traces_request("good", trace(9, 1))).status, OK);
}
