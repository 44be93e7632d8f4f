//! Clients that attack the real binary do not harm the others, and idle ones cost little.
//!
//! How long a good client waits depends on the build and on who else uses the machine, so the strict bounds hold
//! for a release build on a quiet one:
//!
//!     cargo build --release
//!     NYQUIST_BIN=$PWD/target/release/nyquist cargo test --test edge_hostile -- --nocapture --test-threads 1
//!
//! `NYQUIST_ATTACKS=JSON` leaves out the attacks whose names do not have this in them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

#[path = "edge/attacks.rs"]
mod attacks;
#[path = "edge/floods.rs"]
mod floods;
#[path = "edge/hoarders.rs"]
mod hoarders;
#[path = "edge/idle.rs"]
mod idle;

use std::path::Component;

use prost::Message;
use support::otlp::{trace, traces_request};

const PROTOBUF: &str = "application/x-protobuf";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn message(service: &str, number: u64) -> Vec<u8> {
    traces_request(service, trace(number, 2)).encode_to_vec()
}

/// Is the binary under test a release build? It says so by where it lies.
fn is_release() -> bool {
    support::gateway::binary().components().any(|part| part == Component::Normal("release".as_ref()))
}
