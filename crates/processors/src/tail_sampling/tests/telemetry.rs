//! Every metric exists under its name, is in the README, and counts what it says.

use super::support::{Id, Rig, child, failed, id_of, large_span, millis, request, secs, span, warnings_of};
use crate::tail_sampling::config::TailSamplingConfig;
use crate::tail_sampling::sampler::Sampler;
use nyquist_core::config::ComponentId;
use nyquist_core::proto::trace::v1::Span;
use nyquist_core::telemetry::{Ledger, Telemetry};

const PREFIX: &str = "otelcol_processor_tail_sampling_";
const README: &str = include_str!("../README.md");

/// The Collector's.
const COLLECTORS: [&str; 14] = [
    "count_traces_sampled",
    "global_count_traces_sampled",
    "new_trace_id_received",
    "early_releases_from_cache_decision",
    "sampling_decision_timer_latency",
    "sampling_late_span_age",
    "sampling_trace_removal_age",
    "sampling_trace_dropped_too_early",
    "sampling_traces_on_memory",
    "sampling_policy_evaluation_error",
    "sampling_policy_execution_count",
    "sampling_policy_execution_time_sum",
    "traces_dropped_too_large",
    "count_spans_with_unparseable_tracestate",
];

const OURS: [&str; 13] = [
    "rules_memory_bytes",
    "decisions",
    "early_decisions",
    "decision_delay",
    "decision_cache_evictions",
    "late_errors_kept",
    "traces_without_root",
    "stress_active",
    "spans_on_memory",
    "bytes_on_memory",
    "memory_limit_bytes",
    "refused_requests",
    "forward_retries",
];

/// One of everything: decisions for all reasons, late spans, forgotten decisions.
fn eventful() -> Rig {
    let rig = Rig::new(
        "
memory_limit_mib: 16
num_shards: 1
decision_wait: 10s
decision_wait_after_root_received: 1s
decision_wait_after_last_span: 5s
span_limit: 20
maximum_trace_size_bytes: 10000
late_errors: keep
decision_cache: {sampled_cache_size: 7, non_sampled_cache_size: 7}
rules:
  - {name: errors, sampling_percentage: 100, when: {error: true}}
  - {name: none, sampling_percentage: 0}
",
    );
    let id = |number: u8| -> Id { [number; 16] };
    // Decided after the root, after silence, after the wait; and at once by size and number of spans.
    rig.insert(&request(vec![failed(span(id(1))), child(id(2))]), secs(0));
    for second in 0..10 {
        rig.insert(&request(vec![child(id(3))]), millis(second * 1000));
        rig.decide(millis(second * 1000 + 30));
        if second == 2 {
            rig.insert(&request(vec![large_span(id(4), 20_000)]), millis(second * 1000));
            rig.insert(&request((0..20).map(|_| child(id(5))).collect()), millis(second * 1000));
        }
        let late_error = if second == 8 { failed(child(id(2))) } else { child(id(2)) };
        if second >= 7 {
            rig.insert(&request(vec![late_error]), millis(second * 1000 + 100));
        }
        rig.take(millis(second * 1000 + 200));
    }
    rig.insert(&request(vec![child(id(1))]), secs(10));
    rig.decide(secs(10));
    rig.take(secs(10));
    let many: Vec<Span> = (0..40).map(|number| span(id_of(number))).collect();
    rig.insert(&request(many), secs(11));
    rig.decide(secs(13));
    rig
}

/// The value of the series whose line begins with `series`.
fn value(rig: &Rig, series: &str) -> f64 {
    let page = rig.telemetry.render("");
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("{PREFIX}{series} ")));
    line.unwrap_or_else(|| panic!("there is no {series}")).parse().unwrap()
}

#[test]
fn every_metric_exists_and_is_in_the_readme() {
    let rig = eventful();
    let page = rig.telemetry.render("");
    let names: Vec<&str> = COLLECTORS.into_iter().chain(OURS).collect();
    for name in &names {
        assert!(page.contains(&format!("# TYPE {PREFIX}{name} ")), "{name} is not on the page");
        assert!(README.contains(&format!("`{name}`")), "{name} is not in the README");
    }
    for line in page.lines() {
        let Some(name) = line.strip_prefix(&format!("# TYPE {PREFIX}")).and_then(|rest| rest.split(' ').next()) else {
            continue;
        };
        assert!(names.contains(&name), "{name} is not in the list above");
    }
}

#[test]
fn metrics_count_what_they_say() {
    let rig = eventful();
    let early = |cause: &str| value(&rig, &format!("early_decisions{{cause=\"{cause}\"}}"));
    assert_eq!((early("size"), early("spans"), early("memory"), early("stress")), (1.0, 1.0, 0.0, 0.0));
    let decided = |policy: &str, trigger: &str, decision: &str| {
        let labels = [("policy", policy), ("trigger", trigger), ("decision", decision)];
        rig.metric("decisions", &labels)
    };
    assert_eq!(decided("errors", "root", "sampled"), 1);
    assert_eq!(decided("none", "idle", "not_sampled"), 1);
    assert_eq!(decided("none", "wait", "not_sampled"), 1);
    assert_eq!(decided("none", "root", "not_sampled"), 40);
    // Of those that had their time, two had no root.
    assert_eq!(rig.metric("traces_without_root", &[]), 2);
    assert_eq!(value(&rig, "decision_delay_count"), 43.0);
    // One waited till the next look for silence, the forty a second.
    let delays = value(&rig, "decision_delay_sum");
    assert!((40.0..41.0).contains(&delays), "{delays}");
    // 44 decisions against in a cache of seven, of which one was taken back.
    assert_eq!(rig.metric("decision_cache_evictions", &[("sampled", "false")]), 44 - 7 - 1);
    assert_eq!(rig.metric("late_errors_kept", &[]), 1);
    assert_eq!(rig.metric("early_releases_from_cache_decision", &[("sampled", "true")]), 3);
    assert_eq!(rig.metric("early_releases_from_cache_decision", &[("sampled", "false")]), 1);
    assert_eq!(value(&rig, "sampling_late_span_age_count"), 4.0);
    assert_eq!(rig.metric("traces_dropped_too_large", &[]), 1);
    assert_eq!(rig.metric("new_trace_id_received", &[]), 45);
    assert_eq!(value(&rig, "spans_on_memory"), 0.0);
    assert_eq!(value(&rig, "bytes_on_memory"), rig.sampler.memory() as f64);
    assert_eq!(value(&rig, "memory_limit_bytes"), (16 << 20) as f64);
}

/// Scenario: the spans of traces go to two gateways, so that half of them have no root here; for long. Guarantee: they are
/// counted, and it is logged once, with what to do. Where all have their roots, and of traces that are decided early,
/// nothing is said.
#[test]
fn split_traces_are_counted_and_told_once() {
    const ROUNDS: u64 = 20;
    let told = |more: &str, is_split: bool| {
        let rig = Rig::new(&format!(
            "
memory_limit_mib: 64
decision_wait: 1s
{more}
rules: [{{name: none, sampling_percentage: 0}}]
"
        ));
        let warnings = warnings_of(|| {
            for round in 0..ROUNDS {
                let ids = round * 1000..(round + 1) * 1000;
                let span_of =
                    |id: u64| if is_split && id.is_multiple_of(2) { child(id_of(id)) } else { span(id_of(id)) };
                rig.insert(&request(ids.map(span_of).collect()), secs(round));
                rig.decide(secs(round + 1));
            }
        });
        (rig.metric("traces_without_root", &[]), warnings)
    };
    let (without_root, warnings) = told("", true);
    assert_eq!(without_root, ROUNDS * 500);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for wanted in
        ["50 % of the traces had no root span", "several gateways", "load_balancing with routing_key: traceID"]
    {
        assert!(warnings[0].contains(wanted), "{wanted} is missing from {warnings:?}");
    }
    assert_eq!(told("", false), (0, vec![]));
    assert_eq!(told("span_limit: 1", true), (0, vec![]));
}

/// The time that asking took is shared by how often each was asked.
#[test]
fn policies_are_timed() {
    let rig = Rig::new(
        "
memory_limit_mib: 64
policies:
  - {name: a, type: always_sample}
  - {name: b, type: span_count, span_count: {min_spans: 2}}
",
    );
    for round in 0..20 {
        rig.insert(&request((0..500).map(|number| span(id_of(round * 500 + number))).collect()), secs(0));
    }
    rig.decide_all(secs(0));
    rig.take(secs(0));
    let [a, b] = ["a", "b"].map(|policy| rig.metric("sampling_policy_execution_time_sum", &[("policy", policy)]));
    assert!(a > 0 && a.abs_diff(b) <= 1, "{a} and {b} microseconds");
}

/// Scenario: a gateway has two samplers, one of which is under stress, and then goes. Guarantee: each gauge shows what both have
/// together, whoever spoke last.
#[test]
fn two_samplers_share_their_gauges() {
    let telemetry = Telemetry::new();
    let sampler = |limit: u64| {
        let yaml = format!(
            "{{memory_limit_mib: {limit}, rules: [{{name: all, adaptive: {{goal_percentage: 10, max_keys: {limit}}}}}]}}"
        );
        let config: TailSamplingConfig = serde_yaml::from_str(&yaml).unwrap();
        Sampler::new(&config, &ComponentId::of("tail_sampling"), Ledger::detached(), &telemetry).unwrap()
    };
    let gauge = |name: &str| telemetry.gauge(&format!("{PREFIX}{name}"), "", &[]).get();
    let one = sampler(16);
    let rules = gauge("rules_memory_bytes");
    let other = sampler(16);
    assert_eq!(gauge("memory_limit_bytes"), 32 << 20);
    assert_eq!(gauge("rules_memory_bytes"), 2 * rules);
    one.metrics.stress.set(1);
    other.metrics.stress.set(1);
    other.metrics.stress.set(0);
    assert_eq!(gauge("stress_active"), 1);
    drop(one);
    assert_eq!((gauge("stress_active"), gauge("memory_limit_bytes")), (0, 16 << 20));
}
