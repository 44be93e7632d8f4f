//! Nyquist's extensions: what stands beside the pipelines. One folder each, named as in YAML.

pub mod basicauth;
pub mod bearertokenauth;
pub mod file_storage;
pub mod health_check;
