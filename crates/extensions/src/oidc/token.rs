//! JSON Web Tokens (RFC 7519) in their compact form, with a signature (RFC 7515).

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::keys::{Keys, decode};

/// How far an issuer's clock may be ahead, as the Collector's library has it.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// A token whose signature has not been looked at.
pub(super) struct Token<'a> {
    header: Header,
    /// What it says.
    pub(super) claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that must be understood: none is.
    #[serde(default)]
    crit: Option<Value>,
}

impl<'a> Token<'a> {
    /// Takes it apart. `None` if it is no signed token.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        if header.crit.is_some() {
            return None;
        }
        let claims = serde_json::from_slice(&decode(claims)?).ok()?;
        Some(Self { header, claims, signed, signature: decode(signature)? })
    }

    /// Who says that it issued it.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// Did the owner of one of `keys` sign it?
    pub(super) fn is_signed_by(&self, keys: &Keys) -> bool {
        keys.verify(&self.header.alg, self.header.kid.as_deref(), self.signed.as_bytes(), &self.signature)
    }

    /// Is it for `audience`?
    pub(super) fn is_for(&self, audience: &str) -> bool {
        match self.claims.get("aud") {
            Some(Value::String(only)) => only == audience,
            Some(Value::Array(all)) => all.iter().any(|one| one == audience),
            _ => false,
        }
    }

    /// Until when it holds, in seconds since 1970.
    ///
    /// # Errors
    /// If it does not say, or does not hold at `now`. A time that is no number is an error, not an absent one.
    pub(super) fn valid_until(&self, now: Duration) -> Result<f64, &'static str> {
        let until = self.time("exp")?.ok_or("the token has no exp claim")?;
        if until <= now.as_secs_f64() {
            return Err("the token has expired");
        }
        if self.time("nbf")?.is_some_and(|since| since > (now + AHEAD).as_secs_f64()) {
            return Err("the token is not valid yet");
        }
        Ok(until)
    }

    fn time(&self, claim: &str) -> Result<Option<f64>, &'static str> {
        match self.claims.get(claim) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or("a time in the token is not a number"),
        }
    }
}
