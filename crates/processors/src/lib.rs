//! Nyquist's processors.

pub mod batch;
pub mod memory_limiter;

#[cfg(test)]
mod test_util;
