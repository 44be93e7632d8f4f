//! How long to wait between attempts.

use std::time::Duration;

use super::RetryConfig;

/// What a backend may ask for at the most: beyond it is a mistake, and a queue that tries without end would stand still.
const MOST_ASKED: Duration = Duration::from_secs(3600);

/// The waits between the attempts at one request: exponential with jitter, as in the Collector.
///
/// base_0 = `initial_interval`; wait_n is uniform in base_n * (1 ± `randomization_factor`);
/// base_n+1 = min(base_n * `multiplier`, `max_interval`). The cap is on the base: a jittered wait
/// may exceed it.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    multiplier: f64,
    cap: Duration,
    jitter: f64,
}

impl Backoff {
    /// The waits of a request that has not failed yet.
    #[must_use]
    pub fn new(config: &RetryConfig) -> Self {
        Self {
            base: config.initial_interval.0,
            multiplier: config.multiplier,
            cap: config.max_interval.0,
            jitter: config.randomization_factor,
        }
    }

    /// The next wait; at least `asked`, what the backend asked for, which counts for an hour at the most.
    pub fn next_wait(&mut self, asked: Option<Duration>) -> Duration {
        let factor = 1.0 + self.jitter * (2.0 * rand::random::<f64>() - 1.0);
        let wait = scale(self.base, factor);
        self.base = scale(self.base, self.multiplier).min(self.cap);
        wait.max(asked.unwrap_or_default().min(MOST_ASKED))
    }

    /// The next wait of a request that is given up after `limit` (zero: never), of which `elapsed` have passed. A wait
    /// that would end later ends with it, for a last attempt: what a backend asks for may be longer than what is left.
    /// `None` if nothing is left.
    pub fn next_wait_within(
        &mut self,
        limit: Duration,
        elapsed: Duration,
        asked: Option<Duration>,
    ) -> Option<Duration> {
        let wait = self.next_wait(asked);
        if limit.is_zero() {
            return Some(wait);
        }
        let left = limit.checked_sub(elapsed).filter(|left| !left.is_zero())?;
        Some(wait.min(left))
    }
}

/// `duration * factor`, without the panics of `Duration::mul_f64`.
fn scale(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}
