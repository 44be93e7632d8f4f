//! Nyquist's exporters: what takes telemetry out. One folder each, named as in YAML.

pub mod debug;
pub mod nop;
pub mod otlp;
pub mod otlp_http;
