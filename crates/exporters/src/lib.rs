//! nyquist-exporters

pub mod prometheus_mapping;
