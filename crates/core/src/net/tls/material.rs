//! From files and inline text to what rustls wants.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, SupportedCipherSuite, SupportedProtocolVersion};

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

/// What keys can be agreed on over, with the names of Go.
const CURVES: [(&str, &dyn SupportedKxGroup); 3] =
    [("X25519", ring::kx_group::X25519), ("P256", ring::kx_group::SECP256R1), ("P384", ring::kx_group::SECP384R1)];

/// The curves called `names`, in their order (all for none).
pub(super) fn curves(names: &[String]) -> Result<Vec<&'static dyn SupportedKxGroup>, TlsError> {
    if names.is_empty() {
        return Ok(CURVES.map(|(_, curve)| curve).into());
    }
    let find = |name: &String| {
        let found = CURVES.iter().find(|(known, _)| known == name).map(|(_, curve)| *curve);
        found.ok_or_else(|| TlsError(format!("unsupported curve {name:?}; there are X25519, P256 and P384")))
    };
    names.iter().map(find).collect()
}

/// The cryptography for both sides.
pub(super) fn provider(cipher_suites: &[String], curve_names: &[String]) -> Result<Arc<CryptoProvider>, TlsError> {
    let (cipher_suites, kx_groups) = (suites(cipher_suites)?, curves(curve_names)?);
    Ok(Arc::new(CryptoProvider { cipher_suites, kx_groups, ..ring::default_provider() }))
}
