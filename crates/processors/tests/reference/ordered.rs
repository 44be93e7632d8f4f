//! The ordered composite sampler: important users and operations and failed traces are all kept,
//! half of the slow ones, 5 % of the rest. 100,000 traces, whose spans come in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::trace::v1::span::Event;
use nyquist_core::proto::trace::v1::{Span, Status};
use prost::Message;

use crate::conditions::{self, Condition, NameTest, Of, Place, Rule, Scalar, Test, keeps};
use crate::policies::{Named, Policy};
use crate::random::Random;
use crate::rig::Rig;
use crate::sampler::{Settings, What};
use crate::spans::{ERROR, Id, Placed, attribute, text};

const TRACES: usize = 100_000;
/// Traces whose spans come in together, in any order.
const TOGETHER: usize = 5_000;
const SPANS_PER_REQUEST: usize = 500;
const MS: u64 = 1_000_000;
/// The id in templates, that is replaced.
const PLACEHOLDER: Id = *b"the trace's id..";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Important,
    Failed,
    Slow,
    Rest,
}

impl Class {
    const ALL: [Self; 4] = [Self::Important, Self::Failed, Self::Slow, Self::Rest];

    fn percentage(self) -> f64 {
        match self {
            Self::Important | Self::Failed => 100.0,
            Self::Slow => 50.0,
            Self::Rest => 5.0,
        }
    }
}

/// A trace without its id: spans to ask, and the same spans as bytes to patch.
struct Template {
    class: Class,
    spans: Vec<Placed>,
    /// A request for each span, and where the trace id stands in it.
    requests: Vec<(Vec<u8>, usize)>,
}

struct Trace<'a> {
    id: Id,
    template: &'a Template,
}

/// What makes a span special; the others are ordinary.
type Mark = fn(&mut Span);

/// Each class, what makes a trace one of it, and what nearly does. Important and failed traces may
/// be slow too: the order of the rules decides.
const MARKS: [(Class, Mark); 21] = [
    (Class::Important, |span| span.attributes.push(attribute("user.id", Some(text("u1"))))),
    (Class::Important, |span| span.attributes.push(attribute("user.id", Some(text("u2"))))),
    (Class::Important, |span| span.name = "POST /pay".to_owned()),
    (Class::Important, |span| {
        span.name = "POST /pay".to_owned();
        span.end_time_unix_nano += 5_000 * MS;
    }),
    (Class::Failed, |span| span.status = Some(Status { code: ERROR, ..Status::default() })),
    (Class::Failed, |span| {
        span.status = Some(Status { code: ERROR, ..Status::default() });
        span.end_time_unix_nano += 5_000 * MS;
    }),
    (Class::Failed, |span| span.events.push(Event { name: "exception".to_owned(), ..Event::default() })),
    (Class::Failed, |span| span.attributes.push(attribute("error", Some(Value::BoolValue(true))))),
    (Class::Failed, |span| span.attributes.push(attribute("error", Some(text("true"))))),
    (Class::Failed, |span| span.attributes.push(attribute("error", Some(text("timeout"))))),
    (Class::Failed, |span| span.attributes.push(attribute("error", Some(Value::IntValue(1))))),
    (Class::Slow, |span| span.end_time_unix_nano = span.start_time_unix_nano + 1_000 * MS + 1),
    (Class::Slow, |span| span.end_time_unix_nano += 60_000 * MS),
    (Class::Rest, |_| {}),
    (Class::Rest, |span| span.attributes.push(attribute("user.id", Some(text("u3"))))),
    (Class::Rest, |span| span.name = "POST /payments".to_owned()),
    (Class::Rest, |span| span.status = Some(Status { code: 1, ..Status::default() })),
    (Class::Rest, |span| span.events.push(Event { name: "exceptional".to_owned(), ..Event::default() })),
    (Class::Rest, |span| span.attributes.push(attribute("error", Some(Value::BoolValue(false))))),
    (Class::Rest, |span| span.attributes.push(attribute("error", Some(text("0"))))),
    (Class::Rest, |span| span.attributes.push(attribute("error", Some(Value::IntValue(0))))),
];

#[test]
fn rules_keep_exactly_the_right_traces() {
    let templates = templates();
    let traces = traces(&templates, 1);
    let mut settings = Settings::new(What::Rules(rules()));

    let kept = keep(&settings, &traces, 2);
    for trace in &traces {
        let expected = keeps(trace.template.class.percentage(), trace.id);
        assert_eq!(kept.contains(&trace.id), expected, "{:?} {:?}", trace.template.class, trace.template.spans);
    }
    for class in Class::ALL {
        let of_class = || traces.iter().filter(|trace| trace.template.class == class);
        let kept = of_class().filter(|trace| kept.contains(&trace.id)).count();
        within_bounds(class, of_class().count(), kept);
    }

    settings.shards = 8;
    assert_eq!(keep(&settings, &traces, 2), kept, "with 8 shards");

    // As after a restart: another sampler, the traces in another order, nothing remembered.
    let mut reordered: Vec<Trace<'_>> = traces.iter().rev().map(|trace| Trace { ..*trace }).collect();
    Random::new(3).shuffle(&mut reordered);
    let (before, after) = reordered.split_at(TRACES / 3);
    let kept_again: BTreeSet<Id> = keep(&settings, before, 4).union(&keep(&settings, after, 5)).copied().collect();
    assert_eq!(kept_again, kept, "in another order");
}

#[test]
fn policies_keep_the_same_traces_as_the_reference() {
    let templates = templates();
    let traces = traces(&templates, 6);
    let mut settings = Settings::new(What::Policies(policies()));
    settings.shards = 4;
    let expected: BTreeSet<Id> = traces
        .iter()
        .filter(|trace| settings.verdict(trace.id, &trace.template.spans).keeps())
        .map(|trace| trace.id)
        .collect();
    assert!(expected.len() > TRACES / 10 && expected.len() < TRACES / 2, "{} traces to keep", expected.len());
    assert_eq!(keep(&settings, &traces, 7), expected);
}

/// Feeds a sampler and gives what it keeps, each trace whole and once.
fn keep(settings: &Settings, traces: &[Trace<'_>], seed: u64) -> BTreeSet<Id> {
    let rig = Rig::new(&settings.json());
    let mut random = Random::new(seed);
    let mut spans_of: BTreeMap<Id, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut now = Duration::ZERO;
    for together in traces.chunks(TOGETHER) {
        let mut spans: Vec<(&Trace<'_>, usize)> =
            together.iter().flat_map(|trace| (0..trace.template.spans.len()).map(move |span| (trace, span))).collect();
        random.shuffle(&mut spans);
        for request in spans.chunks(SPANS_PER_REQUEST) {
            rig.insert_bytes(&patched(request), now);
            now += Duration::from_millis(50);
        }
        now += Duration::from_secs(settings.decision_wait);
        rig.decide(now);
        for kept in rig.take(now) {
            let is_new = spans_of.entry(kept.id()).or_default().insert(kept.span.span_id);
            assert!(is_new, "a span is kept once");
        }
    }
    assert_eq!(rig.pending(), 0, "all are decided");
    for trace in traces {
        if let Some(kept) = spans_of.get(&trace.id) {
            let whole: BTreeSet<Vec<u8>> =
                trace.template.spans.iter().map(|placed| placed.span.span_id.clone()).collect();
            assert_eq!(*kept, whole, "a kept trace is whole");
        }
    }
    spans_of.into_keys().collect()
}

/// A request of these spans: requests that follow each other are one request in protobuf.
fn patched(spans: &[(&Trace<'_>, usize)]) -> Vec<u8> {
    let mut request = Vec::new();
    for (trace, span) in spans {
        let (template, place) = &trace.template.requests[*span];
        let from = request.len() + place;
        request.extend_from_slice(template);
        request[from..from + 16].copy_from_slice(&trace.id);
    }
    request
}

fn within_bounds(class: Class, count: usize, kept: usize) {
    let share = class.percentage() / 100.0;
    let expected = count as f64 * share;
    let sigma = (expected * (1.0 - share)).sqrt();
    assert!(count > 3_000, "{class:?}: {count} traces are enough to show something");
    assert!((kept as f64 - expected).abs() <= 5.0 * sigma, "{class:?}: {kept} of {count} kept");
}

/// For each mark, traces of one to four spans with the mark on any of them.
fn templates() -> Vec<Template> {
    let mut templates = Vec::new();
    for (class, mark) in MARKS {
        for count in 1..=4 {
            for marked in 0..count {
                let mut spans: Vec<Placed> = (0..count).map(ordinary).collect();
                mark(&mut spans[marked].span);
                let requests = spans.iter().map(wire).collect();
                templates.push(Template { class, spans, requests });
            }
        }
    }
    templates
}

/// 100 ms within the first second of a trace, so that a trace of them takes exactly one second.
fn ordinary(number: usize) -> Placed {
    let start = 1_700_000_000_000 * MS;
    let span = Span {
        trace_id: PLACEHOLDER.to_vec(),
        span_id: vec![number as u8 + 1; 8],
        parent_span_id: if number == 0 { vec![] } else { vec![number as u8; 8] },
        name: "GET /".to_owned(),
        start_time_unix_nano: start + number as u64 * 300 * MS,
        end_time_unix_nano: start + number as u64 * 300 * MS + 100 * MS,
        ..Span::default()
    };
    Placed { span, ..Placed::default() }
}

fn wire(placed: &Placed) -> (Vec<u8>, usize) {
    let bytes = placed.clone().into_request().encode_to_vec();
    let place = bytes.windows(16).position(|window| window == PLACEHOLDER).expect("the placeholder is in it");
    (bytes, place)
}

/// Ids at random; four of five traces are ordinary.
fn traces(templates: &[Template], seed: u64) -> Vec<Trace<'_>> {
    let mut random = Random::new(seed);
    let rest: Vec<&Template> = templates.iter().filter(|template| template.class == Class::Rest).collect();
    let special: Vec<&Template> = templates.iter().filter(|template| template.class != Class::Rest).collect();
    let trace = |_| {
        let template = if random.one_in(5) { random.pick(&special) } else { random.pick(&rest) };
        Trace { id: random.bytes(), template }
    };
    (0..TRACES).map(trace).collect()
}

fn rules() -> Vec<Rule> {
    let users = ["u1", "u2"].map(|user| Scalar::Text(user.to_owned())).to_vec();
    let rule = |name: &str, class: Class, when| Rule {
        name: name.to_owned(),
        percentage: class.percentage(),
        dry_run: false,
        when,
    };
    vec![
        rule(
            "important",
            Class::Important,
            Some(Condition::Any(vec![
                Condition::Attribute { key: "user.id".to_owned(), place: Place::Any, test: Test::Values(users) },
                Condition::Name(conditions::Named::Span, NameTest::Values(vec!["POST /pay".to_owned()])),
            ])),
        ),
        rule("failed", Class::Failed, Some(Condition::Error)),
        rule("slow", Class::Slow, Some(Condition::Latency { of: Of::Trace, over_ns: 1_000 * MS, upper_ns: None })),
        rule("rest", Class::Rest, None),
    ]
}

/// The same in the Collector's policies, as far as they can say it.
fn policies() -> Vec<Named> {
    let named = |name: &str, policy| Named { name: name.to_owned(), policy };
    let texts = |key: &str, values: [&str; 2]| Policy::Text {
        key: key.to_owned(),
        values: values.map(str::to_owned).to_vec(),
        regex: false,
        invert: false,
    };
    let slow = || named("slow trace", Policy::Latency { threshold_ms: 1_000, upper_threshold_ms: 0 });
    let share = |percentage| named("share", Policy::Probabilistic { percentage, salt: String::new() });
    let not_slow = named("not slow", Policy::Not(Box::new(slow())));
    vec![
        named("imp-user", texts("user.id", ["u1", "u2"])),
        named("err-status", Policy::StatusCode(vec![ERROR])),
        named("err-attr-b", Policy::Boolean { key: "error".to_owned(), value: true, invert: false }),
        named("err-attr-s", texts("error", ["true", "1"])),
        named("slow", Policy::And(vec![slow(), share(50.0)])),
        named("default", Policy::And(vec![not_slow, share(5.0)])),
    ]
}
