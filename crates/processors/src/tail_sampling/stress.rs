//! Stress: when the buffer stays nearly full, new traces are decided at once, by their id.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::config::StressConfig;

/// Whether the buffer is under stress; with hysteresis.
#[derive(Debug)]
pub(super) struct Stress {
    config: StressConfig,
    /// In nanoseconds.
    minimum: u64,
    /// Nothing is going on: neither stress nor a time that counts towards it.
    calm: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when the buffer has been nearly full, or under stress.
    since: Option<u64>,
    active: bool,
}

/// What a look at the buffer's level has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    On,
    Off,
    /// As before: under stress or not.
    None(bool),
}

impl Stress {
    pub(super) fn new(config: StressConfig) -> Self {
        let minimum = u64::try_from(config.minimum_duration.0.as_nanos()).unwrap_or(u64::MAX);
        Self { config, minimum, calm: AtomicBool::new(true), state: Mutex::default() }
    }

    pub(super) fn config(&self) -> &StressConfig {
        &self.config
    }

    /// At `now` (nanoseconds) the buffer is full to `level` percent.
    pub(super) fn look(&self, level: u32, now: u64) -> Change {
        if level < self.config.activation_percentage && self.calm.load(Ordering::Relaxed) {
            return Change::None(false);
        }
        let mut state = self.state.lock();
        let long_enough = state.since.is_some_and(|since| now.saturating_sub(since) >= self.minimum);
        let change = if state.active {
            let over = level < self.config.deactivation_percentage && long_enough;
            if over { Change::Off } else { Change::None(true) }
        } else if level >= self.config.activation_percentage {
            state.since.get_or_insert(now);
            if long_enough || self.minimum == 0 { Change::On } else { Change::None(false) }
        } else {
            if level < self.config.deactivation_percentage {
                state.since = None;
            }
            Change::None(false)
        };
        match change {
            Change::On => *state = State { since: Some(now), active: true },
            Change::Off => *state = State::default(),
            Change::None(_) => {}
        }
        self.calm.store(state.since.is_none(), Ordering::Relaxed);
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nyquist_core::config::Duration;

    #[test]
    fn it_begins_when_the_buffer_stays_nearly_full_and_ends_well_below_that() {
        let config = StressConfig { minimum_duration: Duration::from_secs(10), ..StressConfig::default() };
        let stress = Stress::new(config);
        let look = |level, second: u64| stress.look(level, second * 1_000_000_000);
        assert_eq!(look(95, 0), Change::None(false));
        assert_eq!(look(74, 5), Change::None(false), "that was too short");
        assert_eq!(look(90, 6), Change::None(false));
        assert_eq!(look(80, 12), Change::None(false), "a little below does not begin anew");
        assert_eq!(look(89, 17), Change::None(false), "nor does it begin below");
        assert_eq!(look(90, 17), Change::On);
        assert_eq!(look(10, 20), Change::None(true), "for ten seconds at least");
        assert_eq!(look(75, 40), Change::None(true), "and until it is well below");
        assert_eq!(look(74, 41), Change::Off);
        assert_eq!(look(89, 42), Change::None(false));
        assert_eq!(look(90, 60), Change::None(false), "the time counts anew");
        assert_eq!(look(90, 70), Change::On);
    }
}
