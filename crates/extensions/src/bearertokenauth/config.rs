//! The keys of `bearertokenauth`.

use std::fs::File;

use nyquist_core::config::{Check, Secret, Validate};
use serde::Deserialize;

/// What `bearertokenauth` is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct BearerTokenConfig {
    /// What stands in front of the token. Default `Bearer`; empty for nothing.
    pub scheme: String,
    /// The header. Default `Authorization`.
    pub header: String,
    /// The token.
    pub token: Secret,
    /// Several: a server takes any of them, a client sends the first.
    pub tokens: Vec<Secret>,
    /// A file with one token in each line, read again when it has changed.
    pub filename: String,
}

impl Default for BearerTokenConfig {
    fn default() -> Self {
        Self {
            scheme: "Bearer".to_owned(),
            header: "Authorization".to_owned(),
            token: Secret::default(),
            tokens: Vec::new(),
            filename: String::new(),
        }
    }
}

impl Validate for BearerTokenConfig {
    fn validate(&self, check: &mut Check<'_>) {
        let has_token = !self.token.expose().is_empty();
        let has_tokens = !self.tokens.is_empty();
        let has_file = !self.filename.is_empty();
        match usize::from(has_token) + usize::from(has_tokens) + usize::from(has_file) {
            0 => check.error(&[], "no bearer token: set one of token, tokens and filename"),
            1 => {}
            _ => check.error(&[], "token, tokens and filename exclude each other: set one of them"),
        }
        if http::HeaderName::try_from(&self.header).is_err() {
            check.error(&["header"], format!("{:?} is not the name of a header", self.header));
        }
        for token in self.tokens.iter().chain(has_token.then_some(&self.token)) {
            if http::HeaderValue::try_from(token.expose().trim()).is_err() {
                check.error(&[], "a token has characters that cannot be sent in a header");
            }
        }
        if has_file && let Err(error) = File::open(&self.filename) {
            check.error(&["filename"], format!("cannot open {}: {error}", self.filename));
        }
    }
}
