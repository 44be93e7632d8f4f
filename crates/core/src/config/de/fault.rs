//! Why a reading failed, in words for people.

use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

use crate::config::node::shorten;
use crate::config::problem::did_you_mean;

/// Why a reading failed.
#[derive(Debug)]
pub(in crate::config) enum Fault {
    /// The value is not what the field wants.
    Wrong { message: String, suggestion: Option<String> },
    /// Null, where the default stays.
    Null,
    /// A key without a default is missing.
    Missing(&'static str),
    /// The finding is reported and its node left out: read again.
    Reported,
}

impl Fault {
    pub(super) fn wrong(message: impl Into<String>) -> Self {
        Self::Wrong { message: message.into(), suggestion: None }
    }
}

impl std::error::Error for Fault {}

impl Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong { message, .. } => out.write_str(message),
            Self::Missing(key) => write!(out, "missing key {key:?}"),
            Self::Null => out.write_str("nothing, where a value is needed"),
            Self::Reported => out.write_str("already reported"),
        }
    }
}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::wrong(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Str(text) => format!("the text {:?}", shorten(text)),
            Unexpected::Unsigned(value) => format!("the integer {value}"),
            Unexpected::Signed(value) => format!("the integer {value}"),
            Unexpected::Float(value) => format!("the number {value}"),
            Unexpected::Bool(value) => format!("the boolean {value}"),
            Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a mapping".to_owned(),
            other => other.to_string(),
        };
        Self::wrong(format!("expected {expected}, found {found}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        // Where a value may be written in several cases, the small letters will do.
        let is_shouted = |name: &str| expected.contains(&name.to_lowercase().as_str()) && name != name.to_lowercase();
        let accepted: Vec<&str> =
            expected.iter().copied().filter(|name| !name.is_empty() && !is_shouted(name)).collect();
        Self::Wrong {
            message: format!("unknown value {variant:?}: accepted are {}", accepted.join(", ")),
            suggestion: did_you_mean(variant, accepted),
        }
    }

    fn missing_field(key: &'static str) -> Self {
        Self::Missing(key)
    }
}
