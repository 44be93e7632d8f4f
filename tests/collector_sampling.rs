//! The table of what the Collector's `tail_sampling` does, put to a real Collector: configurations that it refuses,
//! which traces it keeps and by which policy, and what becomes of batches that come one after the other. (That we do
//! the same, or where we differ, the table's own test shows under a simulated clock.)
//!
//! Runs where `tests/setup --bench` has built a Collector (v0.161), or `COLLECTOR_BIN` names one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use serde_json::{Map, Value, json};
use support::ports::free_port;
use support::process::Process;
use support::{Backend, eventually, http};

const TABLE: &str = include_str!("../crates/processors/src/tail_sampling/tests/corpus.yaml");

/// The table was written for v0.165: what v0.161 does otherwise, by case.
const OLDER: [(u64, &str); 1] = [(91, "names the first policy that samples, not the one with the smallest threshold")];

/// The Collector, if there is one.
fn collector() -> Option<PathBuf> {
    let chosen = std::env::var_os("COLLECTOR_BIN").map(PathBuf::from);
    let program = chosen.unwrap_or_else(|| support::cache().join("collector/otelcol"));
    if !program.is_file() {
        eprintln!("not run: there is no Collector (tests/setup --bench builds one)");
    }
    program.is_file().then_some(program)
}

/// A line of the table.
struct Case {
    id: u64,
    line: Value,
    policies: Value,
    /// By their names in the table.
    trace_ids: Rc<Map<String, Value>>,
}

impl Case {
    fn text(&self, key: &str) -> Option<&str> {
        self.line[key].as_str()
    }

    /// By its name in the table, or as it is.
    fn trace_id<'a>(&'a self, name: &'a str) -> &'a str {
        self.trace_ids.get(name).map_or(name, |id| id.as_str().unwrap())
    }

    /// The processor's section.
    fn section(&self, wait: &str) -> Value {
        let mut section = self.line["config"].as_object().cloned().unwrap_or_default();
        section.insert("policies".to_owned(), self.policies.clone());
        section.entry("decision_wait").or_insert(json!(wait));
        Value::Object(section)
    }

    /// What it says of the `ot` entry is behind a gate.
    fn is_gated(&self) -> bool {
        self.line["config"]["use_tracestate"] == true
    }

    fn batches(&self) -> &[Value] {
        self.line["batches"].as_array().map_or(&[], Vec::as_slice)
    }
}

fn table() -> Vec<Case> {
    let table: Value = serde_yaml::from_str(TABLE).unwrap();
    let trace_ids = Rc::new(table["trace_ids"].as_object().unwrap().clone());
    let lines = table["cases"].as_array().unwrap();
    let policies_of = |id: &Value| lines.iter().find(|line| line["id"] == *id).unwrap()["policies"].clone();
    let case = |line: &Value| {
        let policies = if line["same"].is_null() { line["policies"].clone() } else { policies_of(&line["same"]) };
        Case { id: line["id"].as_u64().unwrap(), line: line.clone(), policies, trace_ids: Rc::clone(&trace_ids) }
    };
    lines.iter().map(case).collect()
}

fn attributes(values: &Value) -> Value {
    let one = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::Bool(flag) => json!({ "boolValue": flag }),
            Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
            Value::Number(number) => json!({ "intValue": number.to_string() }),
            other => json!({ "stringValue": other }),
        };
        json!({ "key": key, "value": value })
    };
    values.as_object().unwrap_or(&Map::new()).iter().map(one).collect()
}

/// A request of the spans of a line; their ids say the case and the batch.
fn request(case: u64, batch: usize, trace: &str, spans: &[Value]) -> String {
    let group = |(index, span): (usize, &Value)| {
        let nanos = |millis: f64| ((millis * 1e6).round() as u64).to_string();
        let start = span["start"].as_f64().unwrap_or(1000.0);
        let end = span["end"].as_f64().unwrap_or_else(|| start + span["d"].as_f64().unwrap_or(100.0));
        let mut list = attributes(&span["a"]);
        if let Some(bytes) = span["big"].as_u64() {
            let big = json!({ "key": "big", "value": { "stringValue": "x".repeat(bytes as usize) } });
            list.as_array_mut().unwrap().push(big);
        }
        let event = |event: &Value| json!({ "name": event["name"], "attributes": attributes(&event["a"]) });
        let events: Vec<Value> = span["events"].as_array().into_iter().flatten().map(event).collect();
        let parent = span["parent"].as_u64().map(|parent| format!("{parent:02x}").repeat(8));
        let code = ["UNSET", "OK", "ERROR"].iter().position(|code| span["s"] == *code).unwrap_or(0);
        json!({
            "resource": { "attributes": attributes(&span["r"]) },
            "scopeSpans": [{
                "scope": { "name": span["scope_name"].as_str().unwrap_or(""), "attributes": attributes(&span["scope"]) },
                "spans": [{
                    "traceId": trace,
                    "spanId": format!("{case:08x}{batch:04x}{index:04x}"),
                    "parentSpanId": parent.unwrap_or_default(),
                    "name": span["name"].as_str().unwrap_or("n"),
                    "startTimeUnixNano": nanos(start),
                    "endTimeUnixNano": nanos(end),
                    "attributes": list,
                    "events": events,
                    "flags": span["flags"].as_u64().unwrap_or(0),
                    "traceState": span["tracestate"].as_str().unwrap_or(""),
                    "status": { "code": code },
                }],
            }],
        })
    };
    json!({ "resourceSpans": spans.iter().enumerate().map(group).collect::<Vec<_>>() }).to_string()
}

/// A Collector with a pipeline for each case, all of which end in one backend.
struct Collector {
    _process: Process,
    ports: BTreeMap<u64, u16>,
    backend: Backend,
}

impl Collector {
    fn start(program: &PathBuf, cases: &[Case], wait: &str) -> Self {
        let backend = Backend::start();
        let ports: BTreeMap<u64, u16> = cases.iter().map(|case| (case.id, free_port())).collect();
        let (mut receivers, mut processors, mut pipelines) = (Map::new(), Map::new(), Map::new());
        for case in cases {
            let (receiver, processor) = (format!("otlp/{}", case.id), format!("tail_sampling/{}", case.id));
            let endpoint = format!("127.0.0.1:{}", ports[&case.id]);
            receivers.insert(receiver.clone(), json!({ "protocols": { "http": { "endpoint": endpoint } } }));
            processors.insert(processor.clone(), case.section(wait));
            let pipeline = json!({ "receivers": [receiver], "processors": [processor], "exporters": ["otlp"] });
            pipelines.insert(format!("traces/{}", case.id), pipeline);
        }
        let config = json!({
            "receivers": receivers,
            "processors": processors,
            "exporters": { "otlp": { "endpoint": format!("127.0.0.1:{}", backend.port), "tls": { "insecure": true } } },
            "service": { "telemetry": { "metrics": { "level": "none" } }, "pipelines": pipelines },
        });
        // JSON is YAML.
        let mut command = Command::new(program);
        command.arg("--config").arg(format!("yaml:{config}"));
        command.args(["--feature-gates", "processor.tailsamplingprocessor.recordpolicy"]);
        let process = Process::spawn("the Collector", &mut command);
        for port in ports.values() {
            eventually("the Collector listens", || std::net::TcpStream::connect(("127.0.0.1", *port)).map(drop));
        }
        Self { _process: process, ports, backend }
    }

    fn send(&self, case: u64, message: String) {
        let answer = http::post(self.ports[&case], "/v1/traces", "application/json", "", message).unwrap();
        assert_eq!(answer.status, 200, "case {case}: {}", answer.text());
    }

    /// What has arrived: by case, batch and trace id the policy that is named.
    fn kept(&self) -> BTreeMap<(u64, u64, String), Option<String>> {
        let mut kept = BTreeMap::new();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for request in self.backend.traces() {
            for scope in request.resource_spans.iter().flat_map(|resource| &resource.scope_spans) {
                let attributes = &scope.scope.as_ref().unwrap().attributes;
                let policy = attributes.iter().find(|attribute| attribute.key == "tailsampling.policy");
                let policy = policy.map(|policy| match policy.value.as_ref().and_then(|value| value.value.as_ref()) {
                    Some(AnyValue::StringValue(name)) => name.clone(),
                    other => panic!("{other:?}"),
                });
                for span in &scope.spans {
                    let number = u64::from_be_bytes(span.span_id.as_slice().try_into().unwrap());
                    // An id of zeros leaves as none.
                    let trace = format!("{:0<32}", hex(&span.trace_id));
                    kept.insert((number >> 32, number >> 16 & 0xffff, trace), policy.clone());
                }
            }
        }
        kept
    }
}

/// What the table calls refused, the Collector does not start with.
#[test]
fn the_collector_refuses_what_the_table_says() {
    let Some(program) = collector() else { return };
    let mut refused = 0;
    for case in table().iter().filter(|case| case.text("x") == Some("refused")) {
        let config = json!({
            "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": "127.0.0.1:0" } } } },
            "processors": { "tail_sampling": case.section("1s") },
            "exporters": { "nop": {} },
            "service": {
                "telemetry": { "metrics": { "level": "none" } },
                "pipelines": { "traces": { "receivers": ["otlp"], "processors": ["tail_sampling"], "exporters": ["nop"] } },
            },
        });
        let mut command = Command::new(&program);
        command.arg("--config").arg(format!("yaml:{config}")).stdin(Stdio::null());
        let mut process = Process::spawn("the Collector", &mut command);
        let status = eventually("it ends", || process.exited().ok_or(case.id));
        let output = process.output();
        assert!(!status.success() && output.contains("tail_sampling"), "case {}: {output}", case.id);
        refused += 1;
    }
    assert!(refused >= 16, "{refused}");
}

/// Traces that come whole: kept or not, and by whom.
#[test]
fn the_collector_keeps_what_the_table_says() {
    let Some(program) = collector() else { return };
    let whole = |case: &Case| {
        let is_run = !["refused", "crash"].contains(&case.text("x").unwrap_or_default());
        is_run && !case.is_gated() && case.line["spans"].as_array().is_some_and(|spans| !spans.is_empty())
    };
    let cases: Vec<Case> = table().into_iter().filter(whole).collect();
    let collector = Collector::start(&program, &cases, "1s");
    let mut expected = BTreeMap::new();
    for case in &cases {
        let mut ids: Vec<(&str, &str)> = case.text("x").map(|x| ("T3", x)).into_iter().collect();
        for (name, x) in case.line["ids"].as_object().into_iter().flatten() {
            ids.push((name, x.as_str().unwrap()));
        }
        for (name, x) in ids {
            let trace = case.trace_id(name);
            collector.send(case.id, request(case.id, 0, trace, case.line["spans"].as_array().unwrap()));
            expected.insert((case.id, 0, trace.to_owned()), (x == "sampled", case.text("by").map(str::to_owned)));
        }
    }
    assert!(expected.len() >= 80, "{}", expected.len());
    let wanted: BTreeSet<_> = expected.iter().filter(|(_, (kept, _))| *kept).map(|(key, _)| key.clone()).collect();
    eventually("the Collector has decided", || {
        let kept: BTreeSet<_> = collector.kept().into_keys().collect();
        if kept.len() >= wanted.len() { Ok(()) } else { Err(wanted.difference(&kept).cloned().collect::<Vec<_>>()) }
    });
    // What is not kept was decided in the same round; this is for one that is late.
    std::thread::sleep(Duration::from_secs(2));
    let kept = collector.kept();
    let arrived: BTreeSet<_> = kept.keys().cloned().collect();
    assert_eq!(arrived, wanted);
    for (key, (_, by)) in expected.iter().filter(|(_, (is_kept, by))| *is_kept && by.is_some()) {
        let is_older = OLDER.iter().any(|(case, _)| *case == key.0);
        assert_eq!(kept[key] == *by, !is_older, "case {}: {:?}, in the table {by:?}", key.0, kept[key]);
    }
}

/// Batches that come one after the other, as the clock on the wall has it: those on whose outcome a second or two
/// have no bearing.
#[test]
fn the_collector_treats_batches_as_the_table_says() {
    let Some(program) = collector() else { return };
    let is_run = |case: &Case| {
        let stalls = case.batches().iter().any(|batch| batch["x"] == "stall");
        !case.batches().is_empty() && !stalls && case.line["shutdown"].is_null()
    };
    let cases: Vec<Case> = table().into_iter().filter(is_run).collect();
    assert!(cases.len() >= 15, "{}", cases.len());
    let collector = Collector::start(&program, &cases, "4s");
    let mut arrivals: Vec<(u64, &Case, usize)> = Vec::new();
    for case in &cases {
        let batches = case.batches().iter().enumerate();
        arrivals.extend(batches.map(|(index, batch)| (batch["t"].as_u64().unwrap(), case, index)));
    }
    arrivals.sort_by_key(|(at, ..)| *at);
    let begin = Instant::now();
    let mut expected = BTreeSet::new();
    for (at, case, index) in arrivals {
        std::thread::sleep((begin + Duration::from_millis(at)).saturating_duration_since(Instant::now()));
        let batch = &case.batches()[index];
        let trace = case.trace_id(batch["id"].as_str().unwrap_or("T3"));
        collector.send(case.id, request(case.id, index, trace, batch["spans"].as_array().unwrap()));
        if batch["x"] == "kept" {
            expected.insert((case.id, index as u64, trace.to_owned()));
        }
    }
    let kept = || collector.kept().into_keys().collect::<BTreeSet<_>>();
    eventually("the Collector has decided", || {
        let missing: Vec<_> = expected.difference(&kept()).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    });
    // The longest wait there is, for what must not come.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(kept(), expected);
}
