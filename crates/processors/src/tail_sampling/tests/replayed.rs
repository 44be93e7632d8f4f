//! Replays decide as the sampler of a gateway does.

use std::collections::BTreeSet;

use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::support::{Id, Rig, by_trace, failed, request, secs, span};
use crate::tail_sampling::config::TailSamplingConfig;
use crate::tail_sampling::replay::{Report, replay};

fn config(yaml: &str) -> TailSamplingConfig {
    serde_yaml::from_str(yaml).unwrap()
}

fn kept(report: &Report) -> BTreeSet<String> {
    report.traces.iter().filter(|trace| trace.is_kept()).map(|trace| trace.trace_id.clone()).collect()
}

/// A span that ends in second `end`.
fn ended(id: Id, end: u64) -> nyquist_core::proto::trace::v1::Span {
    let end = (1_000 + end) * 1_000_000_000;
    let mut span = span(id);
    (span.start_time_unix_nano, span.end_time_unix_nano) = (end - 1_000_000, end);
    span
}

const RULES: &str = "
rules:
  - {name: errors, sampling_percentage: 100, when: {error: true}}
  - {name: large, sampling_percentage: 50, when: {span_count: {min: 3}}}
  - {name: default, sampling_percentage: 20}
";

/// Random traces, split over requests: a replay keeps the traces that a gateway with several shards
/// keeps, whatever limits its buffer has, and keeps them again.
#[test]
fn it_keeps_what_a_gateway_keeps() {
    let mut rng = StdRng::seed_from_u64(11);
    let ids: Vec<Id> = (0..300).map(|_| rng.random()).collect();
    let mut requests = Vec::new();
    for _ in 0..60 {
        let spans = (0..12).map(|_| span(ids[rng.random_range(0..ids.len())]));
        let mut spans: Vec<_> = spans.collect();
        spans[0] = failed(spans[0].clone());
        requests.push(request(spans));
    }
    let rig = Rig::new(&format!("{RULES}memory_limit_mib: 64\nnum_shards: 4"));
    requests.iter().for_each(|request| rig.insert(request, secs(0)));
    let spans = by_trace(&rig.finish(secs(40)));
    let encoded: Vec<Vec<u8>> = requests.iter().map(Message::encode_to_vec).collect();
    for limits in ["", "num_traces: 5", "memory_limit_mib: 4\nblock_on_overflow: true", "decision_wait: 160h"] {
        let report = replay(&config(&format!("{RULES}{limits}")), &encoded, false).unwrap();
        assert_eq!(kept(&report), spans.keys().map(hex::encode).collect());
        let summary = &report.summary;
        let all: usize = spans.values().sum();
        assert_eq!((summary.spans, summary.kept_spans, summary.kept_traces), (720, all as u64, spans.len() as u64));
        assert!(report.traces.iter().all(|trace| trace.decisions.len() == 1));
        let by_rule: u64 = summary.rules.iter().map(|line| line.traces).sum();
        assert_eq!(by_rule, summary.traces);
    }
}

/// Paced, limits have their effect: of traces that come within the wait, the oldest are decided early.
#[test]
fn paced_it_heeds_the_limits_of_the_buffer() {
    let requests: Vec<Vec<u8>> =
        (0..10).map(|number| request(vec![ended([number + 1; 16], u64::from(number))]).encode_to_vec()).collect();
    let triggers = |yaml: &str, pace: bool| -> Vec<String> {
        let report = replay(&config(&format!("{RULES}{yaml}")), &requests, pace).unwrap();
        report.traces.iter().map(|trace| trace.decisions[0].trigger.clone()).collect()
    };
    assert_eq!(triggers("num_traces: 3", false), ["wait"; 10]);
    assert_eq!(triggers("num_traces: 3", true), [["count"; 7].as_slice(), ["wait"; 3].as_slice()].concat());
    // Senders wait instead.
    assert_eq!(triggers("num_traces: 3\nblock_on_overflow: true", true), ["wait"; 10]);
    // With a short wait there are never three.
    assert_eq!(triggers("num_traces: 3\ndecision_wait: 1s", true), ["wait"; 10]);
    assert_eq!(triggers("decision_wait_after_root_received: 1s", true), ["root"; 10]);
}

/// Times without sense (none, the far future) only move the clock.
#[test]
fn any_times_will_do() {
    let mut no_time = span([1; 16]);
    (no_time.start_time_unix_nano, no_time.end_time_unix_nano) = (0, 0);
    let mut far = span([2; 16]);
    far.end_time_unix_nano = u64::MAX;
    let requests = [far, no_time, ended([3; 16], 7)].map(|span| request(vec![span]).encode_to_vec());
    for pace in [false, true] {
        let report = replay(&config(RULES), &requests, pace).unwrap();
        assert_eq!(report.traces.len(), 3);
        assert!(report.traces.iter().all(|trace| trace.decisions.len() == 1));
    }
}

/// No traces at all, and no rules at all.
#[test]
fn nothing_gives_nothing() {
    let report = replay::<Vec<u8>>(&config(RULES), &[], true).unwrap();
    assert_eq!((report.traces.len(), report.summary.kept_percentage), (0, 0.0));
    let report = replay(&config("{}"), &[request(vec![span([1; 16])]).encode_to_vec()], false).unwrap();
    assert_eq!((report.summary.traces, report.summary.kept_traces), (1, 0));
    assert_eq!(report.summary.rules.len(), 1);
    assert!(replay::<Vec<u8>>(&config("num_shards: 1000"), &[], true).is_ok(), "shards do not matter here");
    assert!(replay::<Vec<u8>>(&config("sampling_strategy: other"), &[], true).is_err());
}
