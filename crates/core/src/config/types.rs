//! Types that configurations share.

use std::fmt;
use std::str::FromStr;
use std::time;

use serde::{Deserialize, Deserializer, de};

use super::{Check, Validate};

// The names by which the located reader recognizes the types below.
pub(super) const DURATION: &str = "nyquist::Duration";
pub(super) const ENABLED: &str = "nyquist::Enabled";
pub(super) const SECRET: &str = "nyquist::Secret";

/// The name of a field (`#[serde(rename = "nyquist::flat")]`) whose keys stand among those of the struct around it, as
/// with `#[serde(flatten)]`, which would lose the places of errors. One a struct, not within another, and a
/// `#[serde(default)]` struct itself: its own defaults count, not those of the struct around it. Where both
/// have a key, that of the struct around it gets the value.
pub(super) const FLAT: &str = "nyquist::flat";

/// A block that can be switched off as a whole.
///
/// A key with nothing after it is the block with its defaults, `enabled: false` switches it off
/// whatever else it says, and if the key is absent, the default of the field decides:
///
/// ```yaml
/// protocols:
///   grpc:                 # On(defaults)
///   http:
///     enabled: false      # Off
/// ```
///
/// The block's struct has no `enabled` field of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Enabled<T> {
    /// Switched off, or not there.
    #[default]
    Off,
    /// There, with these keys.
    On(T),
}

impl<T> Enabled<T> {
    /// The block if it is on.
    #[must_use]
    pub fn as_ref(&self) -> Option<&T> {
        match self {
            Self::Off => None,
            Self::On(block) => Some(block),
        }
    }

    /// The block if it is on.
    #[must_use]
    pub fn into_option(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(block) => Some(block),
        }
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }
}

impl<T: Validate> Validate for Enabled<T> {
    fn validate(&self, check: &mut Check<'_>) {
        if let Self::On(block) = self {
            block.validate(check);
        }
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Enabled<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Default> de::Visitor<'de> for Visitor<T> {
            type Value = Enabled<T>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a mapping, or nothing for its defaults")
            }

            fn visit_none<E: de::Error>(self) -> Result<Enabled<T>, E> {
                Ok(Enabled::Off)
            }

            fn visit_unit<E: de::Error>(self) -> Result<Enabled<T>, E> {
                Ok(Enabled::On(T::default()))
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Enabled<T>, D::Error> {
                Option::<T>::deserialize(deserializer).map(|block| Enabled::On(block.unwrap_or_default()))
            }
        }
        deserializer.deserialize_newtype_struct(ENABLED, Visitor(std::marker::PhantomData))
    }
}

/// `type` or `type/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ComponentId {
    /// The type, as written.
    pub kind: String,
    /// The name; empty if there is none.
    pub name: String,
}

impl ComponentId {
    /// An id without a name.
    #[must_use]
    pub fn of(kind: &str) -> Self {
        Self { kind: kind.to_owned(), name: String::new() }
    }
}

impl fmt::Display for ComponentId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.kind)?;
        if self.name.is_empty() { Ok(()) } else { write!(out, "/{}", self.name) }
    }
}

impl FromStr for ComponentId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            Some((_, name)) if name.trim().is_empty() => {
                return Err(format!("in {text:?} id: the part after / should not be empty"));
            }
            Some((kind, name)) => (kind.trim(), name.trim()),
            None => (text.trim(), ""),
        };
        let mut letters = kind.chars();
        let starts_well = letters.next().is_some_and(|letter| letter.is_ascii_alphabetic());
        if !starts_well || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') || kind.len() > 63 {
            return Err(format!("in {text:?} id: a type is a letter followed by letters, digits and underscores"));
        }
        if name.len() > 1024 || name.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
            return Err(format!("in {text:?} id: a name has no spaces and at most 1024 characters"));
        }
        Ok(Self { kind: kind.to_owned(), name: name.to_owned() })
    }
}

/// A duration in Go's syntax: `300ms`, `1.5h`, `1h30m`. A bare integer counts nanoseconds, as in
/// the Collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Duration(pub time::Duration);

impl Duration {
    /// `seconds` as a constant default.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// `millis` as a constant default.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(time::Duration::from_millis(millis))
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid duration {text:?}: write it like 300ms, 10s or 1h30m");
        if text == "0" {
            return Ok(Self::default());
        }
        if text.starts_with('-') {
            return Err(format!("negative duration {text:?}"));
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut nanos = 0f64;
        while !rest.is_empty() {
            let digits = rest.find(|letter: char| letter != '.' && !letter.is_ascii_digit()).unwrap_or(rest.len());
            let (number, after) = rest.split_at(digits);
            let number: f64 = number.parse().map_err(|_| invalid())?;
            let unit_len = after.find(|letter: char| letter == '.' || letter.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_len);
            nanos += number
                * match unit {
                    "ns" => 1.0,
                    "us" | "µs" | "μs" => 1e3,
                    "ms" => 1e6,
                    "s" => 1e9,
                    "m" => 60e9,
                    "h" => 3600e9,
                    "" => return Err(format!("missing unit in duration {text:?}: write it like 300ms, 10s or 1h30m")),
                    _ => return Err(invalid()),
                };
            rest = after;
        }
        // 2^63 nanoseconds, 292 years, is where Go stops too.
        if nanos >= 9.223_372_036_854_776e18 {
            return Err(format!("duration {text:?} is too long"));
        }
        Ok(Self(time::Duration::from_nanos(nanos.round() as u64)))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Duration;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a duration like 300ms, 10s or 1h30m")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, nanos: u64) -> Result<Duration, E> {
                Ok(Duration(time::Duration::from_nanos(nanos)))
            }

            fn visit_i64<E: de::Error>(self, nanos: i64) -> Result<Duration, E> {
                u64::try_from(nanos).map_err(|_| E::custom("negative duration")).and_then(|nanos| self.visit_u64(nanos))
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Duration, D::Error> {
                deserializer.deserialize_any(self)
            }
        }
        deserializer.deserialize_newtype_struct(DURATION, Visitor)
    }
}

/// A number of bytes: an integer, or text with a unit (`512KiB`, `64 MiB`, `2GB`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `mebibytes` as a constant default.
    #[must_use]
    pub const fn mib(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid size {text:?}: write it like 67108864, 64MiB or 2GB");
        let digits = text.find(|letter: char| letter != '.' && !letter.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let factor = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "kb" | "k" => 1e3,
            "mb" | "m" => 1e6,
            "gb" | "g" => 1e9,
            "tb" | "t" => 1e12,
            "kib" | "ki" => 1024.0,
            "mib" | "mi" => 1024.0 * 1024.0,
            "gib" | "gi" => 1024.0 * 1024.0 * 1024.0,
            "tib" | "ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
            _ => return Err(invalid()),
        };
        Ok(Self((number * factor) as u64))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a number of bytes, or a size like 64MiB")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom("negative size"))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Text that never appears in logs or printed configurations.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the request that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[REDACTED]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Secret;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret(text.to_owned()))
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Secret, D::Error> {
                deserializer.deserialize_string(self)
            }
        }
        deserializer.deserialize_newtype_struct(SECRET, Visitor)
    }
}

impl<'de> Deserialize<'de> for ComponentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
