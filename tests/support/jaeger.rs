//! A real Jaeger with its in-memory store.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::ports::free_port;
use super::process::Process;
use super::{eventually, http, peer};

const CONFIG: &str = "
service:
  extensions: [jaeger_storage, jaeger_query]
  telemetry:
    metrics: {level: none}
    logs: {level: warn}
  pipelines:
    traces: {receivers: [otlp], exporters: [jaeger_storage_exporter]}
extensions:
  jaeger_storage:
    backends:
      memory: {memory: {max_traces: 1000000}}
  jaeger_query:
    storage: {traces: memory}
    http: {endpoint: 127.0.0.1:@QUERY@}
    grpc: {endpoint: 127.0.0.1:@QUERY_GRPC@}
receivers:
  otlp:
    protocols: {grpc: {endpoint: 127.0.0.1:@OTLP@}, http: {endpoint: 127.0.0.1:@OTLP_HTTP@}}
exporters:
  jaeger_storage_exporter: {trace_storage: memory}
";

/// A running Jaeger.
pub(crate) struct Jaeger {
    process: Process,
    pub(crate) otlp_port: u16,
    pub(crate) otlp_http_port: u16,
    query_port: u16,
    _directory: TempDir,
}

/// What Jaeger has of one span.
#[derive(Debug, Clone)]
pub(crate) struct StoredSpan {
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) process_tags: BTreeMap<String, String>,
    pub(crate) log_count: usize,
}

/// Spans by id.
pub(crate) type StoredTrace = BTreeMap<String, StoredSpan>;

impl Jaeger {
    /// Starts it and waits until it answers.
    pub(crate) fn start() -> Self {
        let [otlp_port, otlp_http_port, query_port, query_grpc_port] = [0; 4].map(|_| free_port());
        let directory = tempfile::tempdir().expect("a temporary folder");
        let config = CONFIG
            .replace("@OTLP@", &otlp_port.to_string())
            .replace("@OTLP_HTTP@", &otlp_http_port.to_string())
            .replace("@QUERY@", &query_port.to_string())
            .replace("@QUERY_GRPC@", &query_grpc_port.to_string());
        let path = directory.path().join("jaeger.yaml");
        std::fs::write(&path, config).expect("the configuration can be written");
        let process = Process::spawn("jaeger", Command::new(peer("jaeger")).arg("--config").arg(path));
        let jaeger = Self { process, otlp_port, otlp_http_port, query_port, _directory: directory };
        eventually("Jaeger answers", || http::get(query_port, "/api/services").map(drop));
        for port in [otlp_port, otlp_http_port] {
            eventually("Jaeger takes OTLP", || std::net::TcpStream::connect(("127.0.0.1", port)).map(drop));
        }
        jaeger
    }

    /// All traces with a span of `service`, by trace id.
    pub(crate) fn traces(&self, service: &str) -> BTreeMap<String, StoredTrace> {
        let path = format!("/api/traces?service={service}&limit=1000000&lookback=24h");
        let answer = http::get(self.query_port, &path).expect("Jaeger answers");
        let json = answer.json();
        let traces = json["data"].as_array().unwrap_or_else(|| panic!("{json}"));
        traces.iter().map(|trace| (text(&trace["traceID"]), stored_trace(trace))).collect()
    }
}

fn stored_trace(trace: &Value) -> StoredTrace {
    let spans = trace["spans"].as_array().expect("a trace has spans");
    let read = |span: &Value| {
        let process = &trace["processes"][text(&span["processID"]).as_str()];
        let stored = StoredSpan {
            name: text(&span["operationName"]),
            service: text(&process["serviceName"]),
            tags: tags(&span["tags"]),
            process_tags: tags(&process["tags"]),
            log_count: span["logs"].as_array().map_or(0, Vec::len),
        };
        (text(&span["spanID"]), stored)
    };
    spans.iter().map(read).collect()
}

fn tags(list: &Value) -> BTreeMap<String, String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let pair = |tag: &Value| {
        let value = &tag["value"];
        (text(&tag["key"]), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    list.iter().map(pair).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
