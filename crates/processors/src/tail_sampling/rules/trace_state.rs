//! W3C `tracestate`, as strictly as the Collector reads it.

use super::matchers::TextMatcher;

/// A wanted entry.
#[derive(Debug)]
pub(super) struct TraceStateTest {
    pub(super) key: Box<[u8]>,
    pub(super) values: TextMatcher,
    pub(super) bit: u16,
}

const MAX_MEMBERS: usize = 32;
const MAX_LEN: usize = 256;

/// The entries of `header`; `None` if it is not a valid `tracestate`
/// (<https://www.w3.org/TR/trace-context/#tracestate-header>).
pub(super) fn parse(header: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut entries: Vec<(&[u8], &[u8])> = Vec::new();
    for member in header.split(|&byte| byte == b',') {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        let equals = member.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (member.get(..equals)?, member.get(equals + 1..)?);
        let repeated = entries.iter().any(|(other, _)| *other == key);
        if !valid_key(key) || !valid_value(value) || repeated || entries.len() == MAX_MEMBERS {
            return None;
        }
        entries.push((key, value));
    }
    Some(entries)
}

fn valid_key(key: &[u8]) -> bool {
    let simple = |part: &[u8], max: usize, digit_first: bool| {
        let first = part.first().copied().unwrap_or(b' ');
        part.len() <= max
            && (first.is_ascii_lowercase() || digit_first && first.is_ascii_digit())
            && part.iter().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*' | b'/')
            })
    };
    match key.iter().position(|&byte| byte == b'@') {
        None => simple(key, MAX_LEN, false),
        Some(at) => {
            let (tenant, system) = key.split_at(at);
            simple(tenant, 241, true) && simple(system.get(1..).unwrap_or_default(), 14, false)
        }
    }
}

fn valid_value(value: &[u8]) -> bool {
    value.len() <= MAX_LEN
        && value.last().is_some_and(|&last| last != b' ')
        && value.iter().all(|&byte| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn valid_headers_are_read_and_others_refused() {
        assert_eq!(parse(b"o=2, v=1"), Some(vec![(&b"o"[..], &b"2"[..]), (b"v", b"1")]));
        assert_eq!(parse(b"1t@sys=x"), Some(vec![(&b"1t@sys"[..], &b"x"[..])]));
        assert_eq!(parse(b""), Some(vec![]));
        for bad in ["bad key=1,v=1", "A=1", "v", "v=", "v=1,v=2", "1=2", "v=a=b"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
