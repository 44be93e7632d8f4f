//! Nyquist's exporters: what takes telemetry out. One folder each, named as in YAML.

pub mod debug;
pub mod file;
pub mod http_client;
pub mod load_balancing;
pub mod nop;
pub mod otlp;
pub mod otlp_http;
pub mod prometheus;
pub mod prometheus_mapping;
pub mod prometheus_remote_write;
#[cfg(test)]
mod testing;
