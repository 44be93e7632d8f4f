//! What a sampler tells of a trace, against what it did with it.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::support::{Id, Rig, by_trace, failed, request, secs, span};
use crate::tail_sampling::config::TailSamplingConfig;
use crate::tail_sampling::explain::{Decided, Explanation, Status};

const RULES: &str = "
decision_wait: 10s
memory_limit_mib: 64
rules:
  - {name: errors, sampling_percentage: 100, when: {error: true}}
  - {name: two, sampling_percentage: 50, when: {span_count: {min: 2}}}
  - {name: default, sampling_percentage: 10}
";

fn matched(decided: &Decided) -> Vec<&str> {
    decided.votes.iter().filter(|vote| vote.matched).map(|vote| vote.rule.as_str()).collect()
}

fn ask(rig: &Rig, id: Id, seconds: u64) -> Explanation {
    rig.sampler.explain(&id, secs(seconds))
}

/// Whatever the number of shards: every trace is undecided first, then what is told is what was done,
/// with the rule, its rate and the numbers of the trace.
#[test]
fn it_tells_what_it_did() {
    for shards in [1, 3, 8] {
        let rig = Rig::new(&format!("{RULES}num_shards: {shards}"));
        let mut rng = StdRng::seed_from_u64(shards);
        let mut sent: Vec<(Id, bool, u64)> = Vec::new();
        for step in 0..400 {
            let (id, error, spans) = (rng.random(), rng.random_bool(0.2), rng.random_range(1..4u64));
            let mut list = vec![span(id); spans as usize];
            if error {
                list[0] = failed(list[0].clone());
            }
            rig.insert(&request(list), secs(step / 100));
            sent.push((id, error, spans));
        }
        for (id, _, spans) in &sent {
            let told = ask(&rig, *id, 5);
            let undecided = told.undecided.unwrap();
            assert_eq!((told.status, undecided.spans, told.decisions.len()), (Status::Undecided, *spans, 0));
            assert!(undecided.has_root);
            assert!(((undecided.waiting_seconds + undecided.decided_in_seconds) - 10.0).abs() < 1e-6);
        }
        rig.decide(secs(20));
        let kept = by_trace(&rig.take(secs(20)));
        for (id, error, spans) in sent {
            let told = ask(&rig, id, 50);
            let is_kept = kept.contains_key(&id);
            assert_eq!(told.status, if is_kept { Status::Kept } else { Status::Dropped });
            let [decided] = &told.decisions[..] else { panic!("{told:?}") };
            let (rule, rate) = match (error, spans) {
                (true, _) => ("errors", 100.0),
                (_, 2..) => ("two", 50.0),
                _ => ("default", 10.0),
            };
            assert_eq!((decided.rule.as_deref(), decided.sampling_percentage), (Some(rule), Some(rate)));
            assert_eq!((decided.kept, decided.trigger.as_str(), decided.spans), (is_kept, "wait", spans));
            assert_eq!(decided.threshold <= decided.randomness, is_kept, "both have 14 digits");
            assert_eq!((decided.duration_ms, decided.seconds_ago), (100.0, 30.0));
            assert!((16.0..=20.0).contains(&decided.waited_seconds));
            let mut all = Vec::new();
            all.extend(error.then_some("errors"));
            all.extend((spans > 1).then_some("two"));
            assert_eq!(matched(decided), [all, vec!["default"]].concat());
        }
        assert_eq!(ask(&rig, [7; 16], 50).status, Status::Unknown);
    }
}

/// A decision that has left the log is told as far as it is remembered for late spans; the log says how
/// far back it goes.
#[test]
fn what_is_older_than_the_log_is_told_in_short() {
    let config = "decision_log: {size: 4}\nnum_shards: 1\ndecision_cache: {sampled_cache_size: 100}";
    let rig = Rig::new(&format!("{RULES}{config}"));
    for number in 1..=10 {
        rig.insert(&request(vec![failed(span([number; 16]))]), secs(u64::from(number)));
        rig.decide(secs(u64::from(number) + 10));
    }
    let _ = rig.take(secs(30));
    for number in 1..=10u8 {
        let told = ask(&rig, [number; 16], 30);
        assert_eq!((told.status, told.log.decisions, told.log.seconds), (Status::Kept, 4, 13.0));
        assert_eq!(told.decisions.len(), usize::from(number > 6));
        let rule = told.remembered.map(|remembered| (remembered.kept, remembered.rule.unwrap()));
        assert_eq!(rule, (number <= 6).then(|| (true, "errors".to_owned())));
    }
}

/// Spans that come after everything about their trace is forgotten make it a new one; all decisions
/// that the log has are told, the latest first.
#[test]
fn a_trace_that_is_decided_twice_shows_both() {
    let rig = Rig::new(&format!("{RULES}decision_cache: {{sampled_cache_size: 0, non_sampled_cache_size: 0}}"));
    rig.insert(&request(vec![failed(span([1; 16]))]), secs(0));
    rig.decide(secs(10));
    let _ = rig.take(secs(10));
    rig.insert(&request(vec![span([1; 16]), span([1; 16])]), secs(20));
    let told = ask(&rig, [1; 16], 25);
    assert_eq!((told.status, told.decisions.len()), (Status::Undecided, 1));
    rig.decide(secs(30));
    let told = ask(&rig, [1; 16], 40);
    let rules: Vec<_> = told.decisions.iter().map(|decided| decided.rule.as_deref().unwrap()).collect();
    assert_eq!(rules, ["two", "errors"]);
}

/// Votes are those at the time of the decision: a limit that let a trace pass has voted for it, though
/// nothing is left of it afterwards, and whoever else was the reason.
#[test]
fn votes_of_limits_are_those_of_then() {
    let rig = Rig::new(
        "
memory_limit_mib: 64
policies:
  - {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}
  - {name: few, type: rate_limiting, rate_limiting: {spans_per_second: 1, burst_capacity: 1}}
num_shards: 1
",
    );
    rig.insert(&request(vec![failed(span([1; 16]))]), secs(1));
    rig.insert(&request(vec![failed(span([2; 16]))]), secs(2));
    rig.insert(&request(vec![span([3; 16])]), secs(3));
    rig.decide(secs(60));
    let votes = |id: u8| {
        let told = ask(&rig, [id; 16], 60);
        let matched: Vec<String> = matched(&told.decisions[0]).into_iter().map(str::to_owned).collect();
        (told.decisions[0].rule.clone(), matched)
    };
    let errors = Some("errors".to_owned());
    assert_eq!(votes(1), (errors.clone(), vec!["errors".to_owned(), "few".to_owned()]));
    assert_eq!(votes(2), (errors, vec!["errors".to_owned()]));
    assert_eq!(votes(3), (None, vec![]));
    let told = ask(&rig, [1; 16], 60);
    assert_eq!((&told.decisions[0].sampling_percentage, &told.decisions[0].threshold), (&None, &None));
}

/// Of a `composite` it is told which of its policies had room for the trace; also when the log has forgotten it.
#[test]
fn sub_policies_are_told() {
    let rig = Rig::new(
        "
memory_limit_mib: 64
num_shards: 1
decision_log: {size: 2}
policies:
  - name: both
    type: composite
    composite:
      max_total_spans_per_second: 100
      policy_order: [errors, rest]
      composite_sub_policy:
        - {name: rest, type: always_sample}
        - {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}
",
    );
    for (id, failing) in [(1, true), (2, true), (3, false)] {
        let span = span([id; 16]);
        rig.insert(&request(vec![if failing { failed(span) } else { span }]), secs(u64::from(id)));
    }
    rig.decide(secs(60));
    let _ = rig.take(secs(60));
    let told = |id: u8| {
        let told = ask(&rig, [id; 16], 60);
        let decided = told.decisions.into_iter().map(|decided| (decided.rule, decided.sub_policy)).next();
        decided.or(told.remembered.map(|remembered| (remembered.rule, remembered.sub_policy))).unwrap()
    };
    let by = |member: &str| (Some("both".to_owned()), Some(member.to_owned()));
    assert_eq!([1, 2, 3].map(told), [by("errors"), by("errors"), by("rest")]);
}

/// A trace that outgrew its limit is dropped without asking policies, and that is told.
#[test]
fn a_trace_that_is_too_large_is_told_as_such() {
    let yaml = "maximum_trace_size_bytes: 10\npolicies: [{name: all, type: always_sample}]";
    let rig = Rig::new(yaml);
    rig.insert(&request(vec![span([1; 16])]), secs(1));
    let told = ask(&rig, [1; 16], 1);
    let decided = &told.decisions[0];
    assert_eq!((told.status, decided.trigger.as_str(), decided.rule.as_deref()), (Status::Dropped, "size", None));
    assert_eq!(matched(decided), [""; 0]);
}

/// Turned off, it remembers nothing and takes no memory; otherwise what it can take is part of the
/// budget from the start, and never more than its share.
#[test]
fn the_log_is_part_of_the_budget() {
    let memory = |yaml: &str| {
        let rig = Rig::new(&format!("rules: [{{name: all, sampling_percentage: 0}}]\nnum_shards: 2\n{yaml}"));
        for shard in 0..2 {
            rig.sampler.decide(shard, secs(0), 1);
        }
        rig.sampler.memory()
    };
    let off = memory("memory_limit_mib: 64\ndecision_log: {size: 0}");
    let thousand = memory("memory_limit_mib: 64\ndecision_log: {size: 1000}") - off;
    assert!((64_000..=160_000).contains(&thousand), "{thousand} bytes for a thousand decisions");
    assert_eq!(memory("memory_limit_mib: 64") - off, thousand / 1000 * 16384);
    let small_off = memory("memory_limit_mib: 4\ndecision_log: {size: 0}");
    assert!((1..=4 << 20 >> 4).contains(&(memory("memory_limit_mib: 4") - small_off)));

    let rig = Rig::new(&format!("{RULES}decision_log: {{size: 0}}"));
    rig.insert(&request(vec![failed(span([1; 16]))]), secs(0));
    assert_eq!(ask(&rig, [1; 16], 1).status, Status::Undecided);
    rig.decide(secs(10));
    let _ = rig.take(secs(10));
    let told = ask(&rig, [1; 16], 11);
    assert_eq!((told.status, told.decisions.len(), told.log.is_off), (Status::Kept, 0, true));
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    for (yaml, wanted) in [
        ("decision_log: {size: 2000000}", "decision_log.size: 2000000 is too large"),
        ("memory_limit_mib: 4\ndecision_log: {size: 500000}", "more than a quarter of memory_limit_mib"),
    ] {
        let config: TailSamplingConfig = serde_yaml::from_str(yaml).unwrap();
        let error = Rig::of(&config).err().unwrap();
        assert!(error.contains(wanted), "{error}");
    }
}

/// More rules than votes are remembered: the decision is told all the same.
#[test]
fn many_rules() {
    let rule = |number: usize| {
        format!("{{name: r{number}, sampling_percentage: 100, when: {{span_count: {{min: {number}}}}}}}")
    };
    let rules: Vec<String> = (2..100).rev().chain([1]).map(rule).collect();
    let rig = Rig::new(&format!("memory_limit_mib: 64\nrules: [{}]", rules.join(", ")));
    for (id, spans) in [(1u8, 99), (2, 50), (3, 1)] {
        rig.insert(&request(vec![span([id; 16]); spans]), secs(0));
        rig.decide(secs(30));
        let told = ask(&rig, [id; 16], 30);
        assert_eq!(told.decisions[0].rule, Some(format!("r{spans}")));
        assert_eq!(told.decisions[0].votes.len(), 64);
        let from = told.decisions[0].votes.iter().position(|vote| vote.matched);
        assert_eq!(from, Some(99 - spans).filter(|from| *from < 64));
    }
}
