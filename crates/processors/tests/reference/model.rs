//! Random configurations, random spans in a random order: both samplers keep the same spans.

use std::time::Duration;

use nyquist_core::proto::trace::v1::TracesData;

use crate::generate::{id, places, request, settings, span};
use crate::probability::comparable;
use crate::random::{Random, seeds};
use crate::rig::{Recorded, Rig, count, strip};
use crate::sampler::{Kept, Reference, Settings, Why};
use crate::spans::{Id, Placed};

/// Requests arrive at whole seconds, decisions are taken half a second later, so that the 100 ms
/// by which a decision may be late do not matter.
const HALF: Duration = Duration::from_millis(500);

/// Requests, and the second at which each arrives, in that order.
struct Traffic(Vec<(u64, TracesData)>);

#[test]
fn random_traces_under_random_settings() {
    let seeds = seeds(300);
    let (mut kept, mut late, mut not_kept, mut back, mut joined, mut changed) = (0, 0, 0, 0, 0, 0);
    for seed in seeds.clone() {
        let mut random = Random::new(seed);
        let settings = settings(&mut random);
        let traffic = traffic(&mut random);
        let reference = compare(seed, &settings, &traffic);
        kept += reference.kept.len();
        late += reference.late.len();
        not_kept += reference.not_sampled as usize;
        back += reference.brought_back.len();
        joined += reference.joined;
        let spans = reference.kept.iter().flat_map(|trace| &trace.spans);
        changed += spans.filter(|placed| placed.span.trace_state.contains("ot=th")).count();
    }
    if seeds.end - seeds.start >= 300 {
        assert!(kept > 1_000 && not_kept > 1_000 && late > 100, "{kept} {not_kept} {late}: the cases show something");
        assert!(back > 10 && joined > 10 && changed > 300, "{back} {joined} {changed}: the cases show something");
    }
}

/// Traces whose spans arrive within seconds of each other, or much later.
fn traffic(random: &mut Random) -> Traffic {
    let places = places(random);
    let mut arrivals: Vec<Vec<Placed>> = vec![Vec::new(); 30];
    for _ in 0..random.between(1, 25) {
        let id = sibling_or_new(random, &arrivals);
        let first = random.below(10);
        let mut spans: Vec<Placed> = Vec::new();
        for _ in 0..random.between(1, 6) {
            let duplicate = spans.last().filter(|_| random.number().is_multiple_of(10)).cloned();
            spans.push(duplicate.unwrap_or_else(|| Placed { span: span(random, id), ..random.pick(&places) }));
        }
        for span in spans {
            let wait = random.pick(&[0, 0, 0, 0, 1, 2, 3, 5, 12, 19]);
            arrivals[first + wait].push(span);
        }
    }
    let mut requests = Vec::new();
    for (second, mut spans) in (0..).zip(arrivals) {
        random.shuffle(&mut spans);
        while !spans.is_empty() {
            let rest = spans.split_off(random.between(1, spans.len()));
            requests.push((second, request(random, spans)));
            spans = rest;
        }
    }
    Traffic(requests)
}

/// A new id; at times one that shares half of its bytes with one that was there before.
fn sibling_or_new(random: &mut Random, arrivals: &[Vec<Placed>]) -> Id {
    let mut id = id(random);
    let other = arrivals.iter().flatten().next().filter(|_| random.number().is_multiple_of(5));
    if let Some(other) = other {
        if random.one_in(2) {
            id[..8].copy_from_slice(&other.id()[..8]);
        } else {
            id[8..].copy_from_slice(&other.id()[8..]);
        }
    }
    id
}

/// Gives the same to both and compares what they keep. If the next stage is prompt, it takes what
/// is kept at once; otherwise kept traces wait, and spans that come for them are not told from
/// those that came before the decision.
fn compare(seed: u64, settings: &Settings, traffic: &Traffic) -> Reference {
    let config = settings.json();
    let context = format!("NYQUIST_SEED={seed}\n{config:#}");
    let rig = Rig::new(&config);
    let mut reference = Reference::new(settings.clone());
    let is_prompt = !seed.is_multiple_of(4) || !settings.remember_sampled;
    let mut kept = Vec::new();
    let mut requests = traffic.0.iter().peekable();
    for second in 0..35 {
        let now = Duration::from_secs(second);
        while let Some((_, request)) = requests.next_if(|(at, _)| *at == second) {
            rig.insert(request, now);
            reference.insert(request, second);
            if is_prompt {
                kept.extend(rig.take(now));
            }
        }
        rig.decide(now + HALF);
        reference.decide(second);
        if is_prompt || second % 7 == 0 {
            kept.extend(rig.take(now + HALF));
        }
        // Some traces are decided by the shutdown.
        if requests.peek().is_none() && seed.is_multiple_of(3) {
            break;
        }
    }
    let end = Duration::from_secs(40);
    rig.decide_all(end, settings.drop_pending);
    reference.shut_down();
    kept.extend(rig.take(end));
    assert_eq!(rig.pending(), 0, "{context}");

    let kept: Vec<(Placed, Recorded)> = kept.into_iter().map(strip).collect();
    same_spans(&kept, &reference, &context);
    same_decisions(&rig, &reference, &context);
    if is_prompt {
        same_reasons(&kept, &reference, settings, &context);
        same_late_counts(&rig, &reference, &context);
    }
    reference
}

/// Exactly the spans of the traces that are to be kept, as they came, once.
pub(crate) fn same_spans(kept: &[(Placed, Recorded)], reference: &Reference, context: &str) {
    // Where thresholds are written, the rest of `tracestate` counts, not its form.
    let bytes = |placed: &Placed| match reference.settings.tracestate {
        true => comparable(placed.clone()).bytes(),
        false => placed.bytes(),
    };
    let actual = count(kept.iter().map(|(placed, _)| bytes(placed)));
    let on_time = reference.kept.iter().flat_map(|trace| &trace.spans);
    let expected = count(on_time.chain(&reference.late).map(bytes));
    if actual == expected {
        return;
    }
    for (placed, recorded) in kept {
        if !expected.contains_key(&bytes(placed)) {
            eprintln!("kept, but must not be: {placed:?} {recorded:?}");
        }
    }
    for trace in &reference.kept {
        for placed in trace.spans.iter().filter(|placed| !actual.contains_key(&bytes(placed))) {
            eprintln!("must be kept because of {:?}: {placed:?}", trace.verdict);
        }
    }
    for placed in reference.late.iter().filter(|placed| !actual.contains_key(&bytes(placed))) {
        eprintln!("must be kept though late: {placed:?}");
    }
    let numbers = (actual.values().sum::<usize>(), expected.values().sum::<usize>());
    panic!("{numbers:?} spans kept, to be kept; {context}");
}

/// What is written on spans: on those that `record` names, and that it is true.
fn same_reasons(kept: &[(Placed, Recorded)], reference: &Reference, settings: &Settings, context: &str) {
    for trace in &reference.kept {
        let decisions: Vec<&Kept> = reference.kept.iter().filter(|other| other.id == trace.id).collect();
        let spans: Vec<&(Placed, Recorded)> =
            kept.iter().filter(|(placed, recorded)| placed.id() == trace.id && !recorded.late).collect();
        let named: Vec<&&(Placed, Recorded)> =
            spans.iter().filter(|(_, recorded)| *recorded != Recorded::default()).collect();
        for (_, recorded) in &named {
            let agrees = decisions.iter().any(|kept| agrees(kept, recorded, settings));
            assert!(agrees, "{:?} {:?} {recorded:?} {context}", trace.verdict, trace.triggers);
        }
        let count = match settings.record {
            "root" => decisions.len(),
            "all" => decisions.iter().map(|trace| trace.spans.len()).sum(),
            _ => 0,
        };
        assert_eq!(named.len(), count, "spans that say why they are kept; {context}");
        if settings.record == "root" {
            let with_root = decisions.iter().filter(|trace| trace.spans.iter().any(Placed::is_root)).count();
            let named_roots = named.iter().filter(|(placed, _)| placed.is_root()).count();
            assert_eq!(named_roots, with_root, "the root says it if there is one; {context}");
        }
    }
    for (placed, recorded) in kept {
        let came_back = recorded.late && reference.brought_back.contains(&placed.id());
        assert_eq!(recorded.incomplete, came_back, "{recorded:?} {context}");
        assert!(!recorded.late || recorded.trigger.is_none(), "what came later was not part of a decision {context}");
    }
    let late = kept.iter().filter(|(_, recorded)| recorded.late).count();
    let expected = match settings.record {
        "root" => reference.late_groups,
        "all" => reference.late.len(),
        _ => 0,
    };
    assert_eq!(late, expected, "spans that are marked as late; {context}");
}

fn agrees(kept: &Kept, recorded: &Recorded, settings: &Settings) -> bool {
    let Kept { verdict, triggers, .. } = kept;
    let is_named = match &verdict.why {
        Why::Rule(name, percentage) => {
            recorded.rule.as_ref() == Some(name) && recorded.rate == Some(*percentage) && recorded.policy.is_none()
        }
        Why::OneOf(policies) => {
            let by = recorded.policy.as_ref().filter(|name| policies.contains(name));
            // Where several policies leave it open, there is none.
            let has_true_rate = |name: &String| recorded.rate.is_none_or(|rate| settings.has_rate(name, rate));
            recorded.rule.is_none() && by.is_some_and(has_true_rate)
        }
        Why::SomeDrop => recorded.rule.is_none() && recorded.rate.is_none(),
        Why::Nobody => recorded.rule.is_none() && recorded.policy.is_none() && recorded.rate.is_none(),
    };
    let (dry_run, tried_by) = match &verdict.tried {
        Some((rule, decision)) => (Some(*decision), Some(rule.as_str())),
        None => (verdict.dry_run.then_some(verdict.decision), None),
    };
    is_named
        && recorded.trigger.as_deref().is_some_and(|trigger| triggers.contains(&trigger))
        && (recorded.dry_run.as_deref(), recorded.tried_by.as_deref()) == (dry_run, tried_by)
}

fn same_decisions(rig: &Rig, reference: &Reference, context: &str) {
    let sampled = [("sampled", "true"), ("decision", "sampled")];
    assert_eq!(rig.counter("global_count_traces_sampled", &sampled), reference.sampled, "{context}");
    let others: u64 = ["not_sampled", "dropped"]
        .into_iter()
        .map(|decision| rig.counter("global_count_traces_sampled", &[("sampled", "false"), ("decision", decision)]))
        .sum();
    assert_eq!(others, reference.not_sampled, "{context}");
}

fn same_late_counts(rig: &Rig, reference: &Reference, context: &str) {
    let late = |sampled| rig.counter("early_releases_from_cache_decision", &[("sampled", sampled)]);
    assert_eq!(late("false"), reference.late_dropped, "{context}");
    let most = (reference.late.len() + reference.joined) as u64;
    assert!(late("true") <= most && late("true") >= reference.late_groups as u64, "{context}");
}
