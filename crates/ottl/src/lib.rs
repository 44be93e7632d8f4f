//! The OpenTelemetry Transformation Language, OTTL, over OTLP as it came off the wire.
//!
//! A [`Condition`] is compiled once and evaluated on a [`Context`] that reads the bytes in place:
//! nothing is decoded that is not asked for, and the usual conditions allocate nothing.
//!
//! ```
//! use nyquist_ottl::{Condition, SpanContext, traces};
//!
//! // A span with the name "GET /".
//! let span = b"\x2a\x05GET /";
//! let condition = Condition::compile("name == \"GET /\" and kind != SPAN_KIND_CLIENT", &traces::SPAN)?;
//! assert_eq!(condition.eval(&SpanContext::new(span, &[], &[])), Ok(true));
//!
//! let problem = Condition::compile("nam == \"GET /\"", &traces::SPAN).unwrap_err();
//! assert_eq!(problem.message, "span has no field `nam`; did you mean name?");
//! # Ok::<(), nyquist_ottl::Problem>(())
//! ```
//!
//! - [`parse_condition`], [`parse_statement`]: from text to [`ast`];
//! - [`Condition::compile`]: names are resolved by a [`Schema`], constants calculated, patterns
//!   compiled; every [`Problem`] has its place;
//! - [`Condition::eval`]: the Collector's semantics; see the README for what is and is not there.

pub mod ast;
mod compare;
mod compile;
mod condition;
mod context;
mod convert;
mod eval;
mod functions;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod lex;
mod math;
mod parse;
mod problem;
#[cfg(test)]
mod tests;
pub mod traces;
mod value;

pub use condition::Condition;
pub use context::{Context, PathEntry, Paths, Schema};
pub use eval::EvalError;
pub use parse::{MAX_DEPTH, MAX_LENGTH, parse_condition, parse_statement};
pub use problem::Problem;
pub use traces::SpanContext;
pub use value::{List, Map, Value};
