//! From files and inline text to what rustls wants.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{NamedGroup, RootCertStore, SupportedCipherSuite, SupportedProtocolVersion};

use super::TlsError;
use crate::config::Secret;

pub(super) const MIN_VERSION: &str = "1.2";
pub(super) const MAX_VERSION: &str = "1.3";

/// The text of one PEM source, and where it came from.
#[derive(PartialEq, Eq)]
pub(super) struct Pem {
    text: Vec<u8>,
    origin: String,
}

impl Pem {
    /// Reads the source that is set; `None` if neither is.
    pub(super) fn read(file: (&str, &str), inline: (&str, &Secret)) -> Result<Option<Self>, TlsError> {
        let (file_key, path) = file;
        let (inline_key, text) = inline;
        if !path.is_empty() {
            let text =
                std::fs::read(path).map_err(|error| TlsError(format!("{file_key}: cannot read {path}: {error}")))?;
            return Ok(Some(Self { text, origin: format!("{file_key}: {path}") }));
        }
        if text.expose().is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { text: text.expose().as_bytes().to_vec(), origin: inline_key.to_owned() }))
    }

    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.text).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                Err(TlsError(format!("{} holds no PEM certificate", self.origin)))
            }
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(TlsError(format!("{} is not a PEM certificate: {error}", self.origin))),
        }
    }

    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.text)
            .map_err(|error| TlsError(format!("{} holds no usable PEM private key: {error}", self.origin)))
    }

    /// Adds the certificates as authorities.
    pub(super) fn add_to(&self, roots: &mut RootCertStore) -> Result<(), TlsError> {
        for certificate in self.certificates()? {
            roots
                .add(certificate)
                .map_err(|error| TlsError(format!("{} holds an unusable certificate: {error}", self.origin)))?;
        }
        Ok(())
    }
}

/// The protocol versions from `min` to `max`; empty text stands for the defaults.
pub(super) fn versions(min: &str, max: &str) -> Vec<&'static SupportedProtocolVersion> {
    let mut versions = Vec::new();
    if min != MAX_VERSION {
        versions.push(&rustls::version::TLS12);
    }
    if max != MIN_VERSION {
        versions.push(&rustls::version::TLS13);
    }
    versions
}

/// The cipher suites called `names` (all for none).
pub(super) fn suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    let known = ring::ALL_CIPHER_SUITES;
    if names.is_empty() {
        return Ok(known.to_vec());
    }
    // rustls writes TLS13_AES_..., everybody else TLS_AES_...
    let name_of = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1);
    let find = |name: &String| {
        known.iter().find(|&suite| name_of(suite) == *name).copied().ok_or_else(|| {
            let choice: Vec<String> = known.iter().map(name_of).collect();
            TlsError(format!("unsupported cipher suite {name:?}; there are {}", choice.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

/// The curves called `names` (all for none), in their order.
pub(super) fn groups(names: &[String]) -> Result<Vec<&'static dyn SupportedKxGroup>, TlsError> {
    let known = ring::ALL_KX_GROUPS;
    if names.is_empty() {
        return Ok(known.to_vec());
    }
    // As Go calls them.
    let name_of = |group: &dyn SupportedKxGroup| match group.name() {
        NamedGroup::secp256r1 => "P256".to_owned(),
        NamedGroup::secp384r1 => "P384".to_owned(),
        other => format!("{other:?}"),
    };
    let find = |name: &String| {
        known.iter().copied().find(|&group| name_of(group) == *name).ok_or_else(|| {
            let choice: Vec<String> = known.iter().map(|&group| name_of(group)).collect();
            TlsError(format!("unsupported curve {name:?}; there are {}", choice.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

/// The cryptography for both sides.
pub(super) fn provider(cipher_suites: &[String], curves: &[String]) -> Result<Arc<CryptoProvider>, TlsError> {
    let (cipher_suites, kx_groups) = (suites(cipher_suites)?, groups(curves)?);
    Ok(Arc::new(CryptoProvider { cipher_suites, kx_groups, ..ring::default_provider() }))
}
