//! Recorded traffic: what the `file` exporter of one gateway writes, `nyquist sample` reads, and the
//! `otlp_json_file` receiver of another gateway delivers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use prost::Message;
use support::gateway::{Gateway, TELEMETRY, binary};
use support::otlp::{SpanKey, span_keys, trace, traces_request};
use support::otlp_client::{OK, TRACES};
use support::{Backend, OtlpClient, eventually};

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

    let sampled = |file: &Path| sample(folder.path(), file);
    let (before, after) = (sampled(&first), sampled(&second));
    assert!(before["summary"]["spans"].as_u64().unwrap() > 0);
    assert_eq!(before["summary"], after["summary"]);
    assert_eq!(before["traces"], after["traces"]);
}

/// What `nyquist sample` says of a recording.
fn sample(folder: &Path, file: &Path) -> serde_json::Value {
    let sampler = folder.join("sampler.yaml");
    let policies = "processors: {tail_sampling: {policies: [{name: all, type: always_sample}]}}\n";
    std::fs::write(&sampler, policies).unwrap();
    let mut command = Command::new(binary());
    command.args(["sample", "--format", "json", "--config"]).arg(&sampler).arg(file);
    let output = command.output().unwrap();
    let report: Result<serde_json::Value, _> = serde_json::from_slice(&output.stdout);
    report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// OTLP in, files out, which are set aside at each MiB.
fn writer(folder: &Path) -> String {
    format!(
        "
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:@GRPC@}}}}}}}}
exporters:
  file: {{path: '{}/traffic.json', rotation: {{max_megabytes: 1}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [file]}}
{TELEMETRY}",
        folder.display()
    )
}

/// Those files in, OTLP out; how far they were read and what is not sent yet is on disk.
fn reader(folder: &Path, storage: &Path, port: u16) -> String {
    format!(
        "
extensions:
  file_storage: {{directory: '{}', create_directory: true, timeout: 20s}}
receivers:
  otlp_json_file: {{include: ['{}/traffic*.json'], start_at: beginning, storage: file_storage, poll_interval: 20ms}}
  otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:@GRPC@}}}}}}
exporters:
  otlp:
    endpoint: 127.0.0.1:{port}
    tls: {{insecure: true}}
    retry_on_failure: {{initial_interval: 100ms, max_interval: 200ms, max_elapsed_time: 0}}
    sending_queue: {{storage: file_storage, queue_size: 1000000}}
service:
  extensions: [file_storage]
  pipelines:
    traces: {{receivers: [otlp_json_file, otlp], exporters: [otlp]}}
{TELEMETRY}",
        storage.display(),
        folder.display()
    )
}

/// Sends traces until `stop`, through whichever gateway listens at `port` now; what was acknowledged.
fn traffic(port: &AtomicU16, stop: &AtomicBool, acknowledged: &Mutex<HashSet<SpanKey>>) {
    let mut known = port.load(Ordering::Relaxed);
    let mut client = OtlpClient::connect(known);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let now = port.load(Ordering::Relaxed);
        if now != known {
            (known, client) = (now, OtlpClient::connect(now));
        }
        let request = traces_request("recorded", trace(number, 100));
        // One that is killed does not answer.
        let outcome = client.call(TRACES, &request.encode_to_vec());
        if outcome.is_ok_and(|outcome| outcome.status == OK) {
            acknowledged.lock().unwrap().extend(span_keys(&request));
        } else {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Scenario: one gateway writes files under load, another one reads them; each is killed (`kill -9`) and started
/// again while files are set aside. Guarantee: every acknowledged span arrives; twice only what the reader had
/// not noted yet; `nyquist sample` reads the same files.
#[test]
fn killed_writers_and_readers_lose_nothing() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backend = Backend::start();
    let writing = Gateway::start(&writer(folder.path()));
    let reading = Gateway::start(&reader(folder.path(), storage.path(), backend.port));
    let (port, stop) = (AtomicU16::new(writing.grpc_port), AtomicBool::new(false));
    let acknowledged = Mutex::new(HashSet::new());
    let count = || acknowledged.lock().unwrap().len();
    let wait_for = |more: usize| {
        let goal = count() + more;
        eventually("traffic flows", || if count() >= goal { Ok(()) } else { Err(count()) });
    };
    let (writing, reading) = std::thread::scope(|scope| {
        scope.spawn(|| traffic(&port, &stop, &acknowledged));
        wait_for(4000);
        eventually(
            "some of it arrives",
            || if backend.span_count() > 1000 { Ok(()) } else { Err(backend.span_count()) },
        );
        reading.kill();
        wait_for(2000);
        writing.kill();
        let writing = Gateway::start(&writer(folder.path()));
        port.store(writing.grpc_port, Ordering::Relaxed);
        wait_for(2000);
        let reading = Gateway::start(&reader(folder.path(), storage.path(), backend.port));
        wait_for(4000);
        stop.store(true, Ordering::Relaxed);
        (writing, reading)
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    eventually("every acknowledged span arrives", || {
        let arrived: HashSet<SpanKey> = backend.spans().into_keys().collect();
        match acknowledged.difference(&arrived).count() {
            0 => Ok(()),
            missing => Err(missing),
        }
    });
    // 256 KiB of lines, a line, and what the exporter had sent without an answer; a span is 300 bytes at least.
    let twice: usize = backend.spans().values().map(|times| times - 1).sum();
    assert!(twice < 256 * 1024 / 300 + 100 + 10 * 100, "{twice} of {} twice", acknowledged.len());
    for gateway in [writing, reading] {
        let ended = gateway.terminate();
        assert_eq!(ended.code, Some(0), "{}", ended.output);
    }
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 2, "files were set aside: {files:?}");
    let spans = |file: &PathBuf| sample(storage.path(), file)["summary"]["spans"].as_u64().unwrap();
    assert!(files.iter().map(spans).sum::<u64>() >= acknowledged.len() as u64);
}
