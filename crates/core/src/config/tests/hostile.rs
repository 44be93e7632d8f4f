//! Input that means harm: an end in bounded time and memory, with an error or without.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Node, String> {
    yaml::parse(&Source::new("f.yaml", text)).map(|document| document.root).map_err(|problem| problem.message)
}

#[test]
fn aliases_that_multiply() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let before = level - 1;
        text += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(", "));
    }
    assert!(parse(&text).unwrap_err().contains("too much content"));
}

#[test]
fn nesting() {
    for text in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000)] {
        assert!(parse(&text).is_err());
    }
    let mut text = "a0: &a0 [x]\n".to_owned();
    for level in 1..1000 {
        text += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    assert!(parse(&text).unwrap_err().contains("levels deep"));
}

#[test]
fn references_that_multiply_or_never_end() {
    let (_, diagnostics) = tree(&["a: ${A}"], &[("A", "${A}")]);
    assert!(diagnostics.errors[0].message.contains("too many recursive expansions"));
    let (_, diagnostics) = tree(&["a: ${A}"], &[("A", "x${A}${A}")]);
    assert!(diagnostics.errors[0].message.contains("too many recursive expansions"));
    let long = "x".repeat(1 << 20);
    let (_, diagnostics) = tree(&[&format!("a: \"{}\"", "${L}".repeat(1000))], &[("L", &long)]);
    assert!(diagnostics.errors[0].message.contains("64 MiB"), "{diagnostics}");
    let (_, diagnostics) = tree(&[&format!("a: \"{}\"", "${".repeat(100_000))], &[]);
    assert!(diagnostics.errors.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// No text makes reading, loading or showing panic.
    #[test]
    fn no_text_panics(text in "[ -~\\n\\t:{}\\[\\]&*$'\"#|>é-]{0,200}") {
        let _ = errors(&sources(&[&text], &[("A", "b: c")]));
    }

    /// Nor does a small change to a good configuration.
    #[test]
    fn no_change_panics(at in 0usize..400, letter in any::<char>(), cut in 0usize..20) {
        let mut text: Vec<char> = GOOD.chars().collect();
        let start = at.min(text.len());
        let end = (start + cut).min(text.len());
        text.splice(start..end, [letter]);
        let text: String = text.into_iter().collect();
        let _ = errors(&sources(&[&text], &[]));
    }
}

const GOOD: &str = "
receivers: {otlp: {protocols: {grpc: , http: {port: 4318}}}}
processors: {batch: {timeout: 200ms, names: [a, b]}}
exporters:
  otlp/a: &a
    endpoint: ${env:HOST:-localhost}:4317
    headers: {x: y}
    choice: {ratio: 0.5}
  debug: {<<: *a, verbosity: detailed}
service:
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [otlp/a, debug]}
";
