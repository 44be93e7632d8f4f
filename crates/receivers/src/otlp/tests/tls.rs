//! The receiver behind TLS, on both ports.

use nyquist_core::config::Secret;
use nyquist_core::net::tls::{ClientTls, ClientTlsConfig};
use tokio_rustls::TlsConnector;

use super::*;

struct Certificates {
    ca: String,
    cert: String,
    key: String,
}

/// A certificate for localhost that signs itself.
fn certificates() -> Certificates {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let cert = signed.cert.pem();
    Certificates { ca: cert.clone(), cert, key: signed.signing_key.serialize_pem() }
}

async fn get_over_tls(address: SocketAddr, ca: &str, alpn: &str) -> Result<StatusCode, String> {
    let config = ClientTlsConfig { ca_pem: Secret::from(ca.to_owned()), ..ClientTlsConfig::default() };
    let tls = ClientTls::new(&config, &[alpn]).map_err(|error| error.to_string())?;
    let name = tls.server_name("localhost").map_err(|error| error.to_string())?;
    let socket = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(tls.current()).connect(name, socket).await.map_err(|error| error.to_string())?;
    let io = TokioIo::new(stream);
    let request = Request::get("https://localhost/").body(Full::new(Bytes::new())).expect("a request");
    let response = if alpn == "h2" {
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, io).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    Ok(response.map_err(|error| error.to_string())?.status())
}

fn config(section: serde_json::Value) -> serde_json::Value {
    let mut config = defaults();
    config["protocols"]["grpc"]["tls"] = section.clone();
    config["protocols"]["http"]["tls"] = section;
    config
}

#[tokio::test]
async fn both_protocols_speak_tls() {
    let ours = certificates();
    let section = json!({"cert_pem": ours.cert, "key_pem": ours.key});
    let running = Running::with(config(section), Sink::default(), &Signal::ALL).await;
    let status = get_over_tls(running.http(), &ours.ca, "http/1.1").await;
    assert_eq!(status, Ok(StatusCode::NOT_FOUND));
    assert_eq!(get_over_tls(running.http(), &ours.ca, "h2").await, Ok(StatusCode::NOT_FOUND));
    let status = get_over_tls(running.grpc(), &ours.ca, "h2").await;
    assert_eq!(status, Ok(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    assert!(get_over_tls(running.http(), &certificates().ca, "h2").await.is_err(), "signed by somebody else");
}

#[tokio::test]
async fn clients_without_a_certificate_are_refused_where_one_is_asked_for() {
    let ours = certificates();
    let folder = tempfile::tempdir().expect("a folder");
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, &ours.ca).expect("writes");
    let section = json!({"cert_pem": ours.cert, "key_pem": ours.key, "client_ca_file": ca_file});
    let running = Running::with(config(section), Sink::default(), &Signal::ALL).await;
    assert!(get_over_tls(running.http(), &ours.ca, "http/1.1").await.is_err());
    assert!(get_over_tls(running.grpc(), &ours.ca, "h2").await.is_err());
}
