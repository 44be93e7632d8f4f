//! Nyquist: an OpenTelemetry gateway collector.
//!
//! The binary is this library with the built-in components. A gateway with components of your own
//! is a program of a few lines: see `examples/custom-processor`.

pub mod cli;
pub mod components;
pub mod run;
