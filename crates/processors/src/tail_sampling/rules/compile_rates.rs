//! How much rules keep of what they match.

use std::sync::Arc;

use super::adaptive::{self, Adaptive, Goal, LEVELS};
use super::budgets::{Budget, Budgets};
use super::compile::{AttributeValue, Builder, Odds, Place, Reason, SAMPLING_RATE, put_attribute};
use super::marks::{self, MarkKey};
use super::random::rejection_threshold;
use super::verdict::Rate;
use crate::tail_sampling::config::{AdaptiveConfig, RuleConfig, TailSamplingConfig};

/// More keys than this make the lock of a rule a place to wait.
const MAX_KEYS: usize = 10_000;

/// Compiles the rates of rules, one after the other.
pub(super) struct Rates {
    budgets: Arc<Budgets>,
    /// How many rules with a budget have been compiled.
    members: usize,
    /// By rate; the first reason of each rule.
    pub(super) reasons: Vec<Reason>,
}

impl Rates {
    pub(super) fn new(config: &TailSamplingConfig) -> Self {
        let budget = |rule: &RuleConfig| {
            let budget = rule.budget?;
            let capacity = budget.burst_capacity.unwrap_or(2.0 * budget.spans_per_second);
            Some(Budget { rate: budget.spans_per_second, capacity })
        };
        let budgets = Arc::new(Budgets::new(config.rules.iter().filter_map(budget).collect()));
        Self { budgets, members: 0, reasons: Vec::new() }
    }

    pub(super) fn rate(&mut self, index: usize, rule: &RuleConfig, place: &Place, builder: &mut Builder<'_>) -> Rate {
        if let Some(adaptive) = &rule.adaptive {
            if rule.sampling_percentage.is_some() || rule.budget.is_some() {
                builder.error(&place.key("adaptive"), "not together with sampling_percentage or budget");
            }
            let adaptive = compile_adaptive(adaptive, &place.key("adaptive"), builder);
            for level in 0..LEVELS {
                let percentage = 100.0 * adaptive::probability(level);
                self.add_reason(index, rule, Some(percentage), Odds::Threshold(rejection_threshold(percentage)));
            }
            return Rate::Adaptive(Arc::new(adaptive));
        }
        if let Some(budget) = rule.budget {
            let place = place.key("budget");
            let positive = |number: f64| number > 0.0 && number.is_finite();
            if !positive(budget.spans_per_second) {
                builder.error(&place.key("spans_per_second"), "a number above 0 is required");
            }
            if budget.burst_capacity.is_some_and(|capacity| !positive(capacity)) {
                builder.error(&place.key("burst_capacity"), "a number above 0 is required");
            }
            let percentage = rule.sampling_percentage.map_or(100.0, |given| checked(given, &place, builder));
            self.add_reason(index, rule, None, Odds::Unknown);
            self.members += 1;
            let (budgets, threshold) = (Arc::clone(&self.budgets), rejection_threshold(percentage));
            return Rate::Budget { threshold, budgets, member: self.members - 1 };
        }
        let place = place.key("sampling_percentage");
        let percentage = match rule.sampling_percentage {
            Some(given) => checked(given, &place, builder),
            None => {
                let message = "required: how much of what matches is kept, from 0 to 100; or `adaptive`, or `budget`";
                builder.error(&place, message);
                0.0
            }
        };
        let threshold = rejection_threshold(percentage);
        self.add_reason(index, rule, Some(percentage), Odds::Threshold(threshold));
        Rate::Fixed(threshold)
    }

    fn add_reason(&mut self, name: usize, rule: &RuleConfig, percentage: Option<f64>, odds: Odds) {
        let mut attributes = Vec::new();
        put_attribute(&mut attributes, "nyquist.sampling.rule", AttributeValue::Text(&rule.name));
        if let Some(percentage) = percentage {
            put_attribute(&mut attributes, SAMPLING_RATE, AttributeValue::Double(percentage));
        }
        self.reasons.push(Reason { name, member: None, attributes, odds });
    }
}

fn checked(percentage: f64, place: &Place, builder: &mut Builder<'_>) -> f64 {
    if !(0.0..=100.0).contains(&percentage) {
        builder.error(place, format!("{percentage} is not between 0 and 100"));
    }
    percentage
}

fn compile_adaptive(config: &AdaptiveConfig, place: &Place, builder: &mut Builder<'_>) -> Adaptive {
    let goals = [
        ("goal_percentage", config.goal_percentage.map(|percentage| Goal::Part(percentage / 100.0))),
        ("goal_traces_per_second", config.goal_traces_per_second.map(Goal::TracesPerSecond)),
        ("goal_spans_per_second", config.goal_spans_per_second.map(Goal::SpansPerSecond)),
    ];
    let mut given = goals.into_iter().filter_map(|(key, goal)| Some((key, goal?)));
    let (Some((key, goal)), None) = (given.next(), given.next()) else {
        let message = "exactly one of goal_percentage, goal_traces_per_second, goal_spans_per_second is required";
        builder.error(place, message);
        return Adaptive::new(settings(config, Goal::Part(0.0), Vec::new()));
    };
    match goal {
        Goal::Part(part) if !(part > 0.0 && part <= 1.0) => {
            builder.error(&place.key(key), "not above 0 and at most 100");
        }
        Goal::TracesPerSecond(rate) | Goal::SpansPerSecond(rate) if !(rate > 0.0 && rate.is_finite()) => {
            builder.error(&place.key(key), "a number above 0 is required");
        }
        _ => {}
    }
    if config.adjustment_interval.0.as_secs_f64() < 1.0 {
        builder.error(&place.key("adjustment_interval"), "too short: at least 1s");
    }
    if !(config.weight > 0.0 && config.weight < 1.0) {
        builder.error(&place.key("weight"), "not between 0 and 1");
    }
    if !(1..=MAX_KEYS).contains(&config.max_keys) {
        builder.error(&place.key("max_keys"), format!("not between 1 and {MAX_KEYS}"));
    }
    if let Some(percentage) = config.initial_percentage {
        checked(percentage, &place.key("initial_percentage"), builder);
    }
    let mut keys = Vec::new();
    for (index, key) in config.keys.iter().enumerate() {
        let place = place.key("keys").index(index);
        if key.trim_start_matches("root.").is_empty() {
            builder.error(&place, "the name of an attribute is required, or span_name");
        }
        keys.extend(builder.mark(MarkKey::parse(key), &place));
    }
    Adaptive::new(settings(config, goal, keys))
}

fn settings(config: &AdaptiveConfig, goal: Goal, keys: Vec<usize>) -> adaptive::Settings {
    const INITIAL: f64 = 0.1;
    let by_goal = if let Goal::Part(part) = goal { part } else { INITIAL };
    adaptive::Settings {
        goal,
        interval: u64::try_from(config.adjustment_interval.0.as_nanos()).unwrap_or(u64::MAX),
        weight: config.weight,
        max_keys: config.max_keys,
        initial: config.initial_percentage.map_or(by_goal, |percentage| percentage / 100.0),
        keys,
    }
}

impl Builder<'_> {
    /// The place of a key among the marks of a trace.
    fn mark(&mut self, key: MarkKey, place: &Place) -> Option<usize> {
        if let Some(known) = self.plan.marks.iter().position(|known| *known == key) {
            return Some(known);
        }
        if self.plan.marks.len() == marks::MAX_KEYS {
            self.error(place, format!("too many: at most {} different keys in all rules", marks::MAX_KEYS));
            return None;
        }
        self.plan.marks.push(key);
        Some(self.plan.marks.len() - 1)
    }
}
