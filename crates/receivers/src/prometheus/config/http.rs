//! How to talk to targets: Prometheus' `http_config` keys, which stand in the scrape configuration itself.

use nyquist_core::config::{Check, Secret, Validate};
use nyquist_core::net::tls::ClientTlsConfig;
use serde::Deserialize;

/// `basic_auth`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BasicAuth {
    /// The user.
    pub username: String,
    /// A file with the user, read for every scrape.
    pub username_file: String,
    /// The password.
    pub password: Secret,
    /// A file with the password, read for every scrape.
    pub password_file: String,
}

/// `authorization`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Authorization {
    /// The scheme; `Bearer` if empty.
    pub r#type: String,
    /// What comes after it.
    pub credentials: Secret,
    /// A file with that, read for every scrape.
    pub credentials_file: String,
}

/// `tls_config`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TlsConfig {
    /// Certificates that sign the targets', inline.
    pub ca: Secret,
    /// The same in a file.
    pub ca_file: String,
    /// The client's certificate, inline.
    pub cert: Secret,
    /// The same in a file.
    pub cert_file: String,
    /// The client's key, inline.
    pub key: Secret,
    /// The same in a file.
    pub key_file: String,
    /// The name that the targets' certificates must bear.
    pub server_name: String,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// `TLS12` or `TLS13`.
    pub min_version: String,
    /// `TLS12` or `TLS13`.
    pub max_version: String,
}

/// How long certificates from files are used before the files are looked at again.
const RELOAD: nyquist_core::config::Duration = nyquist_core::config::Duration::from_secs(60);

impl TlsConfig {
    /// The same in the words of the TLS module.
    #[must_use]
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig {
            insecure_skip_verify: self.insecure_skip_verify,
            server_name_override: self.server_name.clone(),
            ca_file: self.ca_file.clone(),
            ca_pem: self.ca.clone(),
            cert_file: self.cert_file.clone(),
            cert_pem: self.cert.clone(),
            key_file: self.key_file.clone(),
            key_pem: self.key.clone(),
            min_version: version(&self.min_version).unwrap_or_default().to_owned(),
            max_version: version(&self.max_version).unwrap_or_default().to_owned(),
            reload_interval: RELOAD,
            ..ClientTlsConfig::default()
        }
    }
}

/// A TLS version as the TLS module writes it.
fn version(text: &str) -> Option<&'static str> {
    match text {
        "" => Some(""),
        // What is less is not spoken, so that this is the least.
        "TLS10" | "TLS11" | "TLS12" => Some("1.2"),
        "TLS13" => Some("1.3"),
        _ => None,
    }
}

impl Validate for TlsConfig {
    fn validate(&self, check: &mut Check<'_>) {
        for (key, text) in [("min_version", &self.min_version), ("max_version", &self.max_version)] {
            if version(text).is_none() {
                check.error(&[key], format!("unknown TLS version {text:?}: write TLS12 or TLS13"));
            }
        }
        for key in ["ca", "cert", "key"] {
            let (inline, file) = match key {
                "ca" => (&self.ca, &self.ca_file),
                "cert" => (&self.cert, &self.cert_file),
                _ => (&self.key, &self.key_file),
            };
            if !inline.expose().is_empty() && !file.is_empty() {
                check.error(&[key], format!("{key} and {key}_file are both set: choose one"));
            }
        }
        let has_cert = !self.cert.expose().is_empty() || !self.cert_file.is_empty();
        let has_key = !self.key.expose().is_empty() || !self.key_file.is_empty();
        if has_cert != has_key {
            let (there, missing) = if has_cert { ("certificate", "key_file") } else { ("key", "cert_file") };
            check.error(&[], format!("the client's {there} is set alone: set {missing} too"));
        }
    }
}

impl Validate for BasicAuth {
    fn validate(&self, check: &mut Check<'_>) {
        if !self.username.is_empty() && !self.username_file.is_empty() {
            check.error(&["username_file"], "username and username_file are both set: choose one");
        }
        if !self.password.expose().is_empty() && !self.password_file.is_empty() {
            check.error(&["password_file"], "password and password_file are both set: choose one");
        }
    }
}

impl Validate for Authorization {
    fn validate(&self, check: &mut Check<'_>) {
        if !self.credentials.expose().is_empty() && !self.credentials_file.is_empty() {
            check.error(&["credentials_file"], "credentials and credentials_file are both set: choose one");
        }
        if self.r#type.trim().eq_ignore_ascii_case("basic") {
            check.error(&["type"], "authorization cannot be basic: use the basic_auth block");
        }
    }
}
