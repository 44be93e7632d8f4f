//! Adaptive rates, budgets and dry runs through the whole sampler.

use std::collections::BTreeSet;

use nyquist_core::proto::trace::v1::Span;
use nyquist_core::telemetry::Entry;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::support::{
    Id, KeptSpan, Rig, attribute, failed, read_config, request, resource, resource_spans, secs, span, text, value,
};
use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::trace::v1::TracesData;

const ADAPTIVE: &str = "
memory_limit_mib: 256
decision_wait: 1s
record: all
rules:
  - name: rest
    adaptive: {goal_percentage: 5, keys: [service.name, root.span_name], adjustment_interval: 5s}
";

/// A second of traces of two spans: of a frequent service, and of a rare operation of it.
fn one_second(rng: &mut StdRng) -> TracesData {
    let mut data = TracesData::default();
    for number in 0..400 {
        let mut root = span(rng.random());
        root.name = if number < 2 { "rare" } else { "GET /" }.to_owned();
        let mut child = Span { parent_span_id: vec![1; 8], name: format!("child {number}"), ..root.clone() };
        child.span_id = vec![2; 8];
        let attributes = vec![attribute("service.name", text("shop"))];
        data.resource_spans.push(resource_spans(resource(attributes), vec![child, root]));
    }
    data
}

fn run(shards: usize) -> (Vec<KeptSpan>, u64) {
    let rig = Rig::new(&format!("{ADAPTIVE}\nnum_shards: {shards}"));
    let mut rng = StdRng::seed_from_u64(8);
    let mut kept = Vec::new();
    for second in 1..120 {
        rig.insert(&one_second(&mut rng), secs(second));
        rig.decide(secs(second));
        let now = rig.take(secs(second));
        // Once rates have settled.
        if second > 20 {
            kept.extend(now);
        }
    }
    (kept, rig.metric("count_traces_sampled", &[("policy", "rest"), ("sampled", "true"), ("decision", "sampled")]))
}

#[test]
fn adaptive_rates_meet_the_goal_on_any_number_of_shards() {
    let (kept, votes) = run(1);
    let names = |name: &str| kept.iter().filter(|kept| kept.span.name == name).count();
    let (rare, many) = (names("rare"), names("GET /"));
    assert_eq!(rare, 99 * 2, "what is rare is kept");
    let part = (rare + many) as f64 / (99.0 * 400.0);
    assert!((0.045..0.055).contains(&part), "{part}");
    // What is recorded is true: the kept stand for all.
    let rate = |kept: &KeptSpan| match value(&kept.span.attributes, "nyquist.sampling.rate") {
        Some(Value::DoubleValue(rate)) => *rate,
        other => panic!("{other:?}"),
    };
    let estimate: f64 = kept.iter().map(|kept| 100.0 / rate(kept)).sum();
    let deviation =
        kept.iter().map(|kept| 100.0 / rate(kept)).map(|count| 4.0 * count * (count - 1.0)).sum::<f64>().sqrt();
    assert!((estimate - 99.0 * 800.0).abs() < 4.0 * deviation, "{estimate}");
    assert!(kept.iter().any(|kept| kept.span.trace_state.starts_with("ot=th:f")));
    let (sharded, sharded_votes) = run(8);
    let ids = |kept: &[KeptSpan]| kept.iter().map(KeptSpan::id).collect::<BTreeSet<Id>>();
    assert_eq!(ids(&kept), ids(&sharded));
    assert_eq!(votes, sharded_votes);
}

/// Scenario: large traces of two kinds, which differ in one of thirty routes; their spans come in several requests.
/// Guarantee: each kind has a percentage of its own, whatever the order of spans.
#[test]
fn large_traces_that_differ_in_one_value_have_rates_of_their_own() {
    let rig = Rig::new(
        "
memory_limit_mib: 64
decision_wait: 1s
rules: [{name: a, adaptive: {goal_percentage: 50, keys: [http.route, service.name], adjustment_interval: 10s}}]
",
    );
    let mut rng = StdRng::seed_from_u64(4);
    for second in 0..40 {
        for trace in 0..4 {
            let id: Id = rng.random();
            let last = if trace == 0 { "/rare" } else { "/often" };
            let mut routes: Vec<String> = (0..29).map(|route| format!("/{route}")).chain([last.to_owned()]).collect();
            rand::seq::SliceRandom::shuffle(routes.as_mut_slice(), &mut rng);
            for part in routes.chunks(7) {
                let with_route =
                    |route: &String| Span { attributes: vec![attribute("http.route", text(route))], ..span(id) };
                rig.insert(&request(part.iter().map(with_route).collect()), secs(second));
            }
        }
        rig.decide(secs(second));
        rig.take(secs(second));
    }
    rig.sampler.decided_in(secs(0));
    let keys = rig.telemetry.gauge("otelcol_processor_tail_sampling_adaptive_keys", "", &[("policy", "a")]);
    assert_eq!(keys.get(), 2);
}

#[test]
fn budgets_lend_and_say_no_rate() {
    let rig = Rig::new(
        "
memory_limit_mib: 64
rules:
  - {name: errors, budget: {spans_per_second: 30}, when: {error: true}}
  - {name: rest, budget: {spans_per_second: 10}}
",
    );
    let mut rng = StdRng::seed_from_u64(8);
    let mut kept_of = |count: usize, error: bool, second: u64| {
        let spans = (0..count).map(|_| if error { failed(span(rng.random())) } else { span(rng.random()) });
        rig.insert(&request(spans.collect()), secs(second));
        rig.finish(secs(second))
    };
    assert_eq!(kept_of(100, false, 0).len(), 20, "its own bucket");
    assert_eq!(kept_of(100, false, 10).len(), 20 + 40, "and what errors did not use");
    assert_eq!(kept_of(100, true, 10).len(), 60, "which keep what is theirs");
    let kept = kept_of(1, false, 20);
    assert!(!kept[0].has("nyquist.sampling.rate"), "nobody knows it");
    assert_eq!(kept[0].text("nyquist.sampling.rule").as_deref(), Some("rest"));
    assert_eq!(kept[0].span.trace_state, "");
}

/// A rule that only tries is counted and recorded, and the next one decides.
#[test]
fn a_rule_that_tries_decides_nothing() {
    let rules = |dry_run: &str| {
        Rig::new(&format!(
            "
memory_limit_mib: 64
rules:
  - {{name: fewer, sampling_percentage: 10{dry_run}, when: {{not: {{error: true}}}}}}
  - {{name: all, sampling_percentage: 100}}
"
        ))
    };
    let mut rng = StdRng::seed_from_u64(8);
    let spans: Vec<Span> = (0..500).map(|_| span(rng.random())).collect();
    let decide = |rig: &Rig| {
        rig.insert(&request(spans.clone()), secs(0));
        rig.insert(&request(vec![failed(span([7; 16]))]), secs(0));
        rig.finish(secs(0))
    };
    let (tried, done) = (decide(&rules(", dry_run: true")), decide(&rules("")));
    assert_eq!(tried.len(), 501);
    let told = |kept: &KeptSpan| kept.text("nyquist.sampling.dry_run");
    let would: BTreeSet<Id> =
        tried.iter().filter(|kept| told(kept).as_deref() != Some("not_sampled")).map(KeptSpan::id).collect();
    assert_eq!(would, done.iter().map(KeptSpan::id).collect(), "it would keep what it then keeps");
    for kept in &tried {
        assert_eq!(kept.text("nyquist.sampling.rule").as_deref(), Some("all"));
        let by = kept.text("nyquist.sampling.dry_run.rule");
        assert_eq!(by.as_deref(), (kept.id() != [7; 16]).then_some("fewer"));
        assert_eq!(kept.span.trace_state, "");
    }
}

#[test]
fn a_dry_run_keeps_everything() {
    let rules = "rules: [{name: none, sampling_percentage: 0, when: {error: true}}, {name: half, sampling_percentage: 50, when: {latency: {threshold: 1ms}}}]";
    let policies = "
policies:
  - {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}
  - {name: d, type: drop, drop: {drop_sub_policy: [{name: l, type: latency, latency: {threshold_ms: 500}}]}}
";
    for (yaml, expected) in [
        (rules, ["none not_sampled", "half sampled", "half not_sampled", "- not_sampled"]),
        (policies, ["errors sampled", "- not_sampled", "- not_sampled", "d dropped"]),
    ] {
        let rig = Rig::new(&format!("memory_limit_mib: 64\ndry_run: true\nmaximum_trace_size_bytes: 4096\n{yaml}"));
        let quick = |mut span: Span| {
            span.end_time_unix_nano = span.start_time_unix_nano;
            span
        };
        let mut slow = quick(span([4; 16]));
        if yaml == policies {
            slow.end_time_unix_nano += 1_000_000_000;
        }
        rig.insert(&request(vec![failed(quick(span([1; 16]))), span([0xff; 16]), span([3; 16]), slow]), secs(0));
        let mut told: Vec<(Id, String)> = rig
            .finish(secs(0))
            .iter()
            .map(|kept| {
                let by = kept.text("nyquist.sampling.rule").or_else(|| kept.text("tailsampling.policy"));
                let decision = kept.text("nyquist.sampling.dry_run").unwrap_or_default();
                assert_eq!(kept.span.trace_state, "");
                (kept.id(), format!("{} {decision}", by.as_deref().unwrap_or("-")))
            })
            .collect();
        told.sort_unstable();
        let wanted =
            [([1; 16], expected[0]), ([3; 16], expected[2]), ([4; 16], expected[3]), ([0xff; 16], expected[1])];
        assert_eq!(told, wanted.map(|(id, told)| (id, told.to_owned())));
        assert_eq!(rig.ledger.count(Entry::SampledOut), 0);
        // A trace that is too large passes too.
        let mut large = span([5; 16]);
        large.attributes.push(attribute("big", text(&"x".repeat(5000))));
        rig.insert(&request(vec![large]), secs(1));
        assert_eq!(rig.finish(secs(1)).len(), 1);
    }
}

#[test]
fn too_many_adaptive_rates_are_refused() {
    let rules = |count: usize| -> String {
        let rule = |index| format!("{{name: r{index}, adaptive: {{goal_percentage: 5}}, when: {{error: true}}}}");
        format!("rules: [{}]", (0..count).map(rule).collect::<Vec<_>>().join(", "))
    };
    assert!(read_config(&rules(60)).is_ok());
    assert!(read_config(&rules(64)).unwrap_err().contains("too many"));
    assert!(read_config(&format!("dry_run: true\n{}", rules(32))).unwrap_err().contains("too many"));
}

#[test]
fn mistakes_are_told() {
    for (rule, told) in [
        ("adaptive: {}", "exactly one of goal_percentage"),
        ("adaptive: {goal_percentage: 5, goal_spans_per_second: 5}", "exactly one of goal_percentage"),
        ("adaptive: {goal_percentage: 0}", "not above 0"),
        ("adaptive: {goal_traces_per_second: -1}", "above 0"),
        ("adaptive: {goal_percentage: 5, weight: 1}", "not between 0 and 1"),
        ("adaptive: {goal_percentage: 5, max_keys: 0}", "not between 1 and 10000"),
        ("adaptive: {goal_percentage: 5, adjustment_interval: 10ms}", "at least 1s"),
        ("adaptive: {goal_percentage: 5, keys: [a, b, c, d, e, f, g, h, i]}", "at most 8 different keys"),
        ("adaptive: {goal_percentage: 5, keys: [root.]}", "name of an attribute"),
        ("adaptive: {goal_percentage: 5, initial_percentage: 200}", "not between 0 and 100"),
        ("adaptive: {goal_percentage: 5}, sampling_percentage: 4", "not together"),
        ("budget: {}", "above 0"),
        ("budget: {spans_per_second: 5, burst_capacity: 0}", "above 0"),
        ("budget: {spans_per_second: 5}, sampling_percentage: 400", "not between 0 and 100"),
        ("dry_run: true", "required: how much"),
    ] {
        let error = read_config(&format!("rules: [{{name: r, {rule}}}]")).unwrap_err();
        assert!(error.contains(told), "{rule}: {error}");
    }
}
