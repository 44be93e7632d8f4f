//! Compression: what comes in is decoded with a cap on its size, what goes out is encoded at a
//! chosen level.

pub mod decode;

#[cfg(test)]
mod decode_tests;
