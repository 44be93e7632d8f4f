//! What `explain` tells beside what is decided.

use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::support::{attribute, failed, request, span, text};
use crate::tail_sampling::config::TailSamplingConfig;
use crate::tail_sampling::request::{IdHash, Request};
use crate::tail_sampling::rules::compile::{Problems, compile};
use crate::tail_sampling::rules::verdict::{Decision, Votes};
use crate::tail_sampling::rules::{Facts, RuleSet};

fn rule_set(yaml: &str) -> RuleSet {
    let config: TailSamplingConfig = serde_yaml::from_str(yaml).unwrap();
    let mut problems = Problems::default();
    let rules = compile(&config, &mut problems);
    assert_eq!(problems.list, []);
    rules
}

const POLICIES: &str = "
policies:
  - {name: p, type: probabilistic, probabilistic: {sampling_percentage: 30}}
  - {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}
  - {name: few, type: rate_limiting, rate_limiting: {spans_per_second: 2}}
  - {name: d, type: drop, drop: {drop_sub_policy: [{name: h, type: string_attribute, string_attribute: {key: k, values: [health]}}]}}
  - name: shares
    type: composite
    composite:
      max_total_spans_per_second: 3
      composite_sub_policy: [{name: all, type: always_sample}]
";

const RULES: &str = "
rules:
  - {name: errors, sampling_percentage: 100, when: {error: true}}
  - {name: health, sampling_percentage: 0, when: {attribute: {key: k, values: [health]}}}
  - {name: rest, sampling_percentage: 30}
";

const RATES: &str = "
rules:
  - {name: tried, dry_run: true, sampling_percentage: 0, when: {error: true}}
  - {name: errors, budget: {spans_per_second: 3}, when: {error: true}}
  - {name: rest, sampling_percentage: 60, budget: {spans_per_second: 5}}
";

/// However often it is asked, the answer is what is decided next; and it takes no tokens.
#[test]
fn the_explanation_is_what_is_decided() {
    for (yaml, first) in [(POLICIES, ""), (POLICIES, "sample_on_first_match: true"), (RULES, ""), (RATES, "")] {
        let rules = rule_set(&format!("{first}{yaml}"));
        let hash = IdHash::new(1);
        let mut rng = StdRng::seed_from_u64(3);
        let mut decided = [0; 3];
        for step in 0..500u64 {
            let mut one = span(rng.random());
            if rng.random_bool(0.2) {
                one = failed(one);
            }
            if rng.random_bool(0.2) {
                one.attributes.push(attribute("k", text("health")));
            }
            let mut read = Request::default();
            read.read(&request(vec![one]).encode_to_vec(), &rules.plan, &hash);
            let run = &read.shards[0][0];
            let (id, bits, extra) = (&run.id, &run.bits, read.extras.get(run.extra));
            let facts = Facts { id, bits, start: run.start, end: run.end, spans: 1, bytes: 1, extra };
            let now = step * 20_000_000;
            let votes = rules.explain(&facts, now);
            assert_eq!(votes, rules.explain(&facts, now), "asking changes nothing");
            assert_eq!(votes.len(), rules.names.len());
            let verdict = rules.decide(&facts, now, &mut Votes::new(rules.names.len()));
            let decider: Vec<_> = votes.iter().filter(|vote| vote.decides).collect();
            assert!(decider.len() <= 1);
            let decision = decider.first().map_or(Decision::NotSampled, |vote| vote.decision.unwrap());
            assert_eq!(decision, verdict.decision);
            assert_eq!(decider.first().map(|vote| vote.reason), verdict.reason);
            decided[decision as usize] += 1;
        }
        assert!(decided[Decision::Sampled as usize] > 50 && decided[Decision::NotSampled as usize] > 20, "{decided:?}");
    }
}
