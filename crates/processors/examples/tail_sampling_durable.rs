//! What durable sampling costs: CPU time a span, spans a second and bytes written a span, in memory and at
//! every level of `fsync`.
//!
//!     cargo run --release -p nyquist-processors --example tail_sampling_durable [-- seconds [directory]]
//!
//! Eight senders, requests of 500 spans in traces of ten, one core, 5 % kept. It is the sampler alone: what
//! receiving and sending cost comes on top, the same at every level. CPU time is that of the whole process,
//! the kernel's share and the log's thread included, less what the same load costs without a sampler. It
//! counts from the time when the buffer is full for the first time. The directory (default: that for
//! temporary files) should be on the disk that is asked about, and not on a tmpfs.

#![allow(clippy::print_stdout, clippy::expect_used, missing_docs, reason = "a measuring program")]

#[path = "../benches/common/mod.rs"]
mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::{Requests, SPANS_PER_REQUEST};
use nyquist_core::batch::{Batch, Refusal, Signal};
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{Component, Consumer, Extension, Extensions, Host, ProcessorConfig, ProcessorContext};
use nyquist_core::config::ComponentId;
use nyquist_core::runtime::Runtimes;
use nyquist_core::storage::{Error, Fsync, Log, Options, Owner, Recovered, Storage};
use nyquist_core::telemetry::{Ledger, Telemetry};
use nyquist_processors::tail_sampling::config::TailSamplingConfig;

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONFIG: &str = "
decision_wait: 2s
memory_limit_mib: 6144
rules:
  - {name: errors, sampling_percentage: 100, when: {error: true}}
  - {name: slow, sampling_percentage: 50, when: {latency: {threshold: 1s}}}
  - {name: default, sampling_percentage: 5}
";
const SENDERS: usize = 8;
/// The buffer is full after the wait; then its memory and its files are warm.
const WARM_UP: Duration = Duration::from_secs(5);

/// Takes everything.
struct Sink;

#[async_trait]
impl Consumer for Sink {
    async fn consume(&self, _: Batch) -> Result<(), Refusal> {
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A directory for logs.
struct Place(Options);

impl Component for Place {}

impl Extension for Place {
    fn storage(&self) -> Option<Arc<dyn Storage>> {
        Some(Arc::new(Self(self.0.clone())))
    }
}

#[async_trait]
impl Storage for Place {
    async fn open(&self, _: &Owner) -> Result<(Log, Recovered), Error> {
        Log::open(&self.0).await
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    NoSampler,
    Memory,
    Durable(Fsync),
}

struct Measured {
    cpu: f64,
    spans_per_second: f64,
    written: f64,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().map_or(20, |seconds| seconds.parse().expect("a number of seconds"));
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = parent.join(format!("tail-sampling-durable-{}", std::process::id()));
    let window = Duration::from_secs(seconds);

    let load = measure(Level::NoSampler, window, &directory);
    let memory = measure(Level::Memory, window, &directory);
    let in_memory = memory.cpu - load.cpu;
    println!("the load itself: {:.0} ns a span, taken off below", load.cpu);
    println!("| level | CPU ns/span | of memory's | spans/s | bytes written a span |");
    println!("|---|---|---|---|---|");
    let line = |name: &str, measured: &Measured| {
        let cpu = measured.cpu - load.cpu;
        let Measured { spans_per_second, written, .. } = measured;
        println!("| {name} | {cpu:.0} | {:.2} | {spans_per_second:.0} | {written:.0} |", cpu / in_memory);
    };
    line("in memory", &memory);
    for (name, fsync) in [
        ("`fsync: false`", Fsync::None),
        ("`fsync: 1s`", Fsync::Interval(Duration::from_secs(1))),
        ("`fsync: true`", Fsync::Always),
    ] {
        line(name, &measure(Level::Durable(fsync), window, &directory));
    }
}

/// On a thread of its own, so that nothing of one level is left for the next.
fn measure(level: Level, window: Duration, directory: &std::path::Path) -> Measured {
    let directory = directory.to_owned();
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let measured = runtime.block_on(run(level, window, directory.clone()));
        let _ = fs::remove_dir_all(&directory);
        measured
    };
    std::thread::spawn(body).join().expect("the measurement ends")
}

async fn run(level: Level, window: Duration, directory: PathBuf) -> Measured {
    let telemetry = Telemetry::new();
    let clock: Arc<dyn nyquist_core::clock::Clock> = Arc::new(SystemClock::default());
    let mut extensions = Extensions::default();
    let mut config: TailSamplingConfig = serde_yaml::from_str(CONFIG).expect("the configuration is sound");
    if let Level::Durable(fsync) = level {
        let options = Options { fsync, ..Options::new(directory) };
        extensions.insert(&ComponentId::of("file_storage"), Arc::new(Place(options)));
        config.storage = Some("file_storage".to_owned());
    }
    let context = ProcessorContext {
        id: ComponentId::of("tail_sampling"),
        pipeline: ComponentId::of("traces"),
        signal: Signal::Traces,
        next: Arc::new(Sink),
        ledger: Ledger::detached(),
        extensions: &extensions,
        telemetry: Arc::clone(&telemetry),
        clock: Arc::clone(&clock),
    };
    let processor = config.build(context).map_err(|error| error.to_string()).expect("the configuration is valid");
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    processor.start(&Host { runtimes: Runtimes::current(), clock, telemetry, fatal }).await.expect("it starts");
    let next: Arc<dyn Consumer> = if level == Level::NoSampler { Arc::new(Sink) } else { processor.clone() };

    let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let senders: Vec<_> =
        (0..SENDERS).map(|sender| tokio::spawn(send(Arc::clone(&next), sender, Arc::clone(&count)))).collect();
    tokio::time::sleep(WARM_UP).await;
    let spans = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
    let (begin, cpu, sent, written) = (Instant::now(), cpu(), spans(&count), written());
    tokio::time::sleep(window).await;
    let sent = (spans(&count) - sent) as f64;
    let measured = Measured {
        cpu: (self::cpu() - cpu).as_nanos() as f64 / sent,
        spans_per_second: sent / begin.elapsed().as_secs_f64(),
        written: (self::written() - written) as f64 / sent,
    };
    senders.iter().for_each(tokio::task::JoinHandle::abort);
    processor.shutdown(tokio::time::Instant::now() + Duration::from_secs(5)).await;
    measured
}

async fn send(next: Arc<dyn Consumer>, sender: usize, count: Arc<std::sync::atomic::AtomicU64>) {
    let mut requests = Requests::new(false);
    // Other senders have other ids.
    (0..sender * 7).for_each(|index| _ = requests.refresh(index));
    for index in 0.. {
        let message = bytes::Bytes::copy_from_slice(requests.refresh(index));
        match next.consume(Batch::from_wire(Signal::Traces, message, SPANS_PER_REQUEST)).await {
            Ok(()) => _ = count.fetch_add(SPANS_PER_REQUEST as u64, std::sync::atomic::Ordering::Relaxed),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
        tokio::task::yield_now().await;
    }
}

/// User and system time of the process.
fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/self/stat").expect("this is Linux");
    // After the name, which may hold anything: 3 is the state, 14 and 15 are ticks of 10 ms.
    let fields = text.rsplit(')').next().expect("there are fields").split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|ticks| ticks.parse::<u64>().expect("a number of ticks")).sum();
    Duration::from_millis(ticks * 10)
}

/// Bytes that the process has given to `write`.
fn written() -> u64 {
    let text = fs::read_to_string("/proc/self/io").expect("this is Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("wchar is there");
    line.parse().expect("a number of bytes")
}
