//! `Format`: the part of Go's `fmt.Sprintf` that makes a text of texts, numbers and booleans.

use super::text::{check_made, of};
use crate::convert::to_text;
use crate::eval::EvalError;
use crate::value::Value;

/// The widest field, and the most digits after the point.
const MAX_WIDTH: usize = 1_000;
const VERBS: &[u8] = b"vsdxXobtfFeE";

const BAD: EvalError = EvalError::plain(
    "a format has the verbs %v %s %t %d %x %X %o %b %f %F %e %E, with the flags - + 0 and a space, a width and a precision up to 1000",
);

/// What stands between `%` and the verb.
#[derive(Debug, Clone, Copy, Default)]
struct Spec {
    plus: bool,
    minus: bool,
    zero: bool,
    space: bool,
    width: usize,
    precision: Option<usize>,
}

#[derive(Debug)]
enum Piece<'x> {
    Text(&'x [u8]),
    Verb(Spec, u8),
}

/// Is this a format?
pub(crate) fn check(format: &[u8]) -> Result<(), EvalError> {
    let mut rest = format;
    while !rest.is_empty() {
        (_, rest) = piece(rest)?;
    }
    Ok(())
}

/// With as many values as verbs.
pub(super) fn format(format: &Value<'_>, values: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let Value::List(list) = values else {
        return Err(EvalError::new("a list of values is expected", values));
    };
    let (mut rest, mut values, mut out) = (of(format)?, list.iter(), String::new());
    while !rest.is_empty() {
        let (piece, after) = piece(rest)?;
        match piece {
            Piece::Text(text) => out.push_str(&String::from_utf8_lossy(text)),
            Piece::Verb(spec, verb) => {
                let value = values.next().ok_or(EvalError::plain("the format has more verbs than there are values"))?;
                put(&mut out, spec, verb, value)?;
            }
        }
        check_made(out.len())?;
        rest = after;
    }
    match values.next() {
        None => Ok(Value::owned_text(out)),
        Some(_) => Err(EvalError::plain("the format has fewer verbs than there are values")),
    }
}

/// The first piece of a format that is not empty, and what follows it.
fn piece(format: &[u8]) -> Result<(Piece<'_>, &[u8]), EvalError> {
    let Some(rest) = format.strip_prefix(b"%") else {
        let (text, rest) = format.split_at(memchr::memchr(b'%', format).unwrap_or(format.len()));
        return Ok((Piece::Text(text), rest));
    };
    if let Some(after) = rest.strip_prefix(b"%") {
        return Ok((Piece::Text(b"%"), after));
    }
    let (spec, rest) = spec(rest)?;
    match rest.split_first() {
        Some((b'd' | b'x' | b'X' | b'o' | b'b' | b't', _)) if spec.precision.is_some() => Err(BAD),
        Some((&verb, after)) if VERBS.contains(&verb) => Ok((Piece::Verb(spec, verb), after)),
        _ => Err(BAD),
    }
}

fn spec(mut rest: &[u8]) -> Result<(Spec, &[u8]), EvalError> {
    let mut spec = Spec::default();
    while let Some((flag, after)) = rest.split_first() {
        match flag {
            b'+' => spec.plus = true,
            b'-' => spec.minus = true,
            b'0' => spec.zero = true,
            b' ' => spec.space = true,
            _ => break,
        }
        rest = after;
    }
    (spec.width, rest) = number(rest)?;
    if let Some(after) = rest.strip_prefix(b".") {
        let (precision, after) = number(after)?;
        (spec.precision, rest) = (Some(precision), after);
    }
    Ok((spec, rest))
}

/// 0 where there are no digits.
fn number(text: &[u8]) -> Result<(usize, &[u8]), EvalError> {
    let (digits, rest) = text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count());
    let number = digits.iter().try_fold(0, |number, digit| {
        Some(number * 10 + usize::from(digit - b'0')).filter(|&number| number <= MAX_WIDTH)
    });
    Ok((number.ok_or(BAD)?, rest))
}

fn put(out: &mut String, spec: Spec, verb: u8, value: Value<'_>) -> Result<(), EvalError> {
    // The digits of a number and whether it is negative; or a text.
    let (body, negative) = match (verb, &value) {
        (b'v' | b'd', Value::Int(number)) => (number.unsigned_abs().to_string(), Some(*number < 0)),
        (b'x', Value::Int(number)) => (format!("{:x}", number.unsigned_abs()), Some(*number < 0)),
        (b'X', Value::Int(number)) => (format!("{:X}", number.unsigned_abs()), Some(*number < 0)),
        (b'o', Value::Int(number)) => (format!("{:o}", number.unsigned_abs()), Some(*number < 0)),
        (b'b', Value::Int(number)) => (format!("{:b}", number.unsigned_abs()), Some(*number < 0)),
        (b'v' | b'f' | b'F' | b'e' | b'E', Value::Double(number)) if number.is_finite() => {
            (double(verb, number.abs(), spec.precision), Some(number.is_sign_negative()))
        }
        (b'v', Value::Nil) => ("<nil>".to_owned(), None),
        (b'v' | b't', Value::Bool(flag)) => (flag.to_string(), None),
        (b'x', Value::Text(bytes) | Value::Bytes(bytes)) => (hex::encode(bytes), None),
        (b'X', Value::Text(bytes) | Value::Bytes(bytes)) => (hex::encode_upper(bytes), None),
        (b'v' | b's', Value::Text(_) | Value::TraceState(_)) => {
            let text = to_text(value)?.unwrap_or_default();
            let most = spec.precision.unwrap_or(usize::MAX);
            (String::from_utf8_lossy(&text).chars().take(most).collect(), None)
        }
        _ => return Err(EvalError::new("the verb is for values of another type", &value)),
    };
    let sign = match negative {
        Some(true) => "-",
        Some(false) if spec.plus => "+",
        Some(false) if spec.space => " ",
        _ => "",
    };
    let missing = spec.width.saturating_sub(sign.len() + body.chars().count());
    let zeros = spec.zero && !spec.minus;
    let before = if spec.minus || zeros { 0 } else { missing };
    out.extend(std::iter::repeat_n(' ', before));
    out.push_str(sign);
    out.extend(std::iter::repeat_n('0', if zeros { missing } else { 0 }));
    out.push_str(&body);
    out.extend(std::iter::repeat_n(' ', if spec.minus { missing } else { 0 }));
    Ok(())
}

/// A number that is not negative; six digits after the point unless told otherwise, and as many as it takes for `%v`.
fn double(verb: u8, number: f64, precision: Option<usize>) -> String {
    match verb {
        b'f' | b'F' => format!("{number:.*}", precision.unwrap_or(6)),
        b'v' => {
            let scientific = format!("{number:e}");
            let exponent: i32 =
                scientific.rsplit_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
            // As Go does.
            if (-4..6).contains(&exponent) { format!("{number}") } else { with_exponent(&scientific, 'e') }
        }
        b'E' => with_exponent(&format!("{number:.*e}", precision.unwrap_or(6)), 'E'),
        _ => with_exponent(&format!("{number:.*e}", precision.unwrap_or(6)), 'e'),
    }
}

/// `1.5e7` with a sign and two digits at least, as in `1.5e+07`.
fn with_exponent(scientific: &str, mark: char) -> String {
    let (mantissa, exponent) = scientific.rsplit_once('e').unwrap_or((scientific, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}{mark}{sign}{digits:0>2}")
}
