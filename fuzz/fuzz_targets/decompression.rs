//! Any bytes decode, in every encoding, to no more than the limit, or are refused.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nyquist_core::net::fuzzing::decompression(data));
