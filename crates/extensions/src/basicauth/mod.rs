//! `basicauth`: user name and password. A server checks them, a client sends them.

mod config;
mod htpasswd;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use nyquist_core::component::{
    BuildError, ClientAuth, Component, Extension, ExtensionConfig, ExtensionContext, ExtensionFactory, Host, Identity,
    Info, ServerAuth, Stability, StartError, extension,
};
use parking_lot::Mutex;

pub use config::{BasicAuthConfig, ClientCredentials, HtpasswdConfig};

use htpasswd::Htpasswd;

/// The factory of `basicauth`.
#[must_use]
pub fn factory() -> ExtensionFactory {
    extension::<BasicAuthConfig>(Info {
        name: "basicauth",
        aliases: &["basic_auth"],
        signals: &[],
        stability: Stability::Beta,
    })
}

impl ExtensionConfig for BasicAuthConfig {
    fn build(&self, _context: ExtensionContext) -> Result<Arc<dyn Extension>, BuildError> {
        let client = self.client_auth.clone().map(|config| Arc::new(Client { config, value: Mutex::new(None) }));
        let server = self.htpasswd.clone().map(|config| Arc::new(Server { config, users: Mutex::new(None) }));
        Ok(Arc::new(BasicAuth { client, server }))
    }
}

struct BasicAuth {
    client: Option<Arc<Client>>,
    server: Option<Arc<Server>>,
}

#[async_trait]
impl Component for BasicAuth {
    async fn start(&self, _host: &Host) -> Result<(), StartError> {
        if let Some(client) = &self.client {
            *client.value.lock() = Some(client.config.header().map_err(StartError)?);
        }
        if let Some(server) = &self.server {
            let users = server.config.text().and_then(|text| Htpasswd::parse(&text)).map_err(StartError)?;
            *server.users.lock() = Some(Arc::new(users));
        }
        Ok(())
    }
}

impl Extension for BasicAuth {
    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        self.client.clone().map(|client| client as Arc<dyn ClientAuth>)
    }

    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        self.server.clone().map(|server| server as Arc<dyn ServerAuth>)
    }
}

struct Client {
    config: ClientCredentials,
    /// Set by `start`.
    value: Mutex<Option<HeaderValue>>,
}

impl ClientAuth for Client {
    fn apply(&self, headers: &mut HeaderMap) {
        if let Some(value) = &*self.value.lock() {
            headers.insert(AUTHORIZATION, value.clone());
        }
    }
}

struct Server {
    config: HtpasswdConfig,
    /// Set by `start`.
    users: Mutex<Option<Arc<Htpasswd>>>,
}

impl ServerAuth for Server {
    fn authenticate(&self, headers: &HeaderMap) -> Result<(), String> {
        self.identify(headers).map(|_| ())
    }

    fn identify(&self, headers: &HeaderMap) -> Result<Identity, String> {
        let Some(given) = headers.get(AUTHORIZATION) else { return Err("no basic auth provided".to_owned()) };
        let (user, password) = credentials(given).ok_or("invalid authorization format")?;
        let users = self.users.lock().clone();
        if users.is_some_and(|users| users.admits(&user, &password)) {
            let attributes = ["username", "subject"].map(|name| (name.to_owned(), user.clone()));
            return Ok(Identity { attributes: attributes.into() });
        }
        Err("invalid credentials".to_owned())
    }

    fn is_slow(&self, headers: &HeaderMap) -> bool {
        let Some((user, password)) = headers.get(AUTHORIZATION).and_then(credentials) else { return false };
        let users = self.users.lock().clone();
        users.is_some_and(|users| users.is_slow(&user, &password))
    }
}

/// User and password of `Basic dXNlcjpwYXNzd29yZA==`.
fn credentials(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
