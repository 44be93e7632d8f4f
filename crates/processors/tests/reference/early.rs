//! Decisions before their time: traces that have arrived whole are decided as they would be later.

use std::time::Duration;

use serde_json::json;

use crate::generate::{id, places, request, settings, span};
use crate::model::same_spans;
use crate::random::{Random, seeds};
use crate::rig::{Rig, strip};
use crate::sampler::Reference;
use crate::spans::Placed;

#[test]
fn because_there_are_too_many() {
    for seed in seeds(60) {
        let mut random = Random::new(seed);
        let num_traces = random.between(1, 20);
        let early = whole_traces(seed, &mut random, 60, 0, json!({ "num_traces": num_traces }), "count");
        assert!(early > 0, "NYQUIST_SEED={seed}");
    }
}

#[test]
fn because_memory_is_short() {
    for seed in seeds(3) {
        let mut random = Random::new(seed);
        let early = whole_traces(seed, &mut random, 3_000, 5_000, json!({ "memory_limit_mib": 8 }), "memory");
        assert!(early > 100, "{early} traces were decided early; NYQUIST_SEED={seed}");
    }
}

/// Traces of which each comes in one request, under a limit that makes decisions come early. Gives
/// how many did because of it.
fn whole_traces(
    seed: u64,
    random: &mut Random,
    traces: usize,
    padding: usize,
    limit: serde_json::Value,
    trigger: &str,
) -> u64 {
    let settings = settings(random);
    let mut config = settings.json();
    for (key, value) in limit.as_object().expect("it is an object") {
        config[key] = value.clone();
    }
    // Nothing is due before the end.
    config["decision_wait"] = json!("1h");
    config["decision_wait_after_root_received"] = json!("1h");
    config["decision_wait_after_last_span"] = json!("1h");
    config["drop_pending_traces_on_shutdown"] = json!(false);
    config["span_limit"] = json!(0);
    config["num_shards"] = json!(random.between(1, 4));
    let context = format!("NYQUIST_SEED={seed}\n{config:#}");

    let rig = Rig::new(&config);
    let mut reference = Reference::new(crate::sampler::Settings { drop_pending: false, span_limit: None, ..settings });
    let places = places(random);
    let mut kept = Vec::new();
    for _ in 0..traces {
        let id = id(random);
        let spans = (0..random.between(1, 4)).map(|_| {
            let mut placed = Placed { span: span(random, id), ..random.pick(&places) };
            placed.span.trace_state.push_str(&" ".repeat(padding));
            placed
        });
        let spans: Vec<Placed> = spans.collect();
        let request = request(random, spans);
        rig.insert(&request, Duration::ZERO);
        reference.insert(&request, 0);
        kept.extend(rig.take(Duration::ZERO));
    }
    let early: u64 = ["sampled", "not_sampled", "dropped"]
        .into_iter()
        .flat_map(|decision| policies(&config).into_iter().map(move |policy| (policy, decision)))
        .map(|(policy, decision)| {
            rig.counter("decisions", &[("policy", &policy), ("trigger", trigger), ("decision", decision)])
        })
        .sum();
    rig.decide_all(Duration::ZERO, false);
    reference.shut_down();
    kept.extend(rig.take(Duration::ZERO));
    let kept: Vec<_> = kept.into_iter().map(strip).collect();
    same_spans(&kept, &reference, &context);
    early
}

/// What the label `policy` can be.
fn policies(config: &serde_json::Value) -> Vec<String> {
    let lists = ["rules", "policies"].into_iter().filter_map(|list| config[list].as_array());
    let names = lists.flatten().filter_map(|policy| policy["name"].as_str()).map(str::to_owned);
    names.chain(["none".to_owned()]).collect()
}
