//! `auth`.

use serde::Deserialize;

/// Which extension authenticates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    /// The extension's id.
    pub authenticator: String,
}
