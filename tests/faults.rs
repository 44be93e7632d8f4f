//! Fault drills with the real binary: whatever sinks, disks and clocks do, what was acknowledged arrives, and arrives
//! twice only if it was on its way. `kill -9` under load is in `crash.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

mod support;

#[path = "faults/clocks.rs"]
mod clocks;
#[path = "faults/disks.rs"]
mod disks;
#[path = "faults/sinks.rs"]
mod sinks;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use support::otlp::{SpanKey, span_keys, trace, traces_request};
use support::otlp_client::{OK, TRACES};
use support::{Backend, Gateway, OtlpClient, eventually};

/// Spans of a request.
const SPANS: usize = 5;
/// Requests on their way at once, of each exporter.
const CONSUMERS: usize = 4;

/// A gateway whose `exporters` all get everything; `storage` is where `file_storage/queue` is.
fn config(storage: &Path, exporters: &str, list: &str) -> String {
    format!(
        "
extensions:
  file_storage/queue: {{directory: {}, create_directory: true, timeout: 20s}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:@GRPC@}}}}}}}}
exporters:
{exporters}
service:
  extensions: [file_storage/queue]
  telemetry:
    metrics:
      readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: @METRICS@}}}}}}}}]
  pipelines:
    traces: {{receivers: [otlp], exporters: [{list}]}}
",
        storage.display()
    )
}

/// The queue and the retries of an exporter; nothing is said about when to give up.
fn delivery(queue: &str) -> String {
    format!(
        "
    timeout: 1s
    retry_on_failure: {{initial_interval: 50ms, max_interval: 100ms}}
    sending_queue: {{queue_size: 1000000, num_consumers: {CONSUMERS}, {queue}}}"
    )
}

fn grpc(backend: &Backend, more: &str) -> String {
    format!("  otlp:\n    endpoint: 127.0.0.1:{}\n    tls: {{insecure: true}}\n    {more}", backend.port)
}

fn http(backend: &Backend, more: &str) -> String {
    format!("  otlp_http:\n    endpoint: http://127.0.0.1:{}\n    {more}", backend.port)
}

const ON_DISK: &str = "storage: file_storage/queue";

/// What was acknowledged, over all gateways of a test.
#[derive(Default)]
struct Sent {
    acknowledged: Mutex<HashSet<SpanKey>>,
    next: AtomicU64,
}

impl Sent {
    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Sends one request; was it acknowledged?
    fn send(&self, client: &mut OtlpClient) -> Result<(), String> {
        let spans = trace(self.next.fetch_add(1, Ordering::Relaxed), SPANS as u64);
        let request = traces_request("faults", spans);
        let outcome = client.call(TRACES, &request.encode_to_vec())?;
        if outcome.status != OK {
            return Err(format!("{}: {}", outcome.status, outcome.message));
        }
        self.acknowledged.lock().unwrap().extend(span_keys(&request));
        Ok(())
    }

    /// Waits until nothing of what is acknowledged by now is missing at `backend`; how many spans came twice.
    fn wait_until_all_arrived(&self, backend: &Backend) -> usize {
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        eventually("everything acknowledged arrives", || match compare(&acknowledged, backend) {
            (0, doubled) => Ok(doubled),
            missing => Err(missing),
        })
    }
}

/// (missing, doubled) spans at `backend`.
fn compare(acknowledged: &HashSet<SpanKey>, backend: &Backend) -> (usize, usize) {
    let arrived = backend.spans();
    let missing = acknowledged.iter().filter(|key| !arrived.contains_key(*key)).count();
    (missing, arrived.values().map(|times| times - 1).sum())
}

/// Clients that send until they are told to stop, or the gateway is gone; what is refused is not sent again.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(gateway: &Gateway, sent: &Arc<Sent>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |_| {
            let (port, stop, sent) = (gateway.grpc_port, Arc::clone(&stop), Arc::clone(sent));
            std::thread::spawn(move || {
                let mut client = OtlpClient::connect(port);
                while !stop.load(Ordering::Relaxed) {
                    if let Err(error) = sent.send(&mut client)
                        && !error.starts_with(|first: char| first.is_ascii_digit())
                    {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            })
        };
        let threads = (0..2).map(spawn).collect();
        Self { stop, threads }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Waits until `exporter` holds nothing, and checks that its account balances. Returns what it dropped.
fn settled(gateway: &Gateway, exporter: &str) -> f64 {
    let account = format!("exporter/{exporter}");
    eventually("nothing is held any more", || match gateway.metrics().account(&account, "traces").held {
        0.0 => Ok(()),
        held => Err(held),
    });
    let account = gateway.metrics().account(&account, "traces");
    assert_eq!(account.difference(), 0.0, "{account:?}");
    account.dropped
}
