//! nyquist-exporters

pub mod prometheus_mapping;
pub mod prometheus_remote_write;
