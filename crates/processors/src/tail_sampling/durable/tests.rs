//! The buffer on disk, beside a model, over a disk that fails.

mod same_traces;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use nyquist_core::batch::{Metadata, Signal};
use nyquist_core::clock::ManualClock;
use nyquist_core::proto::trace::v1::{Span, TracesData};
use nyquist_core::storage::faulty::{Faults, FaultyDisk};
use nyquist_core::storage::{Fsync, Options};
use nyquist_core::telemetry::{Entry, Ledger};
use prost::Message;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::tail_sampling::client::{self, ClientKeys};
use crate::tail_sampling::config::TailSamplingConfig;
use crate::tail_sampling::sampler::{Outgoing, Sampler};
use crate::tail_sampling::tests::support::{Id, by_trace, failed, id_of, large_span, read, request, span};

const EPOCH: u64 = 1_700_000_000_000_000_000;
const RULES: &str = "
decision_wait: 10s
decision_wait_after_last_span: 4s
memory_limit_mib: 8
num_shards: 2
storage: file_storage
rules:
  - {name: errors, when: {status: ERROR}, sampling_percentage: 100}
  - {name: some, sampling_percentage: 30}
";

/// One life of the process.
struct Life {
    durable: Arc<Durable>,
    sampler: Arc<Sampler>,
    clock: Arc<dyn Clock>,
    keeper: Keeper,
    ledger: Ledger,
    restored: usize,
}

impl Life {
    async fn open(disk: &FaultyDisk, options: &Options, clock: &Arc<ManualClock>, yaml: &str) -> Self {
        let config: TailSamplingConfig = serde_yaml::from_str(yaml).unwrap();
        let telemetry = Telemetry::new();
        let ledger = Ledger::detached();
        let id = nyquist_core::config::ComponentId::of("tail_sampling");
        let sampler = Arc::new(Sampler::new(&config, &id, ledger.clone(), &telemetry).unwrap());
        let disk = disk.clone();
        let (log, _) = Log::open_with(options, move || Ok(disk)).await.unwrap();
        let durable = Durable::new(log, config.storage_full, sampler.fingerprint(), &telemetry);
        let clock: Arc<dyn Clock> = Arc::new(Ahead(Arc::clone(clock) as Arc<dyn Clock>));
        sampler.attach(Arc::clone(&durable), clock.now());
        let keeper = Keeper::new(Arc::clone(&durable), Arc::clone(&sampler), Arc::clone(&clock));
        Self { durable, sampler, clock, keeper, ledger, restored: 0 }
    }

    async fn begin(disk: &FaultyDisk, options: &Options, clock: &Arc<ManualClock>, yaml: &str) -> Self {
        let life = Self::open(disk, options, clock, yaml).await;
        let replay = Replay::new(Arc::clone(&life.durable), Arc::clone(&life.sampler), Arc::clone(&life.clock));
        let restored = replay.run().await.unwrap().spans;
        Self { restored, ..life }
    }

    fn batch(spans: Vec<Span>) -> Batch {
        let items = spans.len();
        Batch::from_wire(Signal::Traces, request(spans).encode_to_vec().into(), items)
    }

    async fn insert(&self, spans: Vec<Span>) -> Result<(), Refusal> {
        let mut batch = Self::batch(spans);
        let _stored = self.durable.store(&mut batch, &[], &*self.clock).await?;
        self.sampler.insert(batch.wire(), self.clock.now())
    }

    fn decide(&self) {
        for shard in 0..self.sampler.shards() {
            while self.sampler.decide(shard, self.clock.now(), 7) {}
        }
    }

    fn take(&self) -> Option<Outgoing> {
        (0..self.sampler.shards()).find_map(|shard| self.sampler.take(shard, self.clock.now()))
    }

    /// Everything that is kept goes to the next stage.
    async fn deliver(&self) -> BTreeMap<Id, usize> {
        let mut kept = Vec::new();
        while let Some(mut out) = self.take() {
            kept.extend(read(&out.batch().into_wire()));
            out.write_down(&*self.clock).await;
            out.accepted();
        }
        by_trace(&kept)
    }

    /// The process dies at once.
    async fn crash(self, disk: &FaultyDisk, power_cut: bool) {
        disk.set_faults(Faults { die_after: Some(0), ..Faults::default() });
        self.durable.log.close().await;
        if power_cut {
            disk.cut_power();
        } else {
            disk.kill();
        }
    }

    /// What came is where the ledger says.
    fn check_ledger(&self, accepted: usize, emitted: usize) {
        let ledger = &self.ledger;
        let created = ledger.count(Entry::Created) as usize;
        let out = ledger.count(Entry::SampledOut) as i64 + ledger.held_count();
        assert_eq!((accepted + created) as i64, emitted as i64 + out, "created {created}");
    }
}

fn options(fsync: Fsync, max_bytes: u64) -> Options {
    Options { fsync, max_bytes, ..Options::new(PathBuf::from("memory")) }
}

/// A trace that the rules do not keep, unless it has an error.
fn rejected() -> Id {
    let kept = kept_traces(30);
    (0..30).map(id_of).find(|id| !kept.contains(id)).unwrap()
}

fn error(id: Id) -> Span {
    failed(span(id))
}

/// Scenario: traces that are not decided, one that is dropped, one that is delivered, one that is decided and
/// waits; then `kill -9`. Guarantee: after the restart each is decided when it would have been; the delivered
/// one is not sent again, late spans follow the decisions.
#[tokio::test]
async fn a_restart_goes_on_as_if_nothing_had_happened() {
    let disk = FaultyDisk::new(1);
    let options = options(Fsync::None, 0);
    let clock = ManualClock::new(EPOCH);
    let (delivered, waiting, dropped, young) = (id_of(101), id_of(102), rejected(), id_of(104));
    let secs = Duration::from_secs;

    let mut life = Life::begin(&disk, &options, &clock, RULES).await;
    life.insert(vec![error(delivered), error(delivered), span(dropped)]).await.unwrap();
    life.keeper.tick().await;
    clock.advance(secs(5));
    life.decide();
    assert_eq!(life.deliver().await, BTreeMap::from([(delivered, 2)]));
    life.insert(vec![error(waiting)]).await.unwrap();
    clock.advance(secs(4));
    life.decide();
    life.insert(vec![error(young)]).await.unwrap();
    life.keeper.tick().await;
    clock.advance(secs(1));
    life.keeper.tick().await;
    life.check_ledger(5, 2);
    life.crash(&disk, false).await;

    clock.advance(secs(2));
    let mut life = Life::begin(&disk, &options, &clock, RULES).await;
    assert_eq!(life.restored, 2);
    assert_eq!(life.deliver().await, BTreeMap::from([(waiting, 1)]), "it was decided, and is not asked again");
    life.insert(vec![span(delivered), error(dropped)]).await.unwrap();
    assert_eq!(life.deliver().await, BTreeMap::from([(delivered, 1)]), "late spans follow the decision");
    clock.advance(Duration::from_millis(990));
    life.decide();
    assert_eq!(life.deliver().await, BTreeMap::new(), "its silence is not over");
    clock.advance(Duration::from_millis(20));
    life.decide();
    assert_eq!(life.deliver().await, BTreeMap::from([(young, 1)]));
    life.check_ledger(2, 3);
    clock.advance(secs(1));
    life.keeper.tick().await;
    life.keeper.tick().await;
    life.durable.log.sync().await.unwrap();
    life.crash(&disk, false).await;

    let life = Life::begin(&disk, &options, &clock, RULES).await;
    assert_eq!((life.restored, life.sampler.pending()), (0, 0), "nothing comes twice");
}

/// Scenario: a start reads the halves of a trace from the log, long after its time has come, while the workers
/// run. Guarantee: it is not decided on the first half.
#[tokio::test]
async fn nothing_is_decided_on_a_part_of_what_is_in_the_log() {
    let disk = FaultyDisk::new(7);
    let options = options(Fsync::None, 0);
    let yaml = &RULES.replace("memory_limit_mib: 8", "memory_limit_mib: 64");
    let clock = ManualClock::new(EPOCH);
    let life = Life::begin(&disk, &options, &clock, yaml).await;
    let id = rejected();
    // More than one chunk.
    for spans in [vec![span(id)], (0..60).map(|_| large_span(id_of(103), 100_000)).collect(), vec![error(id)]] {
        life.insert(spans).await.unwrap();
    }
    life.crash(&disk, false).await;

    clock.advance(Duration::from_secs(60));
    let life = Life::open(&disk, &options, &clock, yaml).await;
    let replay = Replay::new(Arc::clone(&life.durable), Arc::clone(&life.sampler), Arc::clone(&life.clock));
    let mut replay = std::pin::pin!(replay.run());
    let mut polls = 0;
    std::future::poll_fn(|context| {
        polls += 1;
        life.decide();
        replay.as_mut().poll(context).map(|restored| assert_eq!(restored.unwrap().spans, 62))
    })
    .await;
    assert!(polls > 2, "{polls}");
    life.decide();
    assert_eq!(life.deliver().await.get(&id), Some(&2));
}

/// Scenario: one trace of many spans stays undecided for an hour while others come and go. Guarantee: it is
/// written anew, the log stays small, and after a crash it is whole and decided at its time.
#[tokio::test]
async fn a_long_trace_does_not_hold_the_log() {
    long_trace("").await;
}

/// The same, where its spans lie in blocks that are compressed.
#[tokio::test]
async fn a_compressed_trace_that_holds_the_log_back_is_written_anew() {
    for codec in ["lz4", "zstd"] {
        long_trace(&format!("compression: {codec}, compression_delay: 0s,")).await;
    }
}

async fn long_trace(compression: &str) {
    let yaml = &format!(
        "{{decision_wait: 1h, span_limit: 40, memory_limit_mib: 64, num_shards: 2, storage: file_storage, {compression} \
         rules: [{{name: all, sampling_percentage: 100}}]}}"
    );
    let disk = FaultyDisk::new(2);
    // It counts as full, and is cut into segments of 256 KiB.
    let options = options(Fsync::None, 4 << 20);
    let clock = ManualClock::new(EPOCH);
    let long = id_of(1);
    let mut life = Life::begin(&disk, &options, &clock, yaml).await;
    life.insert(vec![span(long), error(long)]).await.unwrap();
    let mut delivered = 0;
    for number in 0..300 {
        let short = id_of(100 + number);
        life.insert((0..40).map(|_| large_span(short, 2000)).collect()).await.unwrap();
        if number == 150 {
            life.insert(vec![span(long)]).await.unwrap();
        }
        clock.advance(Duration::from_secs(10));
        life.decide();
        delivered += life.deliver().await.values().sum::<usize>();
        life.keeper.tick().await;
        assert!(life.durable.log.usage().bytes < 7 << 19, "{:?}", life.durable.log.usage());
    }
    assert_eq!(delivered, 300 * 40, "a span limit decides at once");
    assert!(life.durable.metrics.anew.get() >= 3);
    life.crash(&disk, false).await;

    let life = Life::begin(&disk, &options, &clock, yaml).await;
    assert_eq!(life.restored, 3, "every span of it, once");
    clock.advance(Duration::from_secs(599));
    life.decide();
    assert_eq!(life.deliver().await, BTreeMap::new());
    clock.advance(Duration::from_secs(1));
    life.decide();
    assert_eq!(life.deliver().await, BTreeMap::from([(long, 3)]), "an hour after its first span");
}

/// Scenario: the storage has no room. Guarantee: a typed refusal; or, if memory is enough, the request is
/// taken, counted, and the status says so until there is room again.
#[tokio::test]
async fn a_full_storage_refuses_or_memory_is_enough() {
    let clock = ManualClock::new(EPOCH);
    let id = rejected();
    let spans = || vec![large_span(id, 30_000)];
    let limits = options(Fsync::None, 64 << 10);
    let life = Life::begin(&FaultyDisk::new(3), &limits, &clock, RULES).await;
    life.insert(spans()).await.unwrap();
    life.insert(spans()).await.unwrap();
    let refusal = life.insert(spans()).await.unwrap_err();
    assert!(refusal.is_retryable() && refusal.retry_delay().is_some());
    assert!(refusal.message().contains("storage is full"), "{}", refusal.message());
    assert!(life.durable.room(&Life::batch(spans())).is_err());
    assert!(life.durable.status().is_none());
    let too_large = life.insert(vec![large_span([0; 16], 100_000)]).await.unwrap_err();
    assert!(!too_large.is_retryable());

    let disk = FaultyDisk::new(4);
    let mut life = Life::begin(&disk, &limits, &clock, &format!("{RULES}storage_full: memory")).await;
    for _ in 0..4 {
        life.durable.room(&Life::batch(spans())).unwrap();
        life.insert(spans()).await.unwrap();
    }
    assert_eq!(life.durable.metrics.memory_only.get(), 2);
    assert!(life.durable.status().unwrap().last_error.unwrap().contains("storage is full"));
    clock.advance(Duration::from_secs(10));
    life.decide();
    life.keeper.tick().await;
    // Releases are not waited for.
    life.durable.log.sync().await.unwrap();
    life.insert(spans()).await.unwrap();
    assert!(life.durable.status().is_none());
    assert_eq!(life.durable.metrics.memory_only.get(), 2);
}

/// Scenario: records that are damaged, of a kind or version that is not known, or no request. Guarantee: the
/// start goes on with the rest.
#[tokio::test]
async fn foreign_records_do_not_stop_a_start() {
    let disk = FaultyDisk::new(5);
    let options = options(Fsync::None, 0);
    let clock = ManualClock::new(EPOCH);
    let life = Life::begin(&disk, &options, &clock, RULES).await;
    let log = &life.durable.log;
    for (kind, payload) in [
        (record::OUTCOMES, &b"\x09\0\0\0junk"[..]),
        (record::SPANS, b"short"),
        (99, b"from the future"),
        (record::REQUEST, b"\xff\xff\xff no request"),
        (record::REQUEST, b""),
    ] {
        log.append(kind, 1, EPOCH, vec![bytes::Bytes::copy_from_slice(payload)]).await.unwrap();
    }
    life.insert(vec![error(id_of(1))]).await.unwrap();
    life.insert(vec![error(id_of(2))]).await.unwrap();
    life.crash(&disk, false).await;
    let name = disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let mut content = disk.content(&name).unwrap();
    let last = content.len() - 1;
    content[last] ^= 1;
    disk.put(&name, content);

    let life = Life::begin(&disk, &options, &clock, RULES).await;
    assert_eq!(life.restored, 1);
    assert_eq!(life.durable.log.usage().corrupt_records, 1);
}

/// What the model knows.
#[derive(Default)]
struct Model {
    /// Spans that were acknowledged, of traces that the rules keep.
    owed: BTreeSet<[u8; 8]>,
    /// Spans of other traces, and spans that were refused.
    unwanted: BTreeSet<[u8; 8]>,
    delivered: BTreeMap<[u8; 8], usize>,
    /// Spans that may come again.
    in_flight: BTreeSet<[u8; 8]>,
    /// The record of each span.
    records: BTreeMap<[u8; 8], u64>,
}

fn numbered(random: &mut SmallRng, number: u64) -> Span {
    let id = id_of(number);
    let span = if number.is_multiple_of(3) { error(id) } else { span(id) };
    Span { span_id: random.random::<[u8; 8]>().to_vec(), ..span }
}

fn span_ids(batch: Batch) -> Vec<[u8; 8]> {
    let data = TracesData::decode(batch.into_wire()).unwrap();
    let scopes = data.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).map(|span| span.span_id.try_into().unwrap()).collect()
}

/// Which traces the rules keep, asked from a sampler without storage.
fn kept_traces(numbers: u64) -> BTreeSet<Id> {
    let rig = crate::tail_sampling::tests::support::Rig::new(&RULES.replace("storage: file_storage", ""));
    let mut random = SmallRng::seed_from_u64(0);
    for number in 0..numbers {
        rig.insert(&request(vec![numbered(&mut random, number)]), Duration::ZERO);
    }
    by_trace(&rig.finish(Duration::ZERO)).into_keys().collect()
}

/// Random inserts, refusals, decisions, deliveries, ticks, writes that fail, and crashes, some in the middle of a
/// write. Guarantee: of traces that the rules keep, every acknowledged span is delivered in the end; what
/// comes twice was in flight in a crash; nothing else is delivered.
#[tokio::test]
async fn no_acknowledged_span_of_a_kept_trace_is_lost() {
    const TRACES: u64 = 600;
    let kept = kept_traces(TRACES);
    let mut restored = 0;
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let power_cuts = seed % 3 == 0;
        let fsync = if power_cuts { Fsync::Always } else { Fsync::None };
        let options = options(fsync, if seed % 4 == 0 { 96 << 10 } else { 0 });
        let disk = FaultyDisk::new(seed);
        let clock = ManualClock::new(EPOCH);
        let mut model = Model::default();
        let mut first = 0;
        // Of what a power cut or a failed write leaves, the latest releases may be missing, of any records.
        let mut may_forget = power_cuts;
        for _ in 0..4 {
            let mut life = Life::begin(&disk, &options, &clock, RULES).await;
            restored += life.restored;
            if random.random_ratio(1, 3) {
                disk.set_faults(Faults { short_write: 20, no_space: 10, ..Faults::default() });
            }
            if random.random_ratio(1, 3) {
                let left = random.random_range(100..30_000);
                disk.set_faults(Faults { die_after: Some(left), ..Faults::default() });
            }
            let durable = Arc::clone(&life.durable);
            let mut written: Vec<(Batch, Stored<'_>)> = Vec::new();
            let mut away: Vec<(Outgoing, u64)> = Vec::new();
            for _ in 0..random.random_range(20..120) {
                match random.random_range(0..12) {
                    0..4 => {
                        first = (first + random.random_range(0..4)).min(TRACES - 10);
                        let count = random.random_range(1..5);
                        let numbers: Vec<u64> = (0..count).map(|_| first + random.random_range(0..10)).collect();
                        let mut batch =
                            Life::batch(numbers.into_iter().map(|number| numbered(&mut random, number)).collect());
                        let ids = span_ids(batch.clone());
                        let traces = read(batch.wire());
                        if let Ok(stored) = durable.store(&mut batch, &[], &*life.clock).await {
                            let sequence = stored.sequence.unwrap();
                            for (id, span) in ids.iter().zip(&traces) {
                                model.records.insert(*id, sequence);
                                let owed = kept.contains(&span.id());
                                _ = if owed { model.owed.insert(*id) } else { model.unwanted.insert(*id) };
                            }
                            written.push((batch, stored));
                        } else {
                            model.in_flight.extend(ids);
                        }
                    }
                    4..7 if !written.is_empty() => {
                        let (mut batch, stored) = written.swap_remove(random.random_range(0..written.len()));
                        if random.random_ratio(1, 20) {
                            // Refused: nobody is owed anything, and nobody minds if it comes after a crash.
                            let ids = span_ids(batch.clone());
                            for id in ids {
                                model.owed.remove(&id);
                                model.in_flight.insert(id);
                            }
                            stored.refused();
                        } else {
                            life.sampler.insert(batch.wire(), life.clock.now()).unwrap();
                            drop(stored);
                        }
                    }
                    7 => clock.advance(Duration::from_millis(random.random_range(0..3000))),
                    8 => life.decide(),
                    9 => {
                        let upto = life.durable.floor();
                        if let Some(out) = life.take() {
                            for id in span_ids(out.batch()) {
                                *model.delivered.entry(id).or_default() += 1;
                            }
                            away.push((out, upto));
                        }
                    }
                    10 if !away.is_empty() => {
                        let (mut out, upto) = away.swap_remove(random.random_range(0..away.len()));
                        let ids = span_ids(out.batch());
                        let failed = life.durable.metrics.failed.get();
                        out.write_down(&*life.clock).await;
                        let is_written = life.durable.metrics.failed.get() == failed;
                        let again = |id: &&[u8; 8]| model.records.get(*id).is_none_or(|record| *record > upto);
                        let may_come: Vec<_> = ids.iter().filter(|id| !is_written || again(id)).copied().collect();
                        model.in_flight.extend(may_come);
                        out.accepted();
                    }
                    _ => life.keeper.tick().await,
                }
            }
            for (out, _) in away {
                model.in_flight.extend(span_ids(out.batch()));
            }
            drop(written);
            may_forget |= life.durable.log.usage().failed_writes > 0;
            assert!(life.sampler.peak_memory() <= life.sampler.memory_limit());
            life.crash(&disk, power_cuts).await;
            if random.random() {
                clock.advance(Duration::from_secs(random.random_range(0..20)));
            }
        }

        let mut life = Life::begin(&disk, &options, &clock, RULES).await;
        restored += life.restored;
        clock.advance(Duration::from_secs(20));
        life.decide();
        while let Some(mut out) = life.take() {
            for id in span_ids(out.batch()) {
                *model.delivered.entry(id).or_default() += 1;
            }
            out.write_down(&*life.clock).await;
            out.accepted();
        }
        for _ in 0..2 {
            clock.advance(Duration::from_secs(1));
            life.keeper.tick().await;
        }
        life.durable.log.close().await;
        assert_eq!(life.durable.log.usage().records, 0, "seed {seed}: nothing is needed any more");

        let missing: Vec<_> = model.owed.iter().filter(|id| !model.delivered.contains_key(*id)).collect();
        assert!(missing.is_empty(), "seed {seed}: {} of {} are lost", missing.len(), model.owed.len());
        for (id, times) in &model.delivered {
            let again = *times > 1 && !model.in_flight.contains(id);
            assert!(!again || may_forget, "seed {seed}: a span came {times} times");
            assert!(!model.unwanted.contains(id), "seed {seed}: a span that the rules do not keep");
        }
    }
    assert!(restored > 500, "{restored}");
}

/// Scenario: a trace with spans of two tenants and of nobody is in the log twice: as its requests came, and written
/// anew; somebody else sends the field that names tenants there. Guarantee: after a restart from either, each
/// span leaves under the tenant that sent it, and nobody's under another's name.
#[tokio::test]
async fn clients_survive_a_restart() {
    let header = |value: &str| Metadata { headers: vec![("x-scope-orgid".to_owned(), value.to_owned())] };
    let keys = ClientKeys::new(vec!["x-scope-orgid".to_owned()]);
    let (red, blue) = (keys.encode(&header("red")), keys.encode(&header("blue")));
    let senders = [&red[..], &blue[..], &[], &red[..]];
    let expected = BTreeMap::from([(None, 2), (Some("blue".to_owned()), 1), (Some("red".to_owned()), 2)]);
    for is_anew in [false, true] {
        let disk = FaultyDisk::new(1);
        let clock = Arc::new(ManualClock::new(EPOCH));
        let options = options(Fsync::None, 0);
        let life = Life::begin(&disk, &options, &clock, RULES).await;
        let send = async |client: &[u8], message: Vec<u8>, items| {
            let mut batch = Batch::from_wire(Signal::Traces, message.into(), items);
            let _stored = life.durable.store(&mut batch, client, &*life.clock).await.unwrap();
            life.sampler.insert_from(client, batch.wire(), life.clock.now()).unwrap();
        };
        for client in senders {
            send(client, request(vec![error(id_of(1))]).encode_to_vec(), 1).await;
        }
        let forged = [client::field(&red), request(vec![error(id_of(1))]).encode_to_vec()].concat();
        send(&[], forged, 1).await;
        if is_anew {
            let mut written = 0;
            for shard in 0..life.sampler.shards() {
                let found = life.sampler.visit(shard, |shard| shard.write_anew(u64::MAX, 1 << 20, &mut 0));
                for trace in found.unwrap() {
                    let (upto, last_seen) = (life.durable.floor(), trace.last_seen);
                    let spans = record::Spans { upto, id: trace.id, last_seen, message: trace.message.into() };
                    let payload = record::encode_spans(&spans);
                    life.durable.log.append(record::SPANS, trace.spans, EPOCH, payload).await.unwrap();
                    written += trace.spans;
                }
            }
            assert_eq!(written, 5);
        }
        life.crash(&disk, false).await;
        let life = Life::begin(&disk, &options, &clock, RULES).await;
        assert_eq!(life.restored, 5, "anew: {is_anew}");
        clock.advance(Duration::from_secs(60));
        life.decide();
        let mut found: BTreeMap<Option<String>, usize> = BTreeMap::new();
        while let Some(out) = life.take() {
            let mut next = Some(out);
            while let Some(out) = next {
                let batch = out.batch();
                *found.entry(batch.metadata().header("x-scope-orgid").map(str::to_owned)).or_default() += batch.items();
                next = out.accepted();
            }
        }
        assert_eq!(found, expected, "anew: {is_anew}");
    }
}
