//! A gateway that balances by trace id in front of two that sample: traces stay whole, and what was
//! acknowledged arrives although one of the two is killed and another one added under load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use support::otlp::{SpanKey, span_keys, trace, traces_request};
use support::otlp_client::{OK, TRACES};
use support::{Backend, Behaviour, Gateway, OtlpClient, eventually, long_run};

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

/// How many traces each client keeps open: their first half is sent, their second is not yet.
const OPEN: usize = 20;

/// How many traces, at least, begin between the changes of membership, and after the last.
const PART: u64 = 200;

/// The times of the drill, by what is known of the balancer. Between them lie the changes of membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Two members, one of which is killed, and dropped.
    Killed,
    /// The balancer has dropped it.
    Dropped,
    /// Another one is being added.
    Adding,
    /// The balancer uses it.
    Added,
}

/// When the first span of a trace was sent, and when the last was acknowledged.
type Life = (Phase, Phase);

/// What clients have sent and the balancer has acknowledged.
struct Sent {
    next: AtomicU64,
    phase: Mutex<Phase>,
    acknowledged: Mutex<HashSet<SpanKey>>,
    lives: Mutex<HashMap<Vec<u8>, Life>>,
    stop: AtomicBool,
}

impl Sent {
    fn new() -> Self {
        Self {
            next: AtomicU64::new(0),
            phase: Mutex::new(Phase::Killed),
            acknowledged: Mutex::default(),
            lives: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap()
    }

    fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap() = phase;
    }

    /// Traffic until `stop`: traces in two halves each, with other traces in between.
    fn traffic(&self, port: u16) {
        let mut client = OtlpClient::connect(port);
        let mut open = VecDeque::new();
        loop {
            let stop = self.stop.load(Ordering::Relaxed);
            if !stop {
                let mut first = trace(self.next.fetch_add(1, Ordering::Relaxed), SPANS);
                let second = first.split_off(SPANS as usize / 2);
                let begun = self.phase();
                self.send(&mut client, first);
                open.push_back((begun, second));
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            if open.len() > OPEN || stop {
                let Some((begun, second)) = open.pop_front() else { return };
                let trace_id = second[0].trace_id.clone();
                self.send(&mut client, second);
                self.lives.lock().unwrap().insert(trace_id, (begun, self.phase()));
            }
        }
    }

    fn send(&self, client: &mut OtlpClient, spans: Vec<Span>) {
        let request = traces_request("balanced", spans);
        let outcome = client.call(TRACES, &request.encode_to_vec()).expect("the balancer answers");
        if outcome.status == OK {
            self.acknowledged.lock().unwrap().extend(span_keys(&request));
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
fn split_traces(backends: &[&Backend]) -> Vec<Vec<u8>> {
    let mut homes: HashMap<Vec<u8>, HashSet<usize>> = HashMap::new();
    for (index, backend) in backends.iter().enumerate() {
        for (trace_id, _) in backend.spans().into_keys() {
            homes.entry(trace_id).or_default().insert(index);
        }
    }
    homes.into_iter().filter(|(_, homes)| homes.len() > 1).map(|(trace_id, _)| trace_id).collect()
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

/// What keeps a trace whole while it is open and the membership changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overlap {
    /// Nothing: the ring decides for each span.
    None,
    /// `overlap` is longer than the drill.
    Long,
}

impl Overlap {
    /// Is a trace that lived so in the window in which it may be split? With or without overlap, one that was
    /// open, queued or under way when a member was killed and dropped is; one that was open when a member
    /// was added is without overlap only.
    fn may_split(self, (begun, ended): Life) -> bool {
        let when_dropped = begun < Phase::Dropped;
        let when_added = begun < Phase::Added && ended > Phase::Dropped;
        when_dropped || (self == Self::None && when_added)
    }

    /// How many traces of the drill live outside that window, at least: those that begin when the other member has
    /// been added; with overlap, also those that begin when the first has been dropped.
    fn least_outside(self) -> usize {
        let parts = if self == Self::Long { 2 } else { 1 };
        parts * PART as usize
    }
}

fn two_samplers_one_killed_one_added(more: &str, overlap: Overlap) {
    let directory = tempfile::tempdir().unwrap();
    let members = directory.path().join("members");
    let (one, two) = (Member::start(), Member::start());
    list(&members, &[&one.gateway, &two.gateway]);
    let front = Gateway::start(&balancer(&members, more));
    let uses = |members: f64| {
        eventually("the balancer has the new list", || {
            match front.metrics().sum("otelcol_loadbalancer_num_backends", &[]) {
                count if count == members => Ok(()),
                count => Err(count),
            }
        });
    };
    let sent = Sent::new();
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
    assert_eq!(split_traces(&[&one.backend, &two.backend]).len(), 0, "no trace is split");
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
        uses(1.0);
        sent.enter(Phase::Dropped);
        sent.wait_for(PART);
        let three = Member::start();
        sent.enter(Phase::Adding);
        list(&members, &[&one.gateway, &three.gateway]);
        uses(2.0);
        sent.enter(Phase::Added);
        sent.wait_for(PART);
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
    only_in_the_window(&sent, &split_traces(&backends), overlap);
    eventually("the account balances", || {
        let account = front.metrics().account("exporter/loadbalancing", "traces");
        if account.held == 0.0 && account.difference() == 0.0 { Ok(()) } else { Err(account) }
    });
    let metrics = front.metrics();
    assert_eq!(metrics.account("exporter/loadbalancing", "traces").dropped, 0.0);
    let killed = format!("127.0.0.1:{}", reborn_port(&metrics, &one, &three));
    assert!(metrics.sum("nyquist_loadbalancer_moved_items", &[("endpoint", &killed)]) > 0.0, "its queue moved");
    drop(reborn);
}

/// Traces are split in the documented window and nowhere else.
fn only_in_the_window(sent: &Sent, split: &[Vec<u8>], overlap: Overlap) {
    let lives = sent.lives.lock().unwrap();
    let outside = lives.values().filter(|life| !overlap.may_split(**life)).count();
    assert!(outside >= overlap.least_outside(), "the window is not the whole drill: {outside} traces lived outside");
    let wrongly: Vec<&Life> = split.iter().map(|id| &lives[id]).filter(|life| !overlap.may_split(**life)).collect();
    assert!(wrongly.is_empty(), "{} of {outside} traces were split outside the window: {wrongly:?}", wrongly.len());
    // The drill would see it: without overlap, half of those that were open when a member was added are split.
    let begun_dropped = split.iter().filter(|id| lives[*id].0 >= Phase::Dropped).count();
    assert_eq!(begun_dropped > 0, overlap == Overlap::None, "{begun_dropped} traces");
}

/// The port of the killed gateway: the one that is neither of the living.
fn reborn_port(metrics: &support::metrics::Samples, one: &Member, three: &Member) -> u16 {
    let endpoints = metrics.all("nyquist_loadbalancer_moved_items", &[]).map(|sample| &sample.labels["endpoint"]);
    let mut ports = endpoints.map(|endpoint| endpoint.rsplit_once(':').unwrap().1.parse::<u16>().unwrap());
    ports.find(|port| *port != one.gateway.grpc_port && *port != three.gateway.grpc_port).expect("three endpoints")
}

#[test]
fn with_queues_in_memory() {
    two_samplers_one_killed_one_added("overlap: 10m", Overlap::Long);
}

#[test]
fn without_overlap_what_is_open_may_be_split() {
    two_samplers_one_killed_one_added("", Overlap::None);
}

#[test]
fn with_a_queue_on_disk_in_front() {
    let more = "overlap: 10m\n    sending_queue: {storage: file_storage/front, queue_size: 100000}";
    two_samplers_one_killed_one_added(more, Overlap::Long);
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
    let sent = Sent::new();
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
    assert_eq!(split_traces(&[one, two]).len(), 0);
    eventually("the account balances", || {
        let account = front.metrics().account("exporter/loadbalancing", "traces");
        if account.held == 0.0 && account.difference() == 0.0 { Ok(()) } else { Err(account) }
    });
}

/// `kill -9` of the balancer, with a queue on disk, while its backends take what clients send: nothing that was
/// acknowledged is missing, and no more comes twice than the page on durability says.
#[test]
fn a_killed_balancer_repeats_no_more_than_it_says() {
    /// `num_consumers` of the queue in front.
    const CONSUMERS: usize = 1;
    /// Requests: those that may be with the backends, and those that are done with and not written down as such.
    const AGAIN: usize = (100 + 4) * CONSUMERS;
    let more =
        format!("sending_queue: {{storage: file_storage/front, queue_size: 100000, num_consumers: {CONSUMERS}}}");
    let directory = tempfile::tempdir().unwrap();
    let members = directory.path().join("members");
    let backends = [Backend::start(), Backend::start()];
    let [one, two] = &backends;
    // So that a queue builds up.
    backends.iter().for_each(|backend| backend.behave(Behaviour::Slow(std::time::Duration::from_millis(20))));
    let lines: Vec<String> = backends.iter().map(|backend| format!("127.0.0.1:{}", backend.port)).collect();
    std::fs::write(&members, lines.join("\n")).unwrap();
    let sent = Sent::new();
    let mut before = 0;
    for round in 0..if long_run() { 20 } else { 3 } {
        let front = Gateway::start(&balancer(&members, &more));
        let port = front.grpc_port;
        let count = || sent.acknowledged.lock().unwrap().len();
        let goal = count() + rand::random_range(1..400) * SPANS as usize;
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut client = OtlpClient::connect(port);
                    loop {
                        let spans = trace(sent.next.fetch_add(1, Ordering::Relaxed), SPANS);
                        let request = traces_request("balanced", spans);
                        match client.call(TRACES, &request.encode_to_vec()) {
                            Ok(outcome) if outcome.status == OK => {
                                sent.acknowledged.lock().unwrap().extend(span_keys(&request));
                            }
                            // The balancer is gone.
                            _ => return,
                        }
                    }
                });
            }
            eventually("traffic flows", || if count() >= goal { Ok(()) } else { Err(count()) });
            front.kill();
        });
        let front = Gateway::start(&balancer(&members, &more));
        eventually("every acknowledged span arrives", || match sent.missing(&[one, two]) {
            0 => Ok(()),
            missing => Err(missing),
        });
        eventually("the account balances", || {
            let account = front.metrics().account("exporter/loadbalancing", "traces");
            if account.held == 0.0 && account.difference() == 0.0 { Ok(()) } else { Err(account) }
        });
        let doubled: usize =
            backends.iter().flat_map(|backend| backend.spans().into_values()).map(|times| times - 1).sum();
        println!("round {round}: {} spans twice", doubled - before);
        assert!(doubled - before <= AGAIN * SPANS as usize, "{} spans came twice", doubled - before);
        before = doubled;
        assert_eq!(front.terminate().code, Some(0));
    }
    assert_eq!(split_traces(&[one, two]).len(), 0);
}
