//! The sampler without tasks or sockets: every call says what time it is.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nyquist_core::batch::{Batch, DropReason, Refusal, Signal};
use nyquist_core::config::ComponentId;
use nyquist_core::telemetry::{Ledger, Telemetry};
use parking_lot::MutexGuard;

use super::beside::{Beside, watch};
use super::budget::{Budget, Charge, Reservation};
use super::buffer::{Arrival, Part, Settings, Shard};
use super::client;
use super::config::{StressConfig, TailSamplingConfig};
use super::durable::{Durable, Parcel};
use super::evidence::Evidence;
use super::lock::{Apart, Locked, wait_for_each};
use super::metrics::Metrics;
pub use super::outgoing::Outgoing;
use super::request::{Request, Sender};
use super::rules::compile::{Problem, Problems, compile};
use super::rules::lists::Watcher;
use super::setup::Setup;
use super::stress::{Change, Stress};

/// How long a client should stay away when the buffer is full.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Traces that are decided before somebody who waits for the shard may have it: about 20 us.
const STEP: usize = 32;

thread_local! {
    pub(super) static REQUEST: RefCell<Request> = RefCell::default();
}

/// Undecided traces, and what decides them.
#[derive(Debug)]
pub struct Sampler {
    pub(super) settings: Settings,
    pub(super) shards: Vec<Locked>,
    pub(super) budget: Arc<Budget>,
    /// Undecided traces.
    pub(super) pending: Apart<AtomicIsize>,
    /// Senders wait while there are so many; `None`: they never do.
    block_at: Option<usize>,
    stress: Option<Stress>,
    pub(super) evidence: Apart<Evidence>,
    /// The log on disk, if there is one.
    pub(super) durable: OnceLock<Arc<Durable>>,
    /// Traces may lack spans that are still to be read from the log: none is decided because of its time.
    pub(super) restoring: AtomicBool,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ledger: Ledger,
    /// The most that was done while a shard was locked.
    #[cfg(test)]
    pub(super) most_work: std::sync::atomic::AtomicU64,
    /// Looks after lists of values in files, if there are any.
    _lists: Option<Watcher>,
}

/// What is wrong with a configuration, one problem a line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(super) String);

impl Sampler {
    /// A sampler for a valid configuration.
    ///
    /// # Errors
    /// If the configuration is not valid.
    pub fn new(
        config: &TailSamplingConfig,
        id: &ComponentId,
        ledger: Ledger,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Self, ConfigError> {
        let problems = config.problems();
        if !problems.is_empty() {
            let line = |problem: &Problem| format!("{}: {}", problem.path.join("."), problem.message);
            return Err(ConfigError(problems.iter().map(line).collect::<Vec<_>>().join("\n")));
        }
        let rules = Arc::new(compile(config, &mut Problems::default()));
        let setup = Setup::of(config);
        let settings = setup.settings(config, rules);
        let metrics = Arc::new(Metrics::new(telemetry, id, &settings));
        let budget = Budget::new(setup.limit, setup.headroom);
        let beside = Beside::charge(&settings.rules, &budget)?;
        let sampler = Self {
            _lists: watch(&settings.rules, &metrics, &budget, beside)?,
            shards: (0..setup.shards).map(|_| Locked::new(Shard::new(settings.clone(), &budget))).collect(),
            budget,
            pending: Apart::default(),
            block_at: config.block_on_overflow.then_some(setup.num_traces.unwrap_or(usize::MAX)),
            // Nothing is dropped in a dry run.
            stress: config.stress.filter(|_| !config.dry_run).map(Stress::new),
            evidence: Apart::default(),
            durable: OnceLock::new(),
            restoring: AtomicBool::new(false),
            metrics,
            ledger,
            #[cfg(test)]
            most_work: std::sync::atomic::AtomicU64::default(),
            settings,
        };
        sampler.metrics.limit.set(i64::try_from(setup.limit).unwrap_or(i64::MAX));
        // The tables that are there from the start.
        for shard in 0..setup.shards {
            sampler.visit(shard, |_| ());
        }
        Ok(sampler)
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Do senders wait where others are refused (`block_on_overflow`)?
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.block_at.is_some()
    }

    /// Should senders wait now?
    #[must_use]
    pub fn must_wait(&self) -> bool {
        let Some(block_at) = self.block_at else {
            return false;
        };
        self.budget.is_high() || self.pending() >= block_at
    }

    /// Is there room for another request?
    ///
    /// # Errors
    /// A retryable refusal if there is none.
    pub fn room(&self) -> Result<(), Refusal> {
        if self.budget.is_full() { Err(self.full()) } else { Ok(()) }
    }

    fn full(&self) -> Refusal {
        self.metrics.refused.inc();
        let message = format!(
            "tail_sampling: the buffer is full ({} MiB): the next stage takes kept traces too slowly, or \
             memory_limit_mib is too small",
            self.budget.limit() >> 20
        );
        Refusal::retryable(Some(RETRY_DELAY), message)
    }

    fn never(&self, what: String) -> Refusal {
        self.metrics.refused.inc();
        Refusal::permanent(format!(
            "tail_sampling: {what} is too large for a buffer of {} MiB: send smaller ones, or set a larger memory_limit_mib",
            self.budget.limit() >> 20
        ))
    }

    /// Sees to it that there is room for a small request.
    ///
    /// # Errors
    /// A retryable refusal if none can be made.
    pub(super) fn prepare(&self, now: Duration) -> Result<(), Refusal> {
        if self.budget.is_full() {
            self.make_room(0, nanos(now));
            self.room()?;
        }
        Ok(())
    }

    /// Takes an `ExportTraceServiceRequest` in, whole or not at all.
    ///
    /// # Errors
    /// A retryable refusal if the buffer is full; a permanent one if it is too small for the request.
    pub fn insert(&self, message: &[u8], now: Duration) -> Result<(), Refusal> {
        self.insert_from(&[], message, 0, now)
    }

    /// The same for a client of which `client` is kept: its spans leave with that. `sequence` is the number of the request's
    /// record on disk, or 0.
    ///
    /// # Errors
    /// As [`Sampler::insert`].
    pub(super) fn insert_from(
        &self,
        client: &[u8],
        message: &[u8],
        sequence: u64,
        now: Duration,
    ) -> Result<(), Refusal> {
        self.prepare(now)?;
        let now = nanos(now);
        REQUEST.with_borrow_mut(|request| {
            request.read(message, Sender::Client(client), &self.settings.rules.plan, &self.settings.hash);
            let admitted = self.admit(message, request, now).map(|reservation| {
                let stress = self.is_under_stress(now);
                self.take_in(Arrival { message, request, now, stress, restored: false, sequence });
                drop(reservation);
            });
            request.shrink();
            admitted
        })
    }

    /// Sets aside what a request may need; if there is too little, decides early.
    pub(super) fn admit(&self, message: &[u8], request: &Request, now: u64) -> Result<Reservation<'_>, Refusal> {
        let need = Shard::growth(&self.settings, request, message.len());
        if request.widest_header() > self.settings.batch_size {
            return Err(self.never(format!("a resource or scope of {} KiB", request.widest_header() >> 10)));
        }
        if let Some(reservation) = self.budget.reserve(need) {
            return Ok(reservation);
        }
        if need > self.budget.ceiling() {
            return Err(self.never(format!("a request that takes {} MiB", need >> 20)));
        }
        self.make_room(need, now);
        self.budget.reserve(need).ok_or_else(|| self.full())
    }

    /// Decides early, in all shards if need be, until `need` bytes are free, as far as each of them can in
    /// the time that others may be kept waiting.
    fn make_room(&self, need: usize, now: u64) {
        if self.blocks() && !self.restoring.load(Ordering::Acquire) {
            return;
        }
        for is_fair in [true, false] {
            for shard in 0..self.shards.len() {
                let missing = self.budget.missing(need);
                if missing == 0 {
                    return;
                }
                self.visit(shard, |shard| {
                    if self.has_its_share(shard) || !is_fair {
                        shard.make_room(now, missing);
                    }
                });
            }
        }
    }

    pub(super) fn take_in(&self, arrival: Arrival<'_>) {
        let Arrival { message, request, now, .. } = arrival;
        if request.invalid > 0 {
            self.ledger.dropped(DropReason::InvalidId, request.invalid);
        }
        self.metrics.bad_trace_states(request.bad_trace_states);
        self.booked(|visits| {
            let mut insert = |index: usize, locked: &Locked, mut shard: MutexGuard<'_, Shard>| {
                if let Some(runs) = request.shards.get(index) {
                    visits.visit(locked, &mut shard, |shard| {
                        shard.insert(arrival, runs);
                        self.relieve(shard, message.len() / request.touched.len(), now);
                    });
                }
            };
            // A shard that somebody else has is visited when the others have been.
            let mut busy = Vec::new();
            for &index in &request.touched {
                let Some(locked) = self.shards.get(index) else { continue };
                match locked.try_lock() {
                    Some(shard) => insert(index, locked, shard),
                    None => busy.push((index, locked)),
                }
            }
            wait_for_each(busy, insert);
        });
    }

    /// Are new traces to be decided by their id?
    fn is_under_stress(&self, now: u64) -> bool {
        let Some(stress) = &self.stress else {
            return false;
        };
        let StressConfig { minimum_duration, sampling_percentage, .. } = stress.config();
        let level = self.budget.level();
        match stress.look(level, now) {
            Change::None(active) => active,
            Change::On => {
                self.metrics.stress.set(1);
                tracing::warn!(
                    "tail_sampling: the buffer has been nearly full for {:?} and is at {level} %: new traces are decided \
                     by their id alone, and {sampling_percentage} % of them are kept, until there is room again",
                    minimum_duration.0
                );
                true
            }
            Change::Off => {
                self.metrics.stress.set(0);
                tracing::info!("tail_sampling: the buffer is at {level} %: traces are buffered again");
                false
            }
        }
    }

    /// Decides early if memory is short: twice what has just come in.
    fn relieve(&self, shard: &mut Shard, came_in: usize, now: u64) {
        if !self.blocks() && self.budget.is_high() && self.has_its_share(shard) {
            shard.relieve(now, came_in * 2);
        } else {
            shard.tidy();
        }
    }

    /// Does a shard hold nearly as much as all of them may on average? Where memory is short, one
    /// that holds less need not give any: a giant in another one is no reason.
    fn has_its_share(&self, shard: &Shard) -> bool {
        shard.charged >= self.budget.ceiling() / self.shards.len() / 10 * 9
    }

    /// Decides up to `limit` traces of a shard that are due, fewer if somebody waits for it. True if there
    /// may be more.
    pub fn decide(&self, index: usize, now: Duration, limit: usize) -> bool {
        if self.restoring.load(Ordering::Acquire) {
            return false;
        }
        let decide = |shard: &mut Shard| {
            let mut left = limit;
            let more = loop {
                let step = left.min(STEP);
                left -= step;
                let more = shard.decide_due(nanos(now), step);
                if !more || left == 0 || self.is_wanted(index) {
                    break more;
                }
            };
            // Spare memory is for who has plenty.
            if self.budget.is_half_used() {
                shard.limit_spares();
            }
            more
        };
        self.visit(index, decide).unwrap_or(false)
    }

    /// Decides up to `limit` of all undecided traces of a shard on what has arrived, or discards
    /// them. True if there may be more.
    pub fn decide_all(&self, shard: usize, now: Duration, limit: usize, discard: bool) -> bool {
        self.visit(shard, |shard| shard.decide_all(nanos(now), limit, discard)).unwrap_or(false)
    }

    /// The next batch of a shard's kept traces, the first of several if they are of several clients.
    #[must_use]
    pub fn take(&self, index: usize, now: Duration) -> Option<Outgoing> {
        let durable = self.durable.get();
        // Before the shard is asked: all up to here is in it, or has left it.
        let upto = durable.map_or(0, |durable| durable.floor());
        let (parts, left) = self.visit(index, |shard| {
            let kept = shard.take_kept(self.settings.batch_size, nanos(now), || self.is_wanted(index))?;
            if let (Some(durable), Some(since)) = (durable, kept.left.1) {
                durable.hold(since);
            }
            let charged = |part: Part| (Charge::new(&self.budget, part.message.capacity()), part);
            Some((kept.parts.into_iter().map(charged).collect::<Vec<_>>(), kept.left))
        })??;
        let parcel = durable.and_then(|durable| {
            let (notes, since) = left;
            Some(Parcel { durable: Arc::clone(durable), since: since?, upto, notes })
        });
        let outgoing = parts.into_iter().map(|(charge, Part { client, message, spans })| {
            let batch = Batch::from_wire(Signal::Traces, message.into(), spans);
            Outgoing {
                batch: if client.is_empty() { batch } else { batch.with_metadata(client::decode(&client)) },
                spans,
                settled: false,
                stays: durable.is_some(),
                parcel: None,
                rest: Vec::new(),
                metrics: Arc::clone(&self.metrics),
                ledger: self.ledger.clone(),
                _charge: charge,
            }
        });
        Outgoing::in_turn(outgoing.collect(), parcel)
    }

    /// Does a shard hold enough kept spans for a full batch?
    #[must_use]
    pub fn has_full_batch(&self, shard: usize) -> bool {
        self.shards.get(shard).is_some_and(|shard| shard.kept_bytes() >= self.settings.batch_size as u64)
    }

    /// Gives up everything that is left; it counts as lost in shutdown.
    ///
    /// With a log on disk, it stays there and counts as held.
    pub fn abandon(&self) {
        if self.durable.get().is_some() {
            return;
        }
        for shard in 0..self.shards.len() {
            self.visit(shard, Shard::abandon);
        }
    }

    /// Bytes of memory: of blocks in use and spare, tables, timers, headers, past decisions, and of
    /// batches on their way.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.budget.used()
    }

    /// What [`memory`](Self::memory) never exceeds.
    #[must_use]
    pub fn memory_limit(&self) -> usize {
        self.budget.limit()
    }

    /// Bytes of tables and timers: all that traces take beside their records.
    #[must_use]
    pub fn table_memory(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().tables()).sum()
    }

    /// The most that [`memory`](Self::memory) ever was.
    #[cfg(test)]
    pub(super) fn peak_memory(&self) -> usize {
        self.budget.peak()
    }

    /// Traces that are not decided.
    #[must_use]
    pub fn pending(&self) -> usize {
        // What has left may be booked before what has come.
        usize::try_from(self.pending.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Notes how long a round of decisions took.
    pub(super) fn decided_in(&self, duration: Duration) {
        self.metrics.timer.observe(duration.as_secs_f64() * 1e3);
        self.metrics.adaptive(&self.settings.rules);
    }

    pub(super) fn count_retry(&self) {
        self.metrics.retries.inc();
    }

    fn is_wanted(&self, shard: usize) -> bool {
        self.shards.get(shard).is_some_and(Locked::is_wanted)
    }

    /// Entries of tables that the shards have moved since the last call.
    #[cfg(test)]
    pub(super) fn moved(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().moved()).sum()
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
