//! Any page is read, or refused with the line that is wrong; what was scraped ends.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nyquist_receivers::prometheus::fuzzing::exposition(data));
