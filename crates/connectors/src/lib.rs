//! Nyquist's connectors: the end of some pipelines and the beginning of others. One folder each, named
//! as in YAML.

pub mod forward;
pub mod span_metrics;
