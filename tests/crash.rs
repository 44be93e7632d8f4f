//! `kill -9`: with a queue on disk, what was acknowledged arrives, and arrives twice only if it was on its way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message;
use support::otlp::{SpanKey, span_keys, trace, traces_request};
use support::otlp_client::{OK, TRACES};
use support::{Backend, Behaviour, Gateway, OtlpClient, eventually, long_run};
use tempfile::TempDir;

/// Requests on their way at once.
const CONSUMERS: usize = 4;
/// Spans of a request.
const SPANS: u64 = 5;
/// How many requests a crash may send again, at most: those on their way, and four times as many whose outcome is known
/// and not on disk yet.
const AGAIN: usize = 5 * CONSUMERS;

fn config(storage: &Path, exporter: &str) -> String {
    format!(
        "
extensions:
  file_storage/queue: {{directory: {}, create_directory: true, timeout: 20s}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:@GRPC@}}}}}}}}
processors: {{}}
exporters:
  {exporter}
    tls: {{insecure: true}}
    retry_on_failure: {{initial_interval: 100ms, max_interval: 200ms, max_elapsed_time: 0}}
    sending_queue: {{storage: file_storage/queue, queue_size: 1000000, num_consumers: {CONSUMERS}}}
service:
  extensions: [file_storage/queue]
  telemetry:
    metrics:
      readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: @METRICS@}}}}}}}}]
  pipelines:
    traces: {{receivers: [otlp], processors: [], exporters: [{}]}}
",
        storage.display(),
        exporter.split(':').next().unwrap_or_default()
    )
}

fn grpc(backend: &Backend) -> String {
    format!("otlp:\n    endpoint: 127.0.0.1:{}", backend.port)
}

fn http(backend: &Backend) -> String {
    format!("otlp_http:\n    endpoint: http://127.0.0.1:{}", backend.port)
}

/// Traffic of three clients until the gateway dies, which it does by `kill -9` when `acknowledged` has grown by
/// `requests`.
fn send_and_kill(gateway: Gateway, acknowledged: &Mutex<HashSet<SpanKey>>, next: &AtomicU64, requests: usize) {
    let port = gateway.grpc_port;
    let goal = acknowledged.lock().unwrap().len() + requests * SPANS as usize;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(move || {
                let mut client = OtlpClient::connect(port);
                loop {
                    let request = traces_request("crash", trace(next.fetch_add(1, Ordering::Relaxed), SPANS));
                    match client.call(TRACES, &request.encode_to_vec()) {
                        Ok(outcome) if outcome.status == OK => acknowledged.lock().unwrap().extend(span_keys(&request)),
                        // The gateway is gone.
                        _ => return,
                    }
                }
            });
        }
        eventually("traffic flows", || match acknowledged.lock().unwrap().len() {
            few if few < goal => Err(few),
            _ => Ok(()),
        });
        gateway.kill();
    });
}

fn missing(backend: &Backend, acknowledged: &HashSet<SpanKey>) -> usize {
    let arrived = backend.spans();
    acknowledged.iter().filter(|key| !arrived.contains_key(*key)).count()
}

fn doubled(backend: &Backend) -> usize {
    backend.spans().values().map(|times| times - 1).sum()
}

fn wait_until_all_arrived(backend: &Backend, gateway: &Gateway, exporter: &str, acknowledged: &HashSet<SpanKey>) {
    eventually("everything acknowledged arrives", || match missing(backend, acknowledged) {
        0 => Ok(()),
        missing => Err(missing),
    });
    let account = format!("exporter/{exporter}");
    eventually("nothing is held any more", || match gateway.metrics().account(&account, "traces").held {
        0.0 => Ok(()),
        held => Err(held),
    });
    let account = gateway.metrics().account(&account, "traces");
    assert_eq!(account.accepted + account.created, account.exported, "{account:?}");
}

/// Scenario: the backend is down; clients send; kill -9 at a random moment; restart; the backend comes up. Guarantee:
/// nothing that was acknowledged is missing and, since nothing was on its way to a backend, nothing arrives twice.
#[test]
fn nothing_acknowledged_is_lost_while_the_backend_is_down() {
    let storage = TempDir::new().unwrap();
    let mut backend = Backend::stopped();
    let config = config(storage.path(), &grpc(&backend));
    let acknowledged = Mutex::new(HashSet::new());
    let next = AtomicU64::new(0);
    for _ in 0..rounds() {
        let requests = rand::random_range(1..400);
        send_and_kill(Gateway::start(&config), &acknowledged, &next, requests);
        // Once more, on top of what is there.
        send_and_kill(Gateway::start(&config), &acknowledged, &next, requests);
        let gateway = Gateway::start(&config);
        backend.restart();
        let acknowledged = acknowledged.lock().unwrap();
        wait_until_all_arrived(&backend, &gateway, "otlp", &acknowledged);
        assert_eq!(doubled(&backend), 0);
        backend.stop();
        assert_eq!(gateway.terminate().code, Some(0));
    }
}

/// Scenario: kill -9 while the backend takes what clients send. Guarantee: nothing that was acknowledged is missing;
/// twice comes only what was on its way, or had just been answered.
#[test]
fn only_what_was_on_its_way_arrives_twice() {
    let storage = TempDir::new().unwrap();
    let backend = Backend::start();
    backend.behave(Behaviour::Slow(std::time::Duration::from_millis(5)));
    let config = config(storage.path(), &http(&backend));
    let acknowledged = Mutex::new(HashSet::new());
    let next = AtomicU64::new(0);
    let mut before = 0;
    for round in 0..rounds() {
        send_and_kill(Gateway::start(&config), &acknowledged, &next, rand::random_range(1..300));
        let gateway = Gateway::start(&config);
        wait_until_all_arrived(&backend, &gateway, "otlp_http", &acknowledged.lock().unwrap());
        let doubled = doubled(&backend);
        println!("round {round}: {} spans twice", doubled - before);
        assert!(doubled - before <= AGAIN * SPANS as usize, "{} spans came twice", doubled - before);
        before = doubled;
        assert_eq!(gateway.terminate().code, Some(0));
    }
}

/// Scenario: SIGTERM with the backend down. Guarantee: nothing is lost and the exit code says so; the next process
/// delivers.
#[test]
fn a_shutdown_keeps_the_queue() {
    let storage = TempDir::new().unwrap();
    let mut backend = Backend::stopped();
    let config = config(storage.path(), &grpc(&backend));
    let gateway = Gateway::start(&config);
    let mut sent = HashSet::new();
    let mut client = gateway.client();
    for number in 0..50 {
        let request = traces_request("crash", trace(number, SPANS));
        assert_eq!(client.traces(&request).status, OK);
        sent.extend(span_keys(&request));
    }
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(ended.output.contains("kept on disk for the next start"), "{}", ended.output);
    backend.restart();
    let gateway = Gateway::start(&config);
    wait_until_all_arrived(&backend, &gateway, "otlp", &sent);
    assert_eq!(doubled(&backend), 0);
}

/// Scenario: the queue, and a sampler's buffer, are in memory; kill -9. Guarantee: what was held then is lost, as the page
/// on durability says, and nothing else: neither what had been delivered nor what comes to the next process.
#[test]
fn in_memory_what_was_held_is_lost_and_nothing_else() {
    let sampler = "tail_sampling: {decision_wait: 1s, policies: [{name: all, type: always_sample}]}";
    for processor in ["", sampler] {
        let mut backend = Backend::start();
        let list = processor.split(':').next().unwrap_or_default();
        let config = config(Path::new("@DIR@/unused"), &grpc(&backend))
            .replace("storage: file_storage/queue, ", "")
            .replace("processors: {}", &format!("processors: {{{processor}}}"))
            .replace("processors: []", &format!("processors: [{list}]"));
        let next = AtomicU64::new(0);
        let send = |gateway: &Gateway| {
            let mut client = gateway.client();
            let mut sent = HashSet::new();
            for _ in 0..20 {
                let request = traces_request("crash", trace(next.fetch_add(1, Ordering::Relaxed), SPANS));
                assert_eq!(client.traces(&request).status, OK);
                sent.extend(span_keys(&request));
            }
            sent
        };
        let gateway = Gateway::start(&config);
        let mut arrive = send(&gateway);
        wait_until_all_arrived(&backend, &gateway, "otlp", &arrive);
        backend.stop();
        let lost = send(&gateway);
        gateway.kill();
        backend.restart();
        let gateway = Gateway::start(&config);
        arrive.extend(send(&gateway));
        wait_until_all_arrived(&backend, &gateway, "otlp", &arrive);
        assert_eq!((missing(&backend, &lost), doubled(&backend)), (lost.len(), 0), "{processor}");
    }
}

/// Scenario: a `batch` processor that waits for long, in front of a queue on disk; kill -9 right after the
/// acknowledgement. Guarantee: batching comes after the log, so nothing is lost.
#[test]
fn a_batch_processor_holds_nothing_that_is_not_on_disk() {
    let storage = TempDir::new().unwrap();
    let backend = Backend::start();
    let config = config(storage.path(), &grpc(&backend))
        .replace("processors: {}", "processors: {batch: {timeout: @WAIT@, send_batch_size: 1000000}}")
        .replace("processors: []", "processors: [batch]");
    let gateway = Gateway::start(&config.replace("@WAIT@", "1h"));
    let mut sent = HashSet::new();
    let mut client = gateway.client();
    for number in 0..50 {
        let request = traces_request("crash", trace(number, SPANS));
        assert_eq!(client.traces(&request).status, OK);
        sent.extend(span_keys(&request));
    }
    gateway.kill();
    assert_eq!(backend.span_count(), 0, "it still waits");
    let gateway = Gateway::start(&config.replace("@WAIT@", "10ms"));
    wait_until_all_arrived(&backend, &gateway, "otlp", &sent);
    assert_eq!(doubled(&backend), 0);
}

/// Scenario: no queue, or `wait_for_result`; the backend does not answer; kill -9. Guarantee: nothing is acknowledged
/// before the backend has it.
#[test]
fn without_a_queue_the_acknowledgement_is_the_backends() {
    for queue in ["enabled: false", "wait_for_result: true"] {
        let backend = Backend::start();
        backend.behave(Behaviour::Hang);
        let config = config(Path::new("@DIR@/unused"), &grpc(&backend)).replace("storage: file_storage/queue", queue);
        let gateway = Gateway::start(&config);
        let port = gateway.grpc_port;
        let request = traces_request("crash", trace(1, SPANS));
        let message = request.encode_to_vec();
        let waiting = std::thread::spawn(move || OtlpClient::connect(port).call(TRACES, &message));
        eventually("the request is on its way", || match backend.mishandled().len() {
            0 => Err("not there yet"),
            _ => Ok(()),
        });
        assert!(!waiting.is_finished());
        gateway.kill();
        let outcome = waiting.join().unwrap();
        assert!(outcome.as_ref().map_or(true, |outcome| outcome.status != OK), "{outcome:?}");
        backend.behave(Behaviour::Accept);
        let gateway = Gateway::start(&config);
        assert_eq!(gateway.client().traces(&request).status, OK);
        assert_eq!(backend.span_count(), SPANS as usize, "it is there when it is acknowledged");
    }
}

/// Guarantee: a second gateway on the same storage does not start, and says why.
#[test]
fn two_gateways_do_not_share_a_queue() {
    let storage = TempDir::new().unwrap();
    let backend = Backend::start();
    let config = config(storage.path(), &grpc(&backend)).replace("timeout: 20s", "timeout: 100ms");
    let _first = Gateway::start(&config);
    let (code, output) = Gateway::fail_to_start(&config);
    assert_eq!(code, Some(1));
    assert!(output.contains("is in use by another process"), "{output}");
}

fn rounds() -> usize {
    if long_run() { 20 } else { 3 }
}
