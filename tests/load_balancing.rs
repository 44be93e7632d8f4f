//! A gateway that balances by trace id in front of two that sample: traces stay whole, and what was
//! acknowledged arrives although one of the two is killed and another one added under load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prost::Message;
use support::otlp::{SpanKey, span_keys, trace, traces_request};
use support::otlp_client::{OK, TRACES};
use support::{Backend, Gateway, OtlpClient, eventually};

/// Spans of a trace; they come in two requests.
const SPANS: u64 = 6;

/// A gateway that keeps every trace, decides late enough to see it whole, and writes its buffer and its
/// queue to disk.
fn sampler(backend: &Backend, storage: &Path) -> String {
    format!(
        "
extensions:
  file_storage/all: {{directory: {}, create_directory: true, timeout: 20s}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:@GRPC@}}}}}}}}
processors:
  tail_sampling:
    storage: file_storage/all
    decision_wait: 2s
    memory_limit_mib: 64
    rules: [{{name: all, sampling_percentage: 100}}]
exporters:
  otlp:
    endpoint: 127.0.0.1:{}
    tls: {{insecure: true}}
    retry_on_failure: {{initial_interval: 100ms, max_interval: 200ms, max_elapsed_time: 0}}
    sending_queue: {{storage: file_storage/all, queue_size: 1000000}}
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

/// A gateway in front of those that are listed in the file `members`; `more` is more of the exporter.
fn balancer(members: &Path, more: &str) -> String {
    format!(
        "
extensions:
  file_storage/front: {{directory: '{}', create_directory: true, timeout: 20s}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:@GRPC@}}}}}}}}
exporters:
  loadbalancing:
    resolver: {{file: {{path: '{}', interval: 100ms}}}}
    protocol:
      otlp:
        tls: {{insecure: true}}
        timeout: 2s
        retry_on_failure: {{initial_interval: 100ms, max_interval: 200ms, max_elapsed_time: 0}}
        sending_queue: {{queue_size: 100000}}
    {more}
service:
  extensions: [file_storage/front]
  telemetry:
    metrics:
      readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: @METRICS@}}}}}}}}]
  pipelines:
    traces: {{receivers: [otlp], exporters: [loadbalancing]}}
",
        members.with_file_name("queue").display(),
        members.display()
    )
}

fn list(members: &Path, gateways: &[&Gateway]) {
    let lines: Vec<String> = gateways.iter().map(|gateway| format!("127.0.0.1:{}", gateway.grpc_port)).collect();
    let new = members.with_extension("new");
    std::fs::write(&new, lines.join("\n")).unwrap();
    std::fs::rename(&new, members).unwrap();
}

/// What clients have sent and the balancer has acknowledged.
#[derive(Default)]
struct Sent {
    next: AtomicU64,
    acknowledged: Mutex<HashSet<SpanKey>>,
    stop: AtomicBool,
}

impl Sent {
    /// Traffic until `stop`: traces in two halves each.
    fn traffic(&self, port: u16) {
        let mut client = OtlpClient::connect(port);
        while !self.stop.load(Ordering::Relaxed) {
            let mut first = trace(self.next.fetch_add(1, Ordering::Relaxed), SPANS);
            let second = first.split_off(SPANS as usize / 2);
            for spans in [first, second] {
                let request = traces_request("balanced", spans);
                let outcome = client.call(TRACES, &request.encode_to_vec()).expect("the balancer answers");
                if outcome.status == OK {
                    self.acknowledged.lock().unwrap().extend(span_keys(&request));
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    fn wait_for(&self, more: u64) {
        let goal = self.next.load(Ordering::Relaxed) + more;
        eventually("traffic flows", || match self.next.load(Ordering::Relaxed) {
            few if few < goal => Err(few),
            _ => Ok(()),
        });
    }

    /// How many acknowledged spans none of `backends` has.
    fn missing(&self, backends: &[&Backend]) -> usize {
        let arrived: HashSet<SpanKey> = backends.iter().flat_map(|backend| backend.spans().into_keys()).collect();
        self.acknowledged.lock().unwrap().difference(&arrived).count()
    }
}

/// Traces that more than one of `backends` has spans of.
fn split_traces(backends: &[&Backend]) -> usize {
    let mut homes: HashMap<Vec<u8>, HashSet<usize>> = HashMap::new();
    for (index, backend) in backends.iter().enumerate() {
        for (trace_id, _) in backend.spans().into_keys() {
            homes.entry(trace_id).or_default().insert(index);
        }
    }
    homes.values().filter(|homes| homes.len() > 1).count()
}

/// A sampler of the fleet with the backend that it alone sends to, so that one sees what came through it.
struct Member {
    backend: Backend,
    storage: tempfile::TempDir,
    gateway: Gateway,
}

impl Member {
    fn start() -> Self {
        let (backend, storage) = (Backend::start(), tempfile::tempdir().unwrap());
        let gateway = Gateway::start(&sampler(&backend, storage.path()));
        Self { backend, storage, gateway }
    }
}

fn two_samplers_one_killed_one_added(more: &str) {
    let directory = tempfile::tempdir().unwrap();
    let members = directory.path().join("members");
    let (one, two) = (Member::start(), Member::start());
    list(&members, &[&one.gateway, &two.gateway]);
    let front = Gateway::start(&balancer(&members, more));
    let sent = Sent::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| sent.traffic(front.grpc_port));
        }
        sent.wait_for(200);
        sent.stop.store(true, Ordering::Relaxed);
    });
    eventually("everything arrives", || match sent.missing(&[&one.backend, &two.backend]) {
        0 => Ok(()),
        missing => Err(missing),
    });
    assert_eq!(split_traces(&[&one.backend, &two.backend]), 0, "no trace is split");
    assert!(!one.backend.spans().is_empty() && !two.backend.spans().is_empty(), "both have a share");

    sent.stop.store(false, Ordering::Relaxed);
    let (three, reborn) = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| sent.traffic(front.grpc_port));
        }
        sent.wait_for(100);
        two.gateway.kill();
        // Its share waits in its queue, and moves when the resolver drops it.
        sent.wait_for(100);
        list(&members, &[&one.gateway]);
        sent.wait_for(100);
        let three = Member::start();
        list(&members, &[&one.gateway, &three.gateway]);
        sent.wait_for(200);
        sent.stop.store(true, Ordering::Relaxed);
        // What the killed one had acknowledged is on its disk.
        let reborn = Gateway::start(&sampler(&two.backend, two.storage.path()));
        (three, reborn)
    });
    let backends = [&one.backend, &two.backend, &three.backend];
    eventually("every acknowledged span arrives", || match sent.missing(&backends) {
        0 => Ok(()),
        missing => Err(missing),
    });
    assert!(!three.backend.spans().is_empty(), "the one that was added has a share");
    eventually("the account balances", || {
        let account = front.metrics().account("exporter/loadbalancing", "traces");
        if account.held == 0.0 && account.difference() == 0.0 { Ok(()) } else { Err(account) }
    });
    let metrics = front.metrics();
    assert_eq!(metrics.sum("otelcol_loadbalancer_num_backends", &[]), 2.0);
    assert_eq!(metrics.account("exporter/loadbalancing", "traces").dropped, 0.0);
    let killed = format!("127.0.0.1:{}", reborn_port(&metrics, &one, &three));
    assert!(metrics.sum("nyquist_loadbalancer_moved_items", &[("endpoint", &killed)]) > 0.0, "its queue moved");
    drop(reborn);
}

/// The port of the killed gateway: the one that is neither of the living.
fn reborn_port(metrics: &support::metrics::Samples, one: &Member, three: &Member) -> u16 {
    let endpoints = metrics.all("nyquist_loadbalancer_moved_items", &[]).map(|sample| &sample.labels["endpoint"]);
    let mut ports = endpoints.map(|endpoint| endpoint.rsplit_once(':').unwrap().1.parse::<u16>().unwrap());
    ports.find(|port| *port != one.gateway.grpc_port && *port != three.gateway.grpc_port).expect("three endpoints")
}

#[test]
fn with_queues_in_memory() {
    two_samplers_one_killed_one_added("overlap: 10s");
}

#[test]
fn with_a_queue_on_disk_in_front() {
    two_samplers_one_killed_one_added("sending_queue: {storage: file_storage/front, queue_size: 100000}");
}

/// `kill -9` of the balancer while no backend takes anything: with a queue on disk, what it has
/// acknowledged goes out when it has started again.
#[test]
fn a_killed_balancer_has_its_queue_on_disk() {
    const DURABLE: &str = "sending_queue: {storage: file_storage/front, queue_size: 100000}";
    let directory = tempfile::tempdir().unwrap();
    let members = directory.path().join("members");
    let mut backends = [Backend::stopped(), Backend::stopped()];
    let lines: Vec<String> = backends.iter().map(|backend| format!("127.0.0.1:{}", backend.port)).collect();
    std::fs::write(&members, lines.join("\n")).unwrap();
    let front = Gateway::start(&balancer(&members, DURABLE));
    let sent = Sent::default();
    std::thread::scope(|scope| {
        scope.spawn(|| sent.traffic(front.grpc_port));
        sent.wait_for(100);
        sent.stop.store(true, Ordering::Relaxed);
    });
    front.kill();
    backends.iter_mut().for_each(Backend::restart);
    let front = Gateway::start(&balancer(&members, DURABLE));
    let [one, two] = &backends;
    eventually("every acknowledged span arrives", || match sent.missing(&[one, two]) {
        0 => Ok(()),
        missing => Err(missing),
    });
    assert!(sent.acknowledged.lock().unwrap().len() >= 500);
    assert_eq!(split_traces(&[one, two]), 0);
    eventually("the account balances", || {
        let account = front.metrics().account("exporter/loadbalancing", "traces");
        if account.held == 0.0 && account.difference() == 0.0 { Ok(()) } else { Err(account) }
    });
}
