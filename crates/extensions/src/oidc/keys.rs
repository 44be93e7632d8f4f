//! JSON Web Key Sets (RFC 7517, 7518, 8037) and signatures (RFC 7515).

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;

/// The public keys of an issuer.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, if it says so.
    algorithm: Option<String>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed points.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: String,
    n: String,
    e: String,
    x: String,
    y: String,
}

impl Keys {
    /// Reads the file.
    pub(super) fn read(path: &str) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
        Self::parse(&text).map_err(|error| format!("{path} {error}"))
    }

    /// The keys of a set that can be used; others are passed over, as RFC 7517 asks.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let set: RawSet = serde_json::from_slice(text)
            .map_err(|error| format!("is no JSON Web Key Set ({{\"keys\": [..]}}): {error}"))?;
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err("holds no key that can be used: RSA of 2048 bits or more, P-256, P-384 or Ed25519".to_owned());
        }
        Ok(Self(keys))
    }

    /// Is `signature` one of `message` by one of the keys, by `algorithm`, with the key `id` if it is given?
    pub(super) fn verify(&self, algorithm: &str, id: Option<&str>, message: &[u8], signature: &[u8]) -> bool {
        let may_be = |key: &&Key| {
            let is_named = match (id, &key.id) {
                (Some(wanted), Some(own)) => wanted == own,
                _ => true,
            };
            is_named && key.algorithm.as_ref().is_none_or(|only| only == algorithm)
        };
        self.0.iter().filter(may_be).any(|key| key.material.verify(algorithm, message, signature))
    }
}

impl Key {
    fn read(raw: serde_json::Value) -> Option<Self> {
        let raw: RawKey = serde_json::from_value(raw).ok()?;
        if raw.usage.as_ref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let material = match (raw.kty.as_str(), raw.crv.as_str()) {
            ("RSA", _) => {
                let unsigned = |text: &str| {
                    let bytes = decode(text)?;
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    bytes.get(zeros..).map(<[u8]>::to_vec)
                };
                let (n, e) = (unsigned(&raw.n)?, unsigned(&raw.e)?);
                if n.len() < 256 || e.is_empty() {
                    return None;
                }
                Material::Rsa { n, e }
            }
            ("EC", "P-256") => Material::P256(point(&raw, 32)?),
            ("EC", "P-384") => Material::P384(point(&raw, 48)?),
            ("OKP", "Ed25519") => Material::Ed25519(decode(&raw.x).filter(|key| key.len() == 32)?),
            _ => return None,
        };
        Some(Self { id: raw.kid, algorithm: raw.alg.filter(|name| !name.is_empty()), material })
    }
}

fn point(raw: &RawKey, len: usize) -> Option<Vec<u8>> {
    let (x, y) = (decode(&raw.x)?, decode(&raw.y)?);
    (x.len() == len && y.len() == len).then(|| [&[4], x.as_slice(), y.as_slice()].concat())
}

/// Base64 as JOSE writes it.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

impl Material {
    /// The algorithm must be one of this kind of key: what the token says of itself chooses among those, and
    /// no more. There is no "none" and nothing with a shared secret.
    fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let plain = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        match (self, algorithm) {
            (Self::Rsa { n, e }, _) => rsa(algorithm).is_some_and(|parameters| {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }),
            (Self::P256(key), "ES256") => plain(&ECDSA_P256_SHA256_FIXED, key),
            (Self::P384(key), "ES384") => plain(&ECDSA_P384_SHA384_FIXED, key),
            (Self::Ed25519(key), "EdDSA") => plain(&ED25519, key),
            _ => false,
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        "PS384" => &RSA_PSS_2048_8192_SHA384,
        "PS512" => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
