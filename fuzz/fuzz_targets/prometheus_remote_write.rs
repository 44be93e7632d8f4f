//! Any body is a remote write request within its budget, or is refused.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nyquist_receivers::prometheus_remote_write::fuzzing::request(data));
