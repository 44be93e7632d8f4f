//! The keys of `basicauth`.

use std::fs;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use nyquist_core::config::{Check, Secret, Validate};
use serde::Deserialize;

use super::htpasswd::Htpasswd;

/// What `basicauth` is told: one of two blocks.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BasicAuthConfig {
    /// For a server: who may come in.
    pub htpasswd: Option<HtpasswdConfig>,
    /// For a client: what to send.
    pub client_auth: Option<ClientCredentials>,
}

/// `htpasswd`. `inline` is added to what `file` holds, and wins.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HtpasswdConfig {
    /// A file of `user:password` lines.
    pub file: String,
    /// Such lines themselves.
    pub inline: Secret,
}

/// `client_auth`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClientCredentials {
    /// The user.
    pub username: String,
    /// A file with the user; wins over `username`.
    pub username_file: String,
    /// The password.
    pub password: Secret,
    /// A file with the password; wins over `password`.
    pub password_file: String,
}

impl HtpasswdConfig {
    /// All lines, the winning ones last.
    pub(super) fn text(&self) -> Result<String, String> {
        let mut text = String::new();
        if !self.file.is_empty() {
            text = read("htpasswd.file", &self.file)?;
            text.push('\n');
        }
        text.push_str(self.inline.expose());
        Ok(text)
    }
}

impl ClientCredentials {
    /// The `Authorization` header.
    pub(super) fn header(&self) -> Result<HeaderValue, String> {
        let user = or_file(&self.username, "client_auth.username_file", &self.username_file)?;
        let password = or_file(self.password.expose(), "client_auth.password_file", &self.password_file)?;
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        let mut value = HeaderValue::try_from(format!("Basic {encoded}")).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn or_file(text: &str, key: &str, path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Ok(text.to_owned());
    }
    Ok(read(key, path)?.trim_end_matches(['\r', '\n']).to_owned())
}

fn read(key: &str, path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{key}: cannot read {path}: {error}"))
}

impl Validate for BasicAuthConfig {
    fn validate(&self, check: &mut Check<'_>) {
        match (&self.htpasswd, &self.client_auth) {
            (Some(_), Some(_)) => {
                check.error(&[], "htpasswd (for a server) and client_auth exclude each other: use two extensions");
            }
            (None, None) => check.error(&[], "set htpasswd (for a server) or client_auth (for a client)"),
            (Some(htpasswd), None) => {
                let path: &[&str] =
                    if htpasswd.file.is_empty() { &["htpasswd", "inline"] } else { &["htpasswd", "file"] };
                if let Err(error) = htpasswd.text().and_then(|text| Htpasswd::parse(&text)) {
                    check.error(path, error);
                }
            }
            (None, Some(client)) => {
                if client.username.is_empty() && client.username_file.is_empty() {
                    check.error(&["client_auth", "username"], "the user name is missing");
                }
                if client.password.expose().is_empty() && client.password_file.is_empty() {
                    check.error(&["client_auth", "password"], "the password is missing");
                }
                if client.username.contains(':') {
                    check.error(&["client_auth", "username"], "a user name has no colon");
                }
                if let Err(error) = client.header() {
                    check.error(&["client_auth"], error);
                }
            }
        }
    }
}
