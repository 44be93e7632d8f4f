//! Nyquist's extensions: what stands beside the pipelines. One folder each, named as in YAML.

pub mod health_check;
