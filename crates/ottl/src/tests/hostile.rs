//! Whatever comes, nothing panics.

use std::cell::Cell;

use nyquist_core::wire::put_len_field;
use proptest::prelude::*;

use super::{bytes, span};
use crate::fuzzing;
use crate::traces::{SPAN, SPAN_EVENT};
use crate::{Condition, EvalError, SpanContext};

/// Texts of the language's own words in any order.
fn words() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "name",
        "span.",
        "attributes",
        "[\"a\"]",
        "[0]",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        ".",
        "=",
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "+",
        "-",
        "*",
        "/",
        "and",
        "or",
        "not",
        "where",
        "true",
        "false",
        "nil",
        "1",
        "1.5",
        "0x01",
        "\"text\"",
        "\"\\x00\"",
        "IsMatch(",
        "Len(",
        "Int(",
        "IsRootSpan()",
        "SPAN_KIND_SERVER",
        "set(",
        "ä",
        "\n",
        "\"",
        "9223372036854775808",
        "kind",
    ];
    proptest::collection::vec(proptest::sample::select(WORDS), 0..24).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,60}") {
        fuzzing::expression(text.as_bytes());
    }

    #[test]
    fn any_order_of_words_is_read_or_refused(text in words()) {
        fuzzing::expression(text.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn any_bytes_have_an_answer(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        fuzzing::data(&data);
    }

    #[test]
    fn a_damaged_span_has_an_answer(at in any::<prop::sample::Index>(), damage in 1u8.., cut in any::<prop::sample::Index>()) {
        let mut span = bytes(&span()).span;
        let at = at.index(span.len());
        span[at] ^= damage;
        fuzzing::data(&span);
        span.truncate(cut.index(span.len()));
        fuzzing::data(&span);
    }
}

/// The list is worth its name only if its conditions are sound.
#[test]
fn the_conditions_of_the_fuzz_target_compile() {
    for source in fuzzing::CONDITIONS {
        let compiled = [&SPAN, &SPAN_EVENT].map(|schema| Condition::compile(source, schema));
        assert!(compiled.iter().any(Result::is_ok), "{source}: {compiled:?}");
    }
}

/// Values that nest deeper than any that passed the ingress check.
#[test]
fn deep_values_are_different_and_have_no_text() {
    let wrapped = |number: u32, content: &[u8]| {
        let mut out = Vec::new();
        put_len_field(&mut out, number, content);
        out
    };
    let mut value = wrapped(1, b"x");
    for _ in 0..5_000 {
        value = wrapped(5, &wrapped(1, &value));
    }
    let span = wrapped(9, &[wrapped(1, b"deep"), wrapped(2, &value)].concat());
    let context = SpanContext::new(&span, &[], &[]);
    let eval = |source: &str| Condition::compile(source, &SPAN).unwrap().eval(&context);
    assert_eq!(eval(r#"attributes["deep"] == attributes["deep"]"#), Ok(false));
    assert_eq!(eval(r#"IsList(attributes["deep"][0][0][0])"#), Ok(true));
    let error: EvalError = eval(r#"String(attributes["deep"]) == """#).unwrap_err();
    assert_eq!(error.to_string(), "the value nests too deep");
}

/// However often a large resource is asked for, or a large span by each of its events: what may be read is
/// limited, and what may not is an error.
#[test]
fn a_budget_ends_what_would_take_for_ever() {
    let large = bytes(&span());
    let used = |source: &str, of_events: bool| {
        let condition = Condition::compile(source, if of_events { &SPAN_EVENT } else { &SPAN }).unwrap();
        let eval = |context: &SpanContext<'_>| match of_events {
            false => condition.eval(context),
            true => context.events().map(|event| condition.eval(&event)).last().unwrap(),
        };
        let budget = Cell::new(1_000_000);
        let context = large.context().with_budget(&budget);
        let answer = eval(&context);
        assert!(answer.is_ok(), "{source}: {answer:?}");
        let used = 1_000_000 - budget.get();
        budget.set(used.saturating_sub(1));
        let answer = eval(&context);
        assert_eq!(answer.is_err(), used > 0, "{source}");
        used
    };
    let (span, resource) = (large.span.len(), large.resource_spans.len());
    assert_eq!(used(r#"resource.attributes["a"] == "b""#, false), resource);
    assert_eq!(used(r#"IsMatch(name, "z") or IsMatch(resource.schema_url, "z")"#, false), name_len() + resource + 3);
    assert_eq!(used(r#"attributes["a"] == attributes["b"]"#, false), 2 * span);
    assert_eq!(used(r#"Len(events) == 7 or dropped_events_count == 9"#, false), 2 * span);
    assert_eq!(used(r#"span.attributes["a"] == "b""#, true), 2 * span);
    assert_eq!(used(r#"name == "GET" and kind == 1"#, false), 0);
}

fn name_len() -> usize {
    span().name.len()
}

/// What converters make is limited too.
#[test]
fn converters_do_not_make_values_without_bound() {
    let mut large = span();
    large.name = "a".repeat(600_000);
    let large = bytes(&large);
    let eval = |source: &str| {
        Condition::compile(source, &SPAN).unwrap().eval(&large.context()).map_err(|error| error.to_string())
    };
    let refused = |message: &str| Err(message.to_owned());
    assert_eq!(eval(r#"Concat([name, name], "") == """#), refused("the text would be longer than 1 MiB"));
    assert_eq!(eval(r#"Split(name, "") == nil"#), refused("the text has more than 65536 parts"));
    assert_eq!(eval(r#"Split(name, "aaaaaaaaaa") == nil"#), Ok(false));
    assert_eq!(eval("Trim(name, name) == nil"), refused("at most 64 different characters are trimmed away"));
}
