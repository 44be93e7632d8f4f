//! Nyquist's extensions: what stands beside the pipelines. One folder each, named as in YAML.

pub mod basicauth;
pub mod bearertokenauth;
pub mod file_storage;
pub mod headers_setter;
pub mod health_check;
pub mod oidc;
