//! Compression of what comes in, with caps, and of what goes out.

pub mod decode;
pub mod encode;

#[cfg(test)]
mod decode_tests;
