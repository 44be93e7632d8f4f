//! Metric names and units: OTLP to Prometheus.
//!
//! Follows `prometheus/otlptranslator` v1.0.0, which is what both the OpenTelemetry Collector and
//! Prometheus' own OTLP endpoint use, with one deliberate deviation: a suffix is only taken off
//! together with a delimiter that is `_` or `.`, so that `subtotal` does not become `su_total`.

use super::kinds::Kind;

/// How names are translated (`translation_strategy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Invalid characters become `_`; unit and type suffixes are appended.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// Invalid characters become `_`; nothing is appended.
    UnderscoreEscapingWithoutSuffixes,
    /// Names stay UTF-8; unit and type suffixes are appended.
    NoUTF8EscapingWithSuffixes,
    /// Names stay as they are.
    NoTranslation,
}

impl Strategy {
    /// Are names and labels restricted to Prometheus' classic alphabet?
    #[must_use]
    pub fn escapes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::UnderscoreEscapingWithoutSuffixes)
    }

    /// Are unit and type appended to names?
    #[must_use]
    pub fn suffixes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::NoUTF8EscapingWithSuffixes)
    }
}

/// Nothing is left of a name after translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing is left of the name after translation")]
pub struct NoName;

/// The Prometheus name of a metric.
///
/// # Errors
/// If nothing is left of it, or nothing but underscores that were not there before.
pub fn metric_name(strategy: Strategy, namespace: &str, name: &str, unit: &str, kind: Kind) -> Result<String, NoName> {
    let translated = match strategy {
        // It has its unit already, in front of its own suffix.
        Strategy::UnderscoreEscapingWithSuffixes if kind == Kind::Part => escaped(namespace, name),
        Strategy::NoUTF8EscapingWithSuffixes if kind == Kind::Part => with_namespace(namespace, name),
        Strategy::UnderscoreEscapingWithSuffixes => escaped_with_suffixes(namespace, name, unit, kind),
        Strategy::UnderscoreEscapingWithoutSuffixes => escaped(namespace, name),
        Strategy::NoUTF8EscapingWithSuffixes => kept_with_suffixes(&with_namespace(namespace, name), unit, kind),
        Strategy::NoTranslation => with_namespace(namespace, name),
    };
    let only_underscores = strategy.escapes() && translated.bytes().all(|letter| letter == b'_');
    if translated.is_empty() || (only_underscores && translated != name) {
        return Err(NoName);
    }
    Ok(translated)
}

/// The unit as Prometheus spells it: `s` is `seconds`, `By/s` is `bytes_per_second`.
#[must_use]
pub fn unit_name(unit: &str) -> String {
    let (main, per) = unit_suffixes(unit);
    let (main, per) = (clean_unit(&main), clean_unit(&per));
    let unit = match (main.as_str(), per.as_str()) {
        (main, "") => main.to_owned(),
        ("", per) => per.to_owned(),
        (main, per) => format!("{main}_{per}"),
    };
    let unit = unit.strip_prefix('_').unwrap_or(&unit);
    unit.strip_suffix('_').unwrap_or(unit).to_owned()
}

/// `namespace` without the characters that a name cannot have.
#[must_use]
pub fn escape_namespace(namespace: &str) -> String {
    tokens(namespace, |letter| is_name_letter(letter) || letter == '_').join("_")
}

fn with_namespace(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}_{name}") }
}

fn escaped(namespace: &str, name: &str) -> String {
    let joined = tokens(name, |letter| is_name_letter(letter) || letter == '_').join("_");
    if !namespace.is_empty() {
        return format!("{namespace}_{joined}");
    }
    guard_digit(joined)
}

fn escaped_with_suffixes(namespace: &str, name: &str, unit: &str, kind: Kind) -> String {
    let mut tokens = tokens(name, is_name_letter);
    let (main, per) = unit_suffixes(unit);
    let (main, per) = (clean_unit(&main), clean_unit(&per));
    let per = if per == "per_" { "" } else { per.strip_suffix('_').unwrap_or(&per) };
    let per = if tokens.contains(&per) { "" } else { per };
    let main = if tokens.contains(&main.as_str()) { "" } else { &main };
    let main = if per.is_empty() { main } else { main.strip_suffix('_').unwrap_or(main) };
    tokens.extend([main, per].into_iter().filter(|suffix| !suffix.is_empty()));
    if kind == Kind::Counter {
        tokens.retain(|&token| token != "total");
        tokens.push("total");
    }
    if kind == Kind::Gauge && unit == "1" {
        tokens.retain(|&token| token != "ratio");
        tokens.push("ratio");
    }
    if !namespace.is_empty() {
        tokens.insert(0, namespace);
    }
    guard_digit(tokens.join("_"))
}

fn kept_with_suffixes(name: &str, unit: &str, kind: Kind) -> String {
    let (main, per) = unit_suffixes(unit);
    let is_ratio = kind == Kind::Gauge && unit == "1";
    let mut base = name;
    if is_ratio {
        base = without_suffix(base, "ratio");
    }
    if kind == Kind::Counter {
        base = without_suffix(base, "total");
    }
    if !per.is_empty() {
        base = without_suffix(base, &per);
    }
    let mut kept = base.to_owned();
    let mut append = |suffix: &str| {
        kept.push('_');
        kept.push_str(suffix);
    };
    if !main.is_empty() && !base.ends_with(&main) {
        append(&main);
    }
    if !per.is_empty() {
        append(&per);
    }
    if kind == Kind::Counter {
        append("total");
    }
    if is_ratio {
        append("ratio");
    }
    kept
}

/// `name` without a trailing `suffix` and its delimiter.
fn without_suffix<'a>(name: &'a str, suffix: &str) -> &'a str {
    match name.strip_suffix(suffix) {
        Some(rest) if rest.len() > 1 => rest.strip_suffix(['_', '.']).unwrap_or(name),
        _ => name,
    }
}

fn is_name_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == ':'
}

fn tokens(name: &str, belongs: impl Fn(char) -> bool) -> Vec<&str> {
    name.split(|letter| !belongs(letter)).filter(|token| !token.is_empty()).collect()
}

fn guard_digit(name: String) -> String {
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// Main unit and `per_` unit of a UCUM unit, in words.
fn unit_suffixes(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let main = unit_word(main, MAIN_UNITS).unwrap_or_default();
    let per = unit_word(per, PER_UNITS).filter(|word| !word.is_empty());
    (main.to_owned(), per.map(|word| format!("per_{word}")).unwrap_or_default())
}

fn unit_word<'a>(unit: &'a str, table: &[(&str, &'static str)]) -> Option<&'a str> {
    let unit = unit.trim();
    if unit.is_empty() || unit.contains(['{', '}']) {
        return None;
    }
    Some(table.iter().find(|(symbol, _)| *symbol == unit).map_or(unit, |(_, word)| word))
}

/// A unit with nothing but name characters, no repeated and no leading underscore.
fn clean_unit(unit: &str) -> String {
    let mut clean = String::with_capacity(unit.len());
    for letter in unit.chars() {
        let letter = if is_name_letter(letter) { letter } else { '_' };
        if letter != '_' || !clean.ends_with('_') {
            clean.push(letter);
        }
    }
    match clean.strip_prefix('_') {
        Some(rest) => rest.to_owned(),
        None => clean,
    }
}

const MAIN_UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

// `m` is a minute here and `min` is not known: so it is in the reference.
const PER_UNITS: &[(&str, &str)] =
    &[("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];
