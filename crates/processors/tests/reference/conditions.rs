//! `rules`: conditions, as the README describes them.

use std::cmp::Ordering;

use nyquist_core::proto::common::v1::KeyValue;
use nyquist_core::proto::common::v1::any_value::Value;
use regex::Regex;
use serde_json::{Map, Value as Json, json};

use crate::spans::{ERROR, Id, OK, Placed, UNSET, first_value, trace_duration, value_of};

#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) percentage: f64,
    /// It decides nothing.
    pub(crate) dry_run: bool,
    pub(crate) when: Option<Condition>,
}

#[derive(Debug, Clone)]
pub(crate) enum Condition {
    /// Several keys of one block.
    Block(Vec<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    /// The block below with `match: any_span`, `same_span`, `root`.
    AnySpan(Box<Condition>),
    SameSpan(Box<Condition>),
    Root(Box<Condition>),
    /// `exists`, `truthy`, `exception`, `error` with `false`.
    False(Box<Condition>),
    Attribute {
        key: String,
        place: Place,
        test: Test,
    },
    Name(Named, NameTest),
    Status(i32),
    Exception,
    Error,
    Latency {
        of: Of,
        over_ns: u64,
        upper_ns: Option<u64>,
    },
    SpanCount {
        min: Option<u64>,
        max: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Place {
    Span,
    Resource,
    Event,
    Scope,
    Any,
}

/// What has a name, or a version.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Named {
    Span,
    Event,
    Scope,
    ScopeVersion,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Of {
    Trace,
    Root,
    Longest,
    Span,
}

#[derive(Debug, Clone)]
pub(crate) enum Test {
    Values(Vec<Scalar>),
    NotValues(Vec<Scalar>),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(String),
    Range { min: Option<f64>, max: Option<f64> },
    Truthy,
    Exists,
}

#[derive(Debug, Clone)]
pub(crate) enum Scalar {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
}

#[derive(Debug, Clone)]
pub(crate) enum NameTest {
    Values(Vec<String>),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(String),
}

/// The rules that match a trace, in order, up to the one that decides.
pub(crate) fn asked<'a>(rules: &'a [Rule], spans: &[Placed]) -> Vec<&'a Rule> {
    let mut asked = Vec::new();
    for rule in rules.iter().filter(|rule| rule.when.as_ref().is_none_or(|when| when.holds(spans))) {
        asked.push(rule);
        if !rule.dry_run {
            break;
        }
    }
    asked
}

/// OpenTelemetry's definition: what is below the threshold is not kept.
pub(crate) fn threshold(percentage: f64) -> u64 {
    ((1.0 - percentage / 100.0) * (1_u64 << 56) as f64).round() as u64
}

/// Its low 56 bits are the randomness of an id.
pub(crate) fn keeps(percentage: f64, id: Id) -> bool {
    low_bits(id) >= threshold(percentage)
}

pub(crate) fn low_bits(id: Id) -> u64 {
    let mut low = [0; 8];
    low[1..].copy_from_slice(&id[9..]);
    u64::from_be_bytes(low)
}

impl Condition {
    /// Does it hold for a trace: each part may be met by another span.
    fn holds(&self, spans: &[Placed]) -> bool {
        match self {
            Self::Block(parts) | Self::All(parts) => parts.iter().all(|part| part.holds(spans)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(spans)),
            Self::Not(part) | Self::False(part) => !part.holds(spans),
            Self::AnySpan(block) => block.holds(spans),
            Self::SameSpan(block) => spans.iter().any(|span| block.holds_for(span)),
            Self::Root(block) => spans.iter().any(|span| span.is_root() && block.holds_for(span)),
            Self::Latency { of: Of::Trace, over_ns, upper_ns } => {
                trace_duration(spans).is_some_and(|duration| within(duration, *over_ns, *upper_ns))
            }
            Self::Latency { of: Of::Root, over_ns, upper_ns } => spans.iter().any(|span| {
                span.is_root() && span.duration().is_some_and(|duration| within(duration, *over_ns, *upper_ns))
            }),
            Self::Latency { of: Of::Longest, over_ns, upper_ns } => {
                let longest = spans.iter().filter_map(Placed::duration).max();
                longest.is_some_and(|duration| within(duration, *over_ns, *upper_ns))
            }
            Self::SpanCount { min, max } => {
                let count = spans.len() as u64;
                min.is_none_or(|min| count >= min) && max.is_none_or(|max| count <= max)
            }
            Self::Attribute { .. }
            | Self::Name(..)
            | Self::Status(_)
            | Self::Exception
            | Self::Error
            | Self::Latency { of: Of::Span, .. } => spans.iter().any(|span| self.holds_for(span)),
        }
    }

    /// Does this one span meet all of it.
    fn holds_for(&self, span: &Placed) -> bool {
        match self {
            Self::Block(parts) | Self::All(parts) => parts.iter().all(|part| part.holds_for(span)),
            Self::Any(parts) => parts.iter().any(|part| part.holds_for(span)),
            Self::Not(part) | Self::False(part) => !part.holds_for(span),
            Self::Attribute { key, place, test } => attributes(span, *place)
                .into_iter()
                .flatten()
                .any(|attribute| attribute.key == *key && test.holds(value_of(attribute))),
            Self::Name(Named::Span, test) => test.holds(&span.span.name),
            Self::Name(Named::Event, test) => span.span.events.iter().any(|event| test.holds(&event.name)),
            // No scope is one without a name.
            Self::Name(Named::Scope, test) => test.holds(span.scope.as_ref().map_or("", |scope| &scope.name)),
            Self::Name(Named::ScopeVersion, test) => test.holds(span.scope.as_ref().map_or("", |scope| &scope.version)),
            Self::Status(code) => span.status() == *code,
            Self::Exception => span.has_exception(),
            Self::Error => {
                span.status() == ERROR
                    || span.has_exception()
                    || first_value(&span.span.attributes, "error").is_some_and(is_truthy)
            }
            Self::Latency { of: Of::Span, over_ns, upper_ns } => {
                span.duration().is_some_and(|duration| within(duration, *over_ns, *upper_ns))
            }
            Self::AnySpan(_) | Self::SameSpan(_) | Self::Root(_) | Self::Latency { .. } | Self::SpanCount { .. } => {
                panic!("not of a span: {self:?}")
            }
        }
    }

    pub(crate) fn json(&self) -> Json {
        let mut block = Map::new();
        self.write(&mut block);
        Json::Object(block)
    }

    /// Adds its key to a block.
    fn write(&self, block: &mut Map<String, Json>) {
        let list = |parts: &[Self]| parts.iter().map(Self::json).collect::<Json>();
        let mut put = |key: &str, value: Json| {
            assert!(block.insert(key.to_owned(), value).is_none(), "{key} twice in a block");
        };
        match self {
            Self::Block(parts) => parts.iter().for_each(|part| part.write(block)),
            Self::All(parts) => put("all", list(parts)),
            Self::Any(parts) => put("any", list(parts)),
            Self::Not(part) => put("not", part.json()),
            Self::AnySpan(part) => {
                put("match", json!("any_span"));
                part.write(block);
            }
            Self::SameSpan(part) => {
                put("match", json!("same_span"));
                part.write(block);
            }
            Self::Root(part) => {
                put("match", json!("root"));
                part.write(block);
            }
            Self::False(part) => {
                let text = part.json().to_string().replace("true", "false");
                let parts: Map<String, Json> = serde_json::from_str(&text).expect("it is an object");
                parts.into_iter().for_each(|(key, value)| put(&key, value));
            }
            Self::Attribute { key, place, test } => {
                let mut attribute = test.json();
                attribute["key"] = json!(key);
                match place {
                    Place::Any => {}
                    Place::Span => attribute["scope"] = json!("span"),
                    Place::Resource => attribute["scope"] = json!("resource"),
                    Place::Event => attribute["scope"] = json!("event"),
                    Place::Scope => attribute["scope"] = json!("scope"),
                }
                put("attribute", attribute);
            }
            Self::Name(of, test) => {
                let key = match of {
                    Named::Span => "span_name",
                    Named::Event => "event_name",
                    Named::Scope => "scope_name",
                    Named::ScopeVersion => "scope_version",
                };
                put(key, test.json());
            }
            Self::Status(code) => put("status", status_name(*code)),
            Self::Exception => put("exception", json!(true)),
            Self::Error => put("error", json!(true)),
            Self::Latency { of, over_ns, upper_ns } => {
                let mut latency = json!({ "threshold": format!("{over_ns}ns") });
                match of {
                    Of::Trace => {}
                    Of::Root => latency["of"] = json!("root"),
                    Of::Longest => latency["of"] = json!("longest_span"),
                    Of::Span => latency["of"] = json!("span"),
                }
                if let Some(upper_ns) = upper_ns {
                    latency["upper_threshold"] = json!(format!("{upper_ns}ns"));
                }
                put("latency", latency);
            }
            Self::SpanCount { min, max } => {
                let mut count = Map::new();
                min.map(|min| count.insert("min".to_owned(), json!(min)));
                max.map(|max| count.insert("max".to_owned(), json!(max)));
                put("span_count", Json::Object(count));
            }
        }
    }
}

impl Rule {
    pub(crate) fn json(&self) -> Json {
        let mut rule = json!({ "name": self.name, "sampling_percentage": self.percentage });
        if let Some(when) = &self.when {
            rule["when"] = when.json();
        }
        if self.dry_run {
            rule["dry_run"] = json!(true);
        }
        rule
    }
}

pub(crate) fn status_name(code: i32) -> Json {
    match code {
        UNSET => json!("UNSET"),
        OK => json!("OK"),
        _ => json!("ERROR"),
    }
}

/// Longer than `over`, and at most `upper`.
fn within(duration: i128, over_ns: u64, upper_ns: Option<u64>) -> bool {
    duration > i128::from(over_ns) && upper_ns.is_none_or(|upper_ns| duration <= i128::from(upper_ns))
}

/// The lists in which an attribute is looked for.
fn attributes(span: &Placed, place: Place) -> Vec<&[KeyValue]> {
    let mut lists = Vec::new();
    if matches!(place, Place::Span | Place::Any) {
        lists.push(span.span.attributes.as_slice());
    }
    if matches!(place, Place::Resource | Place::Any) {
        lists.push(span.resource_attributes());
    }
    if matches!(place, Place::Scope | Place::Any) {
        lists.extend(span.scope.iter().map(|scope| scope.attributes.as_slice()));
    }
    if matches!(place, Place::Event | Place::Any) {
        lists.extend(span.span.events.iter().map(|event| event.attributes.as_slice()));
    }
    lists
}

impl Test {
    fn holds(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Exists, _) => true,
            (_, None) => false,
            (Self::Values(scalars), Some(value)) => scalars.iter().any(|scalar| scalar.equals(value)),
            (Self::NotValues(scalars), Some(value)) => {
                let is_scalar = is_number(value) || matches!(value, Value::StringValue(_) | Value::BoolValue(_));
                is_scalar && !scalars.iter().any(|scalar| scalar.equals(value))
            }
            (Self::Prefix(part), Some(Value::StringValue(text))) => text.starts_with(part),
            (Self::Suffix(part), Some(Value::StringValue(text))) => text.ends_with(part),
            (Self::Contains(part), Some(Value::StringValue(text))) => text.contains(part),
            (Self::Regex(regex), Some(Value::StringValue(text))) => finds(regex, text),
            (Self::Range { min, max }, Some(value)) => {
                let against = |bound: f64| compare(value, &Value::DoubleValue(bound));
                is_number(value)
                    && min.is_none_or(|min| against(min).is_some_and(Ordering::is_ge))
                    && max.is_none_or(|max| against(max).is_some_and(Ordering::is_le))
            }
            (Self::Truthy, Some(value)) => is_truthy(value),
            (Self::Prefix(_) | Self::Suffix(_) | Self::Contains(_) | Self::Regex(_), Some(_)) => false,
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::Values(scalars) => json!({ "values": scalars.iter().map(Scalar::json).collect::<Json>() }),
            Self::NotValues(scalars) => json!({ "not_values": scalars.iter().map(Scalar::json).collect::<Json>() }),
            Self::Prefix(part) => json!({ "prefix": part }),
            Self::Suffix(part) => json!({ "suffix": part }),
            Self::Contains(part) => json!({ "contains": part }),
            Self::Regex(regex) => json!({ "regex": regex }),
            Self::Range { min, max } => {
                let mut range = json!({});
                min.map(|min| range["min"] = json!(min));
                max.map(|max| range["max"] = json!(max));
                range
            }
            Self::Truthy => json!({ "truthy": true }),
            Self::Exists => json!({ "exists": true }),
        }
    }
}

impl NameTest {
    fn holds(&self, name: &str) -> bool {
        match self {
            Self::Values(values) => values.iter().any(|value| value == name),
            Self::Prefix(part) => name.starts_with(part),
            Self::Suffix(part) => name.ends_with(part),
            Self::Contains(part) => name.contains(part),
            Self::Regex(regex) => finds(regex, name),
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::Values(values) => json!({ "values": values }),
            Self::Prefix(part) => json!({ "prefix": part }),
            Self::Suffix(part) => json!({ "suffix": part }),
            Self::Contains(part) => json!({ "contains": part }),
            Self::Regex(regex) => json!({ "regex": regex }),
        }
    }
}

impl Scalar {
    /// Text matches text, numbers match numbers, booleans booleans.
    fn equals(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text(expected), Value::StringValue(text)) => expected == text,
            (Self::Bool(expected), Value::BoolValue(value)) => expected == value,
            (Self::Int(expected), value) => compare(value, &Value::IntValue(*expected)) == Some(Ordering::Equal),
            (Self::Double(expected), value) => compare(value, &Value::DoubleValue(*expected)) == Some(Ordering::Equal),
            _ => false,
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::Text(text) => json!(text),
            Self::Int(number) => json!(number),
            Self::Double(number) => json!(number),
            Self::Bool(value) => json!(value),
        }
    }
}

fn is_number(value: &Value) -> bool {
    matches!(value, Value::IntValue(_) | Value::DoubleValue(_))
}

/// Two numbers as numbers, not as what they were rounded to; none for other values.
fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::IntValue(left), Value::IntValue(right)) => Some(left.cmp(right)),
        (Value::DoubleValue(left), Value::DoubleValue(right)) => left.partial_cmp(right),
        (Value::IntValue(left), Value::DoubleValue(right)) => compare_mixed(*left, *right),
        (Value::DoubleValue(left), Value::IntValue(right)) => compare_mixed(*right, *left).map(Ordering::reverse),
        _ => None,
    }
}

fn compare_mixed(whole: i64, number: f64) -> Option<Ordering> {
    if number.is_nan() {
        return None;
    }
    // Beyond 64 bits `as` gives the largest 128-bit integers, which compare as they should.
    let floor = number.floor() as i128;
    let fraction = number - number.floor();
    let by_floor = i128::from(whole).cmp(&floor);
    Some(if by_floor == Ordering::Equal && fraction > 0.0 { Ordering::Less } else { by_floor })
}

/// true, a number other than 0, or a text other than "", "0", "false", "no", "off".
fn is_truthy(value: &Value) -> bool {
    match value {
        Value::BoolValue(value) => *value,
        Value::IntValue(number) => *number != 0,
        Value::DoubleValue(number) => *number != 0.0,
        Value::StringValue(text) => !["", "0", "false", "no", "off"].contains(&text.to_ascii_lowercase().as_str()),
        _ => false,
    }
}

pub(crate) fn finds(regex: &str, text: &str) -> bool {
    Regex::new(regex).expect("the expressions of tests are valid").is_match(text)
}
