//! What the whole-binary tests share: the gateway as a process, the real peers, a backend that can
//! misbehave, and clients. Tests wait on conditions (`eventually`), never on the clock.

// Every test file compiles this module for itself and uses a part of it.
#![allow(dead_code, unused_imports, reason = "each test uses a part of it")]

pub(crate) mod backend;
pub(crate) mod clients;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod http2;
pub(crate) mod jaeger;
pub(crate) mod metrics;
pub(crate) mod otlp;
pub(crate) mod otlp_client;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod prometheus;

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) use backend::{Backend, Behaviour};
pub(crate) use gateway::Gateway;
pub(crate) use jaeger::Jaeger;
pub(crate) use otlp_client::OtlpClient;
pub(crate) use prometheus::Prometheus;

/// How long a condition may take to come true: generous, because CI machines are slow and shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `probe` again and again until it gives a value; fails with its last complaint.
pub(crate) fn eventually<T, E: Debug>(what: &str, probe: impl FnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, probe)
}

/// `eventually` with a patience of its own.
pub(crate) fn eventually_within<T, E: Debug>(
    patience: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        let complaint = match probe() {
            Ok(value) => return value,
            Err(complaint) => complaint,
        };
        assert!(Instant::now() < deadline, "waited {patience:?} for: {what}; last answer: {complaint:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the long forms of the tests run (`./test --long`).
pub(crate) fn long_run() -> bool {
    std::env::var("NYQUIST_LONG").is_ok_and(|value| value == "1")
}

/// Where `tests/setup` put the peers and the SDKs.
pub(crate) fn cache() -> PathBuf {
    let chosen = std::env::var_os("NYQUIST_CACHE").map(PathBuf::from);
    let cache = chosen.unwrap_or_else(|| {
        let home = std::env::var_os("HOME").expect("neither NYQUIST_CACHE nor HOME is set");
        PathBuf::from(home).join(".cache/nyquist")
    });
    assert!(cache.is_dir(), "{} does not exist: run tests/setup first", cache.display());
    cache
}

/// A program that `tests/setup` built.
pub(crate) fn peer(name: &str) -> PathBuf {
    let program = cache().join("bin").join(name);
    assert!(program.is_file(), "{} does not exist: run tests/setup first", program.display());
    program
}

/// Nanoseconds since 1970: span and point times.
pub(crate) fn unix_nanos() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "the tests live in real time")]
    let now = std::time::SystemTime::now();
    let since_epoch = now.duration_since(std::time::UNIX_EPOCH).expect("the clock is after 1970");
    u64::try_from(since_epoch.as_nanos()).expect("before 2554")
}
