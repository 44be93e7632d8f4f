//! Any text is an expression, or is refused with a place in it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nyquist_ottl::fuzzing::expression(data));
