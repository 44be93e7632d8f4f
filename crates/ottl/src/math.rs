//! `+ - * /` on numbers, times and durations.
//!
//! As in Go: integers wrap around and division of integers truncates; an integer and a double make a
//! double. Times and durations saturate.

use crate::ast::MathOp;
use crate::eval::EvalError;
use crate::value::Value;

/// `left op right`.
#[inline]
pub(crate) fn calculate(op: MathOp, left: &Value<'_>, right: &Value<'_>) -> Result<Value<'static>, EvalError> {
    match (left, right) {
        (&Value::Int(left), &Value::Int(right)) => integers(op, left, right).map(Value::Int),
        (&Value::Double(left), &Value::Double(right)) => doubles(op, left, right),
        (&Value::Int(left), &Value::Double(right)) => doubles(op, left as f64, right),
        (&Value::Double(left), &Value::Int(right)) => doubles(op, left, right as f64),
        (&Value::Time(left), &Value::Time(right)) if op == MathOp::Subtract => {
            Ok(Value::Duration(left.saturating_sub(right)))
        }
        (&Value::Time(left), &Value::Duration(right)) => times(op, left, right).map(Value::Time),
        (&Value::Duration(left), &Value::Time(right)) if op == MathOp::Add => {
            Ok(Value::Time(left.saturating_add(right)))
        }
        (&Value::Duration(left), &Value::Duration(right)) => times(op, left, right).map(Value::Duration),
        (Value::Int(_) | Value::Double(_) | Value::Time(_) | Value::Duration(_), wrong) | (wrong, _) => {
            Err(EvalError::new("numbers go with numbers, times and durations with one another", wrong))
        }
    }
}

/// `-value`.
pub(crate) fn negate(value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    match value {
        Value::Int(number) => Ok(Value::Int(number.wrapping_neg())),
        Value::Double(number) => Ok(Value::Double(-number)),
        other => Err(EvalError::new("only numbers have an opposite", other)),
    }
}

fn integers(op: MathOp, left: i64, right: i64) -> Result<i64, EvalError> {
    match op {
        MathOp::Add => Ok(left.wrapping_add(right)),
        MathOp::Subtract => Ok(left.wrapping_sub(right)),
        MathOp::Multiply => Ok(left.wrapping_mul(right)),
        MathOp::Divide if right == 0 => Err(EvalError::plain("division by zero")),
        MathOp::Divide => Ok(left.wrapping_div(right)),
    }
}

fn doubles(op: MathOp, left: f64, right: f64) -> Result<Value<'static>, EvalError> {
    let result = match op {
        MathOp::Add => left + right,
        MathOp::Subtract => left - right,
        MathOp::Multiply => left * right,
        MathOp::Divide if right == 0.0 => return Err(EvalError::plain("division by zero")),
        MathOp::Divide => left / right,
    };
    Ok(Value::Double(result))
}

fn times(op: MathOp, left: i64, right: i64) -> Result<i64, EvalError> {
    match op {
        MathOp::Add => Ok(left.saturating_add(right)),
        MathOp::Subtract => Ok(left.saturating_sub(right)),
        MathOp::Multiply | MathOp::Divide => Err(EvalError::plain("times and durations are only added and subtracted")),
    }
}
