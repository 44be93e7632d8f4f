//! What is measured, and one measurement.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::load::{self, Counters, Shape};
use crate::payload::{self, Mix, Template};
use crate::peer::{self, Program, Running};
use crate::sink::{self, Received};

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

const MIX: Mix = Mix { important: 0.5, errors: 1.0, slow: 4.0 };

/// One thing to measure.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub title: &'static str,
    /// The configuration, in bench/configs.
    pub config: &'static str,
    pub item: &'static str,
    pub signal: Signal,
    /// How long traces wait for their decision, where they do.
    pub wait: Duration,
    /// Items a second; 0 is as many as it takes.
    pub rate: u64,
    pub cores: usize,
    /// Whether the Collector runs it too.
    pub beside_collector: bool,
    /// What else Nyquist runs, in turns with this.
    pub beside: &'static [Beside],
    /// Where the configuration has storage.
    pub fsync: &'static str,
    /// Whether what is buffered dominates the memory, so that it is worth a column.
    pub memory: bool,
}

/// Another configuration for the same load.
pub struct Beside {
    pub name: &'static str,
    pub config: &'static str,
    pub fsync: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Signal {
    Traces,
    Metrics,
}

/// What one run gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub program: &'static str,
    /// CPU time of the process for each item that it accepted.
    pub cpu_per_item: Duration,
    pub items_per_second: f64,
    /// Cores that were busy, of those that it had.
    pub cores_used: f64,
    /// The same of the load generator and the backend: near 1 it was they that set the pace.
    pub load_cores_used: f64,
    pub resident: u64,
    /// Resident bytes above the idle process, for each item that is buffered, over the item's bytes.
    pub resident_ratio: Option<f64>,
    pub p50: Duration,
    pub p99: Duration,
    /// Items that arrived at the backend for each that was accepted.
    pub delivered: f64,
    pub refused: u64,
}

/// How long to run.
#[derive(Clone, Copy)]
pub struct Times {
    pub warm_up: Duration,
    pub window: Duration,
}

/// Runs `scenario` once with `program`.
pub fn run(scenario: &Scenario, program: &Program, times: Times, configs: &Path, work: &Path) -> Outcome {
    let bench = Bench::start(scenario, program, configs, work);
    let (counters, received, peer) = (bench.counters, bench.received, &bench.peer);
    let idle = peer.resident();
    bench.go();
    std::thread::sleep(times.warm_up + scenario.wait);

    counters.begin_window();
    let began = Instant::now();
    let items_before = counters.items.load(Ordering::Relaxed);
    let received_before = received.items.load(Ordering::Relaxed);
    let refused_before = counters.refused.load(Ordering::Relaxed);
    let cpu_before = peer.cpu_time();
    let load_cpu_before = peer::cpu_time("self").unwrap_or_default();
    let mut resident = Vec::new();
    while began.elapsed() < times.window {
        std::thread::sleep(Duration::from_millis(250));
        resident.push(peer.resident());
    }
    let elapsed = began.elapsed();
    let cpu = peer.cpu_time() - cpu_before;
    let load_cpu = peer::cpu_time("self").unwrap_or_default() - load_cpu_before;
    let items = counters.items.load(Ordering::Relaxed) - items_before;
    let delivered = received.items.load(Ordering::Relaxed) - received_before;
    let (p50, p99) = (counters.latency(0.5), counters.latency(0.99));
    let refused = counters.refused.load(Ordering::Relaxed) - refused_before;
    let log = peer.log();
    drop(bench);
    if items == 0 {
        eprintln!("{}: nothing was accepted ({refused} refusals); its log:\n{log}", program.name);
    }

    let rate = items as f64 / elapsed.as_secs_f64();
    let resident = resident.iter().sum::<u64>() / resident.len() as u64;
    let buffered_bytes = rate * scenario.wait.as_secs_f64() * bytes_per_item(scenario.signal);
    let resident_ratio = scenario.memory.then(|| resident.saturating_sub(idle) as f64 / buffered_bytes);
    Outcome {
        program: program.name,
        cpu_per_item: cpu.div_f64((items as f64).max(1.0)),
        items_per_second: rate,
        cores_used: cpu.as_secs_f64() / elapsed.as_secs_f64(),
        load_cores_used: load_cpu.as_secs_f64() / elapsed.as_secs_f64(),
        resident,
        resident_ratio,
        p50,
        p99,
        delivered: delivered as f64 / (items as f64).max(1.0),
        refused,
    }
}

/// How many items were accepted and how many arrived, after `items` have been sent and everything has
/// left the gateway.
pub fn count_exactly(
    scenario: &Scenario,
    program: &Program,
    items: u64,
    configs: &Path,
    work: &Path,
) -> (u64, u64, Duration) {
    let bench = Bench::start(scenario, program, configs, work);
    let began = Instant::now();
    bench.go();
    while bench.counters.items.load(Ordering::Relaxed) < items {
        std::thread::sleep(Duration::from_millis(10));
    }
    bench.counters.stop.store(true, Ordering::Relaxed);
    let elapsed = began.elapsed();
    let arrived = || bench.received.items.load(Ordering::Relaxed);
    // Quiet for longer than the wait for decisions: nothing more will come.
    let mut last = (arrived(), Instant::now());
    while last.1.elapsed() < scenario.wait + Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(100));
        if arrived() != last.0 {
            last = (arrived(), Instant::now());
        }
    }
    (bench.counters.items.load(Ordering::Relaxed), arrived(), elapsed)
}

/// Bytes of a request for each of its items: a span with its share of resource and scope.
pub fn bytes_per_item(signal: Signal) -> f64 {
    let templates = match signal {
        Signal::Traces => payload::traces(20, MIX),
        Signal::Metrics => payload::metrics(20),
    };
    let bytes: usize = templates.iter().map(Template::len).sum();
    let items: usize = templates.iter().map(|template| template.items).sum();
    bytes as f64 / items as f64
}

/// A gateway with its load generator and backend.
struct Bench {
    peer: Running,
    counters: &'static Counters,
    received: &'static Received,
    go: std::sync::mpsc::Sender<()>,
    load: Option<std::thread::JoinHandle<()>>,
}

impl Bench {
    /// Starts the backend and the gateway; the load waits for `go`.
    fn start(scenario: &Scenario, program: &Program, configs: &Path, work: &Path) -> Self {
        let [input, output, metrics] = free_ports();
        let config = config_file(scenario, configs, work, [input, output, metrics]);
        // Leaked: a program that ends soon, and threads that count until then.
        let counters: &'static Counters = Box::leak(Box::default());
        let received: &'static Received = Box::leak(Box::default());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (go, start) = std::sync::mpsc::channel::<()>();
        let (rate, signal) = (scenario.rate, scenario.signal);
        let load = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                // Three addresses, so that it can be three backends.
                for address in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
                    let listener = TcpListener::bind((address, output)).await.expect("the port is free");
                    tokio::task::spawn_local(sink::run(listener, received));
                }
                ready.send(()).expect("the measurement waits");
                // The gateway connects to the sink meanwhile: keep serving.
                while matches!(start.try_recv(), Err(TryRecvError::Empty)) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let (path, templates) = match signal {
                    Signal::Traces => (TRACES, payload::traces(20, MIX)),
                    Signal::Metrics => (METRICS, payload::metrics(20)),
                };
                let shape = Shape { connections: 4, in_flight: 2, rate };
                load::run(input, path, Rc::new(templates), shape, counters).await;
                // What is buffered still arrives: serve until the measurement has seen enough.
                while matches!(start.try_recv(), Err(TryRecvError::Empty)) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        });
        is_ready.recv().expect("the sink listens");
        let cores = if scenario.cores == 1 { "0".to_owned() } else { format!("0-{}", scenario.cores - 1) };
        let peer = Running::start(program, &config, &cores, input);
        std::thread::sleep(Duration::from_secs(1));
        Self { peer, counters, received, go, load: Some(load) }
    }

    fn go(&self) {
        self.go.send(()).expect("the load generator waits");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.counters.stop.store(true, Ordering::Relaxed);
        self.peer.kill();
        let _ = self.go.send(());
        if let Some(load) = self.load.take() {
            let _ = load.join();
        }
    }
}

fn config_file(scenario: &Scenario, configs: &Path, work: &Path, ports: [u16; 3]) -> PathBuf {
    let source = configs.join(scenario.config);
    let text = fs::read_to_string(&source).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    // Each run begins with an empty storage.
    let storage = work.join("storage");
    let _ = fs::remove_dir_all(&storage);
    fs::create_dir(&storage).expect("the storage can be made");
    let text = text
        .replace("@FSYNC@", scenario.fsync)
        .replace("@STORAGE@", &storage.display().to_string())
        .replace("@IN@", &ports[0].to_string())
        .replace("@OUT@", &ports[1].to_string())
        .replace("@METRICS@", &ports[2].to_string())
        .replace("@WAIT@", &format!("{}s", scenario.wait.as_secs()));
    let path = work.join(format!("{}.yaml", scenario.name));
    fs::write(&path, text).expect("the configuration can be written");
    path
}

fn free_ports() -> [u16; 3] {
    let listeners = [0; 3].map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound").port())
}
