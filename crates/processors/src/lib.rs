//! Nyquist's processors: what works on telemetry as it passes. One folder each, named as in YAML.

mod accumulate;
pub mod attributes;
pub mod batch;
pub mod cardinality_limit;
pub mod cumulative_to_delta;
pub mod delta_to_cumulative;
pub mod memory_limiter;
pub mod resource;
mod skew;
mod streams;
pub mod tail_sampling;

#[cfg(test)]
mod metadata_tests;
#[cfg(test)]
mod test_util;
