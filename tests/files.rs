//! Recorded traffic: what the `file` exporter of one gateway writes, `nyquist sample` reads, and the
//! `otlp_json_file` receiver of another gateway delivers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::process::Command;

use support::eventually;
use support::gateway::{Gateway, TELEMETRY, binary};

const RECORDED: &str = include_str!("sample/traces.json");

/// A recording, read and written again: the receiver takes the lines, the exporter's file has every span,
/// `nyquist sample` makes the same of both.
#[test]
fn recorded_traffic_goes_round() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.json"), folder.path().join("second.json"));
    std::fs::write(&first, RECORDED).unwrap();
    let config = format!(
        "
receivers:
  otlp_json_file: {{include: [{first}], start_at: beginning}}
  otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:@GRPC@}}}}}}
exporters:
  file: {{path: {second}}}
service:
  pipelines:
    traces: {{receivers: [otlp_json_file, otlp], exporters: [file]}}
{TELEMETRY}",
        first = first.display(),
        second = second.display(),
    );
    let gateway = Gateway::start(&config);
    eventually("the file has all lines", || {
        let text = std::fs::read_to_string(&second).unwrap_or_default();
        if text.lines().count() >= RECORDED.lines().count() { Ok(()) } else { Err(text) }
    });
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.output);

    let sampler = folder.path().join("sampler.yaml");
    let policies = "processors: {tail_sampling: {policies: [{name: all, type: always_sample}]}}\n";
    std::fs::write(&sampler, policies).unwrap();
    let sampled = |file: &std::path::Path| {
        let mut command = Command::new(binary());
        command.args(["sample", "--format", "json", "--config"]).arg(&sampler).arg(file);
        let output = command.output().unwrap();
        let report: Result<serde_json::Value, _> = serde_json::from_slice(&output.stdout);
        report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    };
    let (before, after) = (sampled(&first), sampled(&second));
    assert!(before["summary"]["spans"].as_u64().unwrap() > 0);
    assert_eq!(before["summary"], after["summary"]);
    assert_eq!(before["traces"], after["traces"]);
}
