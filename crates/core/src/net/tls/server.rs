//! The accepting side.

use std::sync::Arc;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::material::{Pem, provider, versions};
use super::reload::{Reloading, Source};
use super::{ServerTlsConfig, TlsError};
use crate::config::Secret;
use crate::delivery::Status;

/// TLS for incoming connections.
pub struct ServerTls {
    reloading: Reloading<ServerSource>,
}

struct ServerSource {
    config: ServerTlsConfig,
    alpn: Vec<Vec<u8>>,
}

#[derive(PartialEq)]
struct Material {
    cert: Option<Pem>,
    key: Option<Pem>,
    client_ca: Option<Pem>,
}

/// How often a client CA that may change is read again, where no `reload_interval` says more.
const CLIENT_CA_INTERVAL: Duration = Duration::from_secs(1);

impl ServerTls {
    /// Reads the certificates. `alpn`: the protocols to accept, best first.
    ///
    /// # Errors
    /// If a file cannot be read, or does not hold what it should.
    pub fn new(config: &ServerTlsConfig, alpn: &[&str]) -> Result<Arc<Self>, TlsError> {
        let alpn = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut interval = config.reload_interval.0;
        if interval.is_zero() && config.client_ca_file_reload {
            interval = CLIENT_CA_INTERVAL;
        }
        // The Collector reads them, too, and asks nobody for what they sign.
        if let Some(ca) = Pem::read(("ca_file", &config.ca_file), ("ca_pem", &config.ca_pem))? {
            ca.certificates()?;
        }
        let source = ServerSource { config: config.clone(), alpn };
        Ok(Arc::new(Self { reloading: Reloading::new(source, interval)? }))
    }

    /// The configuration for a connection that is accepted now: for `tokio_rustls::TlsAcceptor`.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.reloading.current()
    }

    /// How it is doing: whether its files can still be read. Looks at them, if it is time to.
    #[must_use]
    pub fn status(&self) -> Status {
        self.reloading.status()
    }
}

impl Source for ServerSource {
    type Material = Material;
    type Ready = ServerConfig;

    fn read(&self) -> Result<Material, TlsError> {
        let config = &self.config;
        Ok(Material {
            cert: Pem::read(("cert_file", &config.cert_file), ("cert_pem", &config.cert_pem))?,
            key: Pem::read(("key_file", &config.key_file), ("key_pem", &config.key_pem))?,
            client_ca: Pem::read(("client_ca_file", &config.client_ca_file), ("", &Secret::default()))?,
        })
    }

    fn ready(&self, material: &Material) -> Result<ServerConfig, TlsError> {
        let config = &self.config;
        let (Some(cert), Some(key)) = (&material.cert, &material.key) else {
            return Err(TlsError("a server's certificate and its key must both be set".to_owned()));
        };
        let provider = provider(&config.cipher_suites, &config.curve_preferences)?;
        let versions = versions(&config.min_version, &config.max_version);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|error| {
                TlsError(format!(
                    "cipher_suites, curve_preferences, min_version and max_version do not go together: {error}"
                ))
            })?;
        let builder = match &material.client_ca {
            None => builder.with_no_client_auth(),
            Some(client_ca) => {
                let mut roots = RootCertStore::empty();
                client_ca.add_to(&mut roots)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| TlsError(format!("client_ca_file cannot be used: {error}")))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut ready = builder
            .with_single_cert(cert.certificates()?, key.key()?)
            .map_err(|error| TlsError(format!("the certificate and its key cannot be used: {error}")))?;
        ready.alpn_protocols.clone_from(&self.alpn);
        Ok(ready)
    }
}
