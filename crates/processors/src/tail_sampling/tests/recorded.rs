//! What kept spans say about themselves: the rule or policy, the trigger, and the rate.

use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::trace::v1::Span;
use prost::Message;

use super::support::{
    EVERYTHING, Id, KeptSpan, Rig, T1, T2, T3, child, config, failed, id_of, millis, request, secs, span, value,
};

fn rate(kept: &KeptSpan) -> Option<f64> {
    match value(&kept.span.attributes, "nyquist.sampling.rate") {
        Some(Value::DoubleValue(rate)) => Some(*rate),
        None => None,
        other => panic!("the rate is no number: {other:?}"),
    }
}

fn trigger(kept: &KeptSpan) -> Option<String> {
    kept.text("nyquist.sampling.trigger")
}

/// Decides at `at` seconds, and gives what is kept.
fn kept_at(rig: &Rig, at: u64) -> Vec<KeptSpan> {
    rig.decide(secs(at));
    rig.take(secs(at))
}

/// Guarantee: whatever makes a trace be decided, it says so, with the rule and its rate: on the root, on all spans,
/// or nowhere.
#[test]
fn every_kept_trace_says_its_trigger() {
    for (record, of_trace) in [("root", 1), ("all", 2), ("none", 0)] {
        let waits = "decision_wait: 10s\ndecision_wait_after_root_received: 2s\ndecision_wait_after_last_span: 4s";
        let rig = config(EVERYTHING, &format!("{waits}\nspan_limit: 3\nrecord: {record}"));
        let expect = |kept: &[KeptSpan], id: Id, expected: &str| {
            let named: Vec<_> = kept.iter().filter(|kept| trigger(kept).is_some()).collect();
            assert_eq!(named.len(), of_trace, "{record} {expected}: {kept:?}");
            for kept in named {
                assert_eq!((kept.id(), trigger(kept).as_deref()), (id, Some(expected)), "{record}");
                assert_eq!((kept.text("nyquist.sampling.rule").as_deref(), rate(kept)), (Some("all"), Some(100.0)));
            }
        };
        rig.insert(&request(vec![child(T1), span(T1)]), secs(0));
        expect(&kept_at(&rig, 3), T1, "root");
        rig.insert(&request(vec![child(T2), child(T2)]), secs(10));
        expect(&kept_at(&rig, 15), T2, "idle");
        // A third span would be the limit.
        rig.insert(&request(vec![child(T3)]), secs(20));
        rig.insert(&request(vec![child(T3)]), secs(23));
        rig.decide(secs(26));
        assert_eq!(rig.sampler.pending(), 1);
        rig.decide_all(secs(26));
        expect(&rig.take(secs(26)), T3, "shutdown");
    }
    let rig = config(EVERYTHING, "decision_wait: 10s");
    rig.insert(&request(vec![child(T1), span(T1)]), secs(0));
    let kept = kept_at(&rig, 11);
    assert_eq!(kept.iter().filter_map(trigger).collect::<Vec<_>>(), ["wait"]);
    // What comes later says that it is late, and not what decided the others.
    rig.insert(&request(vec![child(T1)]), secs(12));
    let late = rig.take(secs(12));
    assert!(late[0].has("nyquist.sampling.late") && trigger(&late[0]).is_none());
}

/// Guarantee: with `policies`, the Collector's attributes are there as they are in the Collector, and the trigger,
/// and the rate where it is known.
#[test]
fn policies_say_their_rate_where_it_is_known() {
    const ERRORS: &str = "{name: errors, type: status_code, status_code: {status_codes: [ERROR]}}";
    const TENTH: &str = "{name: tenth, type: probabilistic, probabilistic: {sampling_percentage: 10}}";
    const LIMIT: &str = "{name: limit, type: rate_limiting, rate_limiting: {spans_per_second: 100000}}";
    let composite = format!(
        "{{name: c, type: composite, composite: {{max_total_spans_per_second: 1000, composite_sub_policy: [{ERRORS}, \
         {{name: rest, type: always_sample}}]}}}}"
    );
    let both =
        format!("{{name: and, type: and, and: {{and_sub_policy: [{TENTH}, {{name: all, type: always_sample}}]}}}}");
    let not = format!("{{name: not, type: not, not: {{not_sub_policy: {TENTH}}}}}");
    let spans = |failures: bool| -> Vec<Span> {
        (0..400).map(|number| if failures { failed(span(id_of(number))) } else { span(id_of(number)) }).collect()
    };
    // Policies; of failed traces the policy and rate, and of others.
    let cases = [
        (format!("{ERRORS}, {TENTH}"), ("errors", Some(100.0)), ("tenth", Some(10.0))),
        (both, ("and", Some(10.0)), ("and", Some(10.0))),
        (not, ("not", None), ("not", None)),
        (LIMIT.to_owned(), ("limit", None), ("limit", None)),
        (format!("{ERRORS}, {LIMIT}"), ("errors", Some(100.0)), ("limit", None)),
        // The limit gives what a tenth leaves a second chance.
        (format!("{LIMIT}, {TENTH}"), ("limit", None), ("limit", None)),
        (composite, ("c", None), ("c", None)),
    ];
    for compat in ["", "compat: otelcol\n"] {
        for (policies, of_failed, of_others) in &cases {
            for (failures, (policy, expected)) in [(true, of_failed), (false, of_others)] {
                let rig = Rig::new(&format!("memory_limit_mib: 64\n{compat}policies: [{policies}]"));
                rig.insert(&request(spans(failures)), secs(0));
                let kept = kept_at(&rig, 31);
                assert!(!kept.is_empty(), "{policies}");
                for kept in &kept {
                    assert_eq!(kept.text("tailsampling.policy").as_deref(), Some(*policy), "{policies}");
                    assert_eq!(rate(kept), *expected, "{policies}");
                    assert_eq!(trigger(kept).as_deref(), Some("wait"));
                }
            }
        }
    }
    // A limit that goes by randomness has a rate at each moment, and it is that of the threshold.
    let rig = Rig::new(
        "{memory_limit_mib: 64, use_tracestate: true, policies: [{name: l, type: rate_limiting, rate_limiting: \
         {spans_per_second: 100}}]}",
    );
    rig.insert(&request(spans(false)), secs(0));
    let kept = kept_at(&rig, 31);
    assert!(kept.iter().any(|kept| rate(kept).is_some_and(|rate| rate < 100.0)), "there are more than the limit");
    for kept in &kept {
        let rate = rate(kept).expect("it is known");
        assert_eq!(kept.span.trace_state.is_empty(), rate == 100.0, "{rate} {}", kept.span.trace_state);
    }
}

/// A dry run says what a policy that keeps would have done; a `drop` has no rate.
#[test]
fn a_drop_has_no_rate() {
    let rig = Rig::new(
        "
memory_limit_mib: 64
dry_run: true
policies:
  - {name: d, type: drop, drop: {drop_sub_policy: [{name: e, type: status_code, status_code: {status_codes: [ERROR]}}]}}
  - {name: half, type: probabilistic, probabilistic: {sampling_percentage: 50}}
",
    );
    rig.insert(&request(vec![failed(span(T1)), span(T2), span(T3), span(id_of(7))]), secs(0));
    let kept = kept_at(&rig, 31);
    assert_eq!(kept.len(), 4);
    for kept in kept {
        let dropped = kept.text("nyquist.sampling.dry_run").as_deref() == Some("dropped");
        assert_eq!(dropped, kept.id() == T1);
        let named = kept.has("tailsampling.policy");
        assert_eq!(rate(&kept), (named && !dropped).then_some(50.0));
    }
}

/// Scenario: a full buffer of the smallest spans, each of which is going to say why it was kept.
/// Guarantee: what is written to them is counted where a batch ends, so the budget is kept (the rig sees to that), and
/// nothing is lost.
#[test]
fn what_is_written_to_spans_is_part_of_a_batch() {
    let rule = "a-rule-with-a-name-that-says-in-many-words-what-it-is-for";
    let rig = Rig::new(&format!(
        "
memory_limit_mib: 4
num_shards: 1
decision_wait: 1s
record: all
rules: [{{name: {rule}, sampling_percentage: 100}}]
"
    ));
    let mut sent = 0;
    for number in 0.. {
        let one = Span { trace_id: id_of(number).to_vec(), ..Span::default() };
        let message = request(vec![one; 500]).encode_to_vec();
        if rig.sampler.insert(&message, millis(number)).is_err() {
            break;
        }
        sent += 500;
    }
    assert!(sent > 50_000, "{sent}");
    let mut kept = 0;
    rig.decide_all(secs(100));
    while let Some(out) = rig.sampler.take(0, secs(100)) {
        let batch = out.batch();
        kept += batch.items();
        let size = batch.into_wire().len();
        // A batch of this budget, and one record of 16 KiB with what is written to each of its 820 spans.
        assert!(size < (64 << 10) + 820 * 195, "{size}");
        out.accepted();
    }
    assert_eq!(kept, sent);
}
