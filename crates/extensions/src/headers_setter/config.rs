//! The keys of `headers_setter`.

use http::{HeaderName, HeaderValue};
use nyquist_core::config::{Check, Secret, Validate};
use serde::Deserialize;

/// What `headers_setter` is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HeadersSetterConfig {
    /// What to do to which header, in this order.
    pub headers: Vec<HeaderConfig>,
}

/// One of `headers`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HeaderConfig {
    /// The header.
    pub key: String,
    /// What to do. Default `upsert`.
    pub action: Action,
    /// The value.
    pub value: Option<Secret>,
    /// The value is that of this header of the client's request; needs `include_metadata: true`.
    pub from_context: String,
    /// The value is what the authenticator of the receiver knows of the client under this name.
    pub from_attribute: String,
    /// The value if the client has none.
    pub default_value: Option<Secret>,
}

/// `action`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Set the header, whether it is there or not.
    #[default]
    Upsert,
    /// Set the header only if it is not there.
    Insert,
    /// Set the header only if it is there.
    Update,
    /// Remove the header.
    Delete,
}

impl Validate for HeadersSetterConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.headers.is_empty() {
            check.error(&["headers"], "missing headers configuration: list what to set, for example {key: X-Scope-OrgID, from_context: x-scope-orgid}");
        }
        for (index, header) in self.headers.iter().enumerate() {
            check.nested(&["headers", &index.to_string()], header);
        }
    }
}

impl Validate for HeaderConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.key.is_empty() {
            check.error(&["key"], "missing header name");
        } else if HeaderName::try_from(&self.key).is_err() {
            check.error(&["key"], format!("{:?} is not the name of a header", self.key));
        }
        let sources = usize::from(self.value.is_some())
            + usize::from(!self.from_context.is_empty())
            + usize::from(!self.from_attribute.is_empty());
        match (self.action, sources) {
            (Action::Delete, 0) => {}
            (Action::Delete, _) => check.error(&["action"], "delete takes no value: remove the action or the value"),
            (_, 0) => {
                check.error(&[], "missing header source, must be 'value', 'from_context' or 'from_attribute'");
            }
            (_, 1) => {}
            _ => check.error(&[], "invalid header source, must be one of 'value', 'from_context' and 'from_attribute'"),
        }
        if !self.from_context.is_empty() && HeaderName::try_from(&self.from_context).is_err() {
            check.error(&["from_context"], format!("{:?} is not the name of a header", self.from_context));
        }
        if self.default_value.is_some() && (self.value.is_some() || self.action == Action::Delete) {
            check.error(&["default_value"], "goes with from_context or from_attribute only: remove it");
        }
        for (key, value) in [("value", &self.value), ("default_value", &self.default_value)] {
            if value.as_ref().is_some_and(|value| HeaderValue::try_from(value.expose().trim()).is_err()) {
                check.error(&[key], "has characters that headers cannot have");
            }
        }
    }
}
