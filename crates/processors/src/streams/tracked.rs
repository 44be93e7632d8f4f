//! The streams of a processor for as long as it runs: those that nothing comes for are given up, and gauges
//! tell how many there are.

use std::sync::Arc;

use nyquist_core::clock::Clock;
use nyquist_core::component::Host;
use nyquist_core::telemetry::{Share, UpDown};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Duration, MissedTickBehavior};

use super::bounded::{Bounded, HeapSize};
use crate::skew::SkewLimit;

/// How often stale streams are looked for, at the least.
const SWEEP: Duration = Duration::from_secs(60);

/// What is kept of a stream, and when it was used.
pub(crate) trait Aging: HeapSize + Send + 'static {
    /// When its last point came, by the processor's clock.
    fn last_seen(&self) -> Duration;

    /// The time that the horizon of its shard is not before once it is given up: see [`Bounded::sweep`].
    fn horizon(&self) -> u64 {
        0
    }
}

/// Streams, shared with the task that sweeps them.
pub(crate) struct Tracked<T> {
    state: Arc<State<T>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct State<T> {
    streams: Bounded<T>,
    /// Zero is never.
    max_stale: Duration,
    clock: Arc<dyn Clock>,
    tracked: Share,
    bytes: Share,
}

impl<T: Aging> Tracked<T> {
    /// Streams that are given up `max_stale` after their last point (zero: never). `gauge` makes a gauge of a
    /// name and its help.
    pub(crate) fn new(
        streams: Bounded<T>,
        max_stale: Duration,
        clock: Arc<dyn Clock>,
        gauge: impl Fn(&str, &str) -> UpDown,
    ) -> Self {
        let tracked = Share::new(gauge("streams_tracked", "Streams that are tracked now."));
        let bytes = Share::new(gauge("state_bytes", "Bytes that they take."));
        let state = State { streams, max_stale, clock, tracked, bytes };
        Self { state: Arc::new(state), task: Mutex::default() }
    }

    pub(crate) fn streams(&self) -> &Bounded<T> {
        &self.state.streams
    }

    /// The time, by the processor's clock.
    pub(crate) fn now(&self) -> Duration {
        self.state.clock.now()
    }

    /// Up to when the times of points that come now are believed.
    pub(crate) fn skew_limit(&self) -> SkewLimit {
        SkewLimit::now(&*self.state.clock)
    }

    /// Sets the gauges.
    pub(crate) fn publish(&self) {
        self.state.publish();
    }

    /// Begins to sweep, for the processor called `name`.
    pub(crate) fn start(&self, host: &Host, name: &str) {
        let state = Arc::clone(&self.state);
        if state.max_stale.is_zero() {
            return;
        }
        let task = async move {
            let mut ticks = tokio::time::interval(SWEEP.min(state.max_stale));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                state.sweep();
            }
        };
        *self.task.lock() = Some(host.runtimes.spawn(host.runtimes.vital(&format!("the sweep of {name}"), task)));
    }

    /// Sweeps no longer.
    pub(crate) fn stop(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl<T: Aging> State<T> {
    /// Gives up the streams that nothing came for.
    fn sweep(&self) {
        let (now, limit) = (self.clock.now(), SkewLimit::now(&*self.clock));
        let is_stale = |stream: &T| now.saturating_sub(stream.last_seen()) > self.max_stale;
        self.streams.sweep(|stream| is_stale(stream).then(|| limit.cap(stream.horizon())));
        self.publish();
    }

    fn publish(&self) {
        self.tracked.set(self.streams.len() as i64);
        self.bytes.set(self.streams.bytes() as i64);
    }
}
