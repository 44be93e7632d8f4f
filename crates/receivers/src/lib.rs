//! Nyquist's receivers.

pub mod otlp;
