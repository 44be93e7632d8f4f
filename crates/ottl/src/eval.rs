//! Compiled expressions and their evaluation.

use std::fmt;

use crate::ast::{CompareOp, MathOp};
use crate::compare::compare;
use crate::context::Context;
use crate::functions::prepared::Prepared;
use crate::functions::{Builtin, MAX_ARGUMENTS, call};
use crate::math::{calculate, negate};
use crate::value::{List, Map, Value};

/// Data on which an expression has no value. Making one allocates nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct EvalError {
    message: &'static str,
    found: Option<&'static str>,
}

impl EvalError {
    /// `message`, which `found` does not meet.
    pub(crate) fn new(message: &'static str, found: &Value<'_>) -> Self {
        Self { message, found: Some(found.type_name()) }
    }

    pub(crate) const fn plain(message: &'static str) -> Self {
        Self { message, found: None }
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found {
            Some(found) => write!(out, "{}; found {found}", self.message),
            None => out.write_str(self.message),
        }
    }
}

/// What says yes or no.
#[derive(Debug)]
pub(crate) enum Test<F> {
    Const(bool),
    Compare {
        op: CompareOp,
        left: Code<F>,
        right: Code<F>,
    },
    /// The value has to be a boolean.
    Value(Code<F>),
    All(Box<[Test<F>]>),
    Any(Box<[Test<F>]>),
    Not(Box<Test<F>>),
}

/// What has a value.
#[derive(Debug)]
pub(crate) enum Code<F> {
    Const(Value<'static>),
    Field(F),
    Index {
        base: Box<Code<F>>,
        keys: Box<[Code<F>]>,
    },
    /// A converter whose pattern or format is compiled.
    Prepared {
        target: Box<Code<F>>,
        with: Box<Prepared>,
    },
    /// `ContainsValue` of a list that is known.
    OneOf {
        list: Box<[Value<'static>]>,
        item: Box<Code<F>>,
    },
    Call {
        builtin: Builtin,
        arguments: Box<[Code<F>]>,
    },
    Negate(Box<Code<F>>),
    Math {
        first: Box<Code<F>>,
        rest: Box<[(MathOp, Code<F>)]>,
    },
    List(Box<[Code<F>]>),
    Map(Box<[Entry<F>]>),
}

/// A key of a map and its value.
type Entry<F> = (Box<[u8]>, Code<F>);

impl<F: Copy> Test<F> {
    /// Asks until the answer is known, as Go does: what comes after it cannot fail.
    pub(crate) fn eval<C: Context<Field = F>>(&self, context: &C) -> Result<bool, EvalError> {
        match self {
            Self::Const(value) => Ok(*value),
            Self::Compare { op, left, right } => {
                let left = left.eval(context)?;
                match right {
                    // No longer than the constant, whatever comes.
                    Code::Const(right) => Ok(compare(*op, &left, right)),
                    other => {
                        let right = other.eval(context)?;
                        spend(context, left.size().min(right.size()))?;
                        Ok(compare(*op, &left, &right))
                    }
                }
            }
            Self::Value(code) => match code.eval(context)? {
                Value::Bool(value) => Ok(value),
                other => Err(EvalError::new("a condition has to be a boolean", &other)),
            },
            Self::All(parts) => {
                for part in parts {
                    if !part.eval(context)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Any(parts) => {
                for part in parts {
                    if part.eval(context)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Not(part) => Ok(!part.eval(context)?),
        }
    }
}

impl<F: Copy> Code<F> {
    pub(crate) fn eval<'x, C: Context<Field = F>>(&'x self, context: &'x C) -> Result<Value<'x>, EvalError> {
        match self {
            Self::Const(value) => Ok(borrowed(value)),
            Self::Field(field) => {
                spend(context, context.cost(*field))?;
                Ok(context.get(*field))
            }
            Self::Index { base, keys } => {
                let mut value = base.eval(context)?;
                for key in keys {
                    spend(context, value.size())?;
                    value = match key {
                        Self::Const(key) => value.index(key)?,
                        key => value.index(&key.eval(context)?)?,
                    };
                }
                Ok(value)
            }
            Self::Prepared { target, with } => {
                let target = target.eval(context)?;
                spend(context, target.size())?;
                with.apply(target)
            }
            Self::OneOf { list, item } => {
                let item = item.eval(context)?;
                Ok(Value::Bool(list.iter().any(|known| compare(CompareOp::Equal, known, &item))))
            }
            Self::Call { builtin, arguments } => {
                let mut values = [const { Value::Nil }; MAX_ARGUMENTS];
                for (value, argument) in values.iter_mut().zip(arguments) {
                    *value = argument.eval(context)?;
                    spend(context, value.size())?;
                }
                call(*builtin, values)
            }
            Self::Negate(part) => negate(&part.eval(context)?),
            Self::Math { first, rest } => {
                let mut result = first.eval(context)?;
                for (op, part) in rest {
                    result = calculate(*op, &result, &part.eval(context)?)?;
                }
                Ok(result)
            }
            Self::List(parts) => {
                let values: Result<_, _> = parts.iter().map(|part| part.eval(context)).collect();
                Ok(Value::List(List::Made(values?)))
            }
            Self::Map(parts) => {
                let entries = parts.iter().map(|(key, part)| Ok(((&**key).into(), part.eval(context)?)));
                Ok(Value::Map(Map::Made(entries.collect::<Result<_, EvalError>>()?)))
            }
        }
    }
}

#[inline]
fn spend<C: Context>(context: &C, bytes: usize) -> Result<(), EvalError> {
    if context.spend(bytes) {
        Ok(())
    } else {
        Err(EvalError::plain("too much data has been read for conditions already"))
    }
}

#[inline]
fn borrowed<'x>(value: &'x Value<'static>) -> Value<'x> {
    match value {
        Value::Text(text) => Value::text(text),
        Value::Bytes(bytes) => Value::Bytes((&**bytes).into()),
        other => other.clone(),
    }
}
