//! A storage directory of foreign bytes is opened and read without a panic, and gives back only what was written.

#![no_main]

use nyquist_core::storage::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::segment_reader(data));
