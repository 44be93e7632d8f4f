//! `headers`, and the user agent.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::{Check, Secret, Validate};

/// Headers to send with every request: a map, or a list of `{name, value}`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeadersConfig(pub Vec<(String, Secret)>);

#[derive(Deserialize)]
struct Pair {
    name: String,
    #[serde(default)]
    value: Secret,
}

impl<'de> Deserialize<'de> for HeadersConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadersVisitor;

        impl<'de> Visitor<'de> for HeadersVisitor {
            type Value = HeadersConfig;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("headers: a map, or a list of {name, value}")
            }

            fn visit_unit<E>(self) -> Result<HeadersConfig, E> {
                Ok(HeadersConfig::default())
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<HeadersConfig, M::Error> {
                let mut headers = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Option<Secret>>()? {
                    headers.push((name, value.unwrap_or_default()));
                }
                Ok(HeadersConfig(headers))
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<HeadersConfig, S::Error> {
                let mut headers = Vec::new();
                while let Some(pair) = list.next_element::<Pair>()? {
                    headers.push((pair.name, pair.value));
                }
                Ok(HeadersConfig(headers))
            }
        }
        deserializer.deserialize_any(HeadersVisitor)
    }
}

impl HeadersConfig {
    /// The headers, ready to be sent. White space around values is cut off: a token that was read
    /// from a file ends with a newline.
    ///
    /// # Errors
    /// The first name that is no header name, or whose value cannot be sent.
    pub fn to_map(&self) -> Result<HeaderMap, String> {
        let mut map = HeaderMap::with_capacity(self.0.len());
        for (name, value) in &self.0 {
            let (name, value) = header(name, value.expose())?;
            map.append(name, value);
        }
        Ok(map)
    }
}

impl Validate for HeadersConfig {
    fn validate(&self, check: &mut Check<'_>) {
        for (name, value) in &self.0 {
            if let Err(error) = header(name, value.expose()) {
                check.error(&[name], error);
            }
        }
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let header_name = HeaderName::try_from(name).map_err(|_| format!("{name:?} is not the name of a header"))?;
    let mut header_value = HeaderValue::try_from(value.trim())
        .map_err(|_| format!("the value of the header {name:?} has characters that cannot be sent"))?;
    header_value.set_sensitive(true);
    Ok((header_name, header_value))
}

/// `nyquist/<version> (<os>/<arch>)`, as the Collector writes its own.
#[must_use]
pub fn user_agent() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("nyquist/{} ({}/{arch})", env!("CARGO_PKG_VERSION"), std::env::consts::OS)
}
