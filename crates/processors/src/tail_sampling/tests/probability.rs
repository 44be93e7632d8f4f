//! `tracestate`: consistent randomness, and counts that stay true.

use nyquist_core::proto::trace::v1::Span;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::support::{Id, KeptSpan, Rig, failed, millis, request, span};

const ALL: u64 = 1 << 56;

pub(super) fn randomness(id: Id) -> u64 {
    let mut low = [0; 8];
    low[1..].copy_from_slice(&id[9..]);
    u64::from_be_bytes(low)
}

/// The field `key` of the `ot` entry.
fn ot<'a>(trace_state: &'a str, key: &str) -> Option<&'a str> {
    let entry = trace_state.split(',').find_map(|entry| entry.strip_prefix("ot="))?;
    entry.split(';').find_map(|field| field.strip_prefix(key)?.strip_prefix(':'))
}

/// How many spans a kept one stands for.
pub(super) fn adjusted_count(span: &Span) -> f64 {
    let Some(th) = ot(&span.trace_state, "th") else {
        return 1.0;
    };
    let rejected = u64::from_str_radix(&format!("{th:0<14}"), 16).unwrap();
    ALL as f64 / (ALL - rejected) as f64
}

pub(super) fn with_state(mut span: Span, trace_state: &str) -> Span {
    span.trace_state = trace_state.to_owned();
    span
}

fn through(rig: &Rig, spans: Vec<Span>) -> Vec<KeptSpan> {
    for chunk in spans.chunks(500) {
        rig.insert(&request(chunk.to_vec()), millis(0));
    }
    rig.finish(millis(1))
}

const RULES: &str = "
memory_limit_mib: 256
rules:
  - {name: errors, sampling_percentage: 100, when: {error: true}}
  - {name: default, sampling_percentage: 20}
";
const RULES_WITH_SALT: &str = "
memory_limit_mib: 256
hash_salt: pepper
rules: [{name: default, sampling_percentage: 20}]
";
const POLICIES: &str = "
memory_limit_mib: 256
use_tracestate: true
policies:
  - {name: p, type: probabilistic, probabilistic: {sampling_percentage: 20}}
  - {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}
";

/// Head samplers of several rates, then one or two gateways: the sum of adjusted counts is the number
/// of spans that there were before any sampling, as closely as chance allows.
#[test]
fn adjusted_counts_add_up_to_what_was_sent() {
    const TRACES: usize = 60_000;
    // (name, first threshold digits, part kept)
    const HEADS: [(&str, u64); 4] = [("none", 0), ("4", ALL / 4), ("8", ALL / 2), ("e", ALL / 8 * 7)];
    for (name, chain) in [
        ("rules", vec![RULES]),
        ("policies", vec![POLICIES]),
        ("two", vec![RULES, POLICIES]),
        ("salt", vec![RULES_WITH_SALT]),
    ] {
        let mut rng = StdRng::seed_from_u64(5);
        let mut spans = Vec::new();
        for index in 0..TRACES {
            let id: Id = rng.random();
            let (th, rejected) = HEADS[index % HEADS.len()];
            let one = if rng.random_bool(0.1) { failed(span(id)) } else { span(id) };
            if randomness(id) >= rejected {
                spans.push(if rejected == 0 { one } else { with_state(one, &format!("a=1,ot=th:{th}")) });
            }
        }
        let mut kept = Vec::new();
        for yaml in chain {
            kept = through(&Rig::new(yaml), std::mem::take(&mut spans));
            spans = kept.iter().map(|kept| kept.span.clone()).collect();
        }
        let estimate: f64 = kept.iter().map(|kept| adjusted_count(&kept.span)).sum();
        // The variance of a count that is estimated from those kept with probability p: (1 - p) / p^2.
        let variance: f64 = kept.iter().map(|kept| adjusted_count(&kept.span)).map(|count| count * (count - 1.0)).sum();
        let error = (estimate - TRACES as f64).abs();
        assert!(error < 4.0 * variance.sqrt(), "{name}: {estimate} of {TRACES}, deviation {}", variance.sqrt());
        assert!(kept.len() < TRACES / 2, "{name}: something was sampled out");
        let with_head = kept.iter().filter(|kept| kept.span.trace_state.contains("a=1")).count();
        assert!(with_head > 1000, "{name}: what others wrote stays");
    }
}

#[test]
fn explicit_randomness_decides() {
    let rig = Rig::new("memory_limit_mib: 64\nrules: [{name: half, sampling_percentage: 50}]");
    let low: Id = [[0xff; 9].as_slice(), [0x01; 7].as_slice()].concat().try_into().unwrap();
    let high: Id = [0xff; 16];
    let kept = through(
        &rig,
        vec![
            with_state(span(low), "ot=rv:80000000000000"),
            with_state(span(high), "v=1,ot=rv:7fffffffffffff;x:y"),
            span([0xfe; 16]),
        ],
    );
    let mut states: Vec<_> = kept.iter().map(|kept| (kept.id(), kept.span.trace_state.as_str())).collect();
    states.sort_unstable();
    assert_eq!(states, [([0xfe; 16], "ot=th:8"), (low, "ot=th:8;rv:80000000000000")]);
}

/// Randomness that one span of a trace brings counts for all of it; and a stricter threshold stays.
#[test]
fn thresholds_are_each_spans_own() {
    let rig = Rig::new("memory_limit_mib: 64\nrules: [{name: half, sampling_percentage: 50}]");
    let id: Id = [0x01; 16];
    rig.insert(&request(vec![span(id)]), millis(0));
    rig.insert(&request(vec![with_state(span(id), "ot=rv:f0000000000000;th:c"), span(id)]), millis(1));
    let kept = rig.finish(millis(2));
    let mut states: Vec<_> = kept.iter().map(|kept| kept.span.trace_state.as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, ["ot=rv:f0000000000000;th:c", "ot=th:8", "ot=th:8"]);
    // Spans that come late say the same.
    rig.insert(&request(vec![span(id)]), millis(3));
    let late = rig.take(millis(3));
    assert_eq!(late[0].span.trace_state, "ot=th:8");
    assert!(late[0].has("nyquist.sampling.late"));
}

#[test]
fn ids_that_are_not_random_get_explicit_randomness() {
    let rig = Rig::new("memory_limit_mib: 64\nhash_salt: s\nrules: [{name: half, sampling_percentage: 50}]");
    let kept = through(&rig, (1..=100u128).map(|id| span(id.to_be_bytes())).collect());
    assert!((30..70).contains(&kept.len()), "{}", kept.len());
    for kept in &kept {
        let rv = u64::from_str_radix(ot(&kept.span.trace_state, "rv").unwrap(), 16).unwrap();
        assert!(rv >= ALL / 2, "{}", kept.span.trace_state);
    }
    // A gateway without the salt, which goes by what they say.
    let next = Rig::new("memory_limit_mib: 64\nrules: [{name: half, sampling_percentage: 50}]");
    let count = kept.len();
    assert_eq!(through(&next, kept.into_iter().map(|kept| kept.span).collect()).len(), count);
}

#[test]
fn a_malformed_header_is_counted_and_left() {
    let rig = Rig::new("memory_limit_mib: 64\nrules: [{name: most, sampling_percentage: 99}]");
    for bad in ["bad key=1,ot=th:8", "ot=th:G", "ot=rv:12"] {
        let kept = through(&rig, vec![with_state(span([0xff; 16]), bad)]);
        assert_eq!(kept[0].span.trace_state, bad);
    }
    assert_eq!(rig.metric("count_spans_with_unparseable_tracestate", &[]), 3);
}

#[test]
fn it_is_left_alone_where_that_is_asked_for() {
    for yaml in [
        "memory_limit_mib: 64\ntracestate: false\nrules: [{name: half, sampling_percentage: 50}]",
        "memory_limit_mib: 64\nrules: [{name: all, sampling_percentage: 100}]",
        "memory_limit_mib: 64\npolicies: [{name: p, type: probabilistic, probabilistic: {sampling_percentage: 100}}]",
    ] {
        let rig = Rig::new(yaml);
        let kept = through(&rig, vec![with_state(span([0xff; 16]), "ot=rv:00000000000000;th:0")]);
        assert_eq!(kept[0].span.trace_state, "ot=rv:00000000000000;th:0", "{yaml}");
    }
}

/// Nobody knows the rate of a composite or a budget: a threshold would be a lie.
#[test]
fn budgets_erase_the_threshold() {
    for yaml in [
        "
memory_limit_mib: 64
use_tracestate: true
policies:
  - name: c
    type: composite
    composite:
      max_total_spans_per_second: 100
      composite_sub_policy: [{name: r, type: rate_limiting, rate_limiting: {spans_per_second: 10}}]
",
        "
memory_limit_mib: 64
use_tracestate: true
policies:
  - name: n
    type: not
    not: {not_sub_policy: {name: r, type: bytes_limiting, bytes_limiting: {bytes_per_second: 1, burst_capacity: 0}}}
  - {name: none, type: probabilistic, probabilistic: {sampling_percentage: 0}}
",
        "{memory_limit_mib: 64, rules: [{name: r, budget: {spans_per_second: 10}}]}",
    ] {
        let rig = Rig::new(yaml);
        let high = span([0xff; 16]);
        // The first takes what a limit of one byte has.
        through(&rig, vec![span([0xfe; 16])]);
        let kept = through(&rig, vec![with_state(high.clone(), "v=1,ot=th:8"), with_state(high, "v=1,ot=th:8")]);
        let is_erased = kept.iter().all(|kept| kept.span.trace_state == "v=1");
        assert!(is_erased && (kept.len() == 2 || yaml.contains("not:")), "{yaml}: {kept:?}");
    }
}

/// A second gateway replaces the first one's reasons.
#[test]
fn reasons_are_written_once() {
    let rules = "memory_limit_mib: 64\nrecord: all\nrules: [{name: NAME, sampling_percentage: 100}]";
    let mut spans = vec![span([1; 16]), span([2; 16])];
    for name in ["first", "second"] {
        let kept = through(&Rig::new(&rules.replace("NAME", name)), spans);
        for kept in &kept {
            let mut keys: Vec<_> = kept.span.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
            keys.sort_unstable();
            assert_eq!(keys, ["rate", "rule", "trigger"].map(|key| format!("nyquist.sampling.{key}")));
            assert_eq!(kept.text("nyquist.sampling.rule").as_deref(), Some(name));
        }
        spans = kept.into_iter().map(|kept| kept.span).collect();
    }
}

/// Scenario: limits of spans and bytes a second, alone, behind a condition and beside a percentage, on traces of
/// several sizes, from several head samplers, for two minutes, at ten times the rate, with a burst. Guarantee:
/// adjusted counts add up to what was sent and could be kept; the limit holds on average; which traces are
/// kept is by their randomness.
#[test]
fn limits_pick_by_randomness_and_counts_add_up() {
    const HEADS: [(&str, u64); 3] = [("none", 0), ("8", ALL / 2), ("c", ALL / 4 * 3)];
    for (name, policies, is_matched) in [
        ("spans", "{name: l, type: rate_limiting, rate_limiting: {spans_per_second: 50}}", false),
        ("bytes", "{name: l, type: bytes_limiting, bytes_limiting: {bytes_per_second: 2500}}", false),
        (
            "errors",
            "{name: l, type: and, and: {and_sub_policy: [{name: e, type: status_code, status_code: {status_codes: \
             [ERROR]}}, {name: r, type: rate_limiting, rate_limiting: {spans_per_second: 50}}]}}",
            true,
        ),
        (
            "half",
            "{name: l, type: and, and: {and_sub_policy: [{name: p, type: probabilistic, probabilistic: \
             {sampling_percentage: 50}}, {name: r, type: rate_limiting, rate_limiting: {spans_per_second: 50}}]}}",
            false,
        ),
    ] {
        let rig =
            Rig::new(&format!("memory_limit_mib: 64\nuse_tracestate: true\nrecord: none\npolicies: [{policies}]"));
        let mut rng = StdRng::seed_from_u64(11);
        let (mut sent, mut kept) = (0, Vec::new());
        const SECONDS: u64 = 120;
        for tick in 0..SECONDS * 20 {
            let traces = if tick == 1000 { 300 } else { 10 };
            let mut spans = Vec::new();
            for index in 0..traces {
                let id: Id = rng.random();
                let size = [1, 1, 2, 6][rng.random_range(0..4)];
                let (th, rejected) = HEADS[index % HEADS.len()];
                let is_error = rng.random_bool(0.5);
                if !is_matched || is_error {
                    sent += size;
                }
                if randomness(id) < rejected {
                    continue;
                }
                for _ in 0..size {
                    let one = if is_error { failed(span(id)) } else { span(id) };
                    spans.push(if rejected == 0 { one } else { with_state(one, &format!("ot=th:{th}")) });
                }
            }
            rig.insert(&request(spans), millis(tick * 50));
            kept.extend(rig.finish(millis(tick * 50)));
        }
        let estimate: f64 = kept.iter().map(|kept| adjusted_count(&kept.span)).sum();
        // Spans of a trace stay together: the largest have six.
        let variance: f64 =
            kept.iter().map(|kept| adjusted_count(&kept.span)).map(|count| 6.0 * count * (count - 1.0)).sum();
        let error = (estimate - f64::from(sent)).abs();
        assert!(error < 4.0 * variance.sqrt(), "{name}: {estimate} of {sent}, deviation {}", variance.sqrt());
        assert!(4.0 * variance.sqrt() < 0.4 * f64::from(sent), "{name}: {} is too vague", variance.sqrt());
        let bytes: usize = kept.iter().map(|kept| prost::Message::encoded_len(&kept.span)).sum();
        let limit = if name == "bytes" { bytes as u64 / 2500 } else { kept.len() as u64 / 50 };
        // A longer tracestate is not what was measured.
        let most = if name == "bytes" { 16 } else { 12 };
        assert!((SECONDS * 8 / 10..SECONDS * most / 10).contains(&limit), "{name}: {limit} seconds' worth");
        let is_high = |kept: &&KeptSpan| {
            let th = ot(&kept.span.trace_state, "th").unwrap_or("0");
            randomness(kept.id()) >= u64::from_str_radix(&format!("{th:0<14}"), 16).unwrap()
        };
        if name != "half" {
            assert!(kept.iter().filter(is_high).count() == kept.len(), "{name}: by randomness");
        }
    }
}

/// A limit that has let nothing through for want of tokens, or is asked for the first time, is no reason for a
/// threshold of its own; another policy that keeps the trace for certain wins.
#[test]
fn a_policy_without_a_rate_beats_a_limit() {
    let rig = Rig::new(
        "
memory_limit_mib: 64
use_tracestate: true
policies:
  - {name: limit, type: rate_limiting, rate_limiting: {spans_per_second: 1}}
  - {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}
",
    );
    let kept = through(&rig, vec![with_state(span([0xff; 16]), "ot=th:8")]);
    assert_eq!(kept[0].span.trace_state, "ot=th:8", "the first is kept for certain: what was there stays");
    let spans = (0..200u128).map(|id| failed(span((id << 40).to_be_bytes()))).collect();
    let kept = through(&rig, spans);
    assert_eq!(kept.len(), 200);
    assert!(kept.iter().all(|kept| ot(&kept.span.trace_state, "th").is_none()), "errors are kept whole");
}

/// Scenario: policies that each know their own rate, but not what another one does to the same traces: two hashes,
/// side by side and in one `and`; a rate beside a limit by randomness; a rate that is asked before a policy which would
/// have kept the trace; a rate beside a composite; a rate among what is dropped. Guarantee: nothing claims a threshold.
/// The same rates where one hash decides both: the counts add up.
#[test]
fn a_rate_that_is_not_the_whole_truth_is_not_claimed() {
    let p = |name: &str, percentage: u32, salt: &str| {
        format!(
            "{{name: {name}, type: probabilistic, probabilistic: {{sampling_percentage: {percentage}, hash_salt: '{salt}'}}}}"
        )
    };
    let errors = "{name: e, type: status_code, status_code: {status_codes: [ERROR]}}";
    let limit = "{name: r, type: rate_limiting, rate_limiting: {spans_per_second: 100}}";
    let composite = "{name: c, type: composite, composite: {max_total_spans_per_second: 10, composite_sub_policy: [{name: a, type: always_sample}]}}";
    let (a, b) = (p("a", 50, ""), p("b", 50, "other"));
    let and = format!("{{name: n, type: and, and: {{and_sub_policy: [{a}, {b}]}}}}");
    let drop = format!("{{name: d, type: drop, drop: {{drop_sub_policy: [{b}]}}}}");
    let run = |policies: &str, count: usize, first_match: bool| {
        let rig = Rig::new(&format!(
            "memory_limit_mib: 256\nuse_tracestate: true\nsample_on_first_match: {first_match}\npolicies: [{policies}]"
        ));
        let mut rng = StdRng::seed_from_u64(31);
        let spans = (0..count).map(|index| {
            let one = span(rng.random());
            if index % 2 == 0 { failed(one) } else { one }
        });
        through(&rig, spans.collect())
    };
    for (policies, first_match) in [
        (format!("{a}, {b}"), false),
        (and, false),
        (format!("{a}, {limit}"), false),
        (format!("{a}, {composite}"), false),
        (format!("{drop}, {a}"), false),
        (format!("{a}, {errors}"), true),
    ] {
        let kept = run(&policies, 400, first_match);
        assert!(kept.len() > 50, "{policies}: {}", kept.len());
        assert!(kept.iter().all(|kept| ot(&kept.span.trace_state, "th").is_none()), "{policies}");
    }
    // What comes with a threshold of a sampler before loses it.
    let rig = Rig::new(&format!("memory_limit_mib: 64\nuse_tracestate: true\npolicies: [{drop}, {errors}]"));
    let spans = (1..=40u8).map(|low| with_state(failed(span([low * 6; 16])), "v=1,ot=th:0"));
    let kept = through(&rig, spans.collect());
    assert!(!kept.is_empty() && kept.iter().all(|kept| kept.span.trace_state == "v=1"));

    let (tenth, half) = (p("t", 10, ""), p("h", 50, ""));
    for (policies, first_match) in
        [(format!("{tenth}, {half}"), false), (format!("{half}, {errors}"), false), (format!("{errors}, {half}"), true)]
    {
        const TRACES: usize = 20_000;
        let counts: Vec<f64> =
            run(&policies, TRACES, first_match).iter().map(|kept| adjusted_count(&kept.span)).collect();
        let variance: f64 = counts.iter().map(|count| count * (count - 1.0)).sum();
        let (estimate, most) = (counts.iter().sum::<f64>(), 4.0 * variance.sqrt());
        assert!((estimate - TRACES as f64).abs() < most && counts.len() < TRACES, "{policies}: {estimate}, +- {most}");
    }
}
