//! Compression: what comes in is decoded with a cap on its size, what goes out is encoded at a
//! chosen level.

pub mod decode;
pub mod encode;
mod steps;

#[cfg(test)]
mod decode_tests;
#[cfg(test)]
mod encode_tests;
