//! Adjusted counts on every path by which a trace can leave: the spans that are kept, each counted as often as its
//! threshold says, are as many as there were before any sampling, as closely as chance allows.

use std::collections::BTreeMap;

use nyquist_core::proto::trace::v1::Span;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::probability::{adjusted_count, randomness, with_state};
use super::support::{Id, KeptSpan, Rig, attribute, failed, large_span, millis, request, text};

/// What came before the gateway: no sampler, or one of these thresholds (and the part of all ids below it).
const HEADS: [(&str, u64); 3] = [("", 0), ("8", 1 << 55), ("c", 3 << 54)];
/// The spans of a trace come in three parts, so many steps of a millisecond apart.
const PARTS: [usize; 3] = [0, 40, 700];

/// A trace whose spans are to come.
struct Trace {
    id: Id,
    head: usize,
    kind: &'static str,
}

/// What was sent before any sampling, and what is kept of it.
struct Outcome {
    sent: f64,
    kept: Vec<KeptSpan>,
    rig: Rig,
}

/// One trace a millisecond, of three to six spans of so many bytes, through heads and a sampler.
fn run(yaml: &str, traces: usize, filling: usize) -> Outcome {
    let rig = Rig::new(yaml);
    let mut rng = StdRng::seed_from_u64(23);
    let mut open: Vec<Trace> = Vec::new();
    let (mut sent, mut kept) = (0, Vec::new());
    for step in 0..traces + PARTS[2] {
        let now = millis(step as u64);
        if step < traces {
            let kind = ["a", "b", "b", "c", "c", "c", "c", "c"][rng.random_range(0..8)];
            open.push(Trace { id: rng.random(), head: step % HEADS.len(), kind });
        }
        let mut spans = Vec::new();
        for (part, after) in PARTS.into_iter().enumerate() {
            let Some(trace) = step.checked_sub(after).and_then(|number| open.get(number)) else {
                continue;
            };
            let (th, rejected) = HEADS[trace.head];
            for number in 0..rng.random_range(1..=2) {
                sent += 1;
                let mut span = large_span(trace.id, filling);
                span.attributes.push(attribute("kind", text(trace.kind)));
                span.span_id = vec![part as u8 * 2 + number + 1; 8];
                if part > 0 {
                    span.parent_span_id = vec![1; 8];
                }
                // Errors come late, of some traces of all kinds.
                if part == 2 && trace.id[0] < 32 {
                    span = failed(span);
                }
                if !th.is_empty() {
                    span = with_state(span, &format!("ot=th:{th}"));
                }
                if randomness(trace.id) >= rejected {
                    spans.push(span);
                }
            }
        }
        rig.insert(&request(spans), now);
        rig.decide(now);
        if step % 10 == 0 {
            kept.extend(rig.take(now));
        }
    }
    kept.extend(rig.finish(millis(10_000_000)));
    Outcome { sent: f64::from(sent), kept, rig }
}

impl Outcome {
    /// The spans of a trace are kept together or not at all: how far an estimate may be off.
    fn check(&self, name: &str) {
        let counts = |span: &&KeptSpan| !span.has("nyquist.sampling.incomplete");
        let mut by_trace: BTreeMap<(Id, u64), (f64, f64)> = BTreeMap::new();
        for span in self.kept.iter().filter(counts) {
            let count = adjusted_count(&span.span);
            let entry = by_trace.entry((span.id(), count.to_bits())).or_default();
            *entry = (entry.0 + 1.0, count);
        }
        let estimate: f64 = by_trace.values().map(|(spans, count)| spans * count).sum();
        let variance: f64 = by_trace.values().map(|(spans, count)| spans * spans * count * (count - 1.0)).sum();
        let (error, deviation) = (estimate - self.sent, variance.sqrt());
        println!("{name}: {estimate:.0} of {}, deviation {deviation:.0}, {} kept", self.sent, self.kept.len());
        assert!(error.abs() < 4.0 * deviation, "{name}: {estimate} of {}, deviation {deviation}", self.sent);
        assert!(deviation < 0.05 * self.sent, "{name}: {deviation} is too vague");
        assert!((self.kept.len() as f64) < self.sent / 2.0, "{name}: something was sampled out");
    }

    fn early(&self, cause: &str) -> u64 {
        self.rig.metric("early_decisions", &[("cause", cause)])
    }

    fn late(&self) -> u64 {
        ["true", "false"]
            .map(|kept| self.rig.metric("early_releases_from_cache_decision", &[("sampled", kept)]))
            .iter()
            .sum()
    }
}

const RULES: &str = "
num_shards: 2
decision_wait: 10s
rules:
  - {name: a, sampling_percentage: 50, when: {attribute: {key: kind, values: [a]}}}
  - {name: errors, sampling_percentage: 75, when: {error: true}}
  - {name: b, sampling_percentage: 3.3, when: {attribute: {key: kind, values: [b]}}}
  - {name: rest, sampling_percentage: 12.5}
";

/// Scenario: rules with several rates, on traces that came through several samplers.
#[test]
fn of_several_rates() {
    let outcome = run(&format!("memory_limit_mib: 64\n{RULES}"), 20_000, 10);
    outcome.check("rates");
    assert_eq!(outcome.late(), 0);
}

/// Scenario: decisions long before the last part of a trace: what comes later follows them.
#[test]
fn of_late_spans() {
    let yaml = RULES.replace("decision_wait: 10s", "decision_wait: 100ms");
    let outcome = run(&format!("memory_limit_mib: 64\n{yaml}"), 20_000, 10);
    outcome.check("late");
    assert!(outcome.late() > 5_000, "{}", outcome.late());
}

/// Scenario: past decisions are forgotten soon, so that late spans are traces of their own.
#[test]
fn of_forgotten_decisions() {
    let yaml = RULES.replace("decision_wait: 10s", "decision_wait: 100ms");
    let caches = "decision_cache: {sampled_cache_size: 7, non_sampled_cache_size: 70}";
    let outcome = run(&format!("memory_limit_mib: 64\n{yaml}\n{caches}"), 20_000, 10);
    outcome.check("forgotten");
    assert!(outcome.rig.metric("decision_cache_evictions", &[("sampled", "false")]) > 5_000);
}

/// Scenario: traces are decided on their first parts because there are too many, because memory is short, because
/// they have too many spans or bytes.
#[test]
fn of_early_decisions() {
    for (cause, more, filling) in [
        ("count", "memory_limit_mib: 64\nnum_traces: 300", 10),
        ("memory", "memory_limit_mib: 4", 2000),
        ("spans", "memory_limit_mib: 64\nspan_limit: 3", 10),
        ("size", "memory_limit_mib: 64\nmaximum_trace_size_bytes: 600", 150),
    ] {
        let outcome = run(&format!("{more}\n{RULES}"), 20_000, filling);
        outcome.check(cause);
        assert!(outcome.early(cause) > 4_000, "{cause}: {}", outcome.early(cause));
        assert!(outcome.late() > 1_000, "{cause}: {}", outcome.late());
    }
}

/// Scenario: the buffer stays nearly full for most of the time, so that new traces are decided by their ids alone,
/// while older ones are decided by rules.
#[test]
fn of_stress() {
    let stress = "memory_limit_mib: 4\nstress: {minimum_duration: 1s, activation_percentage: 80, deactivation_percentage: 60, sampling_percentage: 20}";
    let yaml = RULES.replace("decision_wait: 10s", "decision_wait: 60s");
    let outcome = run(&format!("{stress}\n{yaml}"), 20_000, 1500);
    outcome.check("stress");
    let stressed = outcome.early("stress");
    assert!((2_000..18_000).contains(&stressed), "{stressed}");
}

/// Scenario: traces that were decided against come back because of a late error. What that adds is marked, has no
/// threshold, and is left out of counts: the rest adds up as if it were not there.
#[test]
fn of_what_a_late_error_brings_back() {
    let yaml = RULES.replace("decision_wait: 10s", "decision_wait: 100ms\nlate_errors: keep");
    let outcome = run(&format!("memory_limit_mib: 64\nrecord: all\n{yaml}"), 20_000, 10);
    outcome.check("late errors");
    let incomplete: Vec<&Span> =
        outcome.kept.iter().filter(|span| span.has("nyquist.sampling.incomplete")).map(|span| &span.span).collect();
    assert!(incomplete.len() > 500, "{}", incomplete.len());
    assert!(incomplete.iter().all(|span| span.trace_state.is_empty()));
}

/// Scenario: a percentage that adapts to its goal by kind, behind several samplers.
#[test]
fn of_adaptive_percentages() {
    let outcome = run(
        "
memory_limit_mib: 64
num_shards: 2
decision_wait: 800ms
rules: [{name: rest, adaptive: {goal_percentage: 10, keys: [kind], adjustment_interval: 2s}}]
",
        20_000,
        10,
    );
    outcome.check("adaptive");
    let rates: std::collections::BTreeSet<&str> =
        outcome.kept.iter().map(|span| span.span.trace_state.as_str()).collect();
    assert!(rates.len() > 10, "{rates:?}");
}

/// Scenario: the Collector's policies: a percentage by their hash where nothing says otherwise, by randomness where
/// a sampler came before; decided in time, early, late, and under stress.
#[test]
fn of_policies() {
    let policies = "
num_shards: 2
use_tracestate: true
policies:
  - name: a
    type: and
    and:
      and_sub_policy:
        - {name: kind, type: string_attribute, string_attribute: {key: kind, values: [a]}}
        - {name: half, type: probabilistic, probabilistic: {sampling_percentage: 50}}
  - {name: tenth, type: probabilistic, probabilistic: {sampling_percentage: 10}}
";
    for (name, more, filling) in [
        ("in time", "memory_limit_mib: 64", 10),
        ("late", "memory_limit_mib: 64\ndecision_wait: 100ms", 10),
        ("count", "memory_limit_mib: 64\nnum_traces: 300", 10),
        ("memory", "memory_limit_mib: 4", 2000),
        (
            "stress",
            "memory_limit_mib: 4\ndecision_wait: 60s\nstress: {minimum_duration: 1s, activation_percentage: 80, deactivation_percentage: 60, sampling_percentage: 20}",
            1500,
        ),
    ] {
        let outcome = run(&format!("{more}\n{policies}"), 20_000, filling);
        outcome.check(name);
        assert!(name != "stress" || outcome.early("stress") > 2_000);
    }
}
