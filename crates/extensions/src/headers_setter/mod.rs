//! `headers_setter`: headers of outgoing requests, from the configuration or from the client's own request.
//!
//! The reason to be is multi-tenancy: `X-Scope-OrgID` as the client sent it. So that no tenant's data is
//! sent under another's name, exporters never merge requests of clients that differ in what it reads
//! ([`ClientAuth::metadata_keys`]).

mod config;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue};
use nyquist_core::batch::Metadata;
use nyquist_core::component::{
    BuildError, ClientAuth, Component, Extension, ExtensionConfig, ExtensionContext, ExtensionFactory, Info, Stability,
    extension,
};
use nyquist_core::config::Secret;

pub use config::{Action, HeaderConfig, HeadersSetterConfig};

/// The factory of `headers_setter`.
#[must_use]
pub fn factory() -> ExtensionFactory {
    extension::<HeadersSetterConfig>(Info {
        name: "headers_setter",
        aliases: &[],
        signals: &[],
        stability: Stability::Beta,
    })
}

impl ExtensionConfig for HeadersSetterConfig {
    fn build(&self, _context: ExtensionContext) -> Result<Arc<dyn Extension>, BuildError> {
        let rules = self.headers.iter().enumerate().map(|(index, header)| {
            let at = index.to_string();
            Rule::new(header).map_err(|(key, message)| BuildError::new(&["headers", &at, key], message))
        });
        Ok(Arc::new(HeadersSetter(Arc::new(Rules(rules.collect::<Result<_, _>>()?)))))
    }
}

struct HeadersSetter(Arc<Rules>);

#[async_trait]
impl Component for HeadersSetter {}

impl Extension for HeadersSetter {
    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        Some(Arc::clone(&self.0) as Arc<dyn ClientAuth>)
    }
}

struct Rules(Vec<Rule>);

struct Rule {
    header: HeaderName,
    action: Action,
    source: Source,
}

enum Source {
    Fixed(HeaderValue),
    /// The first value of the client's metadata under this key, in lower case.
    Client {
        key: String,
        default: Option<HeaderValue>,
    },
    None,
}

impl Rule {
    /// The rule, or which key is wrong and why.
    fn new(config: &HeaderConfig) -> Result<Self, (&'static str, String)> {
        let header = HeaderName::try_from(&config.key)
            .map_err(|_| ("key", format!("{:?} is not the name of a header", config.key)))?;
        let source = if let Some(value) = &config.value {
            Source::Fixed(sensitive(value).map_err(|message| ("value", message))?)
        } else {
            let default = config.default_value.as_ref().map(sensitive).transpose();
            let default = default.map_err(|message| ("default_value", message))?;
            if !config.from_context.is_empty() {
                Source::Client { key: config.from_context.to_ascii_lowercase(), default }
            } else if !config.from_attribute.is_empty() {
                Source::Client { key: format!("{}{}", Metadata::AUTH, config.from_attribute), default }
            } else {
                Source::None
            }
        };
        Ok(Self { header, action: config.action, source })
    }

    fn apply(&self, headers: &mut HeaderMap, client: &Metadata) {
        let is_there = headers.contains_key(&self.header);
        let is_wanted = match self.action {
            Action::Upsert => true,
            Action::Insert => !is_there,
            Action::Update => is_there,
            Action::Delete => {
                headers.remove(&self.header);
                false
            }
        };
        if !is_wanted {
            return;
        }
        // What a client does not say leaves the header as it is.
        if let Some(value) = self.source.value(client) {
            headers.insert(self.header.clone(), value);
        }
    }
}

impl Source {
    fn value(&self, client: &Metadata) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Client { key, default } => {
                let given = client.header(key).and_then(|value| HeaderValue::try_from(value).ok());
                given.map(into_sensitive).or_else(|| default.clone())
            }
            Self::None => None,
        }
    }
}

fn sensitive(value: &Secret) -> Result<HeaderValue, String> {
    HeaderValue::try_from(value.expose().trim())
        .map(into_sensitive)
        .map_err(|_| "has characters that headers cannot have".to_owned())
}

fn into_sensitive(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

impl ClientAuth for Rules {
    fn apply(&self, headers: &mut HeaderMap) {
        self.apply_for(headers, &Metadata::default());
    }

    fn apply_for(&self, headers: &mut HeaderMap, client: &Metadata) {
        for rule in &self.0 {
            rule.apply(headers, client);
        }
    }

    fn metadata_keys(&self) -> Vec<String> {
        let keys = self.0.iter().filter_map(|rule| match &rule.source {
            Source::Client { key, .. } => Some(key.clone()),
            _ => None,
        });
        keys.collect()
    }
}
