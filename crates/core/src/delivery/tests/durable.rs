//! The queue on disk: what is acknowledged is delivered by this process or a later one.

use std::collections::BTreeSet;

use tokio::time::{Instant, sleep};

use super::*;
use crate::batch::{DropReason, Metadata};
use crate::component::{Consumer, Extension};
use crate::storage::faulty::FaultyDisk;
use crate::storage::{Error, Fsync, Log, Options, Owner, Recovered, Storage};
use crate::telemetry::Entry;

/// A storage extension on a disk in memory.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) disk: FaultyDisk,
    pub(super) max_bytes: u64,
    pub(super) fsync: Fsync,
}

#[async_trait]
impl Storage for Place {
    async fn open(&self, owner: &Owner) -> Result<(Log, Recovered), Error> {
        assert_eq!(owner.directory_name(), "exporter_otlp__traces");
        // Another process of a test may not quite be gone.
        let lock_timeout = Duration::from_secs(20);
        let options =
            Options { max_bytes: self.max_bytes, fsync: self.fsync, lock_timeout, ..Options::new("memory".into()) };
        let disk = self.disk.clone();
        Log::open_with(&options, move || Ok(disk)).await
    }
}

impl Component for Place {}

impl Extension for Place {
    fn storage(&self) -> Option<Arc<dyn Storage>> {
        Some(Arc::new(self.clone()))
    }
}

pub(super) fn place() -> Place {
    Place { disk: FaultyDisk::new(0), max_bytes: 0, fsync: Fsync::None }
}

pub(super) async fn start(backend: &Arc<Backend>, place: &Place, config: &str) -> Rig {
    start_with(backend, place, config, None).await
}

/// The same with a bound of its own for what is in memory too.
pub(super) async fn start_with(backend: &Arc<Backend>, place: &Place, config: &str, memory: Option<usize>) -> Rig {
    let mut extensions = Extensions::default();
    extensions.insert(&ComponentId::of("place"), Arc::new(place.clone()));
    let config = QueueConfig { storage: Some("place".to_owned()), ..queue(config) };
    Rig::start_with(backend, config, retry("{initial_interval: 10ms}"), &extensions, memory).await
}

/// Runs `life` as a process of its own, which is gone, with all its tasks, when it returns.
pub(super) fn process<T>(life: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(life)
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// Waits in real time: the log's thread does not know tokio's clock. Counts how often it looks, not for how long: the
/// process may be stopped for a while.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(2)).await;
    }
    panic!("waited too long until {what}");
}

pub(super) fn taken(backend: &Backend) -> Vec<String> {
    backend.taken.lock().clone()
}

/// Scenario: backend down, shutdown, another process with the backend up. Guarantee: nothing is dropped by
/// the first, everything is delivered in order by the second, both ledgers balance, nothing comes a third time.
#[tokio::test]
async fn a_shutdown_leaves_the_queue_on_disk() {
    let place = place();
    let backend = Backend::answering((0..1000).map(|_| down()));
    let rig = start(&backend, &place, "{num_consumers: 2}").await;
    for index in 0..50 {
        rig.delivery.consume(batch(&format!("{index:02}"), 2)).await.unwrap();
    }
    rig.delivery.shutdown(soon()).await;
    assert_eq!(rig.ledger.count(Entry::Accepted), 100);
    assert_eq!(rig.ledger.held_count(), 100, "they are held, on disk");
    assert_eq!(rig.ledger.dropped_count(DropReason::Shutdown), 0);
    assert!(rig.delivery.consume(batch("late", 1)).await.unwrap_err().is_retryable());

    let backend = Backend::answering([]);
    let rig = start(&backend, &place, "{num_consumers: 1}").await;
    assert_eq!(rig.ledger.count(Entry::Created), 100);
    until("all is delivered", || rig.ledger.count(Entry::Exported) == 100).await;
    let names = taken(&backend);
    assert_eq!(names.len(), 100);
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(rig.ledger.held_count(), 0);
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
    rig.delivery.shutdown(soon()).await;

    let backend = Backend::answering([]);
    let rig = start(&backend, &place, "{}").await;
    assert_eq!(rig.ledger.count(Entry::Created), 0);
    rig.delivery.shutdown(soon()).await;
    assert!(taken(&backend).is_empty());
}

/// Scenario: the process is gone without a word while requests are on their way. Guarantee: every acknowledged
/// span arrives; twice only what was under way.
#[test]
fn a_killed_process_loses_nothing() {
    let place = place();
    let backend = Backend::hanging();
    process(async {
        let rig = start(&backend, &place, "{num_consumers: 3}").await;
        for index in 0..30 {
            rig.delivery.consume(batch(&format!("{index:02}"), 1)).await.unwrap();
        }
        backend.let_through(10);
        until("ten are done", || rig.ledger.count(Entry::Exported) == 10).await;
        until("the next ones are on their way", || backend.attempts.lock().len() == 13).await;
        let on_disk = || rig.delivery.inner.state.lock().store.as_ref().unwrap().log.usage().records;
        until("the disk knows of the ten", || on_disk() == 20).await;
    });
    let first: BTreeSet<String> = taken(&backend).into_iter().collect();
    let under_way: BTreeSet<String> = backend
        .attempts
        .lock()
        .iter()
        .flat_map(|(_, names)| names.clone())
        .filter(|name| !first.contains(name))
        .collect();
    let second = Backend::answering([]);
    process(async {
        let rig = start(&second, &place, "{}").await;
        until("the rest is delivered", || rig.ledger.held_count() == 0).await;
    });
    let second: Vec<String> = taken(&second);
    let all: BTreeSet<String> = first.iter().chain(&second).cloned().collect();
    assert_eq!(all.len(), 30, "nothing is missing");
    assert!(under_way.iter().all(|name| second.contains(name)));
    assert_eq!(second.iter().collect::<BTreeSet<_>>().len(), second.len(), "each at most once again");
    assert_eq!(second.iter().filter(|name| first.contains(*name)).count(), 0, "what was delivered is not sent again");
}

/// Scenario: far more is queued than is kept in memory. Guarantee: memory stays bounded, all arrive in order.
#[tokio::test]
async fn a_long_queue_stays_on_disk() {
    let place = place();
    let backend = Backend::hanging();
    let rig = start(&backend, &place, "{num_consumers: 1, queue_size: 1000000, max_bytes: 1GiB}").await;
    let big = "x".repeat(100_000);
    for index in 0..600 {
        rig.delivery.consume(batch(&format!("{index:03}{big}"), 1)).await.unwrap();
    }
    let in_memory = || rig.delivery.inner.in_memory.load(std::sync::atomic::Ordering::Relaxed);
    assert!((30 << 20..34 << 20).contains(&in_memory()), "{}", in_memory());
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 600.0);
    backend.let_through(300);
    until("half is delivered", || rig.ledger.count(Entry::Exported) == 300).await;
    assert!(in_memory() < 34 << 20, "{}", in_memory());
    for index in 600..610 {
        rig.delivery.consume(batch(&format!("{index:03}{big}"), 1)).await.unwrap();
    }
    backend.let_through(310);
    until("all is delivered", || rig.ledger.count(Entry::Exported) == 610).await;
    let names = taken(&backend);
    assert!(names.is_sorted() && names.len() == 610);
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
    assert_eq!(in_memory(), 0);
    rig.delivery.shutdown(soon()).await;
    assert!(place.disk.bytes_of(".seg") < 17 << 20, "disk space came back");
}

/// Scenario: the backend is down for days, with nothing said about `max_elapsed_time`. Guarantee: what is on disk
/// is tried until it is delivered; told otherwise, it is given up and counted. In memory the Collector's five
/// minutes hold (`a_long_outage_drops_after_five_minutes`).
#[tokio::test(start_paused = true)]
async fn what_is_on_disk_is_never_given_up() {
    for (limit, lost) in [("", 0), (", max_elapsed_time: 5m", 3)] {
        let backend = Backend::answering((0..10_000).map(|_| down()));
        let mut extensions = Extensions::default();
        extensions.insert(&ComponentId::of("place"), Arc::new(place()));
        let config = QueueConfig { storage: Some("place".to_owned()), ..QueueConfig::default() };
        let retry = retry(&format!("{{max_interval: 30s{limit}}}"));
        let rig = Rig::start_with(&backend, config, retry, &extensions, None).await;
        let begin = Instant::now();
        rig.delivery.consume(batch("a", 3)).await.unwrap();
        rig.settled_by(Duration::from_secs(10)).await;
        assert_eq!(rig.ledger.dropped_count(DropReason::RetriesExhausted), lost);
        assert_eq!(rig.ledger.count(Entry::Exported), 3 - lost);
        let days = begin.elapsed().as_secs() / 86_400;
        assert_eq!(days, if lost == 0 { 3 } else { 0 });
        rig.delivery.shutdown(soon()).await;
    }
}

/// Scenario: nothing is said about `max_elapsed_time`, and the backend answers `OUT_OF_RANGE` to one request, whatever
/// happens to others. Guarantee: that request is dropped as rejected after 20 such answers, however long an outage was in
/// between; with a `max_elapsed_time` it is tried as long as that says.
#[tokio::test(start_paused = true)]
async fn what_is_out_of_range_does_not_block_the_queue_for_ever() {
    let odd = || Outcome::Retry { code: Code::OutOfRange, after: None, message: "too far".to_owned() };
    let answers = || (0..19).map(|_| odd()).chain((0..1000).map(|_| down())).chain((0..100).map(|_| odd()));
    for (limit, attempts) in [("{}", 1020), ("{max_elapsed_time: 0}", 1120)] {
        let backend = Backend::answering(answers());
        let mut extensions = Extensions::default();
        extensions.insert(&ComponentId::of("place"), Arc::new(place()));
        let config = QueueConfig { storage: Some("place".to_owned()), num_consumers: 1, ..QueueConfig::default() };
        let rig = Rig::start_with(&backend, config, retry(limit), &extensions, None).await;
        rig.delivery.consume(batch("a", 3)).await.unwrap();
        rig.settled_by(Duration::from_secs(10)).await;
        let lost = if attempts == 1020 { 3 } else { 0 };
        assert_eq!(backend.attempts.lock().len(), attempts, "{limit}");
        assert_eq!(rig.ledger.dropped_count(DropReason::Rejected), lost);
        assert_eq!(rig.metric("otelcol_exporter_send_failed_spans"), lost as f64);
        backend.answers.lock().clear();
        rig.delivery.consume(batch("b", 1)).await.unwrap();
        rig.settled_by(Duration::from_secs(10)).await;
        assert_eq!(rig.ledger.count(Entry::Exported), 4 - lost);
        rig.delivery.shutdown(soon()).await;
    }
}

/// Scenario: batching, metadata, a backend that finds merged requests too large. Guarantee: across a restart
/// nothing is lost, and the clients' metadata is there again.
#[test]
fn batching_and_metadata_survive() {
    let place = place();
    let config =
        "{num_consumers: 2, batch: {min_size: 6, flush_timeout: 20ms, partition: {metadata_keys: [x-tenant]}}}";
    process(async {
        let rig = start(&Backend::hanging(), &place, config).await;
        for index in 0..40 {
            let metadata = Metadata { headers: vec![("x-tenant".to_owned(), format!("{}", index % 2))] };
            let tenant = batch(&format!("t{}-{index}", index % 2), 1).with_metadata(Arc::new(metadata));
            rig.delivery.consume(tenant).await.unwrap();
        }
    });
    let too_large = Outcome::TooLarge { message: "too large".to_owned() };
    let backend = Backend::answering([too_large.clone(), down(), too_large]);
    process(async {
        let rig = start(&backend, &place, config).await;
        until("all is delivered", || rig.ledger.held_count() == 0).await;
    });
    assert_eq!(taken(&backend).iter().collect::<BTreeSet<_>>().len(), 40);
    assert_eq!(taken(&backend).len(), 40);
    let attempts = backend.attempts.lock();
    let is_pure = |names: &Vec<String>| names.iter().all(|name| name[..2] == names[0][..2]);
    assert!(attempts.iter().all(|(_, names)| is_pure(names)), "tenants are not mixed");
    assert!(attempts.iter().any(|(_, names)| names.len() >= 6), "requests are merged");
}

/// Scenario: records are damaged on disk. Guarantee: the others are delivered, the damaged ones are counted.
#[tokio::test]
async fn what_cannot_be_read_back_is_counted() {
    let place = place();
    let rig = start(&Backend::hanging(), &place, "{}").await;
    for index in 0..10 {
        rig.delivery.consume(batch(&format!("{index}"), 3)).await.unwrap();
    }
    rig.delivery.shutdown(Instant::now()).await;
    let name = place.disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let mut content = place.disk.content(&name).unwrap();
    let last = content.len() - 1;
    content[last] ^= 1;
    place.disk.put(&name, content);
    let backend = Backend::answering([]);
    let rig = start(&backend, &place, "{}").await;
    until("all is settled", || rig.ledger.held_count() == 0).await;
    assert_eq!(taken(&backend).len(), 27);
    assert_eq!(rig.ledger.dropped_count(DropReason::Unreadable), 3);
    assert_eq!(rig.ledger.count(Entry::Created), 30);
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
}

/// One process of the test below: senders on several threads, a backend of random moods, an end with or without a
/// shutdown. Returns the spans that were acknowledged.
async fn one_life(
    random: &mut rand::rngs::SmallRng,
    life: u64,
    backend: &Arc<Backend>,
    place: &Place,
    is_last: bool,
) -> (Ledger, BTreeSet<String>) {
    use rand::RngExt;
    let batching = if random.random() { ", batch: {min_size: 5, flush_timeout: 5ms}" } else { "" };
    let config = format!("{{num_consumers: {}, queue_size: 60{batching}}}", random.random_range(1..4));
    // Nothing, a little, everything is in memory too.
    let memory = [Some(0), Some(150), None][random.random_range(0..3)];
    let rig = start_with(backend, place, &config, memory).await;
    let mut senders = Vec::new();
    for sender in 0..3 {
        let delivery = Arc::clone(&rig.delivery);
        let sizes: Vec<usize> = (0..random.random_range(0..15)).map(|_| random.random_range(1..4)).collect();
        senders.push(tokio::spawn(async move {
            let mut accepted = Vec::new();
            for (index, spans) in sizes.into_iter().enumerate() {
                let name = format!("{life}.{sender}.{index}");
                if delivery.consume(batch(&name, spans)).await.is_ok() {
                    accepted.extend((0..spans).map(|span| format!("{name}-{span}")));
                }
            }
            accepted
        }));
    }
    let mut accepted = BTreeSet::new();
    for sender in senders {
        accepted.extend(sender.await.unwrap());
    }
    if is_last {
        until("all is settled", || rig.ledger.held_count() == 0).await;
        // Room is given back right after the ledger is told.
        until("the room is given back", || {
            let in_memory = rig.delivery.inner.in_memory.load(std::sync::atomic::Ordering::Relaxed);
            rig.metric("otelcol_exporter_queue_size") == 0.0 && in_memory == 0
        })
        .await;
    }
    if random.random() || is_last {
        rig.delivery.shutdown(soon()).await;
    }
    (rig.ledger.clone(), accepted)
}

/// Random loads, moods and ends of processes on one disk: every acknowledged span arrives or is dropped with a
/// reason, refused ones never do, no process delivers one twice, and each process's ledger balances.
#[test]
fn nothing_is_lost_over_many_lives() {
    use rand::{RngExt, SeedableRng};
    const LIVES: u64 = 5;
    for seed in 0..60 {
        let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
        let place = place();
        let mut accepted = BTreeSet::new();
        let mut arrived = BTreeSet::new();
        let mut dropped = 0;
        for life in 0..LIVES {
            let moods = (0..random.random_range(0..30)).map(|_| match random.random_range(0..10) {
                0..6 => down(),
                6 => Outcome::Refused { code: Code::Internal, message: "no".to_owned() },
                7 => Outcome::TooLarge { message: "too large".to_owned() },
                _ => Outcome::Delivered,
            });
            let backend = Backend::answering(moods.collect::<Vec<_>>());
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
            let is_last = life == LIVES - 1;
            let (ledger, names) = runtime.block_on(one_life(&mut random, life, &backend, &place, is_last));
            drop(runtime);
            accepted.extend(names);
            let lost: u64 = DropReason::ALL.iter().map(|&reason| ledger.dropped_count(reason)).sum();
            let held = u64::try_from(ledger.held_count()).unwrap();
            let incoming = ledger.count(Entry::Accepted) + ledger.count(Entry::Created);
            assert_eq!(incoming, ledger.count(Entry::Exported) + lost + held, "seed {seed}, life {life}");
            dropped += lost;
            let names = taken(&backend);
            let distinct: BTreeSet<String> = names.iter().cloned().collect();
            assert_eq!(distinct.len(), names.len(), "seed {seed}, life {life}: delivered twice");
            arrived.extend(distinct);
        }
        assert!(arrived.is_subset(&accepted), "seed {seed}: something refused arrived");
        let missing = accepted.len() - arrived.len();
        assert!(missing as u64 <= dropped, "seed {seed}: {missing} are missing, {dropped} were dropped");
    }
}

#[tokio::test]
async fn a_storage_that_is_none_is_a_build_error() {
    struct NoStorage;
    impl Component for NoStorage {}
    impl Extension for NoStorage {}
    let mut extensions = Extensions::default();
    extensions.insert(&ComponentId::of("other"), Arc::new(NoStorage));
    for (id, expected) in [("other", "extension \"other\" is no storage"), ("none", "is not in service.extensions")] {
        let config = QueueConfig { storage: Some(id.to_owned()), ..QueueConfig::default() };
        let error =
            Rig::build(&Backend::answering([]), config, RetryConfig::default(), &extensions, None).err().unwrap();
        assert_eq!(error.path, ["sending_queue", "storage"]);
        assert!(error.message.contains(expected), "{}", error.message);
    }
}

/// Scenario: an exporter panics over the only request in memory, while others are on disk only. Guarantee: these are read
/// and sent; the one stays on disk, and the next process tries it again.
#[tokio::test]
async fn a_panic_does_not_hold_up_what_is_on_disk() {
    let place = place();
    let backend = Arc::new(Backend { panics_at: Some("bad"), gate: Some(Semaphore::new(0)), ..Backend::default() });
    let rig = start_with(&backend, &place, "{num_consumers: 1}", Some(1)).await;
    for name in ["bad", "a", "b"] {
        rig.delivery.consume(batch(name, 1)).await.unwrap();
    }
    until("the first is on its way", || !backend.attempts.lock().is_empty()).await;
    backend.let_through(3);
    until("the others are delivered", || rig.ledger.count(Entry::Exported) == 2).await;
    assert_eq!(rig.ledger.held_count(), 1);
    rig.delivery.shutdown(soon()).await;

    let backend = Backend::answering([]);
    let rig = start(&backend, &place, "{}").await;
    until("it is delivered", || rig.ledger.held_count() == 0).await;
    assert_eq!(taken(&backend), ["bad-0"]);
}
