//! Our ordered rules.

use std::time::Duration;

use memchr::memmem::Finder;
use regex::bytes::Regex;

use super::compile::{AttributeValue, Builder, Named, Odds, Place, Reason, put_attribute};
use super::compile_rates::Rates;
use super::expr::Expr;
use super::matchers::{TextMatcher, ValueMatcher, Values};
use super::plan::Places;
use super::random::Randomness;
use super::verdict::{Judge, Rule};
use crate::tail_sampling::config::{
    AttributeCondition, AttributePlace, ConditionConfig, LatencyCondition, LatencyOf, Match, NameCondition,
    ScalarValue, StatusCondition, TailSamplingConfig,
};

const MAX_DEPTH: usize = 32;

/// What a condition is about.
#[derive(Clone, Copy)]
struct Scope {
    /// One span, not the whole trace.
    one_span: bool,
    depth: usize,
}

pub(super) fn compile(config: &TailSamplingConfig, builder: &mut Builder<'_>) -> (Judge, Vec<String>, Vec<Reason>) {
    let mut names: Vec<String> = Vec::new();
    let mut rates = Rates::new(config);
    let mut rules = Vec::new();
    for (index, rule) in config.rules.iter().enumerate() {
        let place = Place::at("rules").index(index);
        builder.unique_name(&rule.name, &names, &place);
        names.push(rule.name.clone());
        let reason = rates.reasons.len() as u16;
        let rate = rates.rate(index, rule, &place, builder);
        let when = match &rule.when {
            Some(condition) => {
                let scope = Scope { one_span: false, depth: 0 };
                compile_condition(condition, &place.key("when"), scope, builder).unwrap_or(Expr::Const(false))
            }
            None => {
                if index + 1 < config.rules.len() && !rule.dry_run {
                    let message = "without conditions this rule matches every trace, so no rule after it is reached: \
                                   add `when:` or make it the last";
                    builder.error(&place, message);
                }
                Expr::Const(true)
            }
        };
        rules.push(Rule { when, rate, reason, tried: None });
    }
    let mut reasons = rates.reasons;
    for (index, (rule, compiled)) in
        config.rules.iter().zip(&mut rules).enumerate().filter(|(_, (rule, _))| rule.dry_run)
    {
        compiled.tried = Some(reasons.len() as u16);
        for outcome in ["sampled", "not_sampled"] {
            let mut attributes = Vec::new();
            put_attribute(&mut attributes, "nyquist.sampling.dry_run.rule", AttributeValue::Text(&rule.name));
            put_attribute(&mut attributes, "nyquist.sampling.dry_run", AttributeValue::Text(outcome));
            reasons.push(Reason { name: index, member: None, attributes, odds: Odds::Unknown });
        }
    }
    (Judge::Rules { rules, randomness: Randomness::new(&config.hash_salt) }, names, reasons)
}

fn compile_condition(
    condition: &ConditionConfig,
    place: &Place,
    scope: Scope,
    builder: &mut Builder<'_>,
) -> Option<Expr> {
    if scope.depth > MAX_DEPTH {
        builder.error(place, format!("conditions are nested more than {MAX_DEPTH} deep"));
        return None;
    }
    let narrow = matches!(condition.match_, Some(Match::SameSpan | Match::Root));
    if condition.match_ == Some(Match::AnySpan) && scope.one_span {
        builder.error(&place.key("match"), "this is inside a block that is about one span; any_span cannot widen it");
    }
    let inner = Scope { one_span: scope.one_span || narrow, depth: scope.depth + 1 };
    let mut parts = Vec::new();
    let mut sound = true;
    let mut add = |part: Option<Expr>| match part {
        Some(expr) => parts.push(expr),
        None => sound = false,
    };
    if let Some(list) = &condition.all {
        add(compile_list(list, &place.key("all"), inner, builder).map(Expr::All));
    }
    if let Some(list) = &condition.any {
        add(compile_list(list, &place.key("any"), inner, builder).map(Expr::Any));
    }
    if let Some(negated) = &condition.not {
        let negated = compile_condition(negated, &place.key("not"), inner, builder);
        add(negated.map(|expr| Expr::Not(Box::new(expr))));
    }
    if let Some(attribute) = &condition.attribute {
        add(compile_attribute(attribute, &place.key("attribute"), builder));
    }
    if let Some(name) = &condition.span_name {
        add(compile_name(name, Named::Span, &place.key("span_name"), builder));
    }
    if let Some(name) = &condition.event_name {
        add(compile_name(name, Named::Event, &place.key("event_name"), builder));
    }
    if let Some(name) = &condition.scope_name {
        add(compile_name(name, Named::Scope, &place.key("scope_name"), builder));
    }
    if let Some(name) = &condition.scope_version {
        add(compile_name(name, Named::ScopeVersion, &place.key("scope_version"), builder));
    }
    if let Some(status) = condition.status {
        let code = match status {
            StatusCondition::Unset => 0,
            StatusCondition::Ok => 1,
            StatusCondition::Error => 2,
        };
        add(Some(builder.status(code)));
    }
    if let Some(wanted) = condition.exception {
        add(Some(wanted_or_not(builder.exception(), wanted)));
    }
    if let Some(wanted) = condition.error {
        add(Some(wanted_or_not(error(builder), wanted)));
    }
    if let Some(latency) = condition.latency {
        add(compile_latency(latency, &place.key("latency"), inner, builder));
    }
    if let Some(count) = condition.span_count {
        let place = place.key("span_count");
        if inner.one_span {
            builder.error(&place, "spans are counted per trace; put this outside of the block about one span");
        }
        let (min, max) = (count.min.unwrap_or(0), count.max.unwrap_or(u64::MAX));
        if min > max || count.min.is_none() && count.max.is_none() {
            builder.error(&place, "min or max is required, and min not above max");
        }
        add(Some(Expr::SpanCount { min, max }));
    }
    if let Some(ottl) = &condition.ottl {
        add(builder.ottl_in_rule(ottl, &place.key("ottl")));
    }
    if !sound {
        return None;
    }
    if parts.is_empty() {
        builder.error(place, "no condition is given here; remove the block to match everything");
        return None;
    }
    if condition.match_ == Some(Match::Root) {
        parts.insert(0, builder.root());
    }
    let expr = match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => Expr::All(parts.into_iter().chain(last).collect()),
    };
    let already_one_span = scope.one_span;
    Some(if narrow && !already_one_span { builder.on_one_span(expr) } else { expr })
}

fn compile_list(list: &[ConditionConfig], place: &Place, scope: Scope, builder: &mut Builder<'_>) -> Option<Vec<Expr>> {
    if list.is_empty() {
        builder.error(place, "the list is empty");
        return None;
    }
    let mut parts = Vec::new();
    for (index, condition) in list.iter().enumerate() {
        parts.extend(compile_condition(condition, &place.index(index), scope, builder));
    }
    (parts.len() == list.len()).then_some(parts)
}

fn wanted_or_not(expr: Expr, wanted: bool) -> Expr {
    if wanted { expr } else { Expr::Not(Box::new(expr)) }
}

fn error(builder: &mut Builder<'_>) -> Expr {
    let attribute = builder.attribute("error", Places::SPAN, ValueMatcher::Truthy, "truthy");
    Expr::Any(vec![builder.status(2), builder.exception(), attribute])
}

fn compile_latency(latency: LatencyCondition, place: &Place, scope: Scope, builder: &mut Builder<'_>) -> Option<Expr> {
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    // Without a threshold any time will do, and no time at all; but not an end before the start.
    let above = latency.threshold.map_or(-1, |threshold| nanos(threshold.0));
    let up_to = latency.upper_threshold.map(|upper| nanos(upper.0));
    if latency.threshold.is_none() && up_to.is_none() {
        builder.error(place, "threshold or upper_threshold is required");
    }
    if up_to.is_some_and(|up_to| up_to <= above) {
        builder.error(&place.key("upper_threshold"), "not above threshold, so nothing would match");
    }
    match latency.of {
        LatencyOf::Trace | LatencyOf::LongestSpan if scope.one_span => {
            let message = "the latency of the trace, or of its longest span, is not that of one span: use `of: span`, or \
                           put this outside of the block about one span";
            builder.error(&place.key("of"), message);
            None
        }
        LatencyOf::Trace => Some(Expr::Latency { unit_nanos: 1, above, up_to }),
        LatencyOf::LongestSpan => {
            let longer = builder.span_duration(above, i64::MAX);
            Some(match up_to {
                None => longer,
                Some(up_to) => {
                    let too_long = builder.span_duration(up_to, i64::MAX);
                    Expr::All(vec![longer, Expr::Not(Box::new(too_long))])
                }
            })
        }
        LatencyOf::Span => Some(builder.span_duration(above, up_to.unwrap_or(i64::MAX))),
        LatencyOf::Root => {
            let duration = builder.span_duration(above, up_to.unwrap_or(i64::MAX));
            let both = Expr::All(vec![builder.root(), duration]);
            Some(if scope.one_span { both } else { builder.on_one_span(both) })
        }
    }
}

fn compile_name(name: &NameCondition, named: Named, place: &Place, builder: &mut Builder<'_>) -> Option<Expr> {
    let parts = TextParts {
        prefix: name.prefix.as_deref(),
        suffix: name.suffix.as_deref(),
        contains: name.contains.as_deref(),
        regex: name.regex.as_deref(),
    };
    if parts.given() + usize::from(name.values.is_some()) + usize::from(name.values_file.is_some()) != 1 {
        builder.error(place, "exactly one of values, values_file, prefix, suffix, contains, regex is required");
        return None;
    }
    let matcher = if let Some(values) = &name.values {
        TextMatcher::exact(values.iter().cloned())
    } else if let Some(path) = &name.values_file {
        TextMatcher::File(builder.list(path, &place.key("values_file"))?)
    } else {
        parts.compile(place, builder)?
    };
    Some(builder.name(named, matcher, &format!("{name:?}")))
}

/// Tests of a part of a text.
struct TextParts<'a> {
    prefix: Option<&'a str>,
    suffix: Option<&'a str>,
    contains: Option<&'a str>,
    regex: Option<&'a str>,
}

impl TextParts<'_> {
    fn given(&self) -> usize {
        [self.prefix, self.suffix, self.contains, self.regex].iter().flatten().count()
    }

    fn compile(&self, place: &Place, builder: &mut Builder<'_>) -> Option<TextMatcher> {
        if let Some(prefix) = self.prefix {
            return Some(TextMatcher::Prefix(prefix.as_bytes().into()));
        }
        if let Some(suffix) = self.suffix {
            return Some(TextMatcher::Suffix(suffix.as_bytes().into()));
        }
        if let Some(part) = self.contains {
            return Some(TextMatcher::Contains(Box::new(Finder::new(part).into_owned())));
        }
        match Regex::new(self.regex?) {
            Ok(regex) => Some(TextMatcher::Regex(regex)),
            Err(error) => {
                builder.error(&place.key("regex"), format!("invalid regular expression: {error}"));
                None
            }
        }
    }
}

fn compile_attribute(config: &AttributeCondition, place: &Place, builder: &mut Builder<'_>) -> Option<Expr> {
    if config.key.is_empty() {
        builder.error(&place.key("key"), "the name of an attribute is required");
        return None;
    }
    let places = match config.scope {
        AttributePlace::Span => Places::SPAN,
        AttributePlace::Resource => Places::RESOURCE,
        AttributePlace::Scope => Places::SCOPE,
        AttributePlace::Event => Places::EVENT,
        AttributePlace::Any => Places::ALL,
    };
    let parts = TextParts {
        prefix: config.prefix.as_deref(),
        suffix: config.suffix.as_deref(),
        contains: config.contains.as_deref(),
        regex: config.regex.as_deref(),
    };
    let range = config.min.is_some() || config.max.is_some();
    let others = [
        config.values.is_some(),
        config.not_values.is_some(),
        config.values_file.is_some(),
        range,
        config.truthy.is_some(),
        config.exists.is_some(),
    ];
    if parts.given() + others.iter().filter(|&&given| given).count() != 1 {
        let message = "exactly one of values, not_values, values_file, prefix, suffix, contains, regex, min/max, truthy, \
                       exists is required";
        builder.error(place, message);
        return None;
    }
    let mut wanted = true;
    let (matcher, identity) = if let Some(values) = &config.values {
        (ValueMatcher::Values(values_of(values, &place.key("values"), builder)), format!("values {values:?}"))
    } else if let Some(values) = &config.not_values {
        let compiled = values_of(values, &place.key("not_values"), builder);
        (ValueMatcher::NotValues(compiled), format!("not values {values:?}"))
    } else if let Some(path) = &config.values_file {
        let list = builder.list(path, &place.key("values_file"))?;
        (ValueMatcher::Listed(list), format!("file {path:?}"))
    } else if range {
        let (min, max) = (config.min.unwrap_or(f64::NEG_INFINITY), config.max.unwrap_or(f64::INFINITY));
        if min > max || min.is_nan() || max.is_nan() {
            builder.error(&place.key("max"), "less than min, so nothing would match");
        }
        (ValueMatcher::NumberRange(min, max), format!("range {min} {max}"))
    } else if let Some(truthy) = config.truthy {
        wanted = truthy;
        (ValueMatcher::Truthy, "truthy".to_owned())
    } else if let Some(exists) = config.exists {
        wanted = exists;
        (ValueMatcher::Exists, "exists".to_owned())
    } else {
        let identity = format!("{:?} {:?} {:?} {:?}", parts.prefix, parts.suffix, parts.contains, parts.regex);
        (ValueMatcher::Text(parts.compile(place, builder)?), identity)
    };
    Some(wanted_or_not(builder.attribute(&config.key, places, matcher, &identity), wanted))
}

fn values_of(values: &[ScalarValue], place: &Place, builder: &mut Builder<'_>) -> Values {
    if values.is_empty() {
        builder.error(place, "the list is empty");
    }
    let mut texts = Vec::new();
    let (mut integers, mut numbers) = (Vec::new(), Vec::new());
    let (mut yes, mut no) = (false, false);
    for value in values {
        match value {
            ScalarValue::String(text) => texts.push(text.clone()),
            ScalarValue::Int(number) => integers.push(*number),
            ScalarValue::Double(number) => numbers.push(*number),
            ScalarValue::Bool(true) => yes = true,
            ScalarValue::Bool(false) => no = true,
        }
    }
    Values { texts: TextMatcher::exact(texts), numbers, integers, yes, no }
}
