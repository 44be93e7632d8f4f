//! YAML text to nodes.

use super::*;

fn root(text: &str) -> Node {
    let document = yaml::parse(&Source::new("f.yaml", text)).unwrap_or_else(|problem| panic!("{problem}"));
    assert!(document.problems.is_empty(), "{:?}", document.problems);
    document.root
}

fn failure(text: &str) -> String {
    match yaml::parse(&Source::new("f.yaml", text)) {
        Ok(document) => document.problems.iter().map(ToString::to_string).collect(),
        Err(problem) => problem.to_string(),
    }
}

/// Guarantee: plain scalars read as Go's yaml.v3 reads them; quoted ones are text.
#[test]
fn scalars() {
    let cases: &[(&str, Scalar)] = &[
        ("", Scalar::Null),
        ("~", Scalar::Null),
        ("null", Scalar::Null),
        ("true", Scalar::Bool(true)),
        ("True", Scalar::Bool(true)),
        ("yes", Scalar::String("yes".into())),
        ("on", Scalar::String("on".into())),
        ("t", Scalar::String("t".into())),
        ("12", Scalar::Int(12)),
        ("-12", Scalar::Int(-12)),
        ("+12", Scalar::Int(12)),
        ("1_000", Scalar::Int(1000)),
        ("0", Scalar::Int(0)),
        ("0123", Scalar::Int(83)),
        ("0o17", Scalar::Int(15)),
        ("0xdeadbeef", Scalar::Int(3_735_928_559)),
        ("0b101", Scalar::Int(5)),
        ("089", Scalar::Float(89.0)),
        ("1.5", Scalar::Float(1.5)),
        (".5", Scalar::Float(0.5)),
        ("1e3", Scalar::Float(1000.0)),
        (".inf", Scalar::Float(f64::INFINITY)),
        ("-", Scalar::String("-".into())),
        ("1e", Scalar::String("1e".into())),
        ("1.2.3", Scalar::String("1.2.3".into())),
        ("10s", Scalar::String("10s".into())),
        ("0x", Scalar::String("0x".into())),
        ("-0x-5", Scalar::String("-0x-5".into())),
        ("é", Scalar::String("é".into())),
        ("0é", Scalar::String("0é".into())),
        ("9223372036854775808", Scalar::Float(9_223_372_036_854_775_808.0)),
        ("0.0.0.0:4317", Scalar::String("0.0.0.0:4317".into())),
    ];
    for (text, value) in cases {
        assert_eq!(scalar::resolve(text), *value, "{text:?}");
    }
    assert_eq!(root("a: '12'").get("a").unwrap().tree, Tree::Scalar(Scalar::String("12".into())));
    assert_eq!(root("a: !!str 12").get("a").unwrap().tree, Tree::Scalar(Scalar::String("12".into())));
}

/// Guarantee: keys and values know their line and column, in characters.
#[test]
fn places() {
    let root = root("a:\n  - x\n  - é: 'y'\n    z: 5\n");
    let (key, list) = root.entry("a").unwrap();
    assert_eq!((key.line, key.column), (1, 1));
    let item = &list.items()[0].location;
    assert_eq!((item.line, item.column, item.length), (2, 5, 1));
    let (key, value) = list.items()[1].entry("é").unwrap();
    assert_eq!((key.line, key.column, value.location.column), (3, 5, 8));
    let (_, value) = list.items()[1].entry("z").unwrap();
    assert_eq!((value.location.line, value.location.column), (4, 8));
}

/// Guarantee: merge keys fill in what is not there, and their values keep their own places.
#[test]
fn anchors_and_merge_keys() {
    let root = root("base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\none:\n  <<: [*b, *m]\n  x: 9\n");
    let one = root.get("one").unwrap();
    let values: Vec<(&str, &Tree)> = one.entries().iter().map(|(key, _, node)| (key.as_str(), &node.tree)).collect();
    let int = |value| Tree::Scalar(Scalar::Int(value));
    assert_eq!(values, [("x", &int(9)), ("y", &int(2)), ("z", &int(4))]);
    assert_eq!(one.get("z").unwrap().location.line, 2);
}

/// Guarantee: a duplicate key names both lines and does not end the reading.
#[test]
fn duplicate_keys() {
    let text = failure("a: 1\nb: 2\na: 3\nb: 4\n");
    assert!(text.contains("\"a\" is already defined on line 1") && text.contains("f.yaml:3:1"), "{text}");
    assert!(text.contains("\"b\" is already defined on line 2"), "{text}");
}

#[test]
fn faults_that_are_explained() {
    for (text, place, words) in [
        ("a:\n\tb: 1\n", "f.yaml:2:1", "a tab in the indentation"),
        ("a: {{ .Values.x }}\n", "f.yaml:1:5", "this looks like a template"),
        ("a:\n  endpoint:0.0.0.0:4317\n  b: 1\n", "f.yaml:2:3", "write `endpoint: 0.0.0.0:4317`"),
        ("a: \"b\nc: 1\n", "f.yaml:", "not valid YAML"),
        ("a: *nothing\n", "f.yaml:1:", "not valid YAML"),
        ("? [a, b]\n: 1\n", "f.yaml:1:", "a key must be text"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1", "only the first document"),
        ("a: &x [*x]\n", "f.yaml:1:", "an alias inside its own anchor"),
    ] {
        let said = failure(text);
        assert!(said.contains(place) && said.contains(words), "{text:?} says: {said}");
    }
}
