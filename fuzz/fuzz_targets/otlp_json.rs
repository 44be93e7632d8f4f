//! Any text is OTLP/JSON that becomes OTLP within the limit, or is refused.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nyquist_receivers::otlp::fuzzing::otlp_json(data));
