//! TLS against a real server: what gets through, what does not, and what the error says.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use nyquist_core::net::tls::{ServerTls, ServerTlsConfig};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::OtlpConfig;
use super::backend::{Backend, Rig, batch};

/// An authority, and what it signs, as files.
struct Authority {
    directory: TempDir,
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { directory, certificate, key }
    }

    /// Writes `<file>.pem` and `<file>.key` for `name`.
    fn issue(&self, file: &str, name: &str) {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert!(self.certificate.pem().contains("CERTIFICATE"));
        let issuer = Issuer::from_params(&ca, &self.key);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        std::fs::write(self.path(&format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, file: &str) -> String {
        Path::new(self.directory.path()).join(file).display().to_string()
    }
}

async fn serve(ca: &Authority, more: &str) -> (Backend, SocketAddr, JoinHandle<()>) {
    let yaml = format!("{{cert_file: '{}', key_file: '{}', {more}}}", ca.path("server.pem"), ca.path("server.key"));
    let config: ServerTlsConfig = serde_yaml::from_str(&yaml).unwrap();
    let backend = Backend::default();
    let tls = ServerTls::new(&config, &["h2"]).unwrap();
    let (address, task) = backend.serve("127.0.0.1:0", Some(tls)).await;
    (backend, address, task)
}

/// Sends one batch; the error's message if it does not arrive.
async fn send(address: SocketAddr, tls: &str) -> Result<(), String> {
    let yaml = format!(
        "{{endpoint: '{address}', tls: {tls}, sending_queue: {{enabled: false}}, retry_on_failure: {{enabled: false}}}}"
    );
    let config: OtlpConfig = serde_yaml::from_str(&yaml).unwrap();
    let rig = Rig::start(&config, None).await;
    rig.exporter.consume(batch("a", 1)).await.map_err(|refusal| refusal.message().to_owned())
}

#[tokio::test]
async fn the_servers_certificate_is_checked() {
    let ca = Authority::new();
    ca.issue("server", "127.0.0.1");
    let (backend, address, _server) = serve(&ca, "").await;
    let ca_file = ca.path("ca.pem");
    send(address, &format!("{{ca_file: '{ca_file}'}}")).await.unwrap();
    send(address, &format!("{{ca_file: '{ca_file}', min_version: '1.3'}}")).await.unwrap();
    send(address, &format!("{{ca_file: '{ca_file}', max_version: '1.2'}}")).await.unwrap();
    send(address, "{insecure_skip_verify: true}").await.unwrap();
    // A certificate authority means TLS, whatever else is said.
    send(address, &format!("{{insecure: true, ca_file: '{ca_file}'}}")).await.unwrap();
    let unknown = send(address, "{}").await.unwrap_err();
    assert!(unknown.contains("tls.ca_file"), "{unknown}");
    assert!(send(address, "{insecure: true}").await.is_err());
    assert_eq!(backend.spans().len(), 5);
}

#[tokio::test]
async fn the_name_must_fit_or_be_overridden() {
    let ca = Authority::new();
    ca.issue("server", "backend.example");
    let (_backend, address, _server) = serve(&ca, "").await;
    let ca_file = ca.path("ca.pem");
    let wrong = send(address, &format!("{{ca_file: '{ca_file}'}}")).await.unwrap_err();
    assert!(wrong.contains("server_name_override"), "{wrong}");
    send(address, &format!("{{ca_file: '{ca_file}', server_name_override: backend.example}}")).await.unwrap();
}

#[tokio::test]
async fn mutual_tls_wants_the_clients_certificate() {
    let ca = Authority::new();
    ca.issue("server", "127.0.0.1");
    ca.issue("client", "gateway");
    let ca_file = ca.path("ca.pem");
    let (_backend, address, _server) = serve(&ca, &format!("client_ca_file: '{ca_file}'")).await;
    assert!(send(address, &format!("{{ca_file: '{ca_file}'}}")).await.is_err(), "no certificate, no entry");
    let (cert, key) = (ca.path("client.pem"), ca.path("client.key"));
    send(address, &format!("{{ca_file: '{ca_file}', cert_file: '{cert}', key_file: '{key}'}}")).await.unwrap();
    let stranger = Authority::new();
    stranger.issue("client", "gateway");
    let (cert, key) = (stranger.path("client.pem"), stranger.path("client.key"));
    let refused = send(address, &format!("{{ca_file: '{ca_file}', cert_file: '{cert}', key_file: '{key}'}}")).await;
    assert!(refused.is_err());
}

/// Case 50: a certificate that was replaced is presented to connections that come later.
#[tokio::test]
async fn a_replaced_certificate_is_presented() {
    let ca = Authority::new();
    ca.issue("server", "127.0.0.1");
    let (_backend, address, _server) = serve(&ca, "reload_interval: 10ms").await;
    send(address, &format!("{{ca_file: '{}'}}", ca.path("ca.pem"))).await.unwrap();
    let successor = Authority::new();
    successor.issue("server", "127.0.0.1");
    for file in ["server.pem", "server.key"] {
        std::fs::copy(successor.path(file), ca.path(file)).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    send(address, &format!("{{ca_file: '{}'}}", successor.path("ca.pem"))).await.unwrap();
    std::fs::write(ca.path("server.pem"), "broken").unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    send(address, &format!("{{ca_file: '{}'}}", successor.path("ca.pem"))).await.unwrap();
}
