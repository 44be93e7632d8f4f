//! `oidc`: lets in who brings a JSON Web Token that a known issuer signed. The issuer's keys come from a file:
//! nothing is fetched.

mod config;
mod keys;
#[cfg(test)]
mod tests;
mod token;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName};
use nyquist_core::clock::Clock;
use nyquist_core::component::{
    BuildError, Component, Extension, ExtensionConfig, ExtensionContext, ExtensionFactory, Host, Identity, Info,
    ServerAuth, Stability, StartError, extension,
};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::time::Instant;

pub use config::{OidcConfig, ProviderConfig};

use keys::Keys;
use token::Token;

/// How often a file of keys is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many tokens are remembered as good, for each issuer.
const REMEMBERED: usize = 1024;

/// The factory of `oidc`.
#[must_use]
pub fn factory() -> ExtensionFactory {
    extension::<OidcConfig>(Info { name: "oidc", aliases: &[], signals: &[], stability: Stability::Beta })
}

impl ExtensionConfig for OidcConfig {
    fn build(&self, context: ExtensionContext) -> Result<Arc<dyn Extension>, BuildError> {
        let header = HeaderName::try_from(&self.attribute).map_err(|_| {
            BuildError::new(&["attribute"], format!("{:?} is not the name of a header", self.attribute))
        })?;
        let providers = self.all().cloned().map(Provider::new).collect();
        Ok(Arc::new(Oidc(Arc::new(Server { header, providers, clock: context.clock }))))
    }
}

struct Oidc(Arc<Server>);

#[async_trait]
impl Component for Oidc {
    async fn start(&self, _host: &Host) -> Result<(), StartError> {
        for provider in &self.0.providers {
            provider.refresh(&mut provider.state.lock()).map_err(StartError)?;
        }
        Ok(())
    }
}

impl Extension for Oidc {
    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        Some(Arc::clone(&self.0) as Arc<dyn ServerAuth>)
    }
}

struct Server {
    header: HeaderName,
    providers: Vec<Provider>,
    clock: Arc<dyn Clock>,
}

impl ServerAuth for Server {
    fn authenticate(&self, headers: &HeaderMap) -> Result<(), String> {
        self.identify(headers).map(|_| ())
    }

    fn identify(&self, headers: &HeaderMap) -> Result<Identity, String> {
        let given = headers.get(&self.header).ok_or_else(|| format!("no {} header provided", self.header))?;
        let token = given.to_str().ok().and_then(bearer).ok_or("invalid authorization header format")?;
        let parsed = Token::read(token).ok_or("the token is not a signed JSON Web Token")?;
        let provider = parsed.issuer().and_then(|issuer| self.providers.iter().find(|known| known.is(issuer)));
        let provider = provider.ok_or("no OIDC provider configured for the issuer")?;
        provider.identify(token, &parsed, Duration::from_nanos(self.clock.unix_nanos()))
    }

    fn secret_headers(&self) -> Vec<String> {
        vec![self.header.as_str().to_owned()]
    }
}

/// The token of `Bearer <token>`.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

struct Provider {
    config: ProviderConfig,
    state: Mutex<State>,
    hashers: (RandomState, RandomState),
}

#[derive(Default)]
struct State {
    keys: Option<Arc<Keys>>,
    looked_at: Option<Instant>,
    /// When the file was changed last, and its length.
    version: Option<(SystemTime, u64)>,
    /// Tokens that were good, by two randomly keyed hashes: a signature costs more than all else that is
    /// done with a small request, and clients send the same token with each.
    good: HashMap<u64, Good>,
}

struct Good {
    proof: u64,
    until: f64,
    identity: Identity,
}

impl Provider {
    fn new(config: ProviderConfig) -> Self {
        Self { config, state: Mutex::default(), hashers: Default::default() }
    }

    fn is(&self, issuer: &str) -> bool {
        self.config.issuer_url == issuer
    }

    fn identify(&self, text: &str, token: &Token<'_>, now: Duration) -> Result<Identity, String> {
        let (key, proof) = (self.hashers.0.hash_one(text), self.hashers.1.hash_one((text, 0u8)));
        let keys = {
            let mut state = self.state.lock();
            self.look(&mut state);
            if let Some(good) =
                state.good.get(&key).filter(|good| good.proof == proof && good.until > now.as_secs_f64())
            {
                return Ok(good.identity.clone());
            }
            state.keys.clone().ok_or("the extension has not been started")?
        };
        if !token.is_signed_by(&keys) {
            return Err("failed to verify the token: none of the issuer's keys signed it".to_owned());
        }
        let until = token.valid_until(now)?;
        if !self.config.ignore_audience && !token.is_for(&self.config.audience) {
            return Err("the token is for another audience".to_owned());
        }
        let identity = self.identity(&token.claims)?;
        let mut state = self.state.lock();
        // Keys that were exchanged meanwhile may not be the ones that made it good.
        if state.keys.as_ref().is_some_and(|current| Arc::ptr_eq(current, &keys)) {
            if state.good.len() >= REMEMBERED {
                state.good.clear();
            }
            state.good.insert(key, Good { proof, until, identity: identity.clone() });
        }
        Ok(identity)
    }

    fn identity(&self, claims: &Map<String, Value>) -> Result<Identity, String> {
        let name = if self.config.username_claim.is_empty() { "sub" } else { self.config.username_claim.as_str() };
        let subject = claims.get(name).and_then(text);
        if subject.is_none() && !self.config.username_claim.is_empty() {
            return Err(format!("the token has no {name} claim"));
        }
        let mut attributes: Vec<(String, String)> = Vec::new();
        attributes.extend(subject.map(|subject| ("subject".to_owned(), subject)));
        let groups = claims.get(&self.config.groups_claim).filter(|_| !self.config.groups_claim.is_empty());
        attributes.extend(groups.and_then(text).map(|groups| ("membership".to_owned(), groups)));
        attributes.extend(claims.iter().filter_map(|(name, value)| Some((format!("claims.{name}"), text(value)?))));
        Ok(Identity { attributes })
    }

    fn look(&self, state: &mut State) {
        let now = Instant::now();
        if state.looked_at.is_some_and(|then| now.duration_since(then) < INTERVAL) {
            return;
        }
        state.looked_at = Some(now);
        if let Err(error) = self.refresh(state) {
            tracing::warn!(error, "cannot reload the keys of an issuer; the old ones stay in use");
        }
    }

    fn refresh(&self, state: &mut State) -> Result<(), String> {
        let path = &self.config.public_keys_file;
        let failed = |error: std::io::Error| format!("cannot read {path}: {error}");
        let metadata = std::fs::metadata(path).map_err(failed)?;
        let version = (metadata.modified().map_err(failed)?, metadata.len());
        if state.version == Some(version) {
            return Ok(());
        }
        state.keys = Some(Arc::new(Keys::read(path)?));
        state.good.clear();
        state.version = Some(version);
        Ok(())
    }
}

/// A claim as text: of a list, its members with commas between them. `None` for what has no such form.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(list) => {
            let members: Option<Vec<_>> = list.iter().map(Value::as_str).collect();
            members.map(|members| members.join(","))
        }
        Value::Null | Value::Object(_) => None,
    }
}
