//! Mistakes, and what is said of them.

use crate::ast::Kind;
use crate::traces::{SPAN, SPAN_EVENT};
use crate::{Condition, MAX_DEPTH, MAX_LENGTH, parse_condition, parse_statement};

fn problem(expression: &str) -> String {
    Condition::compile(expression, &SPAN).expect_err(expression).to_string()
}

/// The whole text, once: place, message, excerpt and caret.
#[test]
fn a_problem_shows_the_place() {
    assert_eq!(
        problem(r#"name == "a" and kin == 2"#),
        "column 17: span has no field `kin`; did you mean kind?\n    name == \"a\" and kin == 2\n                    ^^^"
    );
    assert_eq!(
        problem("name == \"ä\" and\n  status.code = 2"),
        "line 2, column 15: write `==` to compare\n      status.code = 2\n                  ^"
    );
    let in_one_line = |expression: &str| Condition::compile(expression, &SPAN).unwrap_err().summary();
    assert_eq!(in_one_line("true and\nkin == 2"), "line 2, column 1: span has no field `kin`; did you mean kind?");
    assert_eq!(in_one_line("kind =="), "column 8: expected a value, found the end");
    assert_eq!(
        in_one_line("attributes[\"a-very-long-key\"][\"and-another-one\"]"),
        "column 1, `attributes[\"a-very-long-key\"][\"and-anoth..`: this is a value, not a condition; compare it, as in \
         `.. == true` or `.. != nil`"
    );
    let long = format!("{}kin == 2", "name == \"abcdefgh\" or ".repeat(20));
    let shown = Condition::compile(&long, &SPAN).unwrap_err();
    assert_eq!((shown.column, shown.width), (441, 3));
    assert!(shown.excerpt().lines().all(|line| line.chars().count() <= 100), "{}", shown.excerpt());
    assert!(shown.excerpt().starts_with("= \"abcdefgh\" or name"), "{}", shown.excerpt());
    assert!(shown.excerpt().ends_with("\n                                                            ^^^"));
}

/// Column and message; the excerpt is tested above.
#[test]
fn mistakes_are_named() {
    for (expression, column, message) in [
        // Words and signs.
        ("", 1, "the expression is empty"),
        ("name == 'a'", 9, "a text stands in double quotes"),
        (r#"name == "a"#, 9, "this text has no closing `\"`"),
        (r#"name == "\d""#, 10, r#"unknown escape `\d`; write `\\` for a backslash, as in "\\d+""#),
        (r#"name == "\xZZ""#, 10, "2 hexadecimal digits are expected here"),
        ("name == 5x", 9, "`5x` is not a number; put a text in double quotes"),
        ("name == 0x123", 9, "bytes are written with two hexadecimal digits each, as in 0x01ff"),
        ("kind == 9223372036854775808", 9, "the number does not fit into 64 bits with a sign"),
        ("name == \"a\" && true", 13, "write `and` instead of `&&`"),
        ("true || false", 6, "write `or` instead of `||`"),
        ("!true", 1, "write `not` instead of `!`"),
        ("kind # 2", 6, "unexpected character '#'"),
        // Structure.
        ("kind ==", 8, "expected a value, found the end"),
        ("== 2", 1, "expected a value, found `==`; something is missing before it"),
        ("kind = 2", 6, "write `==` to compare"),
        ("(kind == 2", 11, "expected `)`, found the end"),
        ("kind == 2)", 10, "this `)` closes nothing"),
        ("kind == 2 name == \"a\"", 11, "expected `and`, `or` or the end, found `name`"),
        ("1 < kind < 3", 10, "comparisons cannot be chained; join two of them with `and`"),
        ("not not true", 5, "one `not` is enough; put the second one into parentheses if it is meant"),
        ("(kind == 2) == true", 1, "this says yes or no and is not a value; join conditions with `and`, `or`, `not`"),
        ("name", 1, "this is a value, not a condition; compare it, as in `.. == true` or `.. != nil`"),
        ("true and name", 10, "this is a value, not a condition; compare it, as in `.. == true` or `.. != nil`"),
        ("1 + 1", 1, "this is a value, not a condition; compare it with something"),
        (
            "\"a\" + 1 == 2",
            1,
            "only numbers and times are calculated with, not a text; use Concat([..], \"\") to join texts",
        ),
        ("kind + nil == 2", 8, "only numbers and times are calculated with, not nil"),
        ("true where true", 6, "a condition stands by itself, without an editor and `where`"),
        ("kind == [1, 2", 14, "expected `,` or `]`, found the end"),
        ("kind == {a: 1}", 10, "expected a key in double quotes, found `a`"),
        ("kind == {\"a\": 1, \"a\": 2}", 23, "this key is in the map already"),
        ("name. == 1", 7, "expected the name of a field after `.`, found `==`"),
        ("attributes[1.5] == 1", 12, "a key is a text in double quotes, a number, a path or a converter"),
        ("attributes[\"a\"].b == 1", 16, "nothing follows a key; write nested keys as [\"a\"][\"b\"]"),
        (
            "set(name, \"a\")",
            1,
            "`set` is no converter: their names begin with an upper-case letter, and editors change data",
        ),
        // Names.
        ("span.nam == 1", 1, "span has no field `nam`; did you mean name?"),
        ("staus.code == 1", 1, "span has no field `staus.code`; did you mean status.code?"),
        ("status == 1", 1, "`status` is not a value; its fields are status.code, status.message"),
        ("resource == 1", 1, "`resource` is not a value; name one of its fields, as in resource.attributes[\"..\"]"),
        ("resource.atributes[\"a\"] == 1", 1, "resource has no field `atributes`; did you mean attributes?"),
        ("spanevent.name == \"a\"", 1, "there is no `spanevent` here; the contexts are span, resource, scope"),
        ("span.attributes.user == 1", 1, "keys stand in brackets: write attributes[\"user\"]"),
        ("cache[\"a\"] == 1", 1, "`cache` is not available in conditions"),
        ("name[\"a\"] == 1", 1, "span.name has no keys"),
        ("kind == SPAN_KIND_SEVER", 9, "unknown enum `SPAN_KIND_SEVER`; did you mean SPAN_KIND_SERVER?"),
        ("kind == IsMatch", 9, "`IsMatch` is a converter: write IsMatch(..)"),
        ("isMatch(name, \"a\")", 1, "`isMatch` is no converter; did you mean IsMatch?"),
        ("Ismatch(name, \"a\")", 1, "unknown converter `Ismatch`; did you mean IsMatch?"),
        ("IsRotSpan()", 1, "unknown converter `IsRotSpan`; did you mean IsRootSpan?"),
        ("Frobnicate(name)", 1, "unknown converter `Frobnicate`"),
        (
            "ParseXML(name)[\"a\"] == 1",
            1,
            "the converter ParseXML is not available: XML is not read; ExtractPatterns(.., \"<id>(?P<id>[^<]*)\") finds the text of an element",
        ),
        (
            "UUID() == name",
            1,
            "the converter UUID is not available: a new id equals nothing that a condition could compare it with",
        ),
        ("Format(name, [1]) == name", 8, "the format has to be a text in double quotes, such as \"%s-%02d\""),
        // Arguments.
        ("IsMatch(name)", 1, "the argument `pattern` is missing; it is IsMatch(target, pattern)"),
        ("IsMatch(name, \"a\", 1)", 20, "too many arguments; it is IsMatch(target, pattern)"),
        (
            "IsMatch(name, patern=\"a\")",
            22,
            "there is no argument `patern`; did you mean pattern?; it is IsMatch(target, pattern)",
        ),
        ("IsMatch(name, target=name)", 22, "this argument is given twice"),
        ("IsMatch(target=name, \"a\")", 22, "arguments without a name come before those with one"),
        ("IsRootSpan(1)", 1, "IsRootSpan takes no arguments"),
        ("IsMatch(name, \"(\")", 15, "invalid regular expression: unclosed group"),
        (
            "IsMatch(name, status.message)",
            15,
            "the pattern has to be a text in double quotes: patterns are compiled once, at the start",
        ),
        ("Int(1)", 1, "a condition has to be a boolean, and this is an integer"),
        // What is constant fails at once.
        ("end_time - start_time > Duration(\"3 s\")", 25, "this is not a duration such as \"1.5s\" or \"2h30m\""),
        ("1 / 0 == kind", 5, "division by zero"),
        ("trace_id == TraceID(0x01)", 13, "a trace id has 16 bytes, a span id 8"),
    ] {
        let found = Condition::compile(expression, &SPAN).expect_err(expression);
        assert_eq!((found.column, found.message.as_str()), (column, message), "{expression}");
    }
    let found = Condition::compile("IsRootSpan()", &SPAN_EVENT).unwrap_err();
    assert_eq!(found.message, "unknown converter `IsRootSpan`");
}

#[test]
fn length_and_depth_are_limited() {
    let deep = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse_condition(&deep(MAX_DEPTH)).is_ok());
    assert!(parse_condition(&deep(MAX_DEPTH + 1)).unwrap_err().message.contains("nested more than"));
    let lists = format!("kind == {}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
    assert!(parse_condition(&lists).unwrap_err().message.contains("nested more than"));
    let calls = format!("{}1{} == 1", "Int(".repeat(5_000), ")".repeat(5_000));
    assert!(parse_condition(&calls).unwrap_err().message.contains("at most"), "too long");
    let long = "a".repeat(MAX_LENGTH + 1);
    assert!(parse_condition(&long).unwrap_err().message.contains("at most 16384 are allowed"));
    // Long chains are not deep, whatever they are made of.
    let chain = |part: &str, by: &str| vec![part; 1_500].join(by);
    for expression in [
        chain("true", " or "),
        chain("true", " and "),
        format!("{} == 1", chain("kind", " + ")),
        format!("{} == 1", chain("kind", " * ")),
    ] {
        let compiled = Condition::compile(&expression, &SPAN).unwrap();
        assert!(compiled.eval(&crate::SpanContext::new(&[], &[], &[])).is_ok());
    }
}

/// A pattern that would take much memory is refused.
#[test]
fn patterns_are_limited() {
    assert!(problem(r#"IsMatch(name, "(a{1000}){1000}")"#).contains("invalid regular expression: it is too large"));
}

#[test]
fn statements_are_read() {
    let statement =
        parse_statement(r#"set(attributes["a"], Concat(["x", name], "-")) where kind == 2 or not true"#).unwrap();
    assert_eq!((statement.editor.name.as_str(), statement.editor.arguments.len()), ("set", 2));
    assert!(matches!(statement.condition.unwrap().kind, Kind::Or(parts) if parts.len() == 2));
    let plain = parse_statement(r#"replace_pattern(name, "a", replacement="b")"#).unwrap();
    assert_eq!(plain.editor.arguments[2].name.as_deref(), Some("replacement"));
    assert!(plain.condition.is_none());
    for (statement, message) in [
        ("Set(name, 1)", "`Set` is a converter; a statement begins with an editor, as in set(..)"),
        ("set", "expected `(` after the editor's name"),
        ("set(name, 1)[0]", "an editor gives nothing that could be indexed"),
        ("set(name, 1) if true", "expected `where` or the end, found `if`"),
        ("set(name, 1) where name", "this is a value, not a condition; compare it, as in `.. == true` or `.. != nil`"),
        ("set(name, kind == 1)", "a comparison is not a value; only conditions compare"),
    ] {
        assert_eq!(parse_statement(statement).unwrap_err().message, message, "{statement}");
    }
}
