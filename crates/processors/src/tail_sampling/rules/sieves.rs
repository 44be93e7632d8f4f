//! Limits that pick traces by their randomness, so that what is kept can say how many it stands for.
//!
//! A bucket that is asked trace by trace keeps whoever comes while there are tokens, and nobody knows how
//! many that is of all. Here the threshold is set before a trace is looked at, from how full the bucket is
//! and how much has come lately; the trace is kept if its randomness is not below. So each trace has the
//! probability that its threshold says, whatever came before it, and adjusted counts add up.
//!
//! With `tokens` of `capacity` left and a `demand` a second, the probability is
//! `2 * tokens / capacity * rate / demand`: in balance with a half full bucket, all of a bucket in
//! a burst, and little, but never nothing, of an empty one. (The Collector sorts the traces of each of its
//! ticks by randomness and cuts; there are no ticks here.)

use parking_lot::Mutex;

use super::adaptive;
use super::expr::{Facts, Look};
use super::random::{low_bits, rejection_threshold};

const SECOND: f64 = 1e9;
/// How far back demand is looked at, in seconds.
const MEMORY: f64 = 1.0;

/// One limit.
#[derive(Debug)]
pub(super) struct Sieve {
    /// A second.
    rate: f64,
    capacity: f64,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// Below 0 after a trace that was larger than what was left.
    tokens: f64,
    /// A second, an exponential average.
    demand: f64,
    at: u64,
}

impl Sieve {
    pub(super) fn new(rate: u64, capacity: u64) -> Self {
        let capacity = capacity as f64;
        Self { rate: rate as f64, capacity, state: Mutex::new(State { tokens: capacity, demand: 0.0, at: 0 }) }
    }

    /// Is a trace of this `cost` let through? Takes its tokens, unless this is only a question.
    pub(super) fn take(&self, facts: &Facts<'_>, cost: u64, look: &mut Look) -> bool {
        let randomness = facts.extra.given.rv().unwrap_or_else(|| low_bits(facts.id));
        let mut guard = self.state.lock();
        let mut state = self.state_at(*guard, look.now);
        let level = adaptive::level(self.probability(&state));
        let is_kept = randomness >= rejection_threshold(100.0 * adaptive::probability(level));
        if !look.only_ask {
            state.demand += cost as f64 / MEMORY;
            state.tokens -= if is_kept { cost as f64 } else { 0.0 };
            *guard = state;
        }
        if is_kept {
            look.level = look.level.max(level);
        }
        is_kept
    }

    fn state_at(&self, state: State, now: u64) -> State {
        let seconds = now.saturating_sub(state.at) as f64 / SECOND;
        State {
            tokens: (state.tokens + seconds * self.rate).min(self.capacity),
            demand: state.demand * (-seconds / MEMORY).exp(),
            at: state.at.max(now),
        }
    }

    fn probability(&self, state: &State) -> f64 {
        if state.demand <= 0.0 || self.capacity <= 0.0 {
            return if self.capacity > 0.0 { 1.0 } else { 0.0 };
        }
        let filled = (state.tokens / self.capacity).max(0.0);
        (2.0 * filled * self.rate / state.demand).min(1.0)
    }
}
