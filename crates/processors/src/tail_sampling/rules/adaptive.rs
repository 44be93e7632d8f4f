//! Rates that follow a goal: more of rare keys, less of frequent ones.
//!
//! The algorithm is that of `EMASampleRate` and `EMAThroughput` in Honeycomb's dynsampler-go
//! (<https://github.com/honeycombio/dynsampler-go>): an exponential moving average of what each key
//! brings per interval; the goal is shared in proportion to the logarithm of these averages, and what
//! a key does not use goes to those after it. Different here: probabilities instead of whole rates,
//! on a grid of about 1 % (see [`probability`]); rare keys are served first, so that the goal is met;
//! which traces are kept is up to their ids; keys beyond the maximum share one, and of those that are known the largest stay.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::expr::{Facts, Look};
use super::marks;

/// Steps of the grid of probabilities: from 1 down to 1 in 65,000.
pub(super) const LEVELS: u16 = 1024;
const LEVELS_PER_HALF: f64 = 64.0;
/// The key of all that are too many.
const OVERFLOW: u64 = 0;
/// So many times what is usual is a burst.
const BURST_MULTIPLE: f64 = 2.0;
/// A burst is noticed after this part of the interval.
const BURST_DELAY: u64 = 8;

/// The probability of a level.
pub(super) fn probability(level: u16) -> f64 {
    (-f64::from(level) / LEVELS_PER_HALF).exp2()
}

/// The level whose probability is nearest.
pub(super) fn level(probability: f64) -> u16 {
    let level = (-probability.clamp(0.0, 1.0).log2() * LEVELS_PER_HALF).round();
    if level < f64::from(LEVELS - 1) { level as u16 } else { LEVELS - 1 }
}

/// What is aimed at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    /// A part of all traces, from 0 to 1.
    Part(f64),
    TracesPerSecond(f64),
    SpansPerSecond(f64),
}

/// How a rate adapts.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) goal: Goal,
    /// Nanoseconds.
    pub(super) interval: u64,
    /// Of the newest interval in the average.
    pub(super) weight: f64,
    pub(super) max_keys: usize,
    /// The probability before anything is known.
    pub(super) initial: f64,
    /// Places of the keys among the marks of a trace.
    pub(super) keys: Vec<usize>,
}

/// One rule's rates by key, shared by all shards.
#[derive(Debug)]
pub(super) struct Adaptive {
    settings: Settings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the interval that runs.
    counts: HashMap<u64, f64>,
    total: f64,
    began: u64,
    last_seen: u64,
    averages: HashMap<u64, f64>,
    average_total: f64,
    levels: HashMap<u64, u16>,
    computed: bool,
}

impl Adaptive {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, state: Mutex::default() }
    }

    /// The level of the trace's key; the trace is counted, unless this is only a question.
    pub(super) fn level(&self, facts: &Facts<'_>, look: &Look) -> u16 {
        let key = marks::combine(&self.settings.keys, &facts.marks);
        let mut state = self.state.lock();
        if !look.only_ask {
            state.turn(look.now, &self.settings);
            let cost = if matches!(self.settings.goal, Goal::SpansPerSecond(_)) { facts.spans as f64 } else { 1.0 };
            state.count(key, cost, self.settings.max_keys);
        }
        state.level(key).unwrap_or_else(|| level(self.settings.initial))
    }

    /// What its tables may take, in bytes of memory: four of at most twice so many keys, which have room for
    /// twice as many when they have just grown.
    pub(super) fn most_bytes(&self) -> usize {
        const ENTRY: usize = size_of::<(u64, f64)>() + 1;
        4 * 2 * 2 * (self.settings.max_keys + 2) * ENTRY
    }

    /// How many keys have a rate of their own.
    pub(super) fn keys(&self) -> usize {
        self.state.lock().levels.len()
    }
}

impl State {
    fn level(&self, key: u64) -> Option<u16> {
        let known = self.levels.get(&key).copied();
        // A new key is a rare one; one that is not counted by itself is one of many.
        known.or_else(|| match self.computed {
            true if self.counts.contains_key(&key) => Some(0),
            true => self.levels.get(&OVERFLOW).copied(),
            false => None,
        })
    }

    fn count(&mut self, key: u64, cost: f64, max_keys: usize) {
        self.total += cost;
        let known = self.counts.contains_key(&key) || self.averages.contains_key(&key);
        let key = if known || self.counts.len() < max_keys { key } else { OVERFLOW };
        *self.counts.entry(key).or_default() += cost;
    }

    /// Begins another interval if it is time. Only where time moves on, so that the order of traces
    /// of one moment does not matter.
    fn turn(&mut self, now: u64, settings: &Settings) {
        if now <= self.last_seen && self.began > 0 {
            return;
        }
        self.last_seen = now;
        if self.began == 0 {
            self.began = now.max(1);
            return;
        }
        let elapsed = now.saturating_sub(self.began);
        let burst = self.computed
            && self.total > BURST_MULTIPLE * self.average_total
            && elapsed >= settings.interval / BURST_DELAY;
        if elapsed < settings.interval && !burst {
            return;
        }
        self.began = now;
        if self.counts.is_empty() {
            return;
        }
        // What a whole interval would have brought.
        let scale = settings.interval as f64 / elapsed.clamp(1, settings.interval) as f64;
        self.average(scale, settings);
        self.share_out(settings);
        self.counts.clear();
        self.total = 0.0;
    }

    fn average(&mut self, scale: f64, settings: &Settings) {
        let weight = settings.weight;
        for average in self.averages.values_mut() {
            *average *= 1.0 - weight;
        }
        for (key, count) in &self.counts {
            *self.averages.entry(*key).or_default() += weight * scale * count;
        }
        // As in dynsampler-go: a key that has come only once, and longer ago, is forgotten.
        self.averages.retain(|_, average| *average >= weight);
        if self.averages.len() > settings.max_keys + 1 {
            let mut by_size: Vec<(u64, f64)> = self.averages.drain().collect();
            by_size.sort_unstable_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
            for (index, (key, average)) in by_size.into_iter().enumerate() {
                let key = if index < settings.max_keys { key } else { OVERFLOW };
                *self.averages.entry(key).or_default() += average;
            }
        }
        self.average_total = self.averages.values().sum();
    }

    fn share_out(&mut self, settings: &Settings) {
        self.levels.clear();
        self.computed = true;
        // The small ones first, so that what they leave goes to those that can use it.
        let mut averages: Vec<(u64, f64)> =
            self.averages.iter().map(|(key, average)| (*key, average.max(1.0))).collect();
        averages.sort_unstable_by(|one, other| one.1.total_cmp(&other.1).then(one.0.cmp(&other.0)));
        let seconds = settings.interval as f64 / 1e9;
        let goal = match settings.goal {
            Goal::Part(part) => part * averages.iter().map(|(_, count)| count).sum::<f64>(),
            Goal::TracesPerSecond(rate) | Goal::SpansPerSecond(rate) => rate * seconds,
        };
        let logs: f64 = averages.iter().map(|(_, count)| count.log10()).sum();
        let mut spare = 0.0;
        for (index, (key, count)) in averages.iter().enumerate() {
            let left = (averages.len() - index) as f64;
            let share = if logs > 0.0 { count.log10() / logs } else { 1.0 / averages.len() as f64 };
            let from_spare = spare / left;
            spare -= from_spare;
            let grant = (share * goal).max(1.0) + from_spare;
            let level = if *count <= grant {
                spare += grant - count;
                0
            } else {
                level(grant / count)
            };
            self.levels.insert(*key, level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Bits;
    use super::super::extra::Extra;
    use super::super::marks::Marks;
    use super::super::random::{finish, rejection_threshold};
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn settings(goal: Goal) -> Settings {
        Settings { goal, interval: 10 * SECOND, weight: 0.5, max_keys: 100, initial: 0.1, keys: vec![0] }
    }

    /// Puts traces of a key through; how many spans are kept.
    fn kept(adaptive: &Adaptive, now: u64, key: u64, traces: u64, spans: u64) -> u64 {
        let mut marks = Marks::default();
        marks[0] = key;
        let keep = |number: u64| {
            let random = finish(number.wrapping_mul(0x9e37_79b9).wrapping_add(now ^ key << 40)) >> 8;
            let id = u128::from(random).to_be_bytes();
            let (id, bits, extra) = (&id, &Bits::NONE, &Extra::NONE);
            let facts = Facts { id, bits, start: 1, end: 2, spans, bytes: 1, extra, marks };
            let level = adaptive.level(&facts, &Look::at(now));
            random >= rejection_threshold(100.0 * probability(level))
        };
        (0..traces).filter(|&number| keep(number)).count() as u64 * spans
    }

    /// Three keys of very different frequency, for `seconds` after the rates have settled: what is
    /// kept of each.
    fn three_keys(goal: Goal, seconds: u64, spans: u64) -> [u64; 3] {
        let adaptive = Adaptive::new(settings(goal));
        let mut sums = [0; 3];
        for second in 1..=60 + seconds {
            for (key, (rate, sum)) in [1000, 100, 1].into_iter().zip(&mut sums).enumerate() {
                let kept = kept(&adaptive, second * SECOND, key as u64 + 1, rate, spans);
                *sum += if second > 60 { kept } else { 0 };
            }
        }
        sums
    }

    #[test]
    fn the_goal_percentage_is_met_and_rare_keys_are_kept() {
        let [many, some, few] = three_keys(Goal::Part(0.05), 100, 1);
        let part = (many + some + few) as f64 / 110_100.0;
        assert!((0.045..0.055).contains(&part), "{part}");
        assert_eq!(few, 100, "of a rare key everything");
        assert!(some as f64 / 10_000.0 > 3.0 * many as f64 / 100_000.0, "{some} of 10,000, {many} of 100,000");
    }

    #[test]
    fn the_goal_throughput_is_met_in_traces_and_in_spans() {
        let traces: u64 = three_keys(Goal::TracesPerSecond(50.0), 100, 7).iter().sum();
        assert!((4500..5500).contains(&(traces / 7)), "{traces}");
        let spans: u64 = three_keys(Goal::SpansPerSecond(350.0), 100, 7).iter().sum();
        assert!((31_500..38_500).contains(&spans), "{spans}");
    }

    /// A hundredfold flood is noticed before the interval ends.
    #[test]
    fn a_burst_changes_rates_early() {
        let adaptive = Adaptive::new(settings(Goal::TracesPerSecond(10.0)));
        for second in 1..=60 {
            kept(&adaptive, second * SECOND, 1, 100, 1);
        }
        let before: Vec<u64> = (61..=63).map(|second| kept(&adaptive, second * SECOND, 1, 10_000, 1)).collect();
        let after: u64 = (64..=68).map(|second| kept(&adaptive, second * SECOND, 1, 10_000, 1)).sum();
        assert!(before[0] > 500, "{before:?}");
        assert!(after / 5 < before[0] / 10, "{before:?}, then {after} in 5 seconds");
    }

    #[test]
    fn keys_are_bounded_and_the_rest_share_one() {
        let adaptive = Adaptive::new(settings(Goal::Part(0.01)));
        let mut sum = 0;
        for second in 1..=100u64 {
            kept(&adaptive, second * SECOND, 1, 500, 1);
            for number in 0..2000 {
                sum += kept(&adaptive, second * SECOND, 1000 + second * 2000 + number, 1, 1);
            }
            let state = adaptive.state.lock();
            assert!(state.counts.len() <= 202 && state.averages.len() <= 101 && state.levels.len() <= 101);
        }
        assert!(sum < 40_000, "{sum} of 200,000: new keys do not get around the goal");
    }

    #[test]
    fn a_question_counts_nothing() {
        let adaptive = Adaptive::new(settings(Goal::Part(0.5)));
        let (id, bits, extra, marks) = (&[1; 16], &Bits::NONE, &Extra::NONE, Marks::default());
        let facts = Facts { id, bits, start: 1, end: 2, spans: 1, bytes: 1, extra, marks };
        assert_eq!(adaptive.level(&facts, &Look::ask(5)), level(0.1));
        assert!(adaptive.state.lock().counts.is_empty());
    }

    #[test]
    fn the_grid_is_fine_enough() {
        for percent in 1..=100 {
            let wanted = f64::from(percent) / 100.0;
            assert!((probability(level(wanted)) / wanted - 1.0).abs() < 0.006);
        }
        assert_eq!(level(0.0), LEVELS - 1);
        assert_eq!(level(1.0), 0);
    }
}
