//! What idle connections cost.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nyquist_core::config::Secret;
use nyquist_core::net::tls::{ClientTls, ClientTlsConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::Gateway;
use crate::support::otlp_client::{TRACES, frame};
use crate::{PROTOBUF, is_release, message, runtime};

const CONNECTIONS: u64 = 1000;

const CONFIG: &str = "
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@@TLS@}, http: {endpoint: 127.0.0.1:@HTTP@}}}
exporters: {nop: {}}
service:
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]}}
  pipelines: {traces: {receivers: [otlp], exporters: [nop]}}
";

type Sender2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;
type Sender1 = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

/// A gRPC connection that has made a request.
async fn grpc<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, body: &Bytes) -> Sender2 {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://a{TRACES}")).header("content-type", "application/grpc");
    let response = sender.send_request(request.body(Full::new(body.clone())).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
    sender
}

async fn http1(stream: TcpStream, body: &[u8]) -> Sender1 {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("/v1/traces").header("host", "a").header("content-type", PROTOBUF);
    let response = sender.send_request(request.body(Full::from(body.to_vec())).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
    sender
}

/// Bytes of resident memory for each of the connections that `open` makes.
fn cost<T>(gateway: &Gateway, open: impl AsyncFn() -> T) -> u64 {
    let runtime = runtime();
    runtime.block_on(async {
        // What is there once, however many connections there are.
        let mut first = Vec::new();
        for _ in 0..100 {
            first.push(open().await);
        }
        let (before, _) = gateway.process.resident();
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            held.push(open().await);
        }
        let (after, _) = gateway.process.resident();
        after.saturating_sub(before) / CONNECTIONS
    })
}

/// Scenario: a thousand connections, each of which has made a request, wait for the next one.
/// Guarantee: what is resident for each: less than 20 KiB over gRPC, 12 KiB of which are the first pages of three buffers of
/// the HTTP/2 library. After hundreds of requests it has touched more of them, and holds some 8 KiB more. In a debug build,
/// and for TLS, whose library keeps buffers of its own: more.
#[test]
fn idle_connections_are_cheap() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("server.pem"), certificate.cert.pem()).unwrap();
    std::fs::write(files.path().join("server.key"), certificate.signing_key.serialize_pem()).unwrap();
    let folder = files.path().display();
    let tls = format!(", tls: {{cert_file: {folder}/server.pem, key_file: {folder}/server.key}}");
    // A gateway for each: none uses what another has given back.
    let start = |tls: &str| Gateway::start(&CONFIG.replace("@TLS@", tls));
    let [plain, http, secure] = [start(""), start(""), start(&tls)];
    let body = message("idle", 1);
    let framed = frame(false, &body);
    let connect = async |port: u16| TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let over_grpc = cost(&plain, async || grpc(connect(plain.grpc_port).await, &framed).await);
    let over_http = cost(&http, async || http1(connect(http.http_port).await, &body).await);
    let config = ClientTlsConfig { ca_pem: Secret::from(certificate.cert.pem()), ..ClientTlsConfig::default() };
    let client = ClientTls::new(&config, &["h2"]).unwrap();
    let over_tls = cost(&secure, async || {
        let connector = TlsConnector::from(client.current());
        let name = client.server_name("localhost").unwrap();
        grpc(connector.connect(name, connect(secure.grpc_port).await).await.unwrap(), &framed).await
    });
    eprintln!("bytes for each idle connection: {over_grpc} gRPC, {over_http} HTTP/1, {over_tls} gRPC in TLS");
    let margin = if is_release() { 0 } else { 4 };
    for (name, bytes, bound) in [("gRPC", over_grpc, 20 + margin), ("HTTP/1", over_http, 20), ("TLS", over_tls, 36)] {
        assert!(bytes < bound << 10, "{name}: {bytes} bytes for each connection");
    }
}
