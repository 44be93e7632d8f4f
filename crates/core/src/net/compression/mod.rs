//! Compression of what comes in, with caps, and of what goes out.

pub mod encode;
