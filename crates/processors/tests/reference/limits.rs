//! Policies and rules with a budget: `rate_limiting`, `composite` and `budget`. One trace is decided at a time, so that the
//! order in which they take from the budget is known.

use std::collections::BTreeMap;
use std::time::Duration;

use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use serde_json::{Value as Json, json};

use crate::conditions::keeps;
use crate::random::{Random, seeds};
use crate::rig::Rig;
use crate::spans::{Id, attribute, text};

const KINDS: [&str; 3] = ["a", "b", "c"];

/// A trace that waits for its decision.
struct Trace {
    id: Id,
    at: Duration,
    kind: &'static str,
    spans: u64,
}

/// Spans, whole or in billionths: `rate` a second come back, at most `burst` are there.
struct Bucket {
    rate: u64,
    burst: u64,
    billionths: u128,
    filled: Duration,
}

impl Bucket {
    /// It starts full. A burst of 0 is twice the rate.
    fn new(rate: u64, burst: u64) -> Self {
        let burst = if burst == 0 { rate * 2 } else { burst };
        Self { rate, burst, billionths: u128::from(burst) * 1_000_000_000, filled: Duration::ZERO }
    }

    /// All or nothing.
    fn take(&mut self, spans: u64, now: Duration) -> bool {
        let came = u128::from(self.rate) * (now - self.filled).as_nanos();
        self.billionths = (self.billionths + came).min(u128::from(self.burst) * 1_000_000_000);
        self.filled = now;
        let cost = u128::from(spans) * 1_000_000_000;
        let is_enough = cost <= self.billionths;
        if is_enough {
            self.billionths -= cost;
        }
        is_enough
    }
}

/// Budgets that begin anew each second. The first sub-policy that matches decides.
struct Composite {
    budgets: BTreeMap<&'static str, u64>,
    used: BTreeMap<&'static str, u64>,
    second: u64,
}

impl Composite {
    fn take(&mut self, kind: &'static str, spans: u64, now: Duration) -> bool {
        if now.as_secs() != self.second {
            self.second = now.as_secs();
            self.used.clear();
        }
        let used = self.used.entry(kind).or_default();
        let is_enough = *used + spans <= self.budgets[kind];
        if is_enough {
            *used += spans;
        }
        is_enough
    }
}

/// Rules with budgets: each has its own bucket, and what runs over goes into a pot that all may borrow from. In billionths.
struct Budgets {
    rules: BTreeMap<&'static str, Budget>,
    pot: i128,
    filled: Duration,
}

struct Budget {
    rate: i128,
    burst: i128,
    tokens: i128,
    percentage: f64,
}

impl Budgets {
    fn take(&mut self, trace: &Trace) -> bool {
        const ONE: i128 = 1_000_000_000;
        let nanos = (trace.at - self.filled).as_nanos() as i128;
        self.filled = trace.at;
        for budget in self.rules.values_mut() {
            budget.tokens += budget.rate * nanos;
            let over = (budget.tokens - budget.burst * ONE).max(0);
            budget.tokens -= over;
            self.pot += over;
        }
        // A second of all.
        let most: i128 = self.rules.values().map(|budget| budget.rate * ONE).sum();
        self.pot = self.pot.min(most);

        let budget = self.rules.get_mut(trace.kind).expect("each kind has a rule");
        if !keeps(budget.percentage, trace.id) {
            return false;
        }
        let cost = i128::from(trace.spans) * ONE;
        let own = cost.min(budget.tokens.max(0));
        if cost - own <= self.pot {
            budget.tokens -= own;
            self.pot -= cost - own;
            return true;
        }
        // Once, to be paid back.
        let passes = cost > budget.burst * ONE && budget.tokens == budget.burst * ONE;
        budget.tokens -= if passes { cost } else { 0 };
        passes
    }
}

#[test]
fn rules_with_a_budget_borrow_from_each_other() {
    let mut kept = [0; 2];
    for seed in seeds(200) {
        let mut random = Random::new(seed);
        let (mut rules, mut list) = (BTreeMap::new(), Vec::new());
        for kind in KINDS {
            // Whole spans come back in a quarter of a second: no rounding decides.
            let rate = 4 * random.between(1, 6);
            let burst = random.pick(&[None, Some(3), Some(10), Some(60)]);
            let percentage = random.pick(&[100.0, 100.0, 50.0]);
            let mut rule = json!({
                "name": kind,
                "when": { "attribute": { "key": "kind", "values": [kind] } },
                "budget": { "spans_per_second": rate },
            });
            if let Some(burst) = burst {
                rule["budget"]["burst_capacity"] = json!(burst);
            }
            if percentage < 100.0 {
                rule["sampling_percentage"] = json!(percentage);
            }
            list.push(rule);
            let (rate, burst) = (rate as i128, burst.unwrap_or(2 * rate) as i128);
            rules.insert(kind, Budget { rate, burst, tokens: burst * 1_000_000_000, percentage });
        }
        let mut budgets = Budgets { rules, pot: 0, filled: Duration::ZERO };
        compare(seed, &mut random, json!({ "rules": list }), |trace| {
            let is_kept = budgets.take(trace);
            kept[usize::from(is_kept)] += 1;
            is_kept
        });
    }
    assert!(kept.iter().all(|&number| number > 50), "{kept:?}: the cases show something");
}

#[test]
fn rate_limiting_is_a_bucket_of_spans() {
    for seed in seeds(100) {
        let mut random = Random::new(seed);
        // Whole spans come back in a quarter of a second: no rounding decides.
        let rate = 4 * random.between(0, 5) as u64;
        let burst = random.pick(&[0, 0, 7, 30]);
        let mut bucket = Bucket::new(rate, burst);
        let limit = json!({
            "name": "limit",
            "type": "rate_limiting",
            "rate_limiting": { "spans_per_second": rate, "burst_capacity": burst },
        });
        let expect = |trace: &Trace| bucket.take(trace.spans, trace.at);
        compare(seed, &mut random, json!({ "policies": [limit] }), expect);
    }
}

#[test]
fn composite_has_a_budget_for_each_sub_policy() {
    for seed in seeds(100) {
        let mut random = Random::new(seed);
        let max = random.between(10, 60) as u64;
        let mut shares: Vec<Json> = Vec::new();
        let mut budgets = BTreeMap::new();
        for kind in KINDS {
            let percent = random.pick(&[0, 25, 50, 100]);
            // Without a share it is an equal one.
            budgets.insert(kind, if percent == 0 { max / 3 } else { max * percent / 100 });
            if percent > 0 || random.one_in(2) {
                shares.push(json!({ "policy": kind, "percent": percent }));
            }
        }
        let part = |kind: &str| {
            let block = json!({ "key": "kind", "values": [kind] });
            json!({ "name": kind, "type": "string_attribute", "string_attribute": block })
        };
        let block = json!({
            "max_total_spans_per_second": max,
            "composite_sub_policy": KINDS.map(part),
            "rate_allocation": shares,
        });
        let policy = json!({ "name": "budgets", "type": "composite", "composite": block });
        let mut composite = Composite { budgets, used: BTreeMap::new(), second: 0 };
        // As the Collector has it: ours lends what is left.
        let config = json!({ "policies": [policy], "compat": "otelcol" });
        compare(seed, &mut random, config, |trace| composite.take(trace.kind, trace.spans, trace.at));
    }
}

/// Traces at random times and of random sizes through policies or rules.
fn compare(seed: u64, random: &mut Random, mut config: Json, mut expect: impl FnMut(&Trace) -> bool) {
    // In the Collector's way waits are whole seconds.
    let wait = Duration::from_millis(if config["compat"].is_null() { 100 } else { 1_000 });
    config["decision_wait"] = json!(format!("{}ms", wait.as_millis()));
    config["num_shards"] = json!(random.between(1, 8));
    config["memory_limit_mib"] = json!(64);
    let rig = Rig::new(&config);
    let mut now = Duration::from_secs(100);
    let (mut kept, mut not_kept) = (0, 0);
    for number in 0..60 {
        now += Duration::from_millis(random.pick(&[250, 250, 500, 1_000, 3_000]));
        let (kind, spans) = (random.pick(&KINDS), random.between(1, 20) as u64);
        let trace = Trace { id: random.bytes(), at: now, kind, spans };
        rig.insert(&request(&trace), now - wait);
        rig.decide(now);
        assert_eq!(rig.pending(), 0, "it is decided");
        let spans = rig.take(now).len() as u64;
        let expected = if expect(&trace) { trace.spans } else { 0 };
        let Trace { kind, spans: count, .. } = trace;
        assert_eq!(
            spans, expected,
            "trace {number} ({kind}, {count} spans at {now:?}); NYQUIST_SEED={seed}\n{config:#}"
        );
        *(if spans > 0 { &mut kept } else { &mut not_kept }) += 1;
    }
    assert_eq!(rig.counter("global_count_traces_sampled", &[("sampled", "true"), ("decision", "sampled")]), kept);
    let others = [("sampled", "false"), ("decision", "not_sampled")];
    assert_eq!(rig.counter("global_count_traces_sampled", &others), not_kept);
}

fn request(trace: &Trace) -> TracesData {
    let span = |number: u64| Span {
        trace_id: trace.id.to_vec(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        attributes: vec![attribute("kind", Some(text(trace.kind)))],
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: (0..trace.spans).map(span).collect(), ..ScopeSpans::default() }];
    TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}
