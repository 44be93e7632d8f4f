//! Any OTLP/JSON document is refused, or becomes a request that the ingress check takes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nyquist_receivers::otlp::fuzzing::document(data));
