//! `URL`: the parts of a URL, by the names of the semantic conventions.

use std::borrow::Cow;

use super::text;
use crate::eval::EvalError;
use crate::value::{Map, Value};

const BAD: EvalError = EvalError::plain("the text is not a URL");

pub(super) fn parse(value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let original = text::of(value)?;
    if original.is_empty() {
        return Err(EvalError::plain("the URL is empty"));
    }
    if original.iter().any(|byte| byte.is_ascii_control()) {
        return Err(BAD);
    }
    let (rest, fragment) = cut(original, b'#');
    let (scheme, rest) = scheme(rest)?;
    let (rest, query) = cut(rest, b'?');
    let (authority, path) = match rest.strip_prefix(b"//") {
        Some(rest) => {
            let end = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at_checked(end).ok_or(BAD)?;
            (Some(authority), path)
        }
        // `mailto:a@b` has neither a host nor a path.
        None if !scheme.is_empty() && !rest.starts_with(b"/") => (None, &[][..]),
        None => (None, rest),
    };
    let (user, host) = match authority.and_then(|authority| Some((authority, memchr::memrchr(b'@', authority)?))) {
        Some((authority, at)) => (authority.get(..at), authority.get(at + 1..).unwrap_or_default()),
        None => (None, authority.unwrap_or_default()),
    };
    let (domain, port) = host_and_port(host)?;
    let path = decoded(path)?;

    let mut entries = Entries(Vec::new());
    entries.text("url.original", original);
    entries.text("url.domain", &decoded(domain)?);
    entries.text("url.scheme", &scheme);
    entries.text("url.path", &path);
    if let Some(port) = port {
        entries.0.push((Cow::Borrowed(b"url.port"), Value::Int(port)));
    }
    if let Some(fragment) = fragment.filter(|fragment| !fragment.is_empty()) {
        entries.text("url.fragment", &decoded(fragment)?);
    }
    if let Some(user) = user {
        let (name, password) = cut(user, b':');
        entries.text("url.user_info", user);
        if !name.is_empty() {
            entries.text("url.username", &decoded(name)?);
        }
        if let Some(password) = password {
            entries.text("url.password", &decoded(password)?);
        }
    }
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        entries.text("url.query", query);
    }
    let dot = memchr::memrchr(b'.', &path).and_then(|dot| path.get(dot + 1..));
    if let Some(extension) = dot.filter(|extension| !extension.is_empty()) {
        entries.text("url.extension", extension);
    }
    Ok(Value::Map(Map::Made(entries.0)))
}

struct Entries(Vec<(Cow<'static, [u8]>, Value<'static>)>);

impl Entries {
    fn text(&mut self, key: &'static str, text: &[u8]) {
        self.0.push((Cow::Borrowed(key.as_bytes()), Value::owned_text(text)));
    }
}

/// What stands before and after the first `byte`.
fn cut(text: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(byte, text) {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
        None => (text, None),
    }
}

/// The scheme in lower case, and what follows its colon.
fn scheme(text: &[u8]) -> Result<(Vec<u8>, &[u8]), EvalError> {
    let is_of_it = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let len = text.iter().take_while(|byte| is_of_it(byte)).count();
    match (text.get(len), text.first()) {
        (Some(b':'), Some(first)) if first.is_ascii_alphabetic() => {
            let scheme = text.get(..len).unwrap_or_default().to_ascii_lowercase();
            Ok((scheme, text.get(len + 1..).unwrap_or_default()))
        }
        // A colon in the first part of a path would make what is before it a scheme.
        (Some(b':'), _) => Err(BAD),
        _ => Ok((Vec::new(), text)),
    }
}

fn host_and_port(host: &[u8]) -> Result<(&[u8], Option<i64>), EvalError> {
    let (name, port) = match host.strip_prefix(b"[") {
        // An address with colons stands in brackets.
        Some(rest) => {
            let (address, after) = cut(rest, b']');
            match after.ok_or(BAD)? {
                b"" => (address, None),
                after => (address, Some(after.strip_prefix(b":").ok_or(BAD)?)),
            }
        }
        None => {
            let (name, port) = cut(host, b':');
            (name, port)
        }
    };
    if name.iter().any(|byte| matches!(byte, b' ' | b'<' | b'>' | b'"' | b'[')) {
        return Err(BAD);
    }
    let Some(port) = port.filter(|port| !port.is_empty()) else { return Ok((name, None)) };
    let port = std::str::from_utf8(port).ok().filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    Ok((name, Some(port.and_then(|port| port.parse().ok()).ok_or(BAD)?)))
}

/// With `%20` and the like as the bytes that they stand for.
fn decoded(text: &[u8]) -> Result<Vec<u8>, EvalError> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2).ok_or(BAD)?;
        let mut decoded = [0];
        hex::decode_to_slice(digits, &mut decoded).map_err(|_| BAD)?;
        out.extend_from_slice(&decoded);
        rest = after;
    }
    Ok(out)
}
