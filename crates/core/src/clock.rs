//! Time that tests can drive.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Where code that depends on time reads it from.
pub trait Clock: Send + Sync {
    /// Monotonic time since an arbitrary, fixed start.
    fn now(&self) -> Duration;

    /// Wall-clock time in nanoseconds since the Unix epoch.
    fn unix_nanos(&self) -> u64;
}

/// The clock of the machine.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn unix_nanos(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A clock that moves only when told to: for tests, and for replaying recorded data.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Mutex<Duration>,
    epoch_nanos: u64,
}

impl ManualClock {
    /// A clock that starts at zero, with `epoch_nanos` as the wall-clock time of that moment.
    #[must_use]
    pub fn new(epoch_nanos: u64) -> Arc<Self> {
        Arc::new(Self { now: Mutex::default(), epoch_nanos })
    }

    /// Moves time forward.
    pub fn advance(&self, by: Duration) {
        *self.now.lock() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.now.lock()
    }

    fn unix_nanos(&self) -> u64 {
        self.epoch_nanos + u64::try_from(self.now().as_nanos()).unwrap_or(u64::MAX)
    }
}
