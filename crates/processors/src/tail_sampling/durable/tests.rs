//! The buffer on disk, beside a model, over a disk that fails.

mod anew;
mod clients;
mod decisions;
mod foreign;
mod model;
mod restart;
mod room;
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
use crate::tail_sampling::explain::{Explanation, Remembered, Status};
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

    fn told(&self, id: Id) -> Explanation {
        self.sampler.explain(&id, self.clock.now())
    }

    fn batch(spans: Vec<Span>) -> Batch {
        let items = spans.len();
        Batch::from_wire(Signal::Traces, request(spans).encode_to_vec().into(), items)
    }

    async fn insert(&self, spans: Vec<Span>) -> Result<(), Refusal> {
        let mut batch = Self::batch(spans);
        let stored = self.durable.store(&mut batch, &[], &*self.clock).await?;
        self.take_in(&mut batch, &stored)
    }

    fn take_in(&self, batch: &mut Batch, stored: &Stored<'_>) -> Result<(), Refusal> {
        self.sampler.insert_from(&[], batch.wire(), stored.sequence(), self.clock.now())
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
    Options { fsync, max_bytes, format: record::FORMAT, ..Options::new(PathBuf::from("memory")) }
}

/// A trace that the rules do not keep, unless it has an error.
fn rejected() -> Id {
    let kept = kept_traces(30);
    (0..30).map(id_of).find(|id| !kept.contains(id)).unwrap()
}

fn error(id: Id) -> Span {
    failed(span(id))
}

fn numbered(random: &mut SmallRng, number: u64) -> Span {
    let id = id_of(number);
    let span = if number.is_multiple_of(3) { error(id) } else { span(id) };
    Span { span_id: random.random::<[u8; 8]>().to_vec(), ..span }
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
