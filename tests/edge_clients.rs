//! The edge of the real binary: who gets in, over what, and what becomes of who they are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

#[path = "edge/certificates.rs"]
mod certificates;
#[path = "edge/connections.rs"]
mod connections;
#[path = "edge/identity.rs"]
mod identity;
#[path = "edge/keys.rs"]
mod keys;
#[path = "edge/passwords.rs"]
mod passwords;

use prost::Message;
use support::otlp::{trace, traces_request};
use support::otlp_client::{Outcome, TRACES, call_over, frame};
use tokio::net::TcpStream;

/// `what`, run on a runtime of its own.
fn block_on<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(what)
}

/// One trace of two spans, as protobuf.
fn message(number: u64) -> Vec<u8> {
    traces_request("edge", trace(number, 2)).encode_to_vec()
}

/// Sends a trace over a new connection to `port`, with `headers`.
fn export(port: u16, number: u64, headers: &[(&str, &str)]) -> Outcome {
    let body = frame(false, &message(number));
    let outcome = block_on(async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
        call_over(stream, TRACES, headers, body).await
    });
    outcome.expect("a status")
}
