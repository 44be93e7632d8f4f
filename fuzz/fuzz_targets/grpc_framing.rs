//! Any body is one gRPC message within the limit, or is refused.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nyquist_core::net::fuzzing::grpc_framing(data));
