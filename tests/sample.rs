//! `nyquist sample`: what it prints, how it exits, and that the guide tells the truth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use prost::Message;
use serde_json::Value;
use support::gateway::binary;
use tempfile::TempDir;

const GUIDE: &str = include_str!("../docs/sampling-tests.md");
const TRACES: &str = include_str!("sample/traces.json");

/// A folder with the files of the guide.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("traces.json", TRACES);
        for (info, body) in blocks() {
            if let Some(name) = info.strip_prefix("yaml ") {
                folder.write(name, body);
            }
        }
        folder
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), contents).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs `nyquist sample arguments...` in it.
    fn run(&self, arguments: &str) -> Run {
        let mut command = Command::new(binary());
        command.arg("sample").args(arguments.split_whitespace()).current_dir(self.path());
        Run(command.output().unwrap())
    }
}

struct Run(Output);

impl Run {
    fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    fn json(&self) -> Value {
        assert_eq!(self.code(), Some(0), "{}", self.stderr());
        serde_json::from_str(&self.stdout()).unwrap()
    }
}

/// The fenced blocks of the guide: what stands behind the fence, and the text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut parts = GUIDE.split("```").skip(1);
    let mut blocks = Vec::new();
    while let Some(block) = parts.next() {
        blocks.push(block.split_once('\n').unwrap());
        parts.next();
    }
    blocks
}

/// Decision and rule by trace id.
fn outcome(report: &Value) -> BTreeMap<String, (String, Value)> {
    let traces = report["traces"].as_array().unwrap().iter();
    let decided = traces.map(|trace| {
        let decisions = trace["decisions"].as_array().unwrap();
        assert_eq!(decisions.len(), 1, "{trace}");
        let decision = decisions[0]["decision"].as_str().unwrap().to_owned();
        (trace["trace_id"].as_str().unwrap().to_owned(), (decision, decisions[0]["rule"].clone()))
    });
    decided.collect()
}

/// The commands of the guide print what the guide shows.
#[test]
fn the_guide_tells_the_truth() {
    let folder = Folder::new();
    let consoles: Vec<&str> =
        blocks().into_iter().filter(|(info, _)| *info == "console").map(|(_, text)| text).collect();
    assert_eq!(consoles.len(), 2);
    for console in consoles {
        let (command, expected) = console.split_once('\n').unwrap();
        let arguments = command.strip_prefix("$ nyquist sample ").unwrap();
        let run = folder.run(arguments.split(" > ").next().unwrap());
        let shown = if arguments.contains(" > ") { run.stderr() } else { run.stdout() };
        assert_eq!(shown, expected, "{}", run.stderr());
    }
}

#[test]
fn exit_codes() {
    let folder = Folder::new();
    let of = |arguments: &str| folder.run(arguments);
    assert_eq!(of("--config sampling.yaml traces.json").code(), Some(0));
    assert_eq!(of("--config sampling.yaml --expect expectations.yaml traces.json").code(), Some(1));
    let met = folder.path().join("met.yaml");
    fs::write(
        met,
        "traces: [{span_name: charge card, rule: errors, trigger: wait}]\nsummary: {kept_traces: {min: 3, max: 3}}",
    )
    .unwrap();
    let run = of("--config sampling.yaml --expect met.yaml traces.json");
    assert_eq!((run.code(), run.stderr().as_str()), (Some(0), ""));
    for broken in ["", "--config sampling.yaml", "--config sampling.yaml --no-such-flag traces.json"] {
        assert_eq!(of(broken).code(), Some(2), "{broken}");
    }
    assert_eq!(of("--help").code(), Some(0));
}

/// Each expectation that is not met is told, with what is instead.
#[test]
fn misses_say_what_is_instead() {
    let folder = Folder::new();
    folder.write(
        "wrong.yaml",
        "traces:
  - trace_id: 0AF76519-16CD-43DD-8448-EB211C80319C
    decision: sampled
    rule: slow
  - span_name: GET /nowhere
    decision: sampled
  - {span_name: GET /health, rule: none}
summary:
  rules:
    slow: {traces: {min: 2}, kept_traces: {max: 0}}
",
    );
    let run = folder.run("--config sampling.yaml --expect wrong.yaml traces.json");
    let text = run.stderr();
    assert_eq!(run.code(), Some(1));
    for wanted in [
        "trace 0af7651916cd43dd8448eb211c80319c (GET /products): decision is not_sampled, expected sampled",
        "wrong.yaml:3:15 (traces[0].decision)",
        "rule is default, expected slow",
        "a trace with a span \"GET /nowhere\" was not recorded",
        "rule is health, expected none",
        "traces is 1, expected at least 2",
        "wrong.yaml:10:12 (summary.rules.slow.traces)",
        "kept_traces is 1, expected at most 0",
        "expectations that are not met: 6",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing from:\n{text}");
    }
}

/// What cannot be read is named, with its place, and exits with 2.
#[test]
fn broken_input_is_located() {
    let folder = Folder::new();
    folder.write(
        "several.yaml",
        "processors: {tail_sampling: {}, tail_sampling/b: {rules: [{name: a, sampling_percentage: 100}]}}",
    );
    folder.write("typo.yaml", "processors:\n  tail_sampling:\n    decision_wiat: 1s\n");
    folder.write("bounds.yaml", "summary: {kept_traces: {mni: 1}}");
    folder.write("empty.yaml", "{}");
    folder.write("names.yaml", "traces: [{span_name: a, rule: erorrs}]");
    folder.write("both.yaml", "traces: [{span_name: a, trace_id: b}]");
    folder.write("metrics.json", "{\"resourceMetrics\": []}");
    folder.write("text.txt", "no OTLP at all");
    folder.write("empty.json", "");
    folder.write("cut.json", &TRACES[..TRACES.len() / 3]);
    folder.write("odd.json", "{resourceSpans: []}");
    for (arguments, wanted) in [
        ("--config missing.yaml traces.json", "missing.yaml"),
        ("--config typo.yaml traces.json", "typo.yaml:3:5"),
        (
            "--config several.yaml traces.json",
            "there are several tail_sampling under processors: tail_sampling, tail_sampling/b",
        ),
        (
            "--config several.yaml --processor tail_sampling/c traces.json",
            "there is no tail_sampling named \"tail_sampling/c\"",
        ),
        ("--config sampling.yaml missing.json", "missing.json: cannot read it"),
        ("--config sampling.yaml metrics.json", "metrics.json: no spans: OTLP traces are expected"),
        ("--config sampling.yaml empty.json", "empty.json: no spans: OTLP traces are expected"),
        ("--config sampling.yaml cut.json", "cut.json: cut short: the JSON document ends in the middle"),
        ("--config sampling.yaml odd.json", "odd.json: not JSON: key must be a string"),
        ("--config sampling.yaml --processor foo traces.json", "there is only tail_sampling"),
        ("--config sampling.yaml text.txt", "text.txt: neither JSON nor an OTLP message"),
        ("--config sampling.yaml --expect missing.yaml traces.json", "missing.yaml"),
        ("--config sampling.yaml --expect bounds.yaml traces.json", "bounds.yaml:1:25"),
        ("--config sampling.yaml --expect empty.yaml traces.json", "nothing is expected here"),
        (
            "--config sampling.yaml --expect names.yaml traces.json",
            "there is no rule or policy \"erorrs\": there are errors, slow",
        ),
        ("--config sampling.yaml --expect both.yaml traces.json", "exactly one of trace_id, span_name is required"),
    ] {
        let run = folder.run(arguments);
        let text = run.stderr();
        assert_eq!(run.code(), Some(2), "{arguments}: {text}");
        assert!(text.contains(wanted), "{arguments}: {wanted} is missing from:\n{text}");
        assert_eq!(run.stdout(), "", "{arguments}");
    }
    let chosen = folder.run("--config several.yaml --processor tail_sampling/b --format json traces.json").json();
    assert_eq!(chosen["summary"]["kept_traces"], 5);
}

/// The rest of a configuration does not matter; its environment variables do.
#[test]
fn only_the_sampler_of_a_configuration_is_read() {
    let folder = Folder::new();
    folder.write(
        "gateway.yaml",
        "receivers: {of_a_plugin: {}}
processors:
  tail_sampling: {rules: [{name: all, sampling_percentage: \"${env:RATE}\"}]}
  other: {token: \"${env:NOT_SET}\"}
service: {pipelines: {traces: {receivers: [of_a_plugin], processors: [tail_sampling], exporters: [gone]}}}
",
    );
    let run = |rate: &str| {
        let mut command = Command::new(binary());
        command.args(["sample", "--config", "gateway.yaml", "--format", "json", "traces.json"]);
        Run(command.env("RATE", rate).current_dir(folder.path()).output().unwrap())
    };
    assert_eq!(run("100").json()["summary"]["kept_traces"], 5);
    assert_eq!(run("0").json()["summary"]["kept_traces"], 0);
    let wrong = run("many");
    assert_eq!(wrong.code(), Some(2));
    assert!(wrong.stderr().contains("sampling_percentage"), "{}", wrong.stderr());
}

fn span(trace: u8, name: &str, end_seconds: u64) -> Span {
    let end = (1_700_000_000 + end_seconds) * 1_000_000_000;
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![end_seconds as u8 + 1; 8],
        name: name.to_owned(),
        start_time_unix_nano: end - 100_000_000,
        end_time_unix_nano: end,
        ..Span::default()
    }
}

fn child(mut span: Span) -> Span {
    span.parent_span_id = vec![9; 8];
    span
}

fn failed(mut span: Span) -> Span {
    span.status = Some(Status { code: 2, ..Status::default() });
    span
}

fn request(spans: Vec<Span>) -> Vec<u8> {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }.encode_to_vec()
}

fn delimited(requests: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for request in requests {
        prost::encoding::encode_varint(request.len() as u64, &mut file);
        file.extend_from_slice(request);
    }
    file
}

/// Of a `composite` the table says which of its policies kept a trace.
#[test]
fn sub_policies_stand_in_the_table() {
    let folder = Folder::new();
    folder.write(
        "composite.yaml",
        "processors:
  tail_sampling:
    policies:
      - name: both
        type: composite
        composite:
          max_total_spans_per_second: 100
          policy_order: [errors, rest]
          composite_sub_policy:
            - {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}
            - {name: rest, type: always_sample}
",
    );
    let table = folder.run("--config composite.yaml traces.json").stdout();
    let count = |text: &str| table.matches(text).count();
    assert_eq!((count("  both (errors)  "), count("  both (rest)  ")), (1, 4), "{table}");
}

/// The same traces in every form of file give the same outcome: also from standard input.
#[test]
fn every_form_of_file() {
    let folder = Folder::new();
    let requests = [
        request(vec![span(0xf1, "a", 1), failed(span(0x02, "b", 1))]),
        request(vec![child(span(0xf1, "c", 0)), span(0x03, "d", 2)]),
    ];
    folder.write("delimited.pb", delimited(&requests));
    folder.write("one.pb", &requests[0]);
    folder.write("two.pb", &requests[1]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&delimited(&requests)).unwrap();
    folder.write("delimited.pb.gz", gzip.finish().unwrap());
    // Messages that follow each other are one message: the lists of both.
    folder.write("whole.pb.zst", zstd::bulk::compress(&requests.concat(), 1).unwrap());

    let wanted = folder.run("--config sampling.yaml --format json one.pb two.pb").json();
    let decided = outcome(&wanted);
    assert_eq!(decided[&"02".repeat(16)], ("sampled".to_owned(), "errors".into()));
    assert_eq!(decided[&"03".repeat(16)], ("not_sampled".to_owned(), "default".into()));
    assert_eq!(decided[&"f1".repeat(16)], ("sampled".to_owned(), "slow".into()));
    for file in ["delimited.pb", "delimited.pb.gz", "whole.pb.zst"] {
        assert_eq!(folder.run(&format!("--config sampling.yaml --format json {file}")).json(), wanted, "{file}");
    }

    let mut child = Command::new(binary())
        .args(["sample", "--config", "sampling.yaml", "--format", "json", "-"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&delimited(&requests)).unwrap();
    assert_eq!(Run(child.wait_with_output().unwrap()).json(), wanted);
}

/// At once, every trace is complete. Paced, a span that comes after its trace's decision is late, and
/// follows it.
#[test]
fn paced_by_the_spans_own_times() {
    let folder = Folder::new();
    // In an order that is not that of time.
    let requests = [
        request(vec![child(failed(span(0x11, "late error", 30)))]),
        request(vec![failed(span(0x22, "error", 0))]),
        request(vec![span(0x11, "root", 0)]),
        request(vec![child(span(0x22, "late", 30))]),
    ];
    folder.write("traces.pb", delimited(&requests));

    let at_once = folder.run("--config sampling.yaml --format json traces.pb").json();
    assert!(outcome(&at_once).values().all(|(decision, rule)| decision == "sampled" && rule == "errors"));
    assert_eq!(at_once["summary"]["kept_spans"], 4);

    let paced = folder.run("--config sampling.yaml --pace --format json traces.pb").json();
    let decided = outcome(&paced);
    assert_eq!(decided[&"11".repeat(16)], ("not_sampled".to_owned(), "default".into()));
    assert_eq!(decided[&"22".repeat(16)], ("sampled".to_owned(), "errors".into()));
    assert_eq!((&paced["summary"]["kept_traces"], &paced["summary"]["kept_spans"]), (&1.into(), &2.into()));
    let table = folder.run("--config sampling.yaml --pace traces.pb").stdout();
    assert_eq!(table.matches("1 (+1 late)").count(), 2, "{table}");
}
