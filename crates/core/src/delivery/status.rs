//! How an exporter is doing, and saying so without flooding the log.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::batch::Code;

/// How a component is doing: what health checks read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Since when nothing has succeeded; `None` while all is well.
    pub failing_since: Option<std::time::Instant>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// It will not mend by itself: credentials, a wrong address.
    pub is_permanent: bool,
}

#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    failed_attempts: u64,
    last_error: Option<String>,
    is_permanent: bool,
}

/// Follows outages: one warning when one begins, one line when it ends.
#[derive(Debug)]
pub struct Health {
    exporter: String,
    signal: &'static str,
    endpoint: String,
    failing: AtomicBool,
    outage: Mutex<Outage>,
}

impl Health {
    /// An exporter that nothing has failed yet.
    #[must_use]
    pub fn new(exporter: String, signal: &'static str, endpoint: String) -> Self {
        Self { exporter, signal, endpoint, failing: AtomicBool::new(false), outage: Mutex::default() }
    }

    /// An attempt failed in a way that may pass. `retried` tells the reader what becomes of the data.
    pub fn failed(&self, error: &str, retried: bool) {
        let mut outage = self.outage.lock();
        outage.failed_attempts += 1;
        outage.is_permanent = false;
        outage.last_error = Some(error.to_owned());
        let first = outage.since.is_none();
        outage.since.get_or_insert_with(Instant::now);
        self.failing.store(true, Ordering::Release);
        drop(outage);
        if first && retried {
            tracing::warn!(
                exporter = self.exporter,
                signal = self.signal,
                error,
                "cannot reach {}, retrying; data is queued",
                self.endpoint
            );
        } else if first {
            tracing::warn!(exporter = self.exporter, signal = self.signal, error, "cannot reach {}", self.endpoint);
        }
    }

    /// The backend refused for good. If that was not for what the request holds but for who asks, or
    /// where, it will refuse everything until somebody mends it.
    pub fn refused(&self, code: Code, error: &str) {
        if !matches!(code, Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented | Code::NotFound) {
            return;
        }
        let mut outage = self.outage.lock();
        outage.failed_attempts += 1;
        outage.is_permanent = true;
        outage.last_error = Some(error.to_owned());
        outage.since.get_or_insert_with(Instant::now);
        self.failing.store(true, Ordering::Release);
    }

    /// An attempt reached the backend and was taken.
    pub fn succeeded(&self) {
        if !self.failing.load(Ordering::Acquire) {
            return;
        }
        let mut outage = self.outage.lock();
        let Some(since) = outage.since.take() else { return };
        let failed_attempts = std::mem::take(&mut outage.failed_attempts);
        self.failing.store(false, Ordering::Release);
        drop(outage);
        let outage = since.elapsed();
        tracing::info!(
            exporter = self.exporter,
            signal = self.signal,
            failed_attempts,
            outage_seconds = outage.as_secs_f64(),
            "{} takes data again",
            self.endpoint
        );
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let outage = self.outage.lock();
        Status {
            failing_since: outage.since.map(Instant::into_std),
            last_error: outage.last_error.clone(),
            is_permanent: outage.since.is_some() && outage.is_permanent,
        }
    }
}

/// Lets one line through every ten seconds, and counts what it held back.
#[derive(Debug, Default)]
pub struct LogGate(Mutex<Gate>);

#[derive(Debug, Default)]
struct Gate {
    last: Option<Instant>,
    requests: u64,
    items: u64,
}

/// What a line stands for: everything since the line before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// How many events.
    pub requests: u64,
    /// How many items.
    pub items: u64,
}

impl LogGate {
    const INTERVAL: Duration = Duration::from_secs(10);

    /// Counts an event of `items` items. If a line is due: what it should say.
    pub fn event(&self, items: usize) -> Option<Since> {
        let mut gate = self.0.lock();
        gate.requests += 1;
        gate.items += items as u64;
        let now = Instant::now();
        if gate.last.is_some_and(|last| now.duration_since(last) < Self::INTERVAL) {
            return None;
        }
        gate.last = Some(now);
        Some(gate.take())
    }

    /// What no line has said yet, if anything.
    pub fn rest(&self) -> Option<Since> {
        Some(self.0.lock().take()).filter(|since| since.requests > 0)
    }
}

impl Gate {
    fn take(&mut self) -> Since {
        Since { requests: std::mem::take(&mut self.requests), items: std::mem::take(&mut self.items) }
    }
}
