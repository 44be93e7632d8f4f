//! The receiver behind TLS, on both ports.

use nyquist_core::config::Secret;
use nyquist_core::net::tls::{ClientTls, ClientTlsConfig, ServerTls, ServerTlsConfig};
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

/// Guarantee: keys are agreed on over a curve that both sides name; without one there is no connection.
#[tokio::test]
async fn curves_are_as_preferred() {
    let ours = certificates();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let agreed = async |servers: &[&str], clients: &[&str]| {
        let server = ServerTlsConfig {
            cert_pem: Secret::from(ours.cert.clone()),
            key_pem: Secret::from(ours.key.clone()),
            curve_preferences: names(servers),
            ..ServerTlsConfig::default()
        };
        let client = ClientTlsConfig {
            ca_pem: Secret::from(ours.ca.clone()),
            curve_preferences: names(clients),
            ..ClientTlsConfig::default()
        };
        let server = ServerTls::new(&server, &["h2"]).expect("a server's TLS");
        let client = ClientTls::new(&client, &["h2"]).expect("a client's TLS");
        let (near, far) = tokio::io::duplex(1 << 16);
        let accepting = tokio_rustls::TlsAcceptor::from(server.current()).accept(far);
        let name = client.server_name("localhost").expect("a name");
        let connecting = TlsConnector::from(client.current()).connect(name, near);
        let (accepted, connected) = tokio::join!(accepting, connecting);
        let (accepted, _) = (accepted.ok()?, connected.ok()?);
        accepted.get_ref().1.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()))
    };
    assert_eq!(agreed(&[], &[]).await.as_deref(), Some("X25519"));
    assert_eq!(agreed(&["P384"], &[]).await.as_deref(), Some("secp384r1"));
    assert_eq!(agreed(&[], &["P256", "X25519"]).await.as_deref(), Some("secp256r1"));
    assert_eq!(agreed(&["P384"], &["P256"]).await, None);
}

/// Guarantee: a server's `ca_file` is read, so that a wrong one is found, and asks no client for a certificate; a
/// warning says so.
#[tokio::test]
async fn authorities_of_a_server_are_read_and_ask_nobody() {
    let ours = certificates();
    let section = json!({"cert_pem": ours.cert, "key_pem": ours.key, "ca_pem": ours.ca});
    let running = Running::with(config(section.clone()), Sink::default(), &Signal::ALL).await;
    assert_eq!(get_over_tls(running.grpc(), &ours.ca, "h2").await, Ok(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    let (_, told) = nyquist_core::config::from_str::<ServerTlsConfig>(&section.to_string()).expect("good");
    assert!(format!("{:?}", told.warnings).contains("client_ca_file names who signs"), "{:?}", told.warnings);
    let wrong = ServerTlsConfig {
        cert_pem: Secret::from(ours.cert),
        key_pem: Secret::from(ours.key.clone()),
        ca_pem: Secret::from(ours.key),
        ..ServerTlsConfig::default()
    };
    let error = ServerTls::new(&wrong, &["h2"]).err().expect("a key is no authority");
    assert!(error.0.contains("ca_pem holds no PEM certificate"), "{error}");
}
