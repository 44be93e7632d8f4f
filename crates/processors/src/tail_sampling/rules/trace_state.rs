//! W3C `tracestate`, as strictly as the Collector reads it.

use super::matchers::TextMatcher;
use super::random::independent;

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
    is_valid(header).then(|| entries(header).collect())
}

/// The entries of a valid header.
fn entries(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    members(header).filter_map(split)
}

fn members(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    header.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

fn split(member: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = member.iter().position(|&byte| byte == b'=')?;
    Some((member.get(..equals)?, member.get(equals + 1..)?))
}

fn is_valid(header: &[u8]) -> bool {
    members(header).enumerate().all(|(index, member)| {
        split(member).is_some_and(|(key, value)| {
            let repeated = entries(header).take(index).any(|(other, _)| other == key);
            index < MAX_MEMBERS && !repeated && valid_key(key) && valid_value(value)
        })
    })
}

/// OpenTelemetry's entry
/// (<https://opentelemetry.io/docs/specs/otel/trace/tracestate-handling/>), as far as sampling reads it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ot<'a> {
    /// Explicit randomness, 56 bits.
    pub(super) rv: Option<u64>,
    /// The rejection threshold of samplers so far, 56 bits.
    pub(super) th: Option<u64>,
    value: &'a [u8],
}

/// The header is not a valid `tracestate`, or its `ot` entry is not a valid one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads the `ot` entry of `header`; what is there by default if there is none.
pub(super) fn read_ot(header: &[u8]) -> Result<Ot<'_>, Malformed> {
    if !is_valid(header) {
        return Err(Malformed);
    }
    let Some((_, value)) = entries(header).find(|(key, _)| *key == b"ot") else {
        return Ok(Ot::default());
    };
    let mut ot = Ot { value, ..Ot::default() };
    for (key, value) in fields(value) {
        match key {
            b"rv" => ot.rv = Some(hex(value).filter(|_| value.len() == DIGITS).ok_or(Malformed)?),
            b"th" => {
                let digits = hex(value).ok_or(Malformed)?;
                ot.th = Some(digits << (4 * (DIGITS - value.len())));
            }
            b"" => return Err(Malformed),
            _ => {}
        }
    }
    Ok(ot)
}

/// Hexadecimal digits of 56 bits.
const DIGITS: usize = 14;

fn fields(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    value.split(|&byte| byte == b';').map(|field| {
        let colon = field.iter().position(|&byte| byte == b':');
        let parts = colon.and_then(|colon| Some((field.get(..colon)?, field.get(colon + 1..)?)));
        parts.unwrap_or((b"", field))
    })
}

/// One to fourteen lowercase digits.
fn hex(text: &[u8]) -> Option<u64> {
    let sound = (1..=DIGITS).contains(&text.len())
        && text.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    u64::from_str_radix(std::str::from_utf8(text).ok().filter(|_| sound)?, 16).ok()
}

/// What a sampler does to the `ot` entry of a span that it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It kept this part of traces: a stricter threshold stays. `rv` is the randomness that it went
    /// by, if that is not the trace id's, so that samplers after it go by the same; where one before
    /// it has gone by the id, their thresholds are multiplied.
    Threshold { threshold: u64, rv: Option<u64> },
    /// Nobody knows how many traces it keeps, so that the threshold is no longer true.
    Erase,
}

impl Change {
    /// Appends the header that replaces `header` to `out`. False if it can stay as it is; a malformed
    /// one does.
    pub(crate) fn apply(self, header: &[u8], out: &mut Vec<u8>) -> bool {
        let ot = if header.is_empty() { Ok(Ot::default()) } else { read_ot(header) };
        let Ok(ot) = ot else {
            return false;
        };
        let from = out.len();
        match self {
            Self::Erase if ot.th.is_none() => return false,
            Self::Erase => {}
            Self::Threshold { threshold, rv } => {
                // A sampler before this one went by the trace id; this one does not.
                let apart = rv.is_some() && ot.rv.is_none();
                let threshold = match ot.th.filter(|&th| th > 0) {
                    Some(th) if apart => independent(th, threshold),
                    Some(th) if th >= threshold => return false,
                    _ => threshold,
                };
                out.extend_from_slice(b"ot=th:");
                put_threshold(threshold, out);
                if let Some(rv) = rv.filter(|_| apart && ot.th.is_none_or(|th| th == 0)) {
                    out.extend_from_slice(format!(";rv:{rv:0DIGITS$x}").as_bytes());
                }
            }
        }
        if header.is_empty() {
            return true;
        }
        let others = |only_known: bool| {
            let known = move |key: &[u8]| if only_known { key == b"rv" } else { key != b"th" };
            fields(ot.value).filter(move |(key, _)| !key.is_empty() && known(key))
        };
        // What others put there goes only where there is no room for it.
        let length: usize = others(false).map(|(key, value)| key.len() + value.len() + 2).sum();
        let too_long = out.len() - from + length > MAX_LEN;
        for (key, value) in others(too_long) {
            out.extend_from_slice(if out.len() == from { b"ot=" } else { b";" });
            out.extend_from_slice(key);
            out.push(b':');
            out.extend_from_slice(value);
        }
        let room = MAX_MEMBERS - usize::from(out.len() > from);
        for (key, value) in entries(header).filter(|(key, _)| *key != b"ot").take(room) {
            if out.len() > from {
                out.push(b',');
            }
            out.extend_from_slice(key);
            out.push(b'=');
            out.extend_from_slice(value);
        }
        true
    }
}

/// Hexadecimal without the zeros at its end.
fn put_threshold(threshold: u64, out: &mut Vec<u8>) {
    let zeros = (threshold.trailing_zeros() as usize / 4).min(DIGITS - 1);
    for place in (zeros..DIGITS).rev() {
        let digit = (threshold >> (4 * place)) as u8 & 0xf;
        out.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
    }
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
    use super::*;

    fn changed(change: Change, header: &str) -> Option<String> {
        let mut out = Vec::new();
        change.apply(header.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn thresholds_are_composed_and_others_stay() {
        const HALF: u64 = 1 << 55;
        let half = |header: &str| changed(Change::Threshold { threshold: HALF, rv: None }, header);
        for (header, expected) in [
            ("", "ot=th:8"),
            ("a=1,b=2", "ot=th:8,a=1,b=2"),
            ("a=1,ot=rv:00000000000001;x:y,b=2", "ot=th:8;rv:00000000000001;x:y,a=1,b=2"),
            ("ot=th:4", "ot=th:8"),
            ("ot=th:0;rv:00000000000001", "ot=th:8;rv:00000000000001"),
        ] {
            assert_eq!(half(header).as_deref(), Some(expected), "{header}");
        }
        for stays in ["ot=th:8", "ot=th:c", "ot=th:80000000000001;x:y", "ot=th:xyz", "ot=rv:1", "ot=th:", "bad key=1"] {
            assert_eq!(half(stays), None, "{stays}");
        }
        let full: Vec<String> = (0..32).map(|index| format!("k{index}=v")).collect();
        assert_eq!(half(&full.join(",")).unwrap(), format!("ot=th:8,{}", full[..31].join(",")));
        let long = format!("ot=rv:00000000000001;x:{}", "y".repeat(230));
        assert_eq!(half(&long).unwrap(), "ot=th:8;rv:00000000000001");
        let salted = Change::Threshold { threshold: HALF, rv: Some(0xab) };
        assert_eq!(changed(salted, "").unwrap(), "ot=th:8;rv:000000000000ab");
        assert_eq!(changed(salted, "ot=th:8").unwrap(), "ot=th:c", "two coins");
        assert_eq!(changed(salted, "ot=rv:00000000000001").unwrap(), "ot=th:8;rv:00000000000001");
    }

    const PIECES: [&[u8]; 14] = [
        b"ot=th:",
        b"ot=rv:",
        b"th:",
        b"rv:",
        b"8",
        b"0",
        b"00000000000001",
        b";",
        b";",
        b",",
        b",",
        b"a=1",
        b",b@c=d",
        b" ",
    ];

    proptest::proptest! {
        /// Whatever comes: no panic; what is valid stays valid, with the entries of others in order.
        #[test]
        fn any_header_is_left_or_stays_valid(
            pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..12),
            threshold in 0u64..1 << 56,
            rv in proptest::option::of(0u64..1 << 56),
        ) {
            let header = pieces.concat();
            for change in [Change::Threshold { threshold, rv }, Change::Erase] {
                let mut out = b"before".to_vec();
                if !change.apply(&header, &mut out) {
                    proptest::prop_assert_eq!(&out[..], b"before");
                    continue;
                }
                let after = &out[b"before".len()..];
                let others = |header: &[u8]| -> Vec<Vec<u8>> {
                    entries(header).filter(|(key, _)| *key != b"ot").map(|(key, value)| [key, value].concat()).collect()
                };
                proptest::prop_assert!(is_valid(after));
                proptest::prop_assert_eq!(others(after), others(&header));
                let (was, is) = (read_ot(&header).unwrap(), read_ot(after).unwrap());
                let stricter = is.th.is_some_and(|th| th >= threshold && was.th.is_none_or(|was| th >= was));
                let sound = if change == Change::Erase { is.th.is_none() } else { stricter };
                proptest::prop_assert!(sound);
                proptest::prop_assert!(was.rv.is_none() || was.rv == is.rv);
            }
        }
    }

    #[test]
    fn an_unknown_rate_erases_the_threshold() {
        for (header, expected) in
            [("ot=th:8", ""), ("a=1,ot=th:8", "a=1"), ("ot=th:8;rv:00000000000001,a=1", "ot=rv:00000000000001,a=1")]
        {
            assert_eq!(changed(Change::Erase, header).as_deref(), Some(expected), "{header}");
        }
        for stays in ["", "a=1", "ot=rv:00000000000001"] {
            assert_eq!(changed(Change::Erase, stays), None);
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for threshold in [0, 1, 0xf0, 1 << 55, (1 << 56) - 1] {
            let header = changed(Change::Threshold { threshold, rv: None }, "").unwrap();
            assert_eq!(read_ot(header.as_bytes()).unwrap().th, Some(threshold), "{header}");
        }
        assert_eq!(read_ot(b"ot=rv:0000000000000f;th:c").unwrap().rv, Some(15));
        assert_eq!(read_ot(b"x=1"), Ok(Ot::default()));
        for malformed in ["ot=rv:f", "ot=th:123456789012345", "ot=th:F", "ot=th", "ot=;th:1", "="] {
            assert_eq!(read_ot(malformed.as_bytes()), Err(Malformed), "{malformed}");
        }
    }

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
