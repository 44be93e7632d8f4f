//! Keys of connections whose effect shows on the socket: keep-alive, streams, write timeouts, pings, authorities.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::http2::{
    ACK, END_HEADERS, GOAWAY, HEADERS, PING, REFUSED_STREAM, RST_STREAM, Raw, SETTINGS, call, frame,
};
use crate::support::otlp_client::{OK, TRACES};
use crate::support::{Backend, Gateway, PATIENCE, eventually};
use crate::{export, message};

const CONFIG: &str = "
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@@GRPC_KEYS@}, http: {endpoint: 127.0.0.1:@HTTP@@HTTP_KEYS@}}}
exporters: {nop: {}}
service: {telemetry: {metrics: {level: none}}, pipelines: {traces: {receivers: [otlp], exporters: [nop]}}}
";

fn start(grpc_keys: &str, http_keys: &str) -> Gateway {
    Gateway::start(&CONFIG.replace("@GRPC_KEYS@", grpc_keys).replace("@HTTP_KEYS@", http_keys))
}

/// An answer's head over a connection that stays open; empty if it is over.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

const EMPTY_REQUEST: &[u8] =
    b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";

/// Guarantee: a connection carries one request after the other, unless `keep_alives_enabled: false`: then the first
/// answer says that it is the last one.
#[test]
fn keep_alives_enabled() {
    for (keys, requests) in [("", 3), (", keep_alives_enabled: false", 1)] {
        let gateway = start("", keys);
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.http_port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..requests {
            stream.write_all(EMPTY_REQUEST).unwrap();
            let head = head(&mut stream).to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 200"), "{head}");
            assert_eq!(head.contains("connection: close"), requests == 1, "{head}");
        }
        if requests == 1 {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "closed");
        }
    }
}

/// Sends requests and reads no answer until nothing more is taken; gives whether the connection is closed then,
/// within `patience`.
fn is_closed_if_nobody_reads(port: u16, patience: Duration) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        match stream.write(EMPTY_REQUEST) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(20)),
            Err(_) => return true,
        }
    }
    false
}

/// Scenario: a client sends requests and never reads an answer. Guarantee: with `write_timeout` its connection is closed
/// when an answer has found no taker for so long; without, it stays.
#[test]
fn write_timeout() {
    // Answers that fill the kernel's buffers soon.
    let large = format!(", response_headers: {{x-large: {}}}", "y".repeat(30_000));
    let patient = start("", &large);
    let strict = start("", &format!("{large}, write_timeout: 300ms"));
    assert!(is_closed_if_nobody_reads(strict.http_port, PATIENCE), "after 300 ms");
    assert!(!is_closed_if_nobody_reads(patient.http_port, Duration::from_secs(5)), "never");
}

/// Guarantee: as many streams as `max_concurrent_streams` says are announced and let in; the next one is refused.
#[test]
fn max_concurrent_streams() {
    let gateway = start(", max_concurrent_streams: 3", "");
    let mut raw = Raw::connect(gateway.grpc_port, 1);
    let settings = raw.until(SETTINGS).expect("settings");
    let announced = settings.payload.chunks(6).find(|setting| setting[..2] == [0, 3]).expect("it is announced");
    assert_eq!(announced, [0, 3, 0, 0, 0, 3]);
    // What is refused before the settings are acknowledged may come in: the client cannot know them yet.
    raw.send(&frame(SETTINGS, ACK, 0, &[])).unwrap();
    let open = |stream: u32| frame(HEADERS, END_HEADERS, stream, &call(TRACES));
    raw.send(&[open(1), open(3), open(5)].concat()).unwrap();
    let (frames, settled) = raw.settle();
    assert_eq!(settled, Some(()), "{frames:?}");
    assert!(frames.iter().all(|frame| frame.kind != RST_STREAM), "{frames:?}");
    raw.send(&open(7)).unwrap();
    let refused = raw.until(RST_STREAM).expect("the connection goes on");
    assert_eq!((refused.stream, refused.code()), (7, REFUSED_STREAM));
}

/// Guarantee: `max_connection_idle` of gRPC and `idle_timeout` of HTTP end connections without requests; by default they stay.
#[test]
fn idle_connections_end() {
    let strict = start(", keepalive: {server_parameters: {max_connection_idle: 200ms}}", ", idle_timeout: 200ms");
    let patient = start("", "");
    let answered = |stream: &mut TcpStream| {
        stream.write_all(EMPTY_REQUEST).unwrap();
        head(stream).starts_with("HTTP/1.1 200")
    };
    let [mut ends, mut stays] = [&strict, &patient].map(|gateway| {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.http_port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(answered(&mut stream));
        (stream, Raw::connect(gateway.grpc_port, 1))
    });
    assert_eq!(ends.0.read(&mut [0]).unwrap_or(0), 0, "closed");
    ends.1.until(GOAWAY).expect("it is told");
    assert!(answered(&mut stays.0));
    let (frames, settled) = stays.1.settle();
    assert!(settled.is_some() && frames.iter().all(|frame| frame.kind != GOAWAY), "{frames:?}");
}

/// Guarantee: a silent connection is asked after `time` whether it is alive, and closed if it does not answer within
/// `timeout`; one that answers stays.
#[test]
fn pings_of_the_receiver() {
    let gateway = start(", keepalive: {server_parameters: {time: 200ms, timeout: 300ms}}", "");
    let mut alive = Raw::connect(gateway.grpc_port, 1);
    for _ in 0..5 {
        let ping = alive.until(PING).expect("it is open");
        alive.send(&frame(PING, ACK, 0, &ping.payload)).unwrap();
    }
    let mut dead = Raw::connect(gateway.grpc_port, 1);
    dead.until(PING).expect("it is asked");
    while dead.next().is_some() {}
    let patient = start("", "");
    let mut unasked = Raw::connect(patient.grpc_port, 1);
    let (frames, settled) = unasked.settle();
    assert!(settled.is_some() && frames.iter().all(|frame| frame.kind != PING || frame.flags == ACK), "{frames:?}");
}

const EXPORTER: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
exporters:
  otlp:
    endpoint: 127.0.0.1:@BACKEND@
    tls: {insecure: true}
    compression: none
    timeout: 0s
    keepalive: {time: 200ms, timeout: 300ms, permit_without_stream: @IDLE@}
    retry_on_failure: {initial_interval: 10ms, max_interval: 10ms}
service: {telemetry: {metrics: {level: none}}, pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}}
";

/// Guarantee: with `keepalive` the exporter asks a backend that owes it an answer whether it is alive, waits for as long
/// as it says so, and tries again over another connection if it does not; one that owes nothing is asked only with
/// `permit_without_stream`.
#[test]
fn pings_of_the_exporter() {
    for idle in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let gateway =
            Gateway::start(&EXPORTER.replace("@BACKEND@", &port.to_string()).replace("@IDLE@", &idle.to_string()));
        let accept = || {
            let mut backend = Raw::over(listener.accept().unwrap().0);
            backend.welcome();
            let request = backend.until(HEADERS).expect("a request");
            (backend, request.stream)
        };
        assert_eq!(gateway.client().call(TRACES, &message(1)).unwrap().status, OK);
        let (mut dead, _) = accept();
        dead.until(PING).expect("it is asked");
        while dead.next().is_some() {}
        // The connection is over: the request comes again.
        let (mut alive, stream) = accept();
        let answer_pings = |alive: &mut Raw, count: usize| {
            for _ in 0..count {
                let ping = alive.until(PING).expect("it is open");
                alive.send(&frame(PING, ACK, 0, &ping.payload)).unwrap();
            }
        };
        answer_pings(&mut alive, 4);
        alive.accept(stream).unwrap();
        if idle {
            answer_pings(&mut alive, 4);
            continue;
        }
        // A ping that was under way; then none in ten times `time`.
        let came = alive.frames_for(Duration::from_secs(2));
        let pings = came.iter().filter(|frame| frame.kind == PING && frame.flags != ACK).count();
        assert!(pings <= 1, "{pings} pings while nothing was asked");
    }
}

const SECURE: &str = "
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@, tls: {cert_file: @FILES@/server.pem, key_file: @FILES@/server.key}}}}
exporters: {otlp: {endpoint: 127.0.0.1:@BACKEND@, tls: {insecure: true}}}
service: {telemetry: {metrics: {level: none}}, pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}}
";

const TRUSTING: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
exporters:
  otlp:
    endpoint: localhost:@BACKEND@
    tls: {ca_file: @FILES@/other.pem, include_system_ca_certs_pool: @SYSTEM@}
    retry_on_failure: {initial_interval: 10ms, max_interval: 10ms}
service: {telemetry: {metrics: {level: none}}, pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}}
";

/// Scenario: a backend whose certificate the system trusts, and `ca_file` does not. Guarantee: it is spoken to only with
/// `include_system_ca_certs_pool`.
#[test]
fn include_system_ca_certs_pool() {
    let folder = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (name, content) in [
        ("server.pem", own.cert.pem()),
        ("server.key", own.signing_key.serialize_pem()),
        ("other.pem", other.cert.pem()),
    ] {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let files = folder.path().display().to_string();
    let backend = Backend::start();
    let secure = Gateway::start(&SECURE.replace("@FILES@", &files).replace("@BACKEND@", &backend.port.to_string()));
    let system = format!("{files}/server.pem");
    let trusting = |system_too: bool| {
        let config = TRUSTING.replace("@FILES@", &files).replace("@BACKEND@", &secure.grpc_port.to_string());
        Gateway::start_with(&config.replace("@SYSTEM@", &system_too.to_string()), &[("SSL_CERT_FILE", &system)])
    };
    let doubting = trusting(false);
    assert_eq!(export(doubting.grpc_port, 1, &[]).status, OK);
    eventually("the certificate is not trusted", || {
        let output = doubting.process.output();
        if output.contains("invalid peer certificate") { Ok(()) } else { Err(output) }
    });
    assert_eq!(backend.span_count(), 0);
    let gateway = trusting(true);
    assert_eq!(export(gateway.grpc_port, 2, &[]).status, OK);
    eventually("the spans arrive", || match backend.span_count() {
        2 => Ok(()),
        other => Err(other),
    });
}
