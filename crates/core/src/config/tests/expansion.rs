//! `${...}` references.

use super::*;

/// The value of `a` in `a: TEXT`.
fn value(text: &str, variables: &[(&str, &str)]) -> Node {
    let (root, diagnostics) = tree(&[&format!("a: {text}")], variables);
    assert!(diagnostics.errors.is_empty(), "{diagnostics}");
    root.get("a").unwrap().clone()
}

fn text_of(text: &str, variables: &[(&str, &str)]) -> String {
    value(text, variables).as_text().unwrap_or("no text").to_owned()
}

fn error(text: &str) -> String {
    let (_, diagnostics) = tree(&[&format!("a: {text}")], &[]);
    diagnostics.errors.first().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn whole_values_and_pieces() {
    let variables =
        [("X", "0123"), ("T", "true"), ("A", "[filelog,${env:B}]"), ("B", "x"), ("WHICH", "B"), ("Q", "\"0123\"")];
    assert_eq!(value("${env:X}", &variables).tree, Tree::Scalar(Scalar::Int(83)));
    assert_eq!(text_of("${env:X}", &variables), "0123");
    assert_eq!(text_of("${X}", &variables), "0123");
    assert_eq!(text_of("pre-${env:T}-post", &variables), "pre-true-post");
    assert_eq!(text_of("${env:A}", &variables), "[filelog,x]");
    assert_eq!(text_of("${env:${WHICH}}", &variables), "x");
    assert_eq!(text_of("${env:Q}", &variables), "\"0123\"", "quotes are kept");
    assert_eq!(value("'${yaml:{b: 5}}'", &variables).as_text(), Some("{b: 5}"), "the first brace ends the reference");
}

#[test]
fn dollar_signs() {
    let variables = [("A", "1"), ("B", "2"), ("P", "pa$$word")];
    assert_eq!(text_of("$${FOO}", &variables), "${FOO}");
    assert_eq!(text_of("$$FOO", &variables), "$FOO");
    assert_eq!(text_of("$FOO", &variables), "$FOO");
    assert_eq!(text_of("$$$${A}", &variables), "$${A}");
    assert_eq!(text_of("$$${A}", &variables), "$1");
    assert_eq!(text_of("${env:B}-$${A}", &variables), "2-${A}");
    assert_eq!(text_of("${P}", &variables), "pa$word");
    assert_eq!(text_of("a$", &variables), "a$");
    assert_eq!(text_of("'${open'", &variables), "${open");
}

/// Where the Collector reads on differently, the reading is said.
#[test]
fn readings_that_differ_are_said() {
    let (root, diagnostics) = tree(&["a: $${A}-${env:B}\nb: at $HOME_DIR\n"], &[("B", "2"), ("HOME_DIR", "/h")]);
    assert_eq!(root.get("a").unwrap().as_text(), Some("${A}-2"));
    assert_eq!(diagnostics.warnings.len(), 2, "{diagnostics}");
    assert!(diagnostics.warnings[1].message.contains("$HOME_DIR is not expanded"));
}

#[test]
fn defaults_and_what_is_not_set() {
    assert_eq!(value("${env:X:-9}", &[]).tree, Tree::Scalar(Scalar::Int(9)));
    assert_eq!(text_of("${env:X:-}", &[]), "");
    assert_eq!(text_of("${X:-a:b}", &[]), "a:b");
    assert_eq!(text_of("${env:X:-${env:Y}}", &[("Y", "z")]), "z");
    let (root, diagnostics) = tree(&["a:\n  b: ${env:X}\n"], &[]);
    let node = root.get("a").unwrap().get("b").unwrap();
    assert!(node.is_null() && node.as_text() == Some(""));
    let [warning] = diagnostics.warnings.as_slice() else { panic!("{diagnostics}") };
    assert!(warning.message.contains("\"X\" is not set") && warning.path == "a.b", "{warning}");
    let (_, diagnostics) = tree(&["a: ${env:X:-${env:Y}}"], &[("X", "x")]);
    assert!(diagnostics.warnings.is_empty(), "a default that is not needed is not looked at");
}

#[test]
fn what_cannot_be_followed() {
    assert!(error("${env:hello.world}").contains("has invalid name: must match regex"));
    assert!(error("${vault:secret/x}").contains("scheme \"vault\" is not supported"));
    assert!(error("${file:/no/such/file}").contains("cannot read \"/no/such/file\""));
    assert!(error("${env:A$B}").contains("a $ inside of ${...}"));
    assert!(error("${env:}").contains("has invalid name"));
}

/// Files: text byte for byte, trees with their own places, faults where they are.
#[test]
fn files() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("tok"), "abc\n").unwrap();
    std::fs::write(path("tree.yaml"), "b:\n  c: ${env:C}\n").unwrap();
    std::fs::write(path("bad.yaml"), "b: 'x\n").unwrap();
    assert_eq!(text_of(&format!("${{file:{}}}", path("tok")), &[]), "abc\n");
    let node = value(&format!("${{file:{}}}", path("tree.yaml")), &[("C", "5")]);
    let inner = node.get("b").unwrap();
    assert_eq!(inner.get("c").unwrap().tree, Tree::Scalar(Scalar::Int(5)));
    assert_eq!(node.entry("b").unwrap().0.source.name, path("tree.yaml"));
    assert!(error(&format!("${{file:{}}}", path("bad.yaml"))).contains("bad.yaml:"));
}

/// Nothing that a variable holds is ever shown.
#[test]
fn values_of_variables_are_not_shown() {
    let texts = ["exporters: {debug: {number: '${env:X}'}, otlp: '${env:Y}'}\nreceivers: {otlp: '${env:X}'}"];
    let mut sources = sources(&texts, &[("X", "0x5ecret: {"), ("Y", "hunter2: {hunter3: [hunter4]}")]);
    sources.set.push("service.pipelines.traces={receivers: [otlp], exporters: [otlp, debug]}".into());
    let text = errors(&sources);
    assert!(text.contains("the value comes from the environment variable X"), "{text}");
    assert!(!text.contains("hunter3: ["), "{text}");
}

#[test]
fn merging() {
    let (root, _) = tree(&["p: {a: 1, b: {c: 2}}\nl: [1, 2]\nn: {x: 1}", "p: {b: {d: 3}}\nl: [3]\nn:\n"], &[]);
    let p = root.get("p").unwrap();
    assert_eq!(p.get("b").unwrap().entries().len(), 2);
    assert_eq!(root.get("l").unwrap().items().len(), 1);
    assert!(root.get("n").unwrap().is_null(), "an explicit null erases");
}
