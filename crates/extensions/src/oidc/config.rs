//! The keys of `oidc`.

use nyquist_core::config::{Check, Validate};
use serde::Deserialize;

use super::keys::Keys;

/// What `oidc` is told: who issues tokens, either here or, for several, in `providers`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct OidcConfig {
    /// The header with the token. Default `authorization`.
    pub attribute: String,
    /// An issuer that stands outside of `providers`.
    #[serde(rename = "nyquist::flat")]
    pub outer: ProviderConfig,
    /// Several issuers.
    pub providers: Vec<ProviderConfig>,
}

impl Default for OidcConfig {
    fn default() -> Self {
        Self { attribute: "authorization".to_owned(), outer: ProviderConfig::default(), providers: Vec::new() }
    }
}

/// One of `providers`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ProviderConfig {
    /// What the tokens' `iss` says. Required.
    pub issuer_url: String,
    /// What the tokens' `aud` must hold. Required unless `ignore_audience` is set.
    pub audience: String,
    /// Take tokens for anybody. Default false.
    pub ignore_audience: bool,
    /// Accepted for the Collector's sake: nothing is asked of the issuer.
    pub issuer_ca_path: String,
    /// The claim with the user's name. Default `sub`.
    pub username_claim: String,
    /// The claim with the user's groups. Default none.
    pub groups_claim: String,
    /// The issuer's public keys, as a JSON Web Key Set (RFC 7517). Required; read again when it has changed.
    pub public_keys_file: String,
}

impl OidcConfig {
    /// The issuer that stands outside of `providers`, if there is one.
    fn outer(&self) -> Option<&ProviderConfig> {
        Some(&self.outer).filter(|&outer| *outer != ProviderConfig::default())
    }

    /// All issuers.
    pub(super) fn all(&self) -> impl Iterator<Item = &ProviderConfig> {
        self.outer().into_iter().chain(&self.providers)
    }
}

impl Validate for OidcConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if http::HeaderName::try_from(&self.attribute).is_err() {
            check.error(&["attribute"], format!("{:?} is not the name of a header", self.attribute));
        }
        if self.all().next().is_none() {
            check.error(
                &["providers"],
                "no issuer of tokens: list at least one {issuer_url, audience, public_keys_file}",
            );
        }
        if let Some(outer) = self.outer() {
            check.nested(&[], outer);
        }
        for (index, provider) in self.providers.iter().enumerate() {
            check.nested(&["providers", &index.to_string()], provider);
            let mut earlier = self.outer().into_iter().chain(self.providers.iter().take(index));
            if earlier.any(|earlier| earlier.issuer_url == provider.issuer_url) {
                let message = format!("duplicate issuer URL found: {}", provider.issuer_url);
                check.error(&["providers", &index.to_string(), "issuer_url"], message);
            }
        }
    }
}

impl Validate for ProviderConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.issuer_url.is_empty() {
            check.error(&["issuer_url"], "no issuer URL: write what the tokens' iss claim says");
        }
        if self.audience.is_empty() && !self.ignore_audience {
            check.error(
                &["audience"],
                "no audience: write what the tokens' aud claim says, or set ignore_audience: true",
            );
        }
        if self.public_keys_file.is_empty() {
            let message = "keys are not fetched from the issuer: save its JSON Web Key Set (its jwks_uri) in a file and name \
                           it here";
            check.error(&["public_keys_file"], message);
        } else if let Err(error) = Keys::read(&self.public_keys_file) {
            check.error(&["public_keys_file"], error);
        }
        if !self.issuer_ca_path.is_empty() {
            check.warning(
                &["issuer_ca_path"],
                "has no effect: nothing is asked of the issuer, keys come from public_keys_file",
            );
        }
    }
}
