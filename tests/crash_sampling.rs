//! `kill -9` of a sampler whose buffer is on disk, in front of a queue on disk: what was acknowledged and must
//! be kept is at the backend in the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message;
use support::otlp::{SpanKey, span_keys, trace, traces_request};
use support::otlp_client::{OK, TRACES};
use support::{Backend, Behaviour, Gateway, OtlpClient, eventually, long_run};
use tempfile::TempDir;

/// How long traces wait for their decision.
const WAIT: Duration = Duration::from_secs(1);
/// Spans of a trace; they come in two requests.
const SPANS: u64 = 6;
/// Requests on their way to the backend at once.
const CONSUMERS: usize = 2;
/// Parts of the sampler, each of which hands on one batch at a time.
const SHARDS: usize = 2;
/// How many requests a crash may send again, at most. The queue's: `CONSUMERS` on their way, and four times as many whose
/// outcome is known and not on disk yet. The sampler's: of each shard the batch that the queue has and that is not
/// written down as handed on, and the one before it, which may have the beginning of a trace that ends in this one.
const AGAIN: usize = 5 * CONSUMERS + 2 * SHARDS;

fn config(storage: &Path, backend: &Backend, wait: &str) -> String {
    format!(
        "
extensions:
  file_storage/all: {{directory: {}, create_directory: true, timeout: 20s}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:@GRPC@}}}}}}}}
processors:
  tail_sampling:
    storage: file_storage/all
    decision_wait: {wait}
    memory_limit_mib: 64
    num_shards: {SHARDS}
    rules:
      - {{name: errors, when: {{status: ERROR}}, sampling_percentage: 100}}
      - {{name: important, when: {{attribute: {{key: user.id, values: [user-7]}}}}, sampling_percentage: 100}}
exporters:
  otlp:
    endpoint: 127.0.0.1:{}
    tls: {{insecure: true}}
    retry_on_failure: {{initial_interval: 100ms, max_interval: 200ms, max_elapsed_time: 0}}
    sending_queue: {{storage: file_storage/all, queue_size: 1000000, num_consumers: {CONSUMERS}}}
service:
  extensions: [file_storage/all]
  telemetry:
    metrics:
      readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: @METRICS@}}}}}}}}]
  pipelines:
    traces: {{receivers: [otlp], processors: [tail_sampling], exporters: [otlp]}}
",
        storage.display(),
        backend.port
    )
}

/// Every fourth trace has an error in its last span.
fn spans_of(number: u64) -> Vec<Span> {
    let mut spans = trace(number, SPANS);
    if number.is_multiple_of(4)
        && let Some(last) = spans.last_mut()
    {
        last.status = Some(Status { code: 2, ..Status::default() });
    }
    spans
}

/// Must the rules keep it?
fn is_kept(number: u64) -> bool {
    number.is_multiple_of(4) || number == 7
}

#[derive(Default)]
struct Sent {
    /// Spans of traces that must be kept and that were acknowledged whole, well before their decision.
    owed: Mutex<HashSet<SpanKey>>,
    /// All spans of traces that must not be kept.
    unwanted: Mutex<HashSet<SpanKey>>,
    next: AtomicU64,
    requests: AtomicU64,
}

impl Sent {
    /// Traffic of three clients until the gateway dies by `kill -9`, after so many requests.
    fn until_killed(&self, gateway: Gateway, requests: u64) {
        let port = gateway.grpc_port;
        let goal = self.requests.load(Ordering::Relaxed) + requests;
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(move || {
                    let mut client = OtlpClient::connect(port);
                    while self.send(&mut client) {}
                });
            }
            eventually("traffic flows", || match self.requests.load(Ordering::Relaxed) {
                few if few < goal => Err(few),
                _ => Ok(()),
            });
            gateway.kill();
        });
    }

    /// Sends a trace in two halves; false if the gateway is gone.
    fn send(&self, client: &mut OtlpClient) -> bool {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut first = spans_of(number);
        let second = first.split_off(SPANS as usize / 2);
        let mut keys = Vec::new();
        let began = Instant::now();
        for spans in [first, second] {
            let request = traces_request("crash", spans);
            if !is_kept(number) {
                self.unwanted.lock().unwrap().extend(span_keys(&request));
            }
            keys.extend(span_keys(&request));
            match client.call(TRACES, &request.encode_to_vec()) {
                Ok(outcome) if outcome.status == OK => {}
                _ => return false,
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        if is_kept(number) && began.elapsed() < WAIT / 2 {
            self.owed.lock().unwrap().extend(keys);
        }
        true
    }

    fn wait_until_all_arrived(&self, backend: &Backend) {
        let owed = self.owed.lock().unwrap();
        eventually("every acknowledged span that must be kept arrives", || {
            let arrived = backend.spans();
            match owed.iter().filter(|key| !arrived.contains_key(*key)).count() {
                0 => Ok(()),
                missing => Err(format!("{missing} of {} are missing", owed.len())),
            }
        });
        let (arrived, unwanted) = (backend.spans(), self.unwanted.lock().unwrap());
        let wrong = arrived.keys().filter(|key| unwanted.contains(*key)).count();
        assert_eq!(wrong, 0, "spans of traces that the rules do not keep");
    }
}

fn doubled(backend: &Backend) -> usize {
    backend.spans().values().map(|times| times - 1).sum()
}

/// How many of the requests that the backend took had spans that came again later.
fn repeated(backend: &Backend) -> usize {
    let mut last: HashMap<SpanKey, usize> = HashMap::new();
    let mut repeated = HashSet::new();
    for (number, request) in backend.traces().iter().enumerate() {
        for key in span_keys(request) {
            repeated.extend(last.insert(key, number).filter(|earlier| *earlier != number));
        }
    }
    repeated.len()
}

/// Nothing is held, and what came in is where the ledger says.
fn check_ledger(gateway: &Gateway) {
    eventually("the sampler has decided everything", || {
        match gateway.metrics().account("pipeline/traces", "traces").held {
            0.0 => Ok(()),
            held => Err(held),
        }
    });
    let account = gateway.metrics().account("pipeline/traces", "traces");
    assert_eq!(account.accepted + account.created, account.sampled_out + account.emitted, "{account:?}");
}

/// Scenario: load, then kill -9 at a random moment, several times in a row; some of the time the backend is slow
/// or down. Guarantee: no acknowledged trace that the rules keep is missing at the backend, whole; no other is
/// there; twice comes only what was in flight.
#[test]
fn no_acknowledged_trace_that_must_be_kept_is_lost() {
    let storage = TempDir::new().unwrap();
    let mut backend = Backend::start();
    let config = config(storage.path(), &backend, "1s");
    let sent = Sent::default();
    let (mut before, mut repeated_before) = (0, 0);
    for round in 0..rounds() {
        if round % 3 == 1 {
            backend.stop();
        }
        backend.behave(if round % 3 == 2 { Behaviour::Slow(Duration::from_millis(20)) } else { Behaviour::Accept });
        // Before, while or after traces are decided and delivered.
        let requests = rand::random_range(1..4000);
        sent.until_killed(Gateway::start(&config), requests);
        // Once more, on top of what is there.
        sent.until_killed(Gateway::start(&config), rand::random_range(1..1000));
        if round % 3 == 1 {
            backend.restart();
        }
        let gateway = Gateway::start(&config);
        sent.wait_until_all_arrived(&backend);
        check_ledger(&gateway);
        let (doubled, repeated) = (doubled(&backend), repeated(&backend));
        let (spans, requests_again) = (doubled - before, repeated - repeated_before);
        println!(
            "round {round}: {requests} requests, {} owed, {spans} spans of {requests_again} requests twice",
            sent.owed.lock().unwrap().len(),
        );
        assert!(requests_again <= 2 * AGAIN, "{requests_again} requests came again after two crashes");
        (before, repeated_before) = (doubled, repeated);
        let ended = gateway.terminate();
        assert_eq!(ended.code, Some(0), "{}", ended.output);
    }
    assert!(sent.owed.lock().unwrap().len() > 20);
}

/// Scenario: SIGTERM while traces are undecided. Guarantee: nothing is lost and the exit code says so; the next
/// process decides them at their time.
#[test]
fn a_shutdown_leaves_undecided_traces_for_the_next_start() {
    let storage = TempDir::new().unwrap();
    let backend = Backend::start();
    let long = config(storage.path(), &backend, "1h");
    let sent = Sent::default();
    let gateway = Gateway::start(&long);
    let mut client = gateway.client();
    while sent.owed.lock().unwrap().len() < 60 {
        assert!(sent.send(&mut client));
    }
    drop(client);
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(ended.output.contains("stay in the storage"), "{}", ended.output);
    assert_eq!(backend.span_count(), 0, "nothing was decided before its time");

    let gateway = Gateway::start(&config(storage.path(), &backend, "1s"));
    sent.wait_until_all_arrived(&backend);
    check_ledger(&gateway);
    assert_eq!(doubled(&backend), 0);
    let restored = gateway.metrics().account("pipeline/traces", "traces").created as u64;
    assert_eq!(restored, sent.next.load(Ordering::Relaxed) * SPANS);
}

fn rounds() -> usize {
    if long_run() { 20 } else { 3 }
}
