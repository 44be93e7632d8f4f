//! `bearertokenauth`: a token in a header, both ways.

mod config;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue};
use nyquist_core::component::{
    BuildError, ClientAuth, Component, Extension, ExtensionConfig, ExtensionContext, ExtensionFactory, Host, Info,
    ServerAuth, Stability, StartError, extension,
};
use subtle::ConstantTimeEq;

pub use config::BearerTokenConfig;

use tokens::Tokens;

/// The factory of `bearertokenauth`.
#[must_use]
pub fn factory() -> ExtensionFactory {
    extension::<BearerTokenConfig>(Info {
        name: "bearertokenauth",
        aliases: &["bearer_token_auth"],
        signals: &[],
        stability: Stability::Beta,
    })
}

impl ExtensionConfig for BearerTokenConfig {
    fn build(&self, _context: ExtensionContext) -> Result<Arc<dyn Extension>, BuildError> {
        let header = HeaderName::try_from(&self.header)
            .map_err(|_| BuildError::new(&["header"], format!("{:?} is not the name of a header", self.header)))?;
        let bearer = Bearer { header, scheme: self.scheme.clone(), tokens: Tokens::new(self) };
        Ok(Arc::new(BearerTokenAuth(Arc::new(bearer))))
    }
}

struct BearerTokenAuth(Arc<Bearer>);

struct Bearer {
    header: HeaderName,
    scheme: String,
    tokens: Tokens,
}

#[async_trait]
impl Component for BearerTokenAuth {
    async fn start(&self, _host: &Host) -> Result<(), StartError> {
        self.0.tokens.load().map_err(StartError)
    }
}

impl Extension for BearerTokenAuth {
    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        Some(Arc::clone(&self.0) as Arc<dyn ClientAuth>)
    }

    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        Some(Arc::clone(&self.0) as Arc<dyn ServerAuth>)
    }
}

impl Bearer {
    fn credentials(&self, token: &str) -> String {
        if self.scheme.is_empty() { token.to_owned() } else { format!("{} {token}", self.scheme) }
    }
}

impl ClientAuth for Bearer {
    fn apply(&self, headers: &mut HeaderMap) {
        let tokens = self.tokens.current();
        let Some(token) = tokens.first() else { return };
        let Ok(mut value) = HeaderValue::try_from(self.credentials(token.expose())) else { return };
        value.set_sensitive(true);
        headers.insert(self.header.clone(), value);
    }
}

impl ServerAuth for Bearer {
    fn secret_headers(&self) -> Vec<String> {
        vec![self.header.as_str().to_owned()]
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), String> {
        let Some(given) = headers.get(&self.header).filter(|value| !value.is_empty()) else {
            return Err(format!("missing or empty authorization header: {}", self.header));
        };
        let tokens = self.tokens.current();
        // All are compared, each in constant time: the answer's timing tells nothing.
        let known = tokens.iter().fold(0u8, |known, token| {
            let wanted = self.credentials(token.expose());
            known | wanted.as_bytes().ct_eq(given.as_bytes()).unwrap_u8()
        });
        if known == 1 {
            return Ok(());
        }
        Err("provided authorization does not match expected scheme or token".to_owned())
    }
}
