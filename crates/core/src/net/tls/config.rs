//! The `tls` blocks.

use std::fs::File;

use serde::Deserialize;

use super::material::{MAX_VERSION, MIN_VERSION, curves, suites, versions};
use crate::config::{Check, Duration, Secret, Validate};

/// `tls` of a client. Text settings that are empty count as unset.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ClientTlsConfig {
    /// Speak plaintext. Default false.
    pub insecure: bool,
    /// Accept any certificate. Default false.
    pub insecure_skip_verify: bool,
    /// The name that the server's certificate must bear. Default: the endpoint's host.
    pub server_name_override: String,
    /// Certificates that sign the server's. Default: the system's.
    pub ca_file: String,
    /// The same, inline.
    pub ca_pem: Secret,
    /// Accept what the system's certificates sign, too. Default false.
    pub include_system_ca_certs_pool: bool,
    /// The client's certificate.
    pub cert_file: String,
    /// The same, inline.
    pub cert_pem: Secret,
    /// The client's key.
    pub key_file: String,
    /// The same, inline.
    pub key_pem: Secret,
    /// `1.2` or `1.3`. Default 1.2.
    pub min_version: String,
    /// `1.2` or `1.3`. Default 1.3.
    pub max_version: String,
    /// Which cipher suites may be used, by their IANA names. Default: all that are secure.
    pub cipher_suites: Vec<String>,
    /// Without effect: there are none.
    pub include_insecure_cipher_suites: bool,
    /// Over which curves keys are agreed on, best first: `X25519`, `P256`, `P384`. Default: all, in this order.
    pub curve_preferences: Vec<String>,
    /// Refused if it is enabled: keys come from files.
    pub tpm: TpmConfig,
    /// Read the files again when they are older than this. Default: never.
    pub reload_interval: Duration,
}

impl ClientTlsConfig {
    /// Is a certificate authority set?
    #[must_use]
    pub fn has_ca(&self) -> bool {
        !self.ca_file.is_empty() || !self.ca_pem.expose().is_empty()
    }
}

/// `tls` of a server. Text settings that are empty count as unset.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ServerTlsConfig {
    /// The server's certificate, with its chain.
    pub cert_file: String,
    /// The same, inline.
    pub cert_pem: Secret,
    /// The server's key.
    pub key_file: String,
    /// The same, inline.
    pub key_pem: Secret,
    /// Read and checked as the Collector does, without effect: whom clients must be signed by says `client_ca_file`.
    pub ca_file: String,
    /// The same, inline.
    pub ca_pem: Secret,
    /// Accepted as the Collector does, without effect.
    pub include_system_ca_certs_pool: bool,
    /// Certificates that sign the clients'. Set: only clients with such a certificate get in.
    pub client_ca_file: String,
    /// Read `client_ca_file` again when it has changed. Default false.
    pub client_ca_file_reload: bool,
    /// `1.2` or `1.3`. Default 1.2.
    pub min_version: String,
    /// `1.2` or `1.3`. Default 1.3.
    pub max_version: String,
    /// Which cipher suites may be used, by their IANA names. Default: all that are secure.
    pub cipher_suites: Vec<String>,
    /// Without effect: there are none.
    pub include_insecure_cipher_suites: bool,
    /// Over which curves keys are agreed on, best first: `X25519`, `P256`, `P384`. Default: all, in this order.
    pub curve_preferences: Vec<String>,
    /// Refused if it is enabled: keys come from files.
    pub tpm: TpmConfig,
    /// Read the files again when they are older than this. Default: never.
    pub reload_interval: Duration,
}

/// `tpm`: a key in a Trusted Platform Module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct TpmConfig {
    /// Refused if it is on.
    pub enabled: bool,
    /// The device.
    pub path: String,
    /// The owner's password.
    pub owner_auth: Secret,
    /// The key's password.
    pub auth: Secret,
}

impl Validate for ClientTlsConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.insecure && !self.has_ca() {
            return;
        }
        source(check, ("ca_file", &self.ca_file), ("ca_pem", &self.ca_pem));
        let cert = source(check, ("cert_file", &self.cert_file), ("cert_pem", &self.cert_pem));
        let key = source(check, ("key_file", &self.key_file), ("key_pem", &self.key_pem));
        both_halves(check, cert, key);
        protocol(check, &self.min_version, &self.max_version);
        cryptography(check, &self.cipher_suites, self.include_insecure_cipher_suites, &self.curve_preferences);
        without_tpm(check, &self.tpm);
    }
}

impl Validate for ServerTlsConfig {
    fn validate(&self, check: &mut Check<'_>) {
        let cert = source(check, ("cert_file", &self.cert_file), ("cert_pem", &self.cert_pem));
        let key = source(check, ("key_file", &self.key_file), ("key_pem", &self.key_pem));
        if !cert && !key {
            check.error(&[], "a server's TLS needs a certificate: set cert_file and key_file, or remove the tls block");
        }
        both_halves(check, cert, key);
        source(check, ("ca_file", &self.ca_file), ("ca_pem", &self.ca_pem));
        let for_clients = [
            ("ca_file", !self.ca_file.is_empty()),
            ("ca_pem", !self.ca_pem.expose().is_empty()),
            ("include_system_ca_certs_pool", self.include_system_ca_certs_pool),
        ];
        for (key, _) in for_clients.into_iter().filter(|(_, is_set)| *is_set) {
            let message = "has no effect on a server: client_ca_file names who signs the clients' certificates";
            check.warning(&[key], message);
        }
        readable(check, "client_ca_file", &self.client_ca_file);
        if self.client_ca_file_reload && self.client_ca_file.is_empty() {
            check.error(&["client_ca_file_reload"], "client_ca_file_reload needs a client_ca_file");
        }
        protocol(check, &self.min_version, &self.max_version);
        cryptography(check, &self.cipher_suites, self.include_insecure_cipher_suites, &self.curve_preferences);
        without_tpm(check, &self.tpm);
    }
}

/// Checks one thing that may stand in a file or inline; returns whether it is set.
fn source(check: &mut Check<'_>, file: (&str, &str), inline: (&str, &Secret)) -> bool {
    let (file_key, path) = file;
    let (inline_key, text) = inline;
    let is_inline = !text.expose().is_empty();
    if !path.is_empty() && is_inline {
        check.error(&[inline_key], format!("{file_key} and {inline_key} are both set: choose one"));
    }
    readable(check, file_key, path);
    !path.is_empty() || is_inline
}

fn readable(check: &mut Check<'_>, key: &str, path: &str) {
    if path.is_empty() {
        return;
    }
    if let Err(error) = File::open(path) {
        check.error(&[key], format!("cannot open {path}: {error}"));
    }
}

fn both_halves(check: &mut Check<'_>, cert: bool, key: bool) {
    let (there, missing, set) = match (cert, key) {
        (true, false) => ("certificate", "key", "key_file (or key_pem)"),
        (false, true) => ("key", "certificate", "cert_file (or cert_pem)"),
        _ => return,
    };
    check.error(&[], format!("the TLS {there} is set but its {missing} is missing: set {set} too, or neither"));
}

fn protocol(check: &mut Check<'_>, min: &str, max: &str) {
    for (key, version) in [("min_version", min), ("max_version", max)] {
        match version {
            "" | MIN_VERSION | MAX_VERSION => {}
            "1.0" | "1.1" if key == "min_version" => {
                check.warning(&[key], format!("TLS {version} is not secure; 1.2 is the least this gateway speaks"));
            }
            _ => check.error(&[key], format!("unsupported TLS version {version:?}: write \"1.2\" or \"1.3\"")),
        }
    }
    if versions(min, max).is_empty() {
        check.error(&["max_version"], format!("max_version {max:?} is below min_version {min:?}"));
    }
}

fn cryptography(check: &mut Check<'_>, cipher_suites: &[String], insecure: bool, curve_names: &[String]) {
    if let Err(error) = suites(cipher_suites) {
        check.error(&["cipher_suites"], error.0);
    }
    if let Err(error) = curves(curve_names) {
        check.error(&["curve_preferences"], error.0);
    }
    if insecure {
        check.warning(&["include_insecure_cipher_suites"], "has no effect: there are only secure cipher suites here");
    }
}

fn without_tpm(check: &mut Check<'_>, tpm: &TpmConfig) {
    if tpm.enabled {
        let message = "keys in a Trusted Platform Module are not supported";
        check.error_with(&["tpm", "enabled"], message, "remove the block, and set key_file or key_pem");
    }
}
