//! The command line: what it prints and how it exits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::path::PathBuf;
use std::process::{Command, Output};

use support::gateway::binary;
use tempfile::TempDir;

const GOOD: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@PORT@}}}}
exporters: {debug: }
service: {telemetry: {metrics: {level: none}}, pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
";

const BAD: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:4317}}}}
exporters:
  debug:
    verbosityy: basic
service: {pipelines: {traces: {receivers: [otlp], exporters: [debug, otlp/missing]}}}
";

struct Run {
    output: Output,
    _directory: TempDir,
}

impl Run {
    fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

/// Runs `nyquist arguments... --config <a file with config>`.
fn run(arguments: &[&str], config: &str) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("gateway.yaml");
    std::fs::write(&path, config).unwrap();
    let output = Command::new(binary()).args(arguments).arg("--config").arg(&path).output().unwrap();
    Run { output, _directory: directory }
}

/// A good file: nothing to say, and no port is opened (the port is taken here).
#[test]
fn validate_is_silent_about_a_good_file_and_opens_no_port() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = GOOD.replace("@PORT@", &taken.local_addr().unwrap().port().to_string());
    let run = run(&["validate"], &config);
    assert_eq!(run.code(), Some(0), "{}", run.stderr());
    assert_eq!(run.stdout(), "");
}

/// A bad file: every error at once, each with its place, and exit code 1.
#[test]
fn validate_reports_every_error_with_its_place() {
    let run = run(&["validate"], BAD);
    let text = run.stderr();
    assert_eq!(run.code(), Some(1), "{text}");
    assert!(text.contains("gateway.yaml:5:5"), "the unknown key's place: {text}");
    assert!(text.contains("verbosityy") && text.contains("verbosity"), "a suggestion: {text}");
    assert!(text.contains("gateway.yaml:6:"), "the dangling reference's place: {text}");
    assert!(text.contains("otlp/missing"), "{text}");
}

/// Starting with a bad file says the same and exits with 1.
#[test]
fn a_bad_file_does_not_start() {
    let run = run(&[], BAD);
    assert_eq!(run.code(), Some(1), "{}", run.stderr());
    assert!(run.stderr().contains("gateway.yaml:5:5"), "{}", run.stderr());
}

/// A file that is not there is named.
#[test]
fn a_missing_file_is_named() {
    let output = Command::new(binary()).args(["--config", "/nonexistent/gateway.yaml"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("/nonexistent/gateway.yaml"), "{text}");
}

/// A port that is taken: exit code 1, and the message names component and address.
#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let run = run(&[], &GOOD.replace("@PORT@", &port));
    let text = format!("{}{}", run.stdout(), run.stderr());
    assert_eq!(run.code(), Some(1), "{text}");
    assert!(text.contains("otlp") && text.contains(&port), "{text}");
}

/// `components` lists what is built in, by canonical names.
#[test]
fn components_lists_what_is_built_in() {
    let output = Command::new(binary()).arg("components").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout);
    let wanted = ["receivers", "processors", "exporters", "extensions", "tail_sampling", "cardinality_limit", "otlp"];
    for name in
        wanted.iter().chain(&["otlp_http", "prometheus_remote_write", "debug", "health_check", "traces-to-traces"])
    {
        assert!(text.contains(name), "{name} is missing from:\n{text}");
    }
}

/// `--version` and `--help` exit with 0; an unknown flag with a usage error.
#[test]
fn version_help_and_unknown_flags() {
    let version = Command::new(binary()).arg("--version").output().unwrap();
    assert_eq!(version.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
    let help = Command::new(binary()).arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    let unknown = Command::new(binary()).arg("--no-such-flag").output().unwrap();
    assert!(!unknown.status.success());
}
