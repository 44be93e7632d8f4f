//! The configuration, as it is written in YAML.
//!
//! `policies` and every top-level key of the Collector are read as the Collector reads them, except
//! that what it ignores or panics on is an error here. `rules`, `decision_wait_after_last_span`,
//! `span_limit`, `late_errors`, `zero_trace_ids`, `memory_limit_mib`, `memory_limit_percentage`, `compression`,
//! `compression_delay`, `stress`, `record` and `hash_salt` are ours.

mod ottl;
mod policies;
mod rules;
mod stress;

use nyquist_core::config::{Check, Duration, Validate};
use serde::Deserialize;

pub use ottl::{ErrorMode, OttlConditionConfig};
pub use policies::{
    AndConfig, BooleanAttributeConfig, BytesLimitingConfig, CompositeConfig, DropConfig, LatencyPolicyConfig,
    NotConfig, NumericAttributeConfig, PolicyConfig, ProbabilisticConfig, RateAllocationConfig, RateLimitingConfig,
    SpanCountPolicyConfig, StatusCodeConfig, StringAttributeConfig, TraceStateConfig,
};
pub use rules::{
    AdaptiveConfig, AttributeCondition, AttributePlace, BudgetConfig, ConditionConfig, LatencyCondition, LatencyOf,
    Match, NameCondition, RuleConfig, ScalarValue, SpanCountCondition, StatusCondition,
};

pub use stress::StressConfig;

use super::budget;
use super::buffer::{DecisionLog, cache_bytes};
use super::rules::compile;

/// The `tail_sampling` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct TailSamplingConfig {
    /// The Collector's policies: every policy votes, any vote to sample keeps the trace.
    pub policies: Vec<PolicyConfig>,
    /// Ordered rules: the first that matches decides, with its own percentage.
    pub rules: Vec<RuleConfig>,
    /// How long after its first span a trace is decided (30s).
    pub decision_wait: Duration,
    /// How long after its root span a trace is decided, if that is earlier (0: no such trigger).
    pub decision_wait_after_root_received: Duration,
    /// How long after its last span a trace is decided, if that is earlier (0: no such trigger).
    pub decision_wait_after_last_span: Duration,
    /// A trace of so many spans is decided at once (0: no limit).
    pub span_limit: u32,
    /// What a late span with an error does to a trace that was decided against.
    pub late_errors: LateErrors,
    /// What becomes of spans whose trace id is all zeros.
    pub zero_trace_ids: ZeroTraceIds,
    /// At most so many undecided traces; beyond, the oldest are decided early. Unset or 0: only
    /// the byte budget counts.
    pub num_traces: Option<u64>,
    /// Makes senders wait when the buffer is full, instead of deciding early (false).
    pub block_on_overflow: bool,
    /// A hint for the initial size of tables (0).
    pub expected_new_traces_per_sec: u64,
    /// How many past decisions are remembered for late spans.
    pub decision_cache: DecisionCacheConfig,
    /// How many past decisions `nyquist explain` can tell of.
    pub decision_log: DecisionLogConfig,
    /// Stop asking policies after the first vote to sample (false).
    pub sample_on_first_match: bool,
    /// Discard undecided traces on shutdown, instead of deciding them on what has arrived (false).
    pub drop_pending_traces_on_shutdown: bool,
    /// A trace that grows beyond so many bytes is decided at once (0: no limit). Unset: no limit for
    /// `policies`, as in the Collector; a sixteenth of the byte budget for `rules`.
    pub maximum_trace_size_bytes: Option<u64>,
    /// How many shards; 0 means the next power of two that is at least four times the number of cores; two if there is one.
    pub num_shards: u32,
    /// `trace-complete` (default), or `span-ingest` with policies: each batch of a trace is looked at
    /// alone as it comes, and what keeps or drops the trace is final.
    pub sampling_strategy: String,
    /// The storage extension of a buffer that survives the process (unset: the buffer is in memory only).
    pub storage: Option<String>,
    /// What to do with requests while the storage is full.
    pub storage_full: StorageFull,
    /// Not available.
    pub tail_storage: Option<String>,
    /// What blocks of the buffer are compressed with, when they are full (`none`).
    pub compression: Compression,
    /// How long a full block is not compressed yet (1s).
    pub compression_delay: Option<Duration>,
    /// The byte budget of the buffer in MiB (0: see `memory_limit_percentage`).
    pub memory_limit_mib: u64,
    /// The byte budget as a part of the memory that the process may use: that of its control group, or
    /// of the machine (0: 25).
    pub memory_limit_percentage: u32,
    /// What to do when the buffer stays nearly full (unset: nothing beyond early decisions and, at the
    /// limit, refusals).
    pub stress: Option<StressConfig>,
    /// Which spans of a kept trace say why it was kept.
    pub record: Record,
    /// Keep everything, and record what would have been decided (false).
    pub dry_run: bool,
    /// `rules`: read and write the `ot` entry of `tracestate` (true).
    pub tracestate: Option<bool>,
    /// `policies`: read and write the `ot` entry of `tracestate` (false).
    pub use_tracestate: bool,
    /// `policies`: the Collector's behaviour also where we differ on purpose.
    pub compat: Option<Compat>,
    /// Set: rules take their randomness from a hash of this salt and the trace id, for ids that
    /// are not random.
    pub hash_salt: String,
}

impl Default for TailSamplingConfig {
    fn default() -> Self {
        Self {
            policies: Vec::new(),
            rules: Vec::new(),
            decision_wait: Duration::from_secs(30),
            decision_wait_after_root_received: Duration::default(),
            decision_wait_after_last_span: Duration::default(),
            span_limit: 0,
            late_errors: LateErrors::Follow,
            zero_trace_ids: ZeroTraceIds::Group,
            num_traces: None,
            block_on_overflow: false,
            expected_new_traces_per_sec: 0,
            decision_cache: DecisionCacheConfig::default(),
            decision_log: DecisionLogConfig::default(),
            sample_on_first_match: false,
            drop_pending_traces_on_shutdown: false,
            maximum_trace_size_bytes: None,
            num_shards: 0,
            sampling_strategy: TRACE_COMPLETE.to_owned(),
            storage: None,
            storage_full: StorageFull::Refuse,
            tail_storage: None,
            compression: Compression::None,
            compression_delay: None,
            memory_limit_mib: 0,
            memory_limit_percentage: 0,
            stress: None,
            record: Record::Root,
            dry_run: false,
            tracestate: None,
            use_tracestate: false,
            compat: None,
            hash_salt: String::new(),
        }
    }
}

/// What a late span with an error does to a trace that was decided against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LateErrors {
    /// Nothing: it follows the decision.
    #[default]
    Follow,
    /// The trace is kept from then on, and marked as incomplete.
    Keep,
}

/// What becomes of spans whose trace id is all zeros, which is no valid id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZeroTraceIds {
    /// All of them are one trace, as in the Collector.
    #[default]
    Group,
    /// They are dropped, and counted as those with an id of another length.
    Reject,
}

/// What blocks of the buffer are compressed with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Nothing: spans stay as they came.
    #[default]
    None,
    /// LZ4.
    Lz4,
    /// Zstandard, level 1.
    Zstd,
}

impl Compression {
    /// Are blocks left as they are?
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::None
    }
}

/// What to do with requests while the storage is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageFull {
    /// Refuse them: the sender tries again.
    #[default]
    Refuse,
    /// Take them into memory only: a crash would lose them.
    Memory,
}

/// How many past decisions are remembered. Unset: the defaults, or fewer, so that both caches together
/// do not take more than a sixteenth of the byte budget; 0: none.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct DecisionCacheConfig {
    /// Ids of kept traces (65,536).
    pub sampled_cache_size: Option<u64>,
    /// Ids of traces that were not kept (524,288).
    pub non_sampled_cache_size: Option<u64>,
}

impl DecisionCacheConfig {
    const SAMPLED: u64 = 1 << 16;
    const NON_SAMPLED: u64 = 1 << 19;

    /// How many kept and how many other ids are remembered, with a byte budget of `limit`.
    pub(super) fn sizes(&self, limit: u64) -> (u64, u64) {
        let part = (limit / 16) as f64 / cache_bytes(Self::SAMPLED + Self::NON_SAMPLED) as f64;
        let default = |size: u64| (size as f64 * part.min(1.0)) as u64;
        (
            self.sampled_cache_size.unwrap_or(default(Self::SAMPLED)),
            self.non_sampled_cache_size.unwrap_or(default(Self::NON_SAMPLED)),
        )
    }
}

/// How many past decisions can be asked for.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct DecisionLogConfig {
    /// Unset: 16,384, or as many as fit into a sixteenth of the memory limit; 0: none.
    pub size: Option<u64>,
}

/// Which spans of a kept trace carry the attributes that say why it was kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// The root span; the first span where the root has not arrived.
    #[default]
    Root,
    /// Every span.
    All,
    /// None.
    None,
}

/// Whose behaviour is reproduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compat {
    /// The OpenTelemetry Collector's (contrib v0.165).
    Otelcol,
}

const TRACE_COMPLETE: &str = "trace-complete";
/// Policies are asked about each batch alone.
pub(super) const SPAN_INGEST: &str = "span-ingest";
const MAX_SHARDS: u32 = 256;
/// The part of the budget that past decisions may take: half of it.
const MAX_CACHE_PART: u64 = 2;
/// What one shard needs in order to work: some blocks for requests, some for handing on.
const MIN_SHARD: u64 = 1 << 20;
const MAX_MEMORY_PERCENTAGE: u32 = 90;
/// How long a block that is full is not compressed, unless `compression_delay` says otherwise: by then most traces are
/// complete, and what is decided early is gone.
const COMPRESSION_DELAY: Duration = Duration::from_secs(1);
/// Timers count milliseconds in 32 bits.
const MAX_WAIT: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);
pub(super) const MAX_LOG: u64 = 1 << 20;
/// The log of decisions takes at most this part of the byte budget.
pub(super) const LOG_SHARE: u64 = 4;
/// Below this a shard would have no room for a handful of requests.
pub(super) const MIN_MEMORY_MIB: u64 = 4;
/// What the addresses of one shard can span, with some room for requests in flight.
pub(super) const MAX_MEMORY_MIB: u64 = 30 << 10;

impl Validate for TailSamplingConfig {
    fn validate(&self, check: &mut Check<'_>) {
        for problem in self.problems() {
            let path: Vec<&str> = problem.path.iter().map(String::as_str).collect();
            check.error(&path, problem.message);
        }
        if self.policies.is_empty() && self.rules.is_empty() {
            check.warning(&["rules"], "there are neither rules nor policies: no trace will be kept");
        }
        for (key, wait) in [
            ("decision_wait_after_root_received", self.decision_wait_after_root_received.0),
            ("decision_wait_after_last_span", self.decision_wait_after_last_span.0),
        ] {
            if !wait.is_zero() && wait >= self.decision_wait.0 {
                let message = format!(
                    "has no effect: decision_wait is over after {:?}, whatever comes; set a shorter time, or remove this key",
                    self.decision_wait.0
                );
                check.warning(&[key], message);
            }
        }
        if self.stress.is_some() && self.dry_run {
            check.warning(&["stress"], "has no effect with dry_run, which drops nothing");
        }
        let delay = self.compression_delay().0;
        if !self.compression.is_none() && delay >= self.decision_wait.0 {
            let place = if self.compression_delay.is_some() { "compression_delay" } else { "compression" };
            let message = format!(
                "blocks are compressed when they have been full for {delay:?}, but traces are decided after {:?} \
                 (decision_wait): there will be nothing left to compress; set a shorter compression_delay, or compression: none",
                self.decision_wait.0
            );
            check.warning(&[place], message);
        }
    }
}

impl TailSamplingConfig {
    /// For how long full blocks are not compressed.
    pub(super) fn compression_delay(&self) -> Duration {
        self.compression_delay.unwrap_or(COMPRESSION_DELAY)
    }

    /// Everything that is wrong with it.
    pub(super) fn problems(&self) -> Vec<compile::Problem> {
        let mut problems = compile::Problems::default();
        match self.sampling_strategy.as_str() {
            TRACE_COMPLETE | "" => {}
            SPAN_INGEST if self.rules.is_empty() => {}
            SPAN_INGEST => problems.add(
                &["sampling_strategy"],
                "span-ingest belongs to policies; for rules the nearest is a short decision_wait_after_root_received",
            ),
            other => problems.add(
                &["sampling_strategy"],
                format!("unknown strategy {other:?}: write {TRACE_COMPLETE} or {SPAN_INGEST}"),
            ),
        }
        if self.tail_storage.is_some() {
            problems.add(
                &["tail_storage"],
                "not available; the nearest is `storage:`, which makes the buffer durable, and memory_limit_mib, which \
                 bounds it",
            );
        }
        if self.compression_delay.is_some() && self.compression.is_none() {
            problems.add(
                &["compression_delay"],
                "has no meaning without compression: set compression to lz4 or zstd, or remove this key",
            );
        }
        if self.storage.is_none() && self.storage_full != StorageFull::Refuse {
            problems.add(&["storage_full"], "has no meaning without storage: set storage, or remove this key");
        }
        if self.storage.is_some() && self.sampling_strategy == SPAN_INGEST {
            problems.add(
                &["storage"],
                "span-ingest cannot be restored from a storage: use trace-complete, or remove this key",
            );
        }
        if self.storage.is_some() && self.drop_pending_traces_on_shutdown {
            problems.add(
                &["drop_pending_traces_on_shutdown"],
                "with storage, undecided traces are neither dropped nor decided early on shutdown, they wait for the next \
                 start: remove this key",
            );
        }
        if self.num_shards > MAX_SHARDS {
            problems.add(&["num_shards"], format!("{} is too many: at most {MAX_SHARDS}", self.num_shards));
        }
        if self.memory_limit_mib != 0 && self.memory_limit_mib < MIN_MEMORY_MIB {
            problems.add(&["memory_limit_mib"], format!("too small: at least {MIN_MEMORY_MIB}, or 0 for the default"));
        }
        if self.memory_limit_mib > MAX_MEMORY_MIB {
            problems.add(&["memory_limit_mib"], format!("too large: at most {MAX_MEMORY_MIB} for one processor"));
        }
        if self.memory_limit_percentage > MAX_MEMORY_PERCENTAGE {
            let message = format!("{} is too large: at most {MAX_MEMORY_PERCENTAGE}", self.memory_limit_percentage);
            problems.add(&["memory_limit_percentage"], message);
        }
        if self.memory_limit_mib > 0 && self.memory_limit_percentage > 0 {
            problems.add(
                &["memory_limit_percentage"],
                "memory_limit_mib and memory_limit_percentage exclude each other: keep one of the two",
            );
        }
        let shards = u64::from(self.num_shards);
        if budget::limit(self) / MIN_SHARD < shards {
            let message = format!(
                "{shards} shards of at least 1 MiB do not fit into a byte budget of {} MiB: choose fewer, or a larger \
                 memory_limit_mib",
                budget::limit(self) >> 20
            );
            problems.add(&["num_shards"], message);
        }
        if self.decision_wait.0 > MAX_WAIT {
            problems.add(&["decision_wait"], "too long: at most 168h");
        }
        let (sampled, non_sampled) = self.decision_cache.sizes(budget::limit(self));
        let caches = cache_bytes(sampled).saturating_add(cache_bytes(non_sampled));
        if caches > budget::limit(self) / MAX_CACHE_PART {
            let message = format!(
                "these sizes take {} MiB, more than half of the byte budget of {} MiB: choose smaller ones, or a larger \
                 memory_limit_mib",
                caches >> 20,
                budget::limit(self) >> 20
            );
            problems.add(&["decision_cache"], message);
        }
        if self.late_errors == LateErrors::Keep && non_sampled == 0 {
            problems.add(
                &["late_errors"],
                "keep needs the decisions against traces: set decision_cache::non_sampled_cache_size, or remove this key",
            );
        }
        if let Some(stress) = &self.stress {
            stress.check(&mut problems);
        }
        if let Some(size) = self.decision_log.size.filter(|&size| size > MAX_LOG) {
            problems.add(&["decision_log", "size"], format!("{size} is too large: at most {MAX_LOG}"));
        } else if let Some(size) = self.decision_log.size
            && let most = (self.memory_limit_mib << 20) / LOG_SHARE / DecisionLog::BYTES_EACH as u64
            && self.memory_limit_mib != 0
            && size > most
        {
            let message = format!("{size} take more than a quarter of memory_limit_mib: at most {most}");
            problems.add(&["decision_log", "size"], message);
        }
        if !self.policies.is_empty() && !self.rules.is_empty() {
            problems.add(&["rules"], "rules and policies exclude each other: keep one of the two lists");
        }
        if !self.policies.is_empty() && !self.hash_salt.is_empty() {
            problems.add(
                &["hash_salt"],
                "this belongs to rules; a policy of type probabilistic has a hash_salt of its own",
            );
        }
        if !self.rules.is_empty() && self.use_tracestate {
            problems.add(&["use_tracestate"], "this belongs to policies; for rules the key is `tracestate`");
        }
        if !self.policies.is_empty() && self.tracestate.is_some() {
            problems.add(&["tracestate"], "this belongs to rules; for policies the key is `use_tracestate`");
        }
        if !self.rules.is_empty() && self.compat.is_some() {
            problems.add(&["compat"], "this belongs to policies; rules have no counterpart in the Collector");
        }
        if !self.rules.is_empty() && self.sample_on_first_match {
            problems
                .add(&["sample_on_first_match"], "this belongs to policies; the first matching rule always decides");
        }
        compile::compile(self, &mut problems);
        problems.list
    }
}
