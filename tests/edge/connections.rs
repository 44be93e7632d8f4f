//! Transports, encodings, the age of connections.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::UnixStream;

use crate::support::otlp::sum_request;
use crate::support::otlp_client::{OK, OtlpClient, RESOURCE_EXHAUSTED, TRACES, call_over, frame};
use crate::support::{Backend, Gateway, eventually, http};
use crate::{block_on, message};

const CONFIG: &str = "
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@@GRPC_KEYS@}, http: {endpoint: 127.0.0.1:@HTTP@}}@KEYS@}
exporters: {otlp: {endpoint: 127.0.0.1:@BACKEND@, tls: {insecure: true}}}
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}
";

fn start(backend: &Backend, keys: &str, grpc_keys: &str) -> Gateway {
    let config = CONFIG.replace("@KEYS@", keys).replace("@GRPC_KEYS@", grpc_keys);
    Gateway::start(&config.replace("@BACKEND@", &backend.port.to_string()))
}

fn arrived(backend: &Backend, spans: usize) {
    eventually("all spans arrive", || match backend.spans().len() {
        count if count == spans => Ok(()),
        count => Err(count),
    });
}

fn written(mut encoder: impl Write, content: &[u8]) {
    encoder.write_all(content).unwrap();
}

/// `content` in `encoding`, by the libraries that others use.
fn encoded(encoding: &str, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        "gzip" => written(flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast()), content),
        "zlib" | "deflate" => written(flate2::write::ZlibEncoder::new(&mut out, flate2::Compression::fast()), content),
        "zstd" => out = zstd::encode_all(content, 1).unwrap(),
        "snappy" => out = snap::raw::Encoder::new().compress_vec(content).unwrap(),
        "x-snappy-framed" => written(snap::write::FrameEncoder::new(&mut out), content),
        "lz4" => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(&mut out);
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap();
        }
        other => panic!("{other}?"),
    }
    out
}

/// Guarantee: every encoding is taken, over both protocols, and the data arrives whole.
#[test]
fn all_encodings_come_in() {
    let backend = Backend::start();
    let gateway = start(&backend, "", "");
    let encodings = ["gzip", "zlib", "deflate", "zstd", "snappy", "x-snappy-framed", "lz4"];
    let mut client = gateway.client();
    for (number, encoding) in (0..).step_by(2).zip(encodings) {
        let outcome = client.call_compressed(TRACES, encoding, &encoded(encoding, &message(number))).unwrap();
        assert_eq!(outcome.status, OK, "{encoding}: {outcome:?}");
        let body = encoded(encoding, &message(number + 1));
        let answer = http::post(gateway.http_port, "/v1/traces", "application/x-protobuf", encoding, body).unwrap();
        assert_eq!(answer.status, 200, "{encoding}: {}", answer.text());
    }
    arrived(&backend, encodings.len() * 2 * 2);
}

/// Guarantee: both protocols are served on Unix sockets; the socket of a process that was killed is replaced,
/// a clean end takes its own away.
#[test]
fn unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let (grpc, http) = (folder.path().join("grpc.sock"), folder.path().join("http.sock"));
    let backend = Backend::start();
    let config = CONFIG
        .replace("127.0.0.1:@GRPC@@GRPC_KEYS@", &format!("{}, transport: unix", grpc.display()))
        .replace("127.0.0.1:@HTTP@", &format!("{}, transport: unix", http.display()))
        .replace("@KEYS@", "")
        .replace("@BACKEND@", &backend.port.to_string())
        + "  extensions: [health_check]\nextensions: {health_check: {endpoint: 127.0.0.1:@HEALTH@}}\n";
    Gateway::start(&config).kill();
    assert!(grpc.metadata().unwrap().file_type().is_socket(), "left behind by the kill");
    let gateway = Gateway::start(&config);
    let send = async |path: &std::path::Path, number| {
        let stream = UnixStream::connect(path).await.expect("connects");
        call_over(stream, TRACES, &[], frame(false, &message(number))).await.expect("a status").status
    };
    assert_eq!(block_on(send(&grpc, 1)), OK);
    let answer = block_on(async {
        let stream = UnixStream::connect(&http).await.expect("connects");
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("shakes hands");
        tokio::spawn(connection);
        let request = hyper::Request::post("/v1/traces").header("host", "x");
        let request = request.header("content-type", "application/x-protobuf");
        let body = http_body_util::Full::new(Bytes::from(message(2)));
        sender.send_request(request.body(body).unwrap()).await.expect("an answer").status().as_u16()
    });
    assert_eq!(answer, 200);
    arrived(&backend, 4);
    assert_eq!(gateway.terminate().code, Some(0));
    assert!(!grpc.exists() && !http.exists());
}

/// Scenario: data goes from a gateway to itself over a Unix socket, and on over another one with TLS.
/// Guarantee: the `otlp` exporter takes both spellings of such an endpoint, and asks for the name `localhost` there.
#[test]
fn exporters_send_over_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("server.pem"), certificate.cert.pem()).unwrap();
    std::fs::write(folder.path().join("server.key"), certificate.signing_key.serialize_pem()).unwrap();
    let backend = Backend::start();
    let config = "
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}
  otlp/plain: {protocols: {grpc: {endpoint: @FOLDER@/plain.sock, transport: unix}}}
  otlp/tls:
    protocols:
      grpc:
        endpoint: @FOLDER@/tls.sock
        transport: unix
        tls: {cert_file: @FOLDER@/server.pem, key_file: @FOLDER@/server.key}
exporters:
  otlp/plain: {endpoint: 'unix:@FOLDER@/plain.sock', tls: {insecure: true}}
  otlp/tls: {endpoint: 'unix://@FOLDER@/tls.sock', tls: {ca_file: @FOLDER@/server.pem}}
  otlp: {endpoint: 127.0.0.1:@BACKEND@, tls: {insecure: true}}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    traces/1: {receivers: [otlp], exporters: [otlp/plain]}
    traces/2: {receivers: [otlp/plain], exporters: [otlp/tls]}
    traces/3: {receivers: [otlp/tls], exporters: [otlp]}
";
    let config = config.replace("@FOLDER@", &folder.path().display().to_string());
    let gateway = Gateway::start(&config.replace("@BACKEND@", &backend.port.to_string()));
    let mut client = gateway.client();
    for number in 0..3 {
        assert_eq!(client.call(TRACES, &message(number)).unwrap().status, OK);
    }
    arrived(&backend, 6);
}

/// Guarantee: a connection that has reached its age is told to go, between requests: none of them fails.
#[test]
fn connections_end_at_their_age_and_no_request_fails() {
    let backend = Backend::start();
    let keepalive = ", keepalive: {server_parameters: {max_connection_age: 300ms, max_connection_age_grace: 30s}}";
    let gateway = start(&backend, "", keepalive);
    let mut client: OtlpClient = gateway.client();
    let mut sent = 0;
    eventually("three connections have ended", || {
        let outcome = client.call(TRACES, &message(sent)).expect("requests go on");
        assert_eq!(outcome.status, OK, "{outcome:?}");
        sent += 1;
        if client.reconnected() >= 3 { Ok(()) } else { Err(client.reconnected()) }
    });
    arrived(&backend, usize::try_from(sent).unwrap() * 2);
}

/// Scenario: many connections come at once. Guarantee: they leave up to a tenth before and after their age, so that not all
/// of them come again at once. (Whoever waits for a time never wakes before it: a life shorter than the age is none of chance.)
#[test]
fn connections_that_came_together_leave_one_by_one() {
    const AGE: Duration = Duration::from_secs(2);
    let backend = Backend::start();
    let gateway = start(&backend, "", ", keepalive: {server_parameters: {max_connection_age: 2s}}");
    let port = gateway.grpc_port;
    let live = move || async move {
        let began = Instant::now();
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let handshake = hyper::client::conn::http2::handshake::<_, _, http_body_util::Empty<Bytes>>(executor, io);
        let (_sender, connection) = handshake.await.expect("shakes hands");
        connection.await.expect("ends with a GOAWAY");
        began.elapsed()
    };
    let lives = block_on(async {
        let tasks: Vec<_> = (0..40).map(|_| tokio::spawn(live())).collect();
        let mut lives = Vec::new();
        for task in tasks {
            lives.push(task.await.expect("no panic"));
        }
        lives
    });
    assert!(lives.iter().all(|life| *life >= AGE.mul_f64(0.9)), "{lives:?}");
    assert!(lives.iter().any(|life| *life < AGE), "{lives:?}");
}

/// Guarantee: a client over its limits is refused in a typed way with a time to come back, over both protocols;
/// it is counted; what it may not send does not arrive.
#[test]
fn a_client_over_its_limit_is_told_when_to_come_back() {
    let backend = Backend::start();
    let limits = ", client_limits: [{per: client.address, requests_per_second: 0.001, burst: 2000s}]";
    let gateway = start(&backend, limits, "");
    let mut client = gateway.client();
    for number in 0..2 {
        assert_eq!(client.call(TRACES, &message(number)).unwrap().status, OK);
    }
    let outcome = client.call(TRACES, &message(2)).unwrap();
    assert_eq!((outcome.status, outcome.has_details), (RESOURCE_EXHAUSTED, true), "{outcome:?}");
    assert!(outcome.message.contains("requests_per_second"), "{outcome:?}");
    let answer = http::post(gateway.http_port, "/v1/traces", "application/x-protobuf", "", message(3)).unwrap();
    assert_eq!(answer.status, 429, "both protocols together: {}", answer.text());
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=300).contains(&seconds), "{seconds}");
    let labels = [("per", "client.address"), ("limit", "requests_per_second")];
    assert_eq!(gateway.metrics().sum("nyquist_receiver_limited_requests", &labels), 2.0);
    arrived(&backend, 4);
}

/// A proxy that opens tunnels to `backend`, whatever name is asked for; gives its port and what it was asked.
fn proxy(backend: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let asked_here = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            asked_here.lock().unwrap().push(String::from_utf8(head).unwrap());
            let mut server = TcpStream::connect(("127.0.0.1", backend)).unwrap();
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
            std::thread::spawn(move || std::io::copy(&mut client, &mut server));
        }
    });
    (port, asked)
}

/// Guarantee: both exporters go through the environment's proxy, by name and with its login, which is not logged;
/// what `NO_PROXY` names does not.
#[test]
fn exporters_go_through_the_proxy_of_the_environment() {
    let (backend, direct) = (Backend::start(), Backend::start());
    let (port, asked) = proxy(backend.port);
    let config = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
exporters:
  otlp: {endpoint: grpc.invalid:4317, tls: {insecure: true}}
  otlp_http: {endpoint: 'http://http.invalid:4318'}
  otlp/direct: {endpoint: 127.0.0.1:@DIRECT@, tls: {insecure: true}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [otlp, otlp_http, otlp/direct]}}
";
    let url = format!("http://agent:open-sesame@127.0.0.1:{port}");
    let environment = [("HTTPS_PROXY", url.as_str()), ("HTTP_PROXY", url.as_str()), ("NO_PROXY", "elsewhere")];
    let gateway = Gateway::start_with(&config.replace("@DIRECT@", &direct.port.to_string()), &environment);
    assert_eq!(gateway.client().call(TRACES, &message(1)).unwrap().status, OK);
    eventually("the spans arrive over all ways", || match (backend.span_count(), direct.span_count()) {
        (4, 2) => Ok(()),
        other => Err(other),
    });
    let asked = asked.lock().unwrap().concat();
    for target in ["CONNECT grpc.invalid:4317 HTTP/1.1", "CONNECT http.invalid:4318 HTTP/1.1"] {
        assert!(asked.contains(target), "{asked}");
    }
    assert!(asked.contains("Proxy-Authorization: Basic YWdlbnQ6b3Blbi1zZXNhbWU="), "{asked}");
    assert!(!gateway.process.output().contains("open-sesame"));

    let refused = [("HTTP_PROXY", url.as_str()), ("NO_PROXY", ".invalid"), ("HTTPS_PROXY", "socks5://127.0.0.1:1")];
    let only_http = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
exporters: {otlp: {endpoint: 'grpc.example:4317'}}
service: {telemetry: {metrics: {level: none}}, pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}}
";
    let (code, output) = Gateway::fail_to_start_with(only_http, &refused);
    assert_ne!(code, Some(0));
    assert!(output.contains("HTTPS_PROXY names a proxy of the kind socks5"), "{output}");
}

/// Guarantee: HTTP exporters go through the proxy of their own, whatever the environment says, also to backends that
/// `NO_PROXY` names; a `proxy_url` that is none is found at the start, and no message repeats its password.
#[test]
fn http_exporters_go_through_a_proxy_of_their_own() {
    let backend = Backend::start();
    let (port, asked) = proxy(backend.port);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let (writes, asked_to_write) = proxy(nobody.local_addr().unwrap().port());
    let config = format!(
        "
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:@GRPC@}}}}}}}}
exporters:
  otlp_http: {{endpoint: 'http://http.invalid:4318', proxy_url: 'http://agent:open-sesame@127.0.0.1:{port}'}}
  prometheus_remote_write: {{endpoint: 'http://write.invalid:9090', proxy_url: 'http://127.0.0.1:{writes}'}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_http]}}
    metrics: {{receivers: [otlp], exporters: [prometheus_remote_write]}}
"
    );
    let environment = [("HTTP_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "*")];
    let gateway = Gateway::start_with(&config, &environment);
    assert_eq!(gateway.client().call(TRACES, &message(1)).unwrap().status, OK);
    let points = sum_request("edge", "calls", 1, &[(Vec::new(), 1)]);
    assert_eq!(gateway.client().metrics(&points).status, OK);
    eventually("both go through the proxy", || {
        let asked = [asked.lock().unwrap().concat(), asked_to_write.lock().unwrap().concat()].concat();
        let targets = ["CONNECT http.invalid:4318 HTTP/1.1", "CONNECT write.invalid:9090 HTTP/1.1"];
        if targets.iter().all(|target| asked.contains(target)) { Ok(()) } else { Err(asked) }
    });
    eventually("the spans arrive", || match backend.span_count() {
        2 => Ok(()),
        other => Err(other),
    });
    assert!(!gateway.process.output().contains("open-sesame"));

    let (code, output) = Gateway::fail_to_start(&config.replace("'http://agent", "'socks5://agent"));
    assert_eq!(code, Some(1));
    assert!(output.contains("proxy_url") && output.contains("only http:// proxies are supported"), "{output}");
    // Only the excerpt shows the line as it is written.
    assert!(!output.lines().next().unwrap().contains("open-sesame"), "{output}");
}
