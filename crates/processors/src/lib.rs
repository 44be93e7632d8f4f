//! Nyquist's processors.

pub mod attributes;
pub mod batch;
pub mod memory_limiter;
pub mod resource;

#[cfg(test)]
mod test_util;
