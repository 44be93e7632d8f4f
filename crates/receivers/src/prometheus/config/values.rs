//! Durations and sizes as Prometheus writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};

/// A duration in Prometheus' syntax (`1d`, `1h30m`, `500ms`), or in the Collector's (`1.5h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct PromDuration(pub Duration);

impl PromDuration {
    /// `seconds` as a constant default.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

/// Milliseconds of Prometheus' units, in the order in which they must be written.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

impl FromStr for PromDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(millis) = in_units(text) {
            return Ok(Self(Duration::from_millis(millis)));
        }
        let parsed: Result<nyquist_core::config::Duration, String> = text.parse();
        parsed.map(|duration| Self(duration.0)).map_err(|error| match text.parse::<f64>() {
            Ok(_) => format!("missing unit in duration {text:?}: write it like {text}s"),
            Err(_) => error.replace("300ms, 10s or 1h30m", "500ms, 30s, 1h30m or 1d"),
        })
    }
}

fn in_units(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut millis = 0u64;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let (_, factor) = units.find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(number.parse::<u64>().ok()?.checked_mul(*factor)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(millis)
}

impl fmt::Display for PromDuration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return out.write_str("0s");
        }
        for (unit, factor) in UNITS {
            // As Prometheus prints them: no weeks or years unless nothing is lost.
            if millis >= factor && (factor < UNITS[2].1 || millis.is_multiple_of(factor)) {
                write!(out, "{}{unit}", millis / factor)?;
                millis %= factor;
            }
        }
        Ok(())
    }
}

/// A number of bytes: `0`, or text like `512KB` or `10MB`, in which units are powers of 1024 as in
/// Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct PromBytes(pub u64);

impl FromStr for PromBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid size {text:?}: write it like 512KB or 10MB");
        let digits = text.find(|letter: char| letter != '.' && !letter.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let power = match unit.trim() {
            "" | "B" => 0,
            "KB" | "KiB" => 1,
            "MB" | "MiB" => 2,
            "GB" | "GiB" => 3,
            "TB" | "TiB" => 4,
            "PB" | "PiB" => 5,
            _ => return Err(invalid()),
        };
        Ok(Self((number * 1024f64.powi(power)) as u64))
    }
}

macro_rules! read_from_text {
    ($type:ident, $expected:literal, $number:expr) => {
        impl<'de> de::Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reading;
                impl Visitor<'_> for Reading {
                    type Value = $type;

                    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                        out.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$type, E> {
                        let read: fn(u64) -> Result<$type, String> = $number;
                        read(number).map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Reading)
            }
        }
    };
}

read_from_text!(PromDuration, "a duration like 500ms, 30s or 1d", |number| match number {
    0 => Ok(PromDuration::default()),
    _ => Err(format!("missing unit in duration {number}: write it like {number}s")),
});
read_from_text!(PromBytes, "a size like 512KB or 10MB", |bytes| Ok(PromBytes(bytes)));
