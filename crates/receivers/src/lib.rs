//! Nyquist's receivers.

pub mod otlp;
pub mod otlp_json_file;
pub mod prometheus;
pub mod prometheus_remote_write;
#[cfg(test)]
mod shown;
