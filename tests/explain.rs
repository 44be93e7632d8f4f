//! `nyquist explain`: a running gateway tells what became of a trace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use serde_json::Value;
use support::gateway::binary;
use support::otlp::{attribute, trace, trace_id, traces_request};
use support::otlp_client::OK;
use support::{Gateway, eventually, http};

/// Two samplers of the same spans: one decides soon, one nearly never.
const CONFIG: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
processors:
  tail_sampling:
    decision_wait: 1s
    rules:
      - {name: errors, sampling_percentage: 100, when: {error: true}}
      - {name: tiny, sampling_percentage: 0, when: {span_count: {max: 1}}}
      - {name: default, sampling_percentage: 50}
  tail_sampling/patient:
    decision_wait: 1h
    policies: [{name: everything, type: always_sample}]
exporters: {nop: }
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    traces: {receivers: [otlp], processors: [tail_sampling], exporters: [nop]}
    @MORE@
";

fn start(more: &str) -> Gateway {
    Gateway::start(&CONFIG.replace("@MORE@", more))
}

fn send(gateway: &Gateway, spans: Vec<Span>) {
    assert_eq!(gateway.client().traces(&traces_request("explain", spans)).status, OK);
}

fn failed(mut spans: Vec<Span>) -> Vec<Span> {
    spans[1].status = Some(Status { code: 2, ..Status::default() });
    spans[1].attributes.push(attribute("card.number", "4000-1234"));
    spans
}

fn id(number: u64) -> String {
    trace_id(number).iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Run(Output);

impl Run {
    fn code(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }
}

fn explain(arguments: &[&str]) -> Run {
    Run(Command::new(binary()).arg("explain").args(arguments).output().unwrap())
}

fn ask(gateway: &Gateway, number: u64, more: &[&str]) -> Run {
    let endpoint = format!("http://localhost:{}", gateway.metrics_port);
    explain(&[&["--trace-id", &id(number), "--endpoint", &endpoint], more].concat())
}

/// Kept, dropped, and never seen: each is told with the rule, the rate, the votes and the trigger, and
/// by the exit code.
#[test]
fn why_a_trace_was_kept_or_dropped() {
    let gateway = start("");
    send(&gateway, [failed(trace(1, 3)), trace(2, 1)].concat());
    eventually("both are decided", || {
        let codes = (ask(&gateway, 1, &[]).code(), ask(&gateway, 2, &[]).code());
        if codes == (0, 1) { Ok(()) } else { Err(codes) }
    });

    let kept = ask(&gateway, 1, &[]);
    let text = kept.stdout();
    for wanted in [
        &format!("trace {}\n", id(1)),
        "\ntraces: tail_sampling\n  kept by \"errors\" (sampled)\n  decided ",
        " after its first span: decision_wait was over\n  had 3 spans, ",
        ", 20 ms from the earliest start to the latest end\n  its rate is 100 %: its randomness ",
        " is at least the threshold 00000000000000\n",
        "\n    errors   match  <- decides\n    tiny     no match\n    default  match\n",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is missing from:\n{text}");
    }
    assert_eq!(kept.stderr(), "");

    let dropped = ask(&gateway, 2, &[]).stdout();
    assert!(dropped.contains("  dropped by \"tiny\" (not_sampled)\n"), "{dropped}");
    assert!(dropped.contains(" is less than the threshold 100000000000000\n"), "{dropped}");
    assert!(dropped.contains("    tiny     match  <- decides\n"), "{dropped}");

    let unknown = ask(&gateway, 3, &[]);
    let text = unknown.stdout();
    assert_eq!(unknown.code(), 4, "{text}");
    assert!(text.contains("  not known: it never arrived, or is older than the log, which "), "{text}");
}

/// Every sampler answers; kept by one is kept. The undecided one says how long it may take.
#[test]
fn several_samplers() {
    let gateway = start("traces/more: {receivers: [otlp], processors: [tail_sampling/patient], exporters: [nop]}");
    send(&gateway, [failed(trace(1, 2)), trace(2, 1)].concat());
    let undecided = eventually("one has dropped the second trace", || {
        let run = ask(&gateway, 2, &[]);
        if run.stdout().contains("dropped by \"tiny\"") { Ok(run) } else { Err(run.stdout()) }
    });
    assert_eq!(undecided.code(), 3);
    let text = undecided.stdout();
    assert!(text.contains("traces/more: tail_sampling/patient\n  still undecided: 1 span ("), "{text}");
    assert!(text.contains("; decided in at most "), "{text}");
    assert_eq!(ask(&gateway, 1, &[]).code(), 0);

    let json: Value = serde_json::from_str(&ask(&gateway, 1, &["--json"]).stdout()).unwrap();
    assert_eq!(json[0]["pipeline"], "traces");
    assert_eq!(json[0]["processor"], "tail_sampling");
    assert_eq!(json[0]["account"]["status"], "kept");
    let decided = &json[0]["account"]["decisions"][0];
    assert_eq!(
        (&decided["rule"], &decided["trigger"], &decided["spans"]),
        (&"errors".into(), &"wait".into(), &2.into())
    );
    assert!(decided["decided_at"].as_str().unwrap().starts_with("20"), "{decided}");
    assert_eq!(json[1]["account"]["status"], "undecided");
    assert_eq!(json[1]["account"]["undecided"]["has_root"], true);
}

/// How often the log in `directory` has the id of a trace.
fn on_disk(directory: &Path, number: u64) -> usize {
    let id = trace_id(number);
    let files = std::fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    let segments = files.filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.map(|path| std::fs::read(path).unwrap().windows(16).filter(|bytes| **bytes == id).count()).sum()
}

/// Scenario: with `storage`, a trace is kept, one is dropped, and one waits; then `kill -9`. Guarantee: after the restart
/// the decisions are told with their rule, rate and trigger, and the one that waits does.
#[test]
fn decisions_survive_a_kill() {
    let storage = tempfile::tempdir().unwrap();
    let directory = storage.path().join("processor_tail~5fsampling__traces");
    let config = CONFIG
        .replace("decision_wait: 1s", "decision_wait: 1h\n    decision_wait_after_root_received: 1s\n    storage: file_storage")
        .replace("@MORE@", "")
        .replace("service:\n", "extensions: {file_storage: {directory: '@STORAGE@', timeout: 20s}}\nservice:\n  extensions: [file_storage]\n")
        .replace("@STORAGE@", &storage.path().display().to_string());
    let gateway = Gateway::start(&config);
    // The log goes back as far as the oldest trace that waits.
    send(&gateway, trace(3, 3).split_off(1));
    send(&gateway, [failed(trace(1, 3)), trace(2, 1)].concat());
    eventually("both decisions are written down", || match (on_disk(&directory, 1), on_disk(&directory, 2)) {
        (4.., 2..) => Ok(()),
        spans => Err(spans),
    });
    gateway.kill();

    let gateway = Gateway::start(&config);
    let told = |number: u64| {
        let run = ask(&gateway, number, &[]);
        (run.code(), run.stdout())
    };
    let trigger = "decision_wait_after_root_received was over";
    let short = "\n  the rest of it is older than the log, which is empty\n";
    let kept = format!("\n  kept by \"errors\": {trigger}\n  its rate is 100 %: the threshold 00000000000000{short}");
    let dropped =
        format!("\n  dropped by \"tiny\": {trigger}\n  its rate is 0 %: the threshold 100000000000000{short}");
    for (number, code, wanted) in [(1, 0, &*kept), (2, 1, &*dropped), (3, 3, "still undecided: 2 spans")] {
        let (found, text) = told(number);
        assert_eq!(found, code, "{text}");
        assert!(text.contains(wanted), "{wanted:?} is missing from:\n{text}");
    }
    let json: Value = serde_json::from_str(&ask(&gateway, 1, &["--json"]).stdout()).unwrap();
    assert_eq!(json[0]["account"]["remembered"]["trigger"], "root");
    gateway.kill();

    let gateway = Gateway::start(&config.replace("name: tiny", "name: small"));
    let text = ask(&gateway, 2, &[]).stdout();
    let wanted = format!("\n  dropped by a rule that is not there any more: {trigger}{short}");
    assert!(text.contains(&wanted), "{wanted:?} is missing from:\n{text}");
}

/// Nothing that spans say of themselves is told: no names, no attributes.
#[test]
fn spans_stay_private() {
    let gateway = start("");
    send(&gateway, failed(trace(7, 2)));
    eventually("it is decided", || if ask(&gateway, 7, &[]).code() == 0 { Ok(()) } else { Err(()) });
    let body = http::get(gateway.metrics_port, &format!("/explain?trace_id={}", id(7))).unwrap().text();
    assert!(body.contains("\"errors\""), "{body}");
    for private in ["operation", "user", "card", "4000", "GET", "service"] {
        assert!(!body.contains(private), "{private} is in {body}");
    }
}

/// Without an address the question goes to where the gateway's configuration says.
#[test]
fn the_configuration_says_where_to_ask() {
    let gateway = start("");
    send(&gateway, failed(trace(5, 2)));
    let file = gateway.directory.path().join("gateway.yaml").display().to_string();
    let trace = id(5);
    let with = |more: &[&str]| explain(&[&["--trace-id", &trace, "--config", &file], more].concat());
    eventually("it is decided", || {
        let run = with(&[]);
        if run.code() == 0 { Ok(()) } else { Err((run.code(), run.stderr())) }
    });
    for (more, wanted) in [
        ("service.telemetry.metrics.level=none", "turns the gateway's own metrics off"),
        ("processors.tail_sampling.decision_wiat=1s", "did you mean \"decision_wait\"?"),
    ] {
        let run = with(&["--set", more]);
        assert_eq!((run.code(), run.stdout().as_str()), (2, ""), "{more}");
        assert!(run.stderr().contains(wanted), "{wanted} is missing from: {}", run.stderr());
    }
}

/// What is no question, and what is no gateway.
#[test]
fn without_an_answer_it_exits_with_2() {
    let gateway = start("");
    let port = gateway.metrics_port;
    for (query, wanted) in [("", "write /explain?trace_id=ID"), ("?trace_id=12", "32 hexadecimal digits")] {
        let answer = http::get(port, &format!("/explain{query}")).unwrap();
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(wanted), "{}", answer.text());
    }
    let free = support::ports::free_port();
    let trace = id(1);
    for (arguments, wanted) in [
        (vec![], "--trace-id"),
        (vec!["--trace-id", "12"], "32 hexadecimal digits"),
        (vec!["--trace-id", &trace, "--endpoint", "localhost:8888"], "must begin with http:// or https://"),
        (
            vec!["--trace-id", &trace, "--endpoint", &format!("http://127.0.0.1:{free}")],
            "is the gateway running, and is",
        ),
        (vec!["--trace-id", &trace, "--endpoint", &format!("http://127.0.0.1:{port}/nowhere")], "404"),
    ] {
        let run = explain(&arguments);
        assert_eq!((run.code(), run.stdout().as_str()), (2, ""), "{arguments:?}");
        assert!(run.stderr().contains(wanted), "{wanted} is missing from: {}", run.stderr());
    }
}
