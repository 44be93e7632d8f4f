//! The decision: may telemetry come in?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nyquist_core::component::Host;
use nyquist_core::delivery::Status;
use nyquist_core::net::admission::Gate;
use nyquist_core::telemetry::UpDown;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::memory::MemorySource;

/// The levels, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Above this the situation is logged as an error.
    pub(super) hard: u64,
    /// At or above this everything is refused.
    pub(super) soft: u64,
    /// Below this, once refusing, telemetry comes in again.
    pub(super) resume: u64,
}

impl Limits {
    pub(super) fn new(hard: u64, spike: u64) -> Self {
        let soft = hard.saturating_sub(spike);
        // An eighth of the spike limit between the two levels, so that the gateway does not
        // flap between refusing and accepting while memory use hovers around one of them.
        Self { hard, soft, resume: soft.saturating_sub(spike / 8) }
    }
}

/// One limiter for each configuration block, shared by the pipelines that list it.
pub(super) struct Limiter {
    limits: Limits,
    source: Box<dyn MemorySource>,
    gate: Arc<Gate>,
    /// Since when it refuses, and at which use.
    refusing_since: Mutex<Option<(std::time::Instant, u64)>>,
    above_hard: AtomicBool,
    users: AtomicUsize,
    task: Mutex<Option<JoinHandle<()>>>,
    gauge: Mutex<UpDown>,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Limiter").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Limiter {
    pub(super) fn new(limits: Limits, source: Box<dyn MemorySource>, gauge: UpDown) -> Arc<Self> {
        Arc::new(Self {
            limits,
            source,
            gate: Arc::default(),
            refusing_since: Mutex::default(),
            above_hard: AtomicBool::new(false),
            users: AtomicUsize::new(0),
            task: Mutex::default(),
            gauge: Mutex::new(gauge),
        })
    }

    pub(super) fn refuses(&self) -> bool {
        !self.gate.is_open()
    }

    /// Shows whether it refuses in `gauge` from now on. A configuration is built more than once, the first
    /// time to check it, each time with metrics of its own.
    pub(super) fn show_in(&self, gauge: UpDown) {
        gauge.set(i64::from(self.refuses()));
        *self.gauge.lock() = gauge;
    }

    /// What receivers look at before they read a body.
    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// How it is doing: refusing is an error that passes.
    pub(super) fn status(&self) -> Status {
        let refusing = self.refusing_since.lock().map(|(since, used)| {
            let soft = self.limits.soft;
            (since, format!("data refused due to high memory usage: {used} bytes of {soft} (soft limit)"))
        });
        let (failing_since, last_error) = refusing.unzip();
        Status { failing_since, last_error, is_permanent: false }
    }

    /// Measures now and every `interval`. The first of several users starts the task.
    pub(super) fn start(self: &Arc<Self>, host: &Host, interval: std::time::Duration) {
        if self.users.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let limiter = Arc::clone(self);
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let measuring = host.runtimes.vital("memory_limiter", async move {
            loop {
                ticks.tick().await;
                limiter.measure();
            }
        });
        *self.task.lock() = Some(host.runtimes.spawn(measuring));
    }

    /// The last of several users ends the task.
    pub(super) fn stop(&self) {
        if self.users.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(task) = self.task.lock().take()
        {
            task.abort();
        }
    }

    /// Compares memory use with the limits.
    pub(super) fn measure(&self) {
        let used = match self.source.used() {
            Ok(used) => used,
            Err(error) => {
                tracing::warn!(%error, "cannot measure memory use; the memory limiter keeps its last decision");
                return;
            }
        };
        let Limits { hard, soft, resume } = self.limits;
        let was_refusing = self.refuses();
        let refusing = if was_refusing { used >= resume } else { used >= soft };
        if refusing != was_refusing {
            self.gate.set_open(!refusing);
            *self.refusing_since.lock() = refusing.then(|| (std::time::Instant::now(), used));
            self.gauge.lock().set(i64::from(refusing));
            if refusing {
                tracing::warn!(used, soft_limit = soft, "memory use is above the soft limit: refusing telemetry");
            } else {
                tracing::info!(used, resume_level = resume, "memory use is back to normal: accepting telemetry");
            }
        }
        let above_hard = used >= hard;
        if above_hard != self.above_hard.swap(above_hard, Ordering::Relaxed) && above_hard {
            tracing::error!(
                used,
                hard_limit = hard,
                "memory use is above the hard limit although telemetry is refused"
            );
        }
    }
}
