//! TLS and mTLS.

use std::fs;
use std::path::Path;

use nyquist_core::config::Secret;
use nyquist_core::net::tls::{ClientTls, ClientTlsConfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::otlp_client::{OK, Outcome, TRACES, call_over, frame};
use crate::support::{Backend, Gateway, eventually, http};
use crate::{block_on, message};

const CONFIG: &str = "
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: 127.0.0.1:@GRPC@
        tls:
          cert_file: @FILES@/server.pem
          key_file: @FILES@/server.key
          client_ca_file: @FILES@/clients.pem
          client_ca_file_reload: true
          reload_interval: 100ms
          min_version: '1.3'
exporters: {otlp: {endpoint: 127.0.0.1:@BACKEND@, tls: {insecure: true}}}
extensions: {health_check: {endpoint: 127.0.0.1:@HEALTH@}}
service:
  extensions: [health_check]
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}
";

/// One who signs.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
struct Pair {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        Pair { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

fn client(servers: &Authority, own: Option<&Pair>) -> ClientTlsConfig {
    let mut config = ClientTlsConfig { ca_pem: Secret::from(servers.pem.clone()), ..ClientTlsConfig::default() };
    if let Some(pair) = own {
        config.cert_pem = Secret::from(pair.cert.clone());
        config.key_pem = Secret::from(pair.key.clone());
    }
    config
}

/// A request over a new connection.
fn export(port: u16, config: &ClientTlsConfig, number: u64) -> Result<Outcome, String> {
    let body = frame(false, &message(number));
    block_on(async {
        let tls = ClientTls::new(config, &["h2"]).map_err(|error| error.to_string())?;
        let name = tls.server_name("localhost").map_err(|error| error.to_string())?;
        let socket = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(tls.current()).connect(name, socket).await;
        let stream = stream.map_err(|error| error.to_string())?;
        call_over(stream, TRACES, &[], body).await
    })
}

fn install(folder: &Path, server: &Pair, clients: &Authority) {
    fs::write(folder.join("server.key"), &server.key).unwrap();
    fs::write(folder.join("server.pem"), &server.cert).unwrap();
    fs::write(folder.join("clients.pem"), &clients.pem).unwrap();
}

/// Guarantee: only clients with a certificate of the named authority get in, and nobody speaks less than the
/// minimum version; both the server's certificate and the clients' authority are replaced while it runs.
#[test]
fn mutual_tls_with_reload() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new, stranger] = [(); 3].map(|()| Authority::new());
    install(folder.path(), &old.sign("localhost"), &old);
    let backend = Backend::start();
    let config =
        CONFIG.replace("@BACKEND@", &backend.port.to_string()).replace("@FILES@", &folder.path().display().to_string());
    let mut gateway = Gateway::start(&config);
    let port = gateway.grpc_port;

    let (before, after) = (old.sign("client"), new.sign("client"));
    assert_eq!(export(port, &client(&old, Some(&before)), 1).unwrap().status, OK);
    export(port, &client(&old, None), 2).expect_err("no certificate");
    export(port, &client(&old, Some(&stranger.sign("client"))), 3).expect_err("a stranger's certificate");
    export(port, &client(&old, Some(&after)), 4).expect_err("not yet");
    export(port, &client(&stranger, Some(&before)), 5).expect_err("the client does not trust the server");
    let outdated = ClientTlsConfig { max_version: "1.2".to_owned(), ..client(&old, Some(&before)) };
    export(port, &outdated, 6).expect_err("TLS 1.2");

    install(folder.path(), &new.sign("localhost"), &new);
    eventually("the new certificates are in use", || {
        let outcome = export(port, &client(&new, Some(&after)), 7)?;
        if outcome.status == OK { Ok(()) } else { Err(outcome.message) }
    });
    export(port, &client(&old, Some(&before)), 8).expect_err("the server's old certificate is gone");
    export(port, &client(&new, Some(&before)), 9).expect_err("the clients' old authority is gone");

    // Nonsense does not replace what works.
    fs::write(folder.path().join("server.pem"), "nonsense").unwrap();
    eventually("the fault is reported", || {
        assert_eq!(export(port, &client(&new, Some(&after)), 10).unwrap().status, OK);
        let output = gateway.process.output();
        if output.contains("server.pem") { Ok(()) } else { Err(output) }
    });
    let receiver = |gateway: &Gateway| {
        let status = http::get(gateway.health_port, "/status?verbose").unwrap().json();
        status["components"]["pipeline:traces"]["components"]["receiver:otlp"].clone()
    };
    let status = receiver(&gateway);
    assert_eq!(status["status"], "StatusRecoverableError", "{status}");
    assert!(status["error"].as_str().unwrap().contains("server.pem"), "{status}");
    install(folder.path(), &new.sign("localhost"), &new);
    eventually("the receiver is well again, although nobody connects", || {
        let status = receiver(&gateway);
        if status["status"] == "StatusOK" { Ok(()) } else { Err(status) }
    });
    gateway.assert_alive();
    let spans = backend.spans();
    assert_eq!(spans.len(), 6, "the traces 1, 7 and 10 and nobody else's");
}
