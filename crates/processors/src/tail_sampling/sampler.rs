//! The sampler without tasks or sockets: every call says what time it is.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use nyquist_core::batch::{Batch, DropReason, Refusal, Signal};
use nyquist_core::config::ComponentId;
use nyquist_core::telemetry::{Entry, Ledger, Telemetry};
use parking_lot::Mutex;

use super::budget::{self, Budget, Charge};
use super::buffer::{Arrival, Settings, Shard};
use super::config::{Compat, MAX_MEMORY_MIB, TailSamplingConfig};
use super::metrics::Metrics;
use super::request::{IdHash, Request};
use super::rules::RuleSet;
use super::rules::compile::{Problem, Problems, compile};
use super::rules::lists::Watcher;

/// Kept spans leave in batches of about so many bytes.
const BATCH_BYTES: usize = 1 << 20;
const MAX_BLOCK: usize = 1 << 20;
const MIN_BLOCK: usize = 16 << 10;
/// Blocks per shard that the budget should be good for, at least.
const BLOCKS_PER_SHARD: usize = 16;
/// How long a client should stay away when the buffer is full.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Runs per shard that are kept allocated from request to request.
const KEEP_RUNS: usize = 4096;

thread_local! {
    static REQUEST: RefCell<Request> = RefCell::default();
}

/// Undecided traces, and what decides them.
#[derive(Debug)]
pub struct Sampler {
    settings: Settings,
    shards: Vec<Mutex<Shard>>,
    budget: Arc<Budget>,
    /// Undecided traces.
    pending: AtomicUsize,
    /// Senders wait while there are so many; `None`: they never do.
    block_at: Option<usize>,
    metrics: Arc<Metrics>,
    ledger: Ledger,
    /// Looks after lists of values in files, if there are any.
    _lists: Option<Watcher>,
}

/// What is wrong with a configuration, one problem a line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// A batch of kept spans on its way to the next stage. The spans are held until it is settled;
/// dropped unsettled, they count as lost in shutdown.
#[derive(Debug)]
pub struct Outgoing {
    batch: Batch,
    spans: usize,
    settled: bool,
    metrics: Arc<Metrics>,
    ledger: Ledger,
    _charge: Charge,
}

impl Outgoing {
    /// A copy of the batch, to offer.
    #[must_use]
    pub fn batch(&self) -> Batch {
        self.batch.clone()
    }

    /// The next stage has taken it.
    pub fn accepted(mut self) {
        self.settled = true;
    }

    /// The next stage has refused it for good.
    pub fn rejected(mut self) {
        self.settled = true;
        self.ledger.dropped(DropReason::Rejected, self.spans);
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if !self.settled {
            self.ledger.dropped(DropReason::Shutdown, self.spans);
        }
        self.ledger.held(-(self.spans as i64));
        self.metrics.spans(-(self.spans as i64));
    }
}

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
        let shards = match config.num_shards {
            0 => (available_parallelism().map_or(1, usize::from) * 2).next_power_of_two().min(256),
            shards => shards as usize,
        };
        let limit = match config.memory_limit_mib {
            0 => budget::default_limit().min(MAX_MEMORY_MIB << 20),
            mebibytes => mebibytes << 20,
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let block_size = prev_power_of_two(limit / (shards * BLOCKS_PER_SHARD)).clamp(MIN_BLOCK, MAX_BLOCK);
        let num_traces = config.num_traces.filter(|&traces| traces > 0);
        let num_traces = num_traces.map(|traces| usize::try_from(traces).unwrap_or(usize::MAX));
        let per_shard = |total: u64| usize::try_from(total).unwrap_or(usize::MAX).div_ceil(shards);
        let expected = (config.expected_new_traces_per_sec as f64 * config.decision_wait.0.as_secs_f64()) as usize;
        let settings = Settings {
            hash: IdHash::new(shards),
            wait: nanos(match config.compat {
                Some(Compat::Otelcol) => whole_seconds(config.decision_wait.0).max(Duration::from_secs(1)),
                None => config.decision_wait.0,
            }),
            wait_after_root: nanos(match config.compat {
                Some(Compat::Otelcol) => whole_seconds(config.decision_wait_after_root_received.0),
                None => config.decision_wait_after_root_received.0,
            }),
            max_trace_bytes: config.maximum_trace_size_bytes,
            max_traces: match num_traces {
                Some(traces) if !config.block_on_overflow => traces.div_ceil(shards),
                _ => usize::MAX,
            },
            record: config.record,
            block_size,
            sampled_cache: per_shard(config.decision_cache.sampled()),
            non_sampled_cache: per_shard(config.decision_cache.non_sampled()),
            // A hint may not cost more than a sixteenth of the budget.
            expected_traces: expected.min(limit / 16 / 16) / shards,
            rules,
        };
        let metrics = Arc::new(Metrics::new(telemetry, id, &settings.rules));
        Ok(Self {
            _lists: watch(&settings.rules, &metrics)?,
            shards: (0..shards).map(|_| Mutex::new(Shard::new(settings.clone()))).collect(),
            budget: Budget::new(limit),
            pending: AtomicUsize::new(0),
            block_at: config.block_on_overflow.then_some(num_traces.unwrap_or(usize::MAX)),
            metrics,
            ledger,
            settings,
        })
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Should senders wait until there is room (`block_on_overflow`)?
    #[must_use]
    pub fn must_wait(&self) -> bool {
        let Some(block_at) = self.block_at else {
            return false;
        };
        self.budget.is_full() || self.pending.load(Ordering::Relaxed) >= block_at
    }

    /// Is there room for another request?
    ///
    /// # Errors
    /// A retryable refusal if there is none.
    pub fn room(&self) -> Result<(), Refusal> {
        if !self.budget.is_full() {
            return Ok(());
        }
        self.metrics.refused.inc();
        let message = format!(
            "tail_sampling: the buffer is full ({} MiB): the next stage takes kept traces too slowly, or \
             memory_limit_mib is too small",
            self.budget.limit() >> 20
        );
        Err(Refusal::retryable(Some(RETRY_DELAY), message))
    }

    /// Takes an `ExportTraceServiceRequest` in, whole or not at all.
    ///
    /// # Errors
    /// A retryable refusal if the buffer is full.
    pub fn insert(&self, message: &[u8], now: Duration) -> Result<(), Refusal> {
        self.room()?;
        REQUEST.with_borrow_mut(|request| {
            request.read(message, &self.settings.rules.plan, &self.settings.hash);
            if request.invalid > 0 {
                self.ledger.dropped(DropReason::InvalidId, request.invalid);
            }
            self.metrics.bad_trace_states(request.bad_trace_states);
            let arrival = Arrival { message, request, now: nanos(now) };
            for &index in &request.touched {
                if let (Some(shard), Some(runs)) = (self.shards.get(index), request.shards.get(index)) {
                    let mut shard = shard.lock();
                    shard.insert(arrival, runs);
                    self.relieve(&mut shard, message.len() / request.touched.len(), arrival.now);
                    self.settle(&mut shard);
                }
            }
            request.shrink(KEEP_RUNS);
        });
        Ok(())
    }

    /// Decides early if memory is short: twice what has just come in.
    fn relieve(&self, shard: &mut Shard, came_in: usize, now: u64) {
        if self.block_at.is_none() && self.budget.is_high() {
            shard.relieve(now, came_in * 2);
        } else {
            shard.tidy();
        }
    }

    /// Decides up to `limit` traces of a shard that are due. True if there may be more.
    pub fn decide(&self, shard: usize, now: Duration, limit: usize) -> bool {
        self.visit(shard, |shard| shard.decide_due(nanos(now), limit)).unwrap_or(false)
    }

    /// Decides up to `limit` of all undecided traces of a shard on what has arrived, or discards
    /// them. True if there may be more.
    pub fn decide_all(&self, shard: usize, now: Duration, limit: usize, discard: bool) -> bool {
        self.visit(shard, |shard| shard.decide_all(nanos(now), limit, discard)).unwrap_or(false)
    }

    /// The next batch of a shard's kept traces.
    #[must_use]
    pub fn take(&self, shard: usize, now: Duration) -> Option<Outgoing> {
        let (kept, charge) = self.visit(shard, |shard| {
            let kept = shard.take_kept(BATCH_BYTES, nanos(now))?;
            let charge = Charge::new(&self.budget, kept.message.capacity());
            Some((kept, charge))
        })??;
        Some(Outgoing {
            batch: Batch::from_wire(Signal::Traces, kept.message.into(), kept.spans),
            spans: kept.spans,
            settled: false,
            metrics: Arc::clone(&self.metrics),
            ledger: self.ledger.clone(),
            _charge: charge,
        })
    }

    /// Does a shard hold enough kept spans for a full batch?
    #[must_use]
    pub fn has_full_batch(&self, shard: usize) -> bool {
        self.shards.get(shard).is_some_and(|shard| shard.lock().kept_bytes() >= BATCH_BYTES as u64)
    }

    /// Gives up everything that is left; it counts as lost in shutdown.
    pub fn abandon(&self) {
        for shard in 0..self.shards.len() {
            self.visit(shard, Shard::abandon);
        }
    }

    /// Bytes of memory that traces take: blocks in use and spare, tables, headers.
    #[must_use]
    pub fn memory(&self) -> usize {
        let spare: usize = self.shards.iter().map(|shard| shard.lock().spare()).sum();
        self.budget.used() + spare
    }

    /// Traces that are not decided.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Notes how long a round of decisions took.
    pub(super) fn decided_in(&self, duration: Duration) {
        self.metrics.timer.observe(duration.as_secs_f64() * 1e3);
        self.metrics.adaptive(&self.settings.rules);
    }

    pub(super) fn count_retry(&self) {
        self.metrics.retries.inc();
    }

    fn visit<T>(&self, shard: usize, act: impl FnOnce(&mut Shard) -> T) -> Option<T> {
        let mut shard = self.shards.get(shard)?.lock();
        let result = act(&mut shard);
        self.settle(&mut shard);
        Some(result)
    }

    /// Books what happened in a shard.
    fn settle(&self, shard: &mut Shard) {
        let footprint = shard.footprint();
        self.budget.change(shard.charged, footprint);
        self.metrics.bytes.add(footprint as i64 - shard.charged as i64);
        shard.charged = footprint;
        let pending = shard.pending();
        self.pending.fetch_add(pending.wrapping_sub(shard.charged_pending), Ordering::Relaxed);
        shard.charged_pending = pending;
        let tally = shard.tally();
        self.metrics.count(tally);
        if tally.held != 0 {
            self.ledger.held(tally.held);
            self.metrics.spans(tally.held);
        }
        if tally.sampled_out > 0 {
            self.ledger.add(Entry::SampledOut, tally.sampled_out);
        }
        if tally.discarded > 0 {
            self.ledger.dropped(DropReason::Shutdown, tally.discarded);
        }
        if tally.no_room > 0 {
            self.ledger.dropped(DropReason::MemoryPressure, tally.no_room);
        }
        tally.clear();
    }
}

fn watch(rules: &RuleSet, metrics: &Arc<Metrics>) -> Result<Option<Watcher>, ConfigError> {
    if rules.lists.is_empty() {
        return Ok(None);
    }
    let metrics = Arc::clone(metrics);
    let watcher = Watcher::new(rules.lists.clone(), move |read| metrics.list_read(read));
    watcher.map(Some).map_err(|error| ConfigError(format!("no thread to watch values_file: {error}")))
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn prev_power_of_two(number: usize) -> usize {
    if number == 0 { 0 } else { 1 << number.ilog2() }
}
