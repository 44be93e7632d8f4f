//! Random configurations and spans. The pools are small, so that conditions are met, missed and
//! combined often, and hold the values at which a comparison could go wrong.

use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::proto::trace::v1::span::Event;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};

use crate::conditions::{self, Condition, NameTest, Of, Place, Rule, Scalar, Test};
use crate::policies::{Named, Policy};
use crate::random::Random;
use crate::sampler::{Settings, What};
use crate::spans::{ERROR, Id, OK, Placed, UNSET, attribute, text, value_of};

const KEYS: [&str; 4] = ["k", "user.id", "error", "service.name"];
const TEXTS: [&str; 12] = ["", "u1", "u2", "true", "False", "0", "no", "OFF", "1", "404", "acme/api/v1", "é\u{1f980}"];
const INTS: [i64; 9] = [-7, 0, 1, 50, 60, 404, (1 << 53) + 1, i64::MAX, i64::MIN];
const DOUBLES: [f64; 8] = [0.0, -0.0, 1.5, 404.0, 59.999, 1e300, f64::NAN, f64::INFINITY];
const REGEXES: [&str; 6] = ["^u[12]$", "api", "^$", ".*", "(?i)true|off", "[0-9]{3}"];
const NAMES: [&str; 5] = ["GET /", "POST /pay", "SELECT 1", "SELECT 2", ""];
const MS: u64 = 1_000_000;
const DURATIONS: [u64; 9] = [0, 1, MS, MS + 1, 99 * MS, 1_000 * MS, 1_000 * MS + 1, 1_001 * MS, 5_000 * MS];
/// Those of ids: some of them exactly a double, where traces can lie exactly at the threshold.
const PERCENTAGES: [f64; 9] = [0.0, 0.1, 5.0, 12.5, 25.0, 50.0, 75.0, 99.9, 100.0];
const START: u64 = 1_700_000_000_000_000_000;

pub(crate) fn settings(random: &mut Random) -> Settings {
    let what = if random.one_in(2) { What::Rules(rules(random)) } else { What::Policies(policies(random)) };
    let first_match = matches!(what, What::Policies(_)) && random.one_in(3);
    let remember_others = !random.one_in(6);
    Settings {
        tracestate: random.one_in(2),
        span_limit: random.one_in(4).then(|| random.between(1, 5) as u64),
        keep_late_errors: remember_others && random.one_in(3),
        dry_run: random.one_in(8),
        what,
        decision_wait: random.between(1, 6) as u64,
        after_root: random.one_in(3).then(|| random.between(1, 4) as u64),
        after_last: random.one_in(3).then(|| random.between(1, 4) as u64),
        remember_sampled: !random.one_in(6),
        remember_others,
        first_match,
        drop_pending: random.one_in(4),
        record: random.pick(&["root", "root", "all", "none"]),
        shards: random.between(1, 8),
    }
}

fn rules(random: &mut Random) -> Vec<Rule> {
    let count = random.between(1, 5);
    let rule = |number| {
        let is_last = number == count - 1;
        let when = (!is_last || random.one_in(2)).then(|| condition(random, 3));
        let dry_run = random.one_in(6);
        Rule { name: format!("rule {number}"), percentage: random.pick(&PERCENTAGES), dry_run, when }
    };
    (0..count).map(rule).collect()
}

/// A block of a whole trace.
fn condition(random: &mut Random, depth: usize) -> Condition {
    if depth == 0 || random.one_in(3) {
        return trace_leaf(random);
    }
    let below = |random: &mut Random| {
        let count = random.between(1, 3);
        (0..count).map(|_| condition(random, depth - 1)).collect::<Vec<_>>()
    };
    match random.below(8) {
        0 => Condition::All(below(random)),
        1 => Condition::Any(below(random)),
        2 => Condition::Not(Box::new(condition(random, depth - 1))),
        3 | 4 => Condition::SameSpan(Box::new(span_block(random, depth - 1))),
        5 => Condition::Root(Box::new(span_block(random, depth - 1))),
        6 => Condition::AnySpan(Box::new(span_block(random, depth - 1))),
        _ => {
            let any = Condition::Any(below(random));
            Condition::Block(vec![any, Condition::Not(Box::new(condition(random, depth - 1))), trace_leaf(random)])
        }
    }
}

/// A block of which each key can be asked of one span.
fn span_block(random: &mut Random, depth: usize) -> Condition {
    let below = |random: &mut Random| {
        let count = random.between(1, 3);
        (0..count).map(|_| span_block(random, depth - 1)).collect::<Vec<_>>()
    };
    if depth == 0 {
        return span_leaf(random, random_kind);
    }
    match random.below(5) {
        0 => Condition::All(below(random)),
        1 => Condition::Any(below(random)),
        2 => Condition::Not(Box::new(span_block(random, depth - 1))),
        3 => Condition::Block(vec![span_leaf(random, |_| 0), span_leaf(random, |_| 1), span_leaf(random, |_| 2)]),
        _ => span_leaf(random, random_kind),
    }
}

fn random_kind(random: &mut Random) -> usize {
    random.below(9)
}

fn trace_leaf(random: &mut Random) -> Condition {
    match random.below(9) {
        0 => latency(random, Of::Trace),
        1 => latency(random, Of::Root),
        2 => {
            let min = random.one_in(2).then(|| random.between(1, 4) as u64);
            let max = (min.is_none() || random.one_in(2)).then(|| min.unwrap_or(1) + random.below(4) as u64);
            Condition::SpanCount { min, max }
        }
        3 => Condition::False(Box::new(negatable(random))),
        4 => latency(random, Of::Longest),
        _ => span_leaf(random, random_kind),
    }
}

fn negatable(random: &mut Random) -> Condition {
    match random.below(4) {
        0 => Condition::Exception,
        1 => Condition::Error,
        2 => Condition::Attribute { key: truthy_key(random), place: place(random), test: Test::Truthy },
        _ => Condition::Attribute { key: random.pick(&KEYS).to_owned(), place: place(random), test: Test::Exists },
    }
}

fn span_leaf(random: &mut Random, kind: impl Fn(&mut Random) -> usize) -> Condition {
    match kind(random) {
        0 => name(random),
        1 => Condition::Status(random.pick(&[UNSET, OK, ERROR])),
        2 => latency(random, Of::Span),
        3 => Condition::Exception,
        4 => Condition::Error,
        5 => Condition::Attribute { key: truthy_key(random), place: place(random), test: Test::Truthy },
        _ => {
            let key = random.pick(&KEYS).to_owned();
            Condition::Attribute { key, place: place(random), test: attribute_test(random) }
        }
    }
}

fn truthy_key(random: &mut Random) -> String {
    random.pick(&KEYS[1..3]).to_owned()
}

fn place(random: &mut Random) -> Place {
    random.pick(&[Place::Any, Place::Any, Place::Span, Place::Resource, Place::Event, Place::Scope])
}

fn name(random: &mut Random) -> Condition {
    use conditions::Named::{Event, Scope, ScopeVersion, Span};
    let (of, names): (_, &[&str]) = match random.below(6) {
        0 => (Event, &["exception", "log", "exception.other"]),
        1 => (Scope, &["http", "db"]),
        2 => (ScopeVersion, &["1.0", "2.0-rc"]),
        _ => return Condition::Name(Span, name_test(random)),
    };
    let one = random.pick(names).to_owned();
    let test = match random.below(5) {
        0 => NameTest::Values(random.some(names).into_iter().map(str::to_owned).collect()),
        1 => NameTest::Prefix(one[..1].to_owned()),
        2 => NameTest::Suffix(one[one.len() - 2..].to_owned()),
        3 => NameTest::Contains(one[1..one.len() - 1].to_owned()),
        _ => NameTest::Regex(format!("^.?{}", &one[1..])),
    };
    Condition::Name(of, test)
}

fn name_test(random: &mut Random) -> NameTest {
    match random.below(5) {
        3 => NameTest::Suffix(random.pick(&["1", "/pay", " /", "x"]).to_owned()),
        4 => NameTest::Contains(random.pick(&["ELECT", "/p", "GET /", "x"]).to_owned()),
        0 => NameTest::Values(random.some(&NAMES).into_iter().map(str::to_owned).collect()),
        1 => NameTest::Prefix(random.pick(&["SELECT", "GET", "POST /pay", "x"]).to_owned()),
        _ => NameTest::Regex(random.pick(&["^SELECT [0-9]$", "/", "pay$"]).to_owned()),
    }
}

fn attribute_test(random: &mut Random) -> Test {
    match random.below(8) {
        3 => Test::NotValues((0..random.between(1, 4)).map(|_| scalar(random)).collect()),
        4 => Test::Prefix(random.pick(&["u", "acme/", "é", "4", "x"]).to_owned()),
        5 => Test::Suffix(random.pick(&["2", "/v1", "\u{1f980}", "e", "x"]).to_owned()),
        6 => Test::Contains(random.pick(&["/api/", "0", "als", "1", "x"]).to_owned()),
        0 => Test::Values((0..random.between(1, 4)).map(|_| scalar(random)).collect()),
        1 => Test::Regex(random.pick(&REGEXES).to_owned()),
        2 => {
            let min = random.one_in(2).then(|| random.pick(&[-7.0, 0.0, 1.5, 50.0, 404.0]));
            let max = (min.is_none() || random.one_in(2)).then(|| min.unwrap_or(0.0) + random.pick(&[0.0, 1.0, 500.0]));
            Test::Range { min, max }
        }
        _ => Test::Exists,
    }
}

fn scalar(random: &mut Random) -> Scalar {
    match random.below(4) {
        0 => Scalar::Text(random.pick(&TEXTS).to_owned()),
        1 => Scalar::Int(random.pick(&INTS)),
        2 => Scalar::Double(random.pick(&DOUBLES[2..5])),
        _ => Scalar::Bool(random.one_in(2)),
    }
}

fn latency(random: &mut Random, of: Of) -> Condition {
    let over_ns = random.pick(&DURATIONS[1..]);
    let upper_ns = random.one_in(3).then(|| over_ns + random.pick(&DURATIONS[1..]));
    Condition::Latency { of, over_ns, upper_ns }
}

fn policies(random: &mut Random) -> Vec<Named> {
    let count = random.between(1, 5);
    let top = |number| {
        let policy = if random.one_in(6) {
            let count = random.between(1, 2);
            Policy::Drop((0..count).map(|part| named(random, part, 2)).collect())
        } else {
            named(random, 0, 3).policy
        };
        Named { name: format!("policy {number}"), policy }
    };
    (0..count).map(top).collect()
}

fn named(random: &mut Random, number: usize, depth: usize) -> Named {
    Named { name: format!("part {number}"), policy: policy(random, depth) }
}

fn policy(random: &mut Random, depth: usize) -> Policy {
    let key = random.pick(&KEYS).to_owned();
    let invert = random.one_in(4);
    match random.below(if depth == 0 { 11 } else { 15 }) {
        0 => Policy::AlwaysSample,
        1 => {
            let threshold_ms = random.pick(&[0, 1, 99, 1_000, 5_000]);
            let upper_threshold_ms = random.pick(&[0, 0, threshold_ms + 1, threshold_ms + 1_000]);
            Policy::Latency { threshold_ms, upper_threshold_ms }
        }
        2 => {
            let min = random.pick(&[-7, 1, 50, 404]);
            let max = random.pick(&[0, 0, min + 10, 500]);
            if random.one_in(4) {
                Policy::Numeric { key, min: 0, max: 60, invert }
            } else {
                Policy::Numeric { key, min, max, invert }
            }
        }
        3 | 4 => Policy::Probabilistic {
            percentage: random.pick(&PERCENTAGES),
            salt: random.pick(&["", "salt-a"]).to_owned(),
        },
        5 => Policy::StatusCode(random.some(&[UNSET, OK, ERROR])),
        6 => {
            let regex = random.one_in(2);
            let values = if regex { random.some(&REGEXES) } else { random.some(&TEXTS[1..]) };
            Policy::Text { key, values: values.into_iter().map(str::to_owned).collect(), regex, invert }
        }
        7 => Policy::TraceState {
            key: random.pick(&["v", "o", "t@x"]).to_owned(),
            values: random.some(&["1", "2", "a b"]).into_iter().map(str::to_owned).collect(),
        },
        8 => Policy::TraceFlags,
        9 => {
            let min = random.between(0, 4) as i32;
            Policy::SpanCount { min, max: if random.one_in(2) { 0 } else { min.max(1) + random.below(3) as i32 } }
        }
        10 => Policy::Boolean { key, value: random.one_in(2), invert },
        11 | 12 => {
            let count = random.between(1, 3);
            Policy::And((0..count).map(|part| named(random, part, depth - 1)).collect())
        }
        _ => Policy::Not(Box::new(named(random, 0, depth - 1))),
    }
}

/// A trace id as they are, or one at the edges of percentages.
pub(crate) fn id(random: &mut Random) -> Id {
    let mut id: Id = random.bytes();
    if random.one_in(4) {
        let edge = random.pick(&[1_u64 << 55, 3 << 54, 1 << 54, 7 << 53]);
        let low = if random.one_in(2) { edge } else { edge - 1 };
        id[9..].copy_from_slice(&low.to_be_bytes()[1..]);
    }
    id
}

/// Where spans can stand: a handful of resources and scopes.
pub(crate) fn places(random: &mut Random) -> Vec<Placed> {
    let resources: Vec<Option<Resource>> = (0..3).map(|_| resource(random)).collect();
    let scopes: Vec<Option<InstrumentationScope>> = (0..3).map(|_| scope(random)).collect();
    let place = |_| Placed {
        span: Span::default(),
        scope: random.pick(&scopes),
        scope_url: random.pick(&["", "", "https://opentelemetry.io/schemas/1.24.0"]).to_owned(),
        resource: random.pick(&resources),
        resource_url: random.pick(&["", "", "https://opentelemetry.io/schemas/1.9.0"]).to_owned(),
    };
    (0..5).map(place).collect()
}

fn resource(random: &mut Random) -> Option<Resource> {
    if random.one_in(6) {
        return None;
    }
    let mut attributes = attributes(random);
    // The Collector's `string_attribute` looks at empty texts of resources, but not at those of
    // spans; whether ours should is not documented.
    attributes.retain(|attribute| value_of(attribute) != Some(&text("")));
    let dropped_attributes_count = random.pick(&[0, 0, 3]);
    Some(Resource { attributes, dropped_attributes_count, ..Resource::default() })
}

fn scope(random: &mut Random) -> Option<InstrumentationScope> {
    let name = random.pick(&["", "http", "db"]).to_owned();
    let version = random.pick(&["", "1.0", "2.0-rc"]).to_owned();
    let scope =
        InstrumentationScope { name, version, attributes: attributes(random), ..InstrumentationScope::default() };
    (!random.one_in(4)).then_some(scope)
}

pub(crate) fn span(random: &mut Random, id: Id) -> Span {
    // Now and then a time that no clock shows: after the year 2262, or one that has wrapped around.
    let far = [1, u64::MAX, u64::MAX - 5_000_000_000, i64::MAX as u64 + 2_000_000];
    let start_time_unix_nano = match random.below(24) {
        0 | 1 => 0,
        2 if random.one_in(4) => random.pick(&far),
        _ => START + random.pick(&DURATIONS),
    };
    let end_time_unix_nano = match random.below(24) {
        0 | 1 => 0,
        2 | 3 => START,
        4 if random.one_in(4) => random.pick(&far),
        _ => start_time_unix_nano.max(START).saturating_add(random.pick(&DURATIONS)),
    };
    Span {
        trace_id: id.to_vec(),
        span_id: random.bytes::<8>().to_vec(),
        parent_span_id: match random.below(20) {
            0 => vec![0; 8],
            1..=5 => vec![],
            _ => random.bytes::<8>().to_vec(),
        },
        trace_state: trace_state(random),
        name: random.pick(&NAMES).to_owned(),
        kind: random.below(6) as i32,
        start_time_unix_nano,
        end_time_unix_nano,
        attributes: attributes(random),
        events: (0..random.below(8).saturating_sub(5)).map(|_| event(random)).collect(),
        status: random.one_in(3).then(|| Status { code: random.below(4) as i32, ..Status::default() }),
        flags: random.pick(&[0, 0, 1, 0x100, 0x101, 0x300]),
        ..Span::default()
    }
}

/// With and without what a sampler before has left, sound and malformed.
fn trace_state(random: &mut Random) -> String {
    const EDGES: [u64; 4] = [1 << 55, (1 << 55) - 1, 3 << 54, 7 << 53];
    const MALFORMED: [&str; 6] = ["bad key=1,v=1", "v=1,v=1", "v", "V=1,v=1", "ot=rv:12,v=1", "ot=th:xyz"];
    const PLAIN: [&str; 5] = ["v=1", "o=2,v=1", "v=2 ,o=1", "t@x=a b", ""];
    if random.one_in(6) {
        return random.pick(&MALFORMED).to_owned();
    }
    let mut fields = Vec::new();
    if random.one_in(4) {
        fields.push(format!("th:{}", random.pick(&["8", "c", "4", "f", "0", "fd70a3d70a3d7", "ffffffffffffff"])));
    }
    if random.one_in(4) {
        let low = random.number() >> 8;
        fields.push(format!("rv:{:014x}", if random.one_in(2) { random.pick(&EDGES) } else { low }));
    }
    if random.one_in(8) {
        fields.push("x:1".to_owned());
    }
    random.shuffle(&mut fields);
    let plain = random.pick(&PLAIN).to_owned();
    match (fields.is_empty(), plain.is_empty()) {
        (true, _) => plain,
        (false, true) => format!("ot={}", fields.join(";")),
        (false, false) if random.one_in(2) => format!("ot={},{plain}", fields.join(";")),
        (false, false) => format!("{plain},ot={}", fields.join(";")),
    }
}

fn event(random: &mut Random) -> Event {
    let name = random.pick(&["exception", "Exception", "log", "exception.other", ""]).to_owned();
    Event { name, attributes: attributes(random), ..Event::default() }
}

fn attributes(random: &mut Random) -> Vec<KeyValue> {
    if random.one_in(3) {
        return Vec::new();
    }
    let keys = random.some(&["k", "user.id", "error", "service.name", "other", ""]);
    keys.into_iter().map(|key| attribute(key, value(random, key))).collect()
}

/// Lists, maps and bytes stand at `k` only, whose truth is never asked: theirs is not documented.
fn value(random: &mut Random, key: &str) -> Option<Value> {
    let any = |value| AnyValue { value: Some(value) };
    let kind = if key == "k" { random.below(14) } else { random.between(3, 13) };
    Some(match kind {
        0 => Value::BytesValue(b"u1".to_vec()),
        1 => Value::ArrayValue(ArrayValue { values: vec![any(text("u1")), any(Value::BoolValue(true))] }),
        2 => Value::KvlistValue(KeyValueList { values: vec![attribute("k", Some(text("u1")))] }),
        3 => return None,
        4 | 5 => Value::BoolValue(random.one_in(2)),
        6 | 7 => Value::DoubleValue(random.pick(&DOUBLES)),
        8..=10 => Value::IntValue(random.pick(&INTS)),
        _ => text(random.pick(&TEXTS)),
    })
}

/// A request of these spans in this order. Neighbours that stand at the same place often share it.
pub(crate) fn request(random: &mut Random, spans: Vec<Placed>) -> TracesData {
    let mut request = TracesData::default();
    for placed in spans {
        let joins = !random.one_in(4);
        let same_resource = request
            .resource_spans
            .last_mut()
            .filter(|last| joins && last.resource == placed.resource && last.schema_url == placed.resource_url);
        let resource = match same_resource {
            Some(resource) => resource,
            None => {
                let (resource, schema_url) = (placed.resource, placed.resource_url);
                request.resource_spans.push(ResourceSpans { resource, schema_url, ..ResourceSpans::default() });
                request.resource_spans.last_mut().expect("it was just added")
            }
        };
        let same_scope = resource
            .scope_spans
            .last_mut()
            .filter(|last| joins && last.scope == placed.scope && last.schema_url == placed.scope_url);
        match same_scope {
            Some(scope) => scope.spans.push(placed.span),
            None => resource.scope_spans.push(ScopeSpans {
                scope: placed.scope,
                spans: vec![placed.span],
                schema_url: placed.scope_url,
            }),
        }
    }
    request
}
