//! `tenant_from: resource["tenant.id"]` and `tenant_from: metadata["x-tenant"]`.

use serde::{Deserialize, Deserializer, de};

/// What tells tenants apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantFrom {
    /// An attribute of the resource.
    Resource(String),
    /// A header of the request that the receiver keeps (`include_metadata`), in lower case.
    Metadata(String),
}

impl TenantFrom {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.trim().split_once('[')?;
        let quoted = rest.strip_suffix(']')?.trim();
        let key = ['"', '\''].iter().find_map(|&quote| quoted.strip_prefix(quote)?.strip_suffix(quote))?;
        if key.is_empty() {
            return None;
        }
        match kind.trim() {
            "resource" | "resource.attributes" => Some(Self::Resource(key.to_owned())),
            "metadata" => Some(Self::Metadata(key.to_ascii_lowercase())),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for TenantFrom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!("{text:?} names no tenant: write resource[\"key\"] or metadata[\"header\"]"))
        })
    }
}
