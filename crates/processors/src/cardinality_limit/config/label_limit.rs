//! `labels: {user.id: 50}` and `labels: {user.id: {max: 50, keep: top_k}}`.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use super::Keep;

/// How many values a label may have: a number, or `{max: number}`.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelLimit {
    /// The number; 0 collapses the label always.
    pub max: usize,
    /// Which values keep a slot; as the processor's `keep` if absent.
    pub keep: Option<Keep>,
}

impl<'de> Deserialize<'de> for LabelLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = LabelLimit;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a number of values, or {max: number}")
            }

            fn visit_u64<E: de::Error>(self, max: u64) -> Result<LabelLimit, E> {
                let max = usize::try_from(max).map_err(|_| E::custom("too large a number of values"))?;
                Ok(LabelLimit { max, keep: None })
            }

            fn visit_i64<E: de::Error>(self, max: i64) -> Result<LabelLimit, E> {
                u64::try_from(max)
                    .map_err(|_| E::custom("a number of values cannot be negative"))
                    .and_then(|max| self.visit_u64(max))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, entries: A) -> Result<LabelLimit, A::Error> {
                #[derive(Deserialize)]
                struct Fields {
                    max: usize,
                    #[serde(default)]
                    keep: Option<Keep>,
                }
                let Fields { max, keep } = Fields::deserialize(de::value::MapAccessDeserializer::new(entries))?;
                Ok(LabelLimit { max, keep })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
