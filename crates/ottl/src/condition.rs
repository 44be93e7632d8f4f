//! A condition, compiled.

use crate::compile::Compiler;
use crate::context::{Context, Schema};
use crate::eval::{EvalError, Test};
use crate::parse::parse_condition;
use crate::problem::Problem;

/// A condition on data whose fields are named by `F`.
#[derive(Debug)]
pub struct Condition<F> {
    source: Box<str>,
    test: Test<F>,
}

impl<F: Copy + PartialEq + 'static> Condition<F> {
    /// Reads and checks `source`.
    ///
    /// # Errors
    /// If it is not a condition on what `schema` describes.
    pub fn compile(source: &str, schema: &Schema<F>) -> Result<Self, Problem> {
        let node = parse_condition(source)?;
        let test = Compiler { source, schema }.test(&node)?;
        Ok(Self { source: source.into(), test })
    }

    /// What it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Does it hold? Conditions on fields, attributes, patterns and times allocate nothing.
    ///
    /// # Errors
    /// If a part that had to be evaluated has no value on this data.
    pub fn eval<C: Context<Field = F>>(&self, context: &C) -> Result<bool, EvalError> {
        self.test.eval(context)
    }
}
