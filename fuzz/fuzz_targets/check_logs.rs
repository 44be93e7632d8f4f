//! The ingress check and the views of logs agree with prost on any bytes.

#![no_main]

use nyquist_core::batch::Signal;
use nyquist_core::wire::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::check_and_views(Signal::Logs, data));
