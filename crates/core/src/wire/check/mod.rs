//! The ingress check: what may enter the pipeline as bytes.
//!
//! One pass over a request accepts exactly what prost accepts when it decodes the request into
//! the types of `opentelemetry-proto`, with one limit of our own: values (`AnyValue`) may nest
//! [`MAX_VALUE_DEPTH`] deep. So whoever decodes later, here or behind us, will succeed, and views
//! need no errors. What prost's rules are:
//!
//! - a field that is known must have its wire type; repeated numbers may be packed or not;
//! - strings must be UTF-8, also those that a later occurrence replaces;
//! - keys fit 32 bits and have a number; varints fit 64 bits;
//! - unknown fields are skipped, groups among them, which must end as they began;
//! - messages and groups nest at most 100 deep, the request included.
//!
//! Performance: the attributes of a span are most of it. One that has the usual shape (key and
//! value once, lengths below 128, ASCII) is checked by comparing a few bytes; anything else takes
//! the general path.

mod envelope;
mod keys;
mod logs;
mod metrics;
mod reader;
mod text;
mod traces;
mod values;

pub(super) use traces::{is_span_id, is_trace_id};

use super::cursor::Malformed;
use crate::batch::Signal;

/// How deep values may nest: an attribute's value is the first level, what is in a list in it
/// the second.
pub const MAX_VALUE_DEPTH: u32 = 32;

/// What the check learned of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many spans, data points or log records it holds.
    pub items: usize,
    /// How many of its spans have a trace id or span id that is zero or of the wrong length;
    /// [`without_invalid_ids`](super::without_invalid_ids) removes them. 0 for metrics and logs.
    pub invalid_ids: usize,
    /// Whether a list value came in several pieces, which views cannot show as one:
    /// [`join_split_values`](super::join_split_values) joins them. No known client writes this.
    pub split_values: bool,
    /// Whether a trace id is neither the first nor the last field of its span, or is one of several. If not, as
    /// nearly always, [`SpanView::edge_trace_id`](super::SpanView::edge_trace_id) reads it.
    pub inner_ids: bool,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The bytes are not protobuf.
    #[error("{message}: {error}")]
    Malformed {
        /// The message in which it was found.
        message: &'static str,
        /// What is wrong.
        error: Malformed,
    },
    /// A known field has another type than it should have.
    #[error("{message}: field {number} has wire type {wire_type}, which is not its own")]
    WireType {
        /// The message in which it was found.
        message: &'static str,
        /// The number of the field.
        number: u32,
        /// The wire type that was met.
        wire_type: u8,
    },
    /// A string is not UTF-8.
    #[error("{field} is not valid UTF-8")]
    Utf8 {
        /// Which field of which message.
        field: &'static str,
    },
    /// Values nest deeper than [`MAX_VALUE_DEPTH`].
    #[error("a value nests deeper than {MAX_VALUE_DEPTH} levels: flatten it")]
    ValueDepth,
    /// Messages nest deeper than decoders allow.
    #[error("{message}: messages nest deeper than 100 levels")]
    Depth {
        /// The message in which it was found.
        message: &'static str,
    },
}

/// Errors are rare and results are many: a pointer travels in a register.
type Check<T = ()> = Result<T, Box<CheckError>>;

/// Checks the OTLP export request (equally the `*Data` message) in `bytes`.
///
/// # Errors
/// If prost would not decode it, or if values nest deeper than [`MAX_VALUE_DEPTH`].
pub fn check(signal: Signal, bytes: &[u8]) -> Result<Checked, CheckError> {
    let mut checked = Checked::default();
    let result = match signal {
        Signal::Traces => traces::request(bytes, &mut checked),
        Signal::Metrics => metrics::request(bytes, &mut checked),
        Signal::Logs => logs::request(bytes, &mut checked),
    };
    match result {
        Ok(()) => Ok(checked),
        Err(error) => Err(*error),
    }
}
