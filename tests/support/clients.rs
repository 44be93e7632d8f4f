//! Real SDKs: the scripts in tests/clients send a known workload and print what they sent.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::cache;

/// What a script sent.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Span ids by trace id, both in hex.
    pub(crate) traces: BTreeMap<String, SentTrace>,
    /// What the metrics must come to, by name.
    pub(crate) metrics: BTreeMap<String, f64>,
}

/// One trace that a script sent.
#[derive(Debug)]
pub(crate) struct SentTrace {
    /// `error`, `user`, `operation`, `slow` or `rest`.
    pub(crate) class: String,
    pub(crate) spans: Vec<String>,
}

impl Sent {
    /// The traces of a class.
    pub(crate) fn of_class<'a>(&'a self, class: &'a str) -> impl Iterator<Item = (&'a String, &'a SentTrace)> {
        self.traces.iter().filter(move |(_, trace)| trace.class == class)
    }
}

/// Runs the Python workload to its end.
pub(crate) fn python(arguments: &[&str]) -> Sent {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/python/workload.py");
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", cache().join("python")).arg(script).args(arguments);
    run("python", &mut command)
}

/// Runs the JavaScript workload to its end.
pub(crate) fn javascript(arguments: &[&str]) -> Sent {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/js/workload.cjs");
    let mut command = Command::new("node");
    command.env("NODE_PATH", cache().join("js/node_modules")).arg(script).args(arguments);
    run("javascript", &mut command)
}

fn run(name: &str, command: &mut Command) -> Sent {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run the {name} client: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the {name} client failed:\n{errors}");
    // The SDKs log failed exports and go on; a workload that did not arrive is not one to count.
    assert!(!errors.to_lowercase().contains("failed to export"), "the {name} client could not send:\n{errors}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("the {name} client printed no summary ({error}):\n{}\n{errors}", String::from_utf8_lossy(&output.stdout))
    });
    let traces = json["traces"].as_object().into_iter().flatten();
    let read_trace = |(id, trace): (&String, &Value)| {
        let spans = trace["spans"].as_array().into_iter().flatten();
        let spans = spans.filter_map(Value::as_str).map(str::to_owned).collect();
        (id.clone(), SentTrace { class: trace["class"].as_str().unwrap_or_default().to_owned(), spans })
    };
    let metrics = json["metrics"].as_object().into_iter().flatten();
    let metrics = metrics.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
    Sent { traces: traces.map(read_trace).collect(), metrics }
}
