//! Retaining, splitting, merging and building requests as bytes is doing so with the messages.

#![no_main]

use nyquist_core::wire::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::reshape(data));
