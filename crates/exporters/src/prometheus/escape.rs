//! Names for scrapers that know only Prometheus' classic alphabet.

use std::borrow::Cow;

/// Is it a classic metric name?
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'_' || letter == b':')
}

/// Is it a classic label name?
pub(super) fn is_plain_label(name: &[u8]) -> bool {
    !name.first().is_some_and(u8::is_ascii_digit)
        && name.iter().all(|letter| letter.is_ascii_alphanumeric() || *letter == b'_')
}

/// Appends a name with `_` for everything that a classic name cannot have.
pub(super) fn put_underscored(out: &mut Vec<u8>, name: &[u8], with_colons: bool) {
    if name.first().is_some_and(u8::is_ascii_digit) {
        out.push(b'_');
    }
    for letter in String::from_utf8_lossy(name).chars() {
        let is_kept = letter.is_ascii_alphanumeric() || (with_colons && letter == ':');
        out.push(if is_kept { letter as u8 } else { b'_' });
    }
}

/// A metric's name as a scraper reads it.
pub(super) fn metric_name(name: &str, utf8_names: bool) -> Cow<'_, str> {
    if utf8_names || is_plain_name(name) {
        return Cow::Borrowed(name);
    }
    underscored(name.as_bytes(), true)
}

/// A label's name as a scraper reads it.
pub(super) fn label_name(name: &[u8], utf8_names: bool) -> Cow<'_, str> {
    if utf8_names || is_plain_label(name) {
        return String::from_utf8_lossy(name);
    }
    underscored(name, false)
}

fn underscored(name: &[u8], with_colons: bool) -> Cow<'static, str> {
    let mut out = Vec::with_capacity(name.len() + 1);
    put_underscored(&mut out, name, with_colons);
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}
