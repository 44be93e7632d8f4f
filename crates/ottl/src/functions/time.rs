//! Times (nanoseconds since the Unix epoch, UTC) and durations (nanoseconds).

use nyquist_core::clock::{Clock, SystemClock};

use super::Builtin;
use super::calendar::{civil, weekday};
use crate::eval::EvalError;
use crate::value::Value;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

pub(super) fn now() -> i64 {
    i64::try_from(SystemClock::default().unix_nanos()).unwrap_or(i64::MAX)
}

/// The error where `found` is not a time.
pub(super) fn expected(found: &Value<'_>) -> EvalError {
    EvalError::new("a time is expected, such as span.start_time or Now()", found)
}

pub(super) fn unix(seconds: &Value<'_>, nanos: &Value<'_>) -> Result<Value<'static>, EvalError> {
    match (seconds, nanos) {
        (Value::Int(seconds), Value::Nil) => Ok(Value::Time(seconds.saturating_mul(SECOND))),
        (Value::Int(seconds), Value::Int(nanos)) => {
            Ok(Value::Time(seconds.saturating_mul(SECOND).saturating_add(*nanos)))
        }
        (Value::Int(_), other) | (other, _) => Err(EvalError::new("seconds and nanoseconds are integers", other)),
    }
}

pub(super) fn of_time(builtin: Builtin, value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let &Value::Time(nanos) = value else {
        return Err(expected(value));
    };
    let (days, of_day) = (nanos.div_euclid(DAY), nanos.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    Ok(Value::Int(match builtin {
        Builtin::UnixMicro => nanos.div_euclid(1_000),
        Builtin::UnixMilli => nanos.div_euclid(1_000_000),
        Builtin::UnixSeconds => nanos.div_euclid(SECOND),
        Builtin::Year => year,
        Builtin::Month => month,
        Builtin::Day => day,
        Builtin::Weekday => weekday(days),
        Builtin::Hour => of_day / (3_600 * SECOND),
        Builtin::Minute => of_day / (60 * SECOND) % 60,
        Builtin::Second => of_day / SECOND % 60,
        Builtin::Nanosecond => of_day % SECOND,
        _ => nanos,
    }))
}

pub(super) fn of_duration(builtin: Builtin, value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let &Value::Duration(nanos) = value else {
        return Err(EvalError::new("a duration is expected, such as Duration(\"1s\")", value));
    };
    let fraction = |unit: i64| Value::Double((nanos / unit) as f64 + (nanos % unit) as f64 / unit as f64);
    Ok(match builtin {
        Builtin::Microseconds => Value::Int(nanos / 1_000),
        Builtin::Milliseconds => Value::Int(nanos / 1_000_000),
        Builtin::Seconds => fraction(SECOND),
        Builtin::Minutes => fraction(60 * SECOND),
        Builtin::Hours => fraction(3_600 * SECOND),
        _ => Value::Int(nanos),
    })
}

/// The last multiple of `duration` since the year 1, as Go counts, up to `time`.
pub(super) fn truncate(time: &Value<'_>, duration: &Value<'_>) -> Result<Value<'static>, EvalError> {
    const SINCE_YEAR_1: i128 = 62_135_596_800 * SECOND as i128;
    match (time, duration) {
        // As it was: there are no multiples.
        (&Value::Time(nanos), &Value::Duration(step)) if step <= 0 => Ok(Value::Time(nanos)),
        (&Value::Time(nanos), &Value::Duration(step)) => {
            let over = (i128::from(nanos) + SINCE_YEAR_1).rem_euclid(i128::from(step));
            Ok(Value::Time(i64::try_from(i128::from(nanos) - over).unwrap_or(i64::MIN)))
        }
        (Value::Time(_), other) => Err(EvalError::new("a duration is expected, such as Duration(\"1m\")", other)),
        (other, _) => Err(expected(other)),
    }
}
