//! Conditions of every kind have an answer, or an error, on any bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nyquist_ottl::fuzzing::data(data));
