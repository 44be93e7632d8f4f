//! Nyquist's processors.

pub mod attributes;
pub mod batch;
pub mod cardinality_limit;
pub mod memory_limiter;
pub mod resource;

#[cfg(test)]
mod test_util;
