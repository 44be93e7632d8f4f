//! The votes beside a decision.

use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::support::{attribute, failed, request, span, text};
use crate::tail_sampling::config::TailSamplingConfig;
use crate::tail_sampling::request::{IdHash, Request, Sender};
use crate::tail_sampling::rules::ballot::Ballot;
use crate::tail_sampling::rules::compile::{Problems, compile};
use crate::tail_sampling::rules::marks::Marks;
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

/// Whoever wants to know how the others vote gets the same decision, and nobody's tokens are spent on it.
#[test]
fn votes_change_no_decision() {
    for (yaml, first) in [(POLICIES, ""), (POLICIES, "sample_on_first_match: true"), (RULES, ""), (RATES, "")] {
        let [silent, asked] = [(); 2].map(|()| rule_set(&format!("{first}{yaml}")));
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
            read.read(&request(vec![one]).encode_to_vec(), Sender::Client(&[]), &silent.plan, &hash);
            let run = &read.shards[0][0];
            let (id, bits, extra) = (&run.id, &run.bits, read.extras.get(run.extra));
            let facts =
                Facts { id, bits, start: run.start, end: run.end, spans: 1, bytes: 1, extra, marks: Marks::default() };
            let now = step * 20_000_000;
            let mut ballot = Ballot::EMPTY;
            let mut votes = [(); 2].map(|()| Votes::new(silent.names.len()));
            let verdict = silent.decide(&facts, now, &mut votes[0], None);
            assert_eq!(asked.decide(&facts, now, &mut votes[1], Some(&mut ballot)), verdict);
            assert_eq!(votes[0].0, votes[1].0, "who was asked only is not counted");
            // Who decided, or voted yes before that, matches.
            for (name, [yes, _]) in votes[1].0.iter().enumerate() {
                assert!(*yes == 0 || ballot.matches(name), "{name}");
            }
            let decider = verdict.reason.map(|reason| silent.reasons[usize::from(reason)].name);
            assert!(decider.is_none_or(|name| ballot.matches(name)));
            decided[verdict.decision as usize] += 1;
        }
        assert!(decided[Decision::Sampled as usize] > 50 && decided[Decision::NotSampled as usize] > 20, "{decided:?}");
    }
}
