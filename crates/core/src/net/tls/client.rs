//! The connecting side.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use super::material::{Pem, provider, versions};
use super::reload::{Reloading, Source};
use super::skip_verify::SkipVerify;
use super::{ClientTlsConfig, TlsError};

/// TLS for outgoing connections.
pub struct ClientTls {
    reloading: Reloading<ClientSource>,
}

struct ClientSource {
    config: ClientTlsConfig,
    alpn: Vec<Vec<u8>>,
}

#[derive(PartialEq)]
struct Material {
    ca: Option<Pem>,
    cert: Option<Pem>,
    key: Option<Pem>,
}

impl ClientTls {
    /// Reads the certificates. `alpn`: the protocols to offer, best first.
    ///
    /// # Errors
    /// If a file cannot be read, or does not hold what it should.
    pub fn new(config: &ClientTlsConfig, alpn: &[&str]) -> Result<Arc<Self>, TlsError> {
        let alpn = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let interval = config.reload_interval.0;
        let source = ClientSource { config: config.clone(), alpn };
        Ok(Arc::new(Self { reloading: Reloading::new(source, interval)? }))
    }

    /// The configuration for a connection that is made now.
    #[must_use]
    pub fn current(&self) -> Arc<ClientConfig> {
        self.reloading.current()
    }

    /// The name to ask the server at `host` for.
    ///
    /// # Errors
    /// If it is neither a DNS name nor an IP address.
    pub fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let configured = &self.reloading.source().config.server_name_override;
        let (name, origin) =
            if configured.is_empty() { (host, "endpoint") } else { (configured.as_str(), "server_name_override") };
        let bare = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        ServerName::try_from(bare)
            .map_err(|_| TlsError(format!("{origin}: {name:?} is neither a DNS name nor an IP address")))
    }
}

impl Source for ClientSource {
    type Material = Material;
    type Ready = ClientConfig;

    fn read(&self) -> Result<Material, TlsError> {
        let config = &self.config;
        Ok(Material {
            ca: Pem::read(("ca_file", &config.ca_file), ("ca_pem", &config.ca_pem))?,
            cert: Pem::read(("cert_file", &config.cert_file), ("cert_pem", &config.cert_pem))?,
            key: Pem::read(("key_file", &config.key_file), ("key_pem", &config.key_pem))?,
        })
    }

    fn ready(&self, material: &Material) -> Result<ClientConfig, TlsError> {
        let config = &self.config;
        let provider = provider(&config.cipher_suites, &config.curve_preferences)?;
        let versions = versions(&config.min_version, &config.max_version);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|error| {
                TlsError(format!(
                    "cipher_suites, curve_preferences, min_version and max_version do not go together: {error}"
                ))
            })?;
        let builder = if config.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(SkipVerify(provider)))
        } else {
            builder.with_root_certificates(roots(config, material.ca.as_ref())?)
        };
        let mut ready = match (&material.cert, &material.key) {
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(cert.certificates()?, key.key()?)
                .map_err(|error| TlsError(format!("the client certificate and its key cannot be used: {error}")))?,
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(TlsError("the client certificate and its key must both be set, or neither".to_owned())),
        };
        ready.alpn_protocols.clone_from(&self.alpn);
        Ok(ready)
    }
}

fn roots(config: &ClientTlsConfig, ca: Option<&Pem>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = ca {
        ca.add_to(&mut roots)?;
    }
    if ca.is_none() || config.include_system_ca_certs_pool {
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!(%error, "cannot read some of the system's certificates");
        }
        roots.add_parsable_certificates(system.certs);
    }
    Ok(roots)
}
