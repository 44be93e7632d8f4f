//! OTLP/JSON (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).
//!
//! One table ([`schema`]) says which JSON name is which field of which type. [`write()`] follows it from
//! protobuf to JSON; the `otlp` receiver follows it the other way.

pub mod schema;
#[cfg(test)]
mod tests;
mod write;

pub use write::{WriteError, write};
