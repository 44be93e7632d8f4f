//! A configuration as numbers: how many shards there are, how large their blocks, and what limits they
//! go by.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use super::budget;
use super::buffer::{DecisionLog, Settings};
use super::config::{Compat, LOG_SHARE, TailSamplingConfig};
use super::request::IdHash;
use super::rules::RuleSet;
use super::rules::random::{Randomness, rejection_threshold};

/// About the bytes of kept spans that leave in one batch.
const MAX_BATCH: usize = 1 << 20;
const MIN_BATCH: usize = 16 << 10;
/// Batches per shard that the budget should be good for, at least.
const BATCHES_PER_SHARD: usize = 64;
/// Blocks are smaller: of each shard's, one is being filled, one is read to its end, and some are spare.
const BLOCKS_PER_BATCH: usize = 4;
/// Several runs fit into a block.
const MIN_BLOCK: usize = 64 << 10;
/// Blocks of a shard at most, by far fewer than have an address.
const MAX_BLOCKS: usize = 1 << 13;
/// Batches per shard that requests never get memory for: four for a batch on its way (which may end with a
/// record and two headers of the same size each), and four for its spans with attributes added (in memory that
/// may have doubled).
const HEADROOM: usize = 8;
/// And blocks: one that is being compacted.
const COMPACTED: usize = 1;
/// And one for what the log on disk needs to know.
const JOURNAL: usize = 1;
/// And, if blocks are compressed, one for what is both in its block and compressed for a moment.
const FROZEN: usize = 1;
/// So many times what the budget says is in blocks that are compressed, as far as the number of blocks goes.
const COMPRESSED: usize = 4;
/// Few enough that kept traces leave in batches worth sending, and so many that those who want one seldom find
/// another there. (Alone, a core only finds itself.)
const SHARDS_PER_CORE: usize = 4;
const SHARDS_OF_ONE_CORE: usize = 2;
/// A shard has at least so much of the budget, unless `num_shards` says otherwise.
const MIN_SHARD: usize = 4 << 20;
/// With `rules`, a trace that takes more than this part of the budget is decided, unless
/// `maximum_trace_size_bytes` says otherwise.
const MAX_TRACE_PART: usize = 16;
/// Under pressure, a trace that takes more than this part of a shard's share goes first.
const GIANT_PART: usize = 64;
const MIN_GIANT: usize = 64 << 10;
/// Past decisions that can be asked for, if `decision_log` does not say.
const LOGGED_DECISIONS: usize = 1 << 14;

/// What a sampler is built by.
#[derive(Debug)]
pub(super) struct Setup {
    /// The byte budget.
    pub(super) limit: usize,
    /// The part of it that requests never get.
    pub(super) headroom: usize,
    pub(super) shards: usize,
    block_size: usize,
    batch_size: usize,
    pub(super) num_traces: Option<usize>,
}

impl Setup {
    pub(super) fn of(config: &TailSamplingConfig) -> Self {
        let limit = usize::try_from(budget::limit(config)).unwrap_or(usize::MAX);
        let shards = match config.num_shards {
            0 => {
                let wanted = match available_parallelism().map_or(1, usize::from) {
                    1 => SHARDS_OF_ONE_CORE,
                    cores => cores * SHARDS_PER_CORE,
                };
                wanted.next_power_of_two().min(256).min(prev_power_of_two(limit / MIN_SHARD)).max(1)
            }
            shards => shards as usize,
        };
        let batch_size = prev_power_of_two(limit / (shards * BATCHES_PER_SHARD)).clamp(MIN_BATCH, MAX_BATCH);
        let is_compressed = !config.compression.is_none();
        let most = if is_compressed { limit.saturating_mul(COMPRESSED) } else { limit };
        let least = (most / (shards * MAX_BLOCKS)).next_power_of_two();
        let block_size = (batch_size / BLOCKS_PER_BATCH).max(MIN_BLOCK).max(least).min(batch_size);
        let extra = |needed: bool, blocks: usize| if needed { blocks } else { 0 };
        let blocks = COMPACTED + extra(config.storage.is_some(), JOURNAL) + extra(is_compressed, FROZEN);
        let num_traces = config.num_traces.filter(|&traces| traces > 0);
        Self {
            limit,
            headroom: shards * (HEADROOM * batch_size + blocks * block_size),
            shards,
            block_size,
            batch_size,
            num_traces: num_traces.map(|traces| usize::try_from(traces).unwrap_or(usize::MAX)),
        }
    }

    /// What each shard goes by.
    pub(super) fn settings(&self, config: &TailSamplingConfig, rules: Arc<RuleSet>) -> Settings {
        let &Self { limit, shards, block_size, batch_size, num_traces, .. } = self;
        let per_shard = |total: u64| usize::try_from(total).unwrap_or(usize::MAX).div_ceil(shards);
        let expected = (config.expected_new_traces_per_sec as f64 * config.decision_wait.0.as_secs_f64()) as usize;
        let (sampled_cache, non_sampled_cache) = config.decision_cache.sizes(limit as u64);
        // A timer that rings when the trace is decided anyway is none.
        let timer = |wait: Duration| {
            if wait < config.decision_wait.0 { millis(wait) } else { 0 }
        };
        let automatic = if rules.ordered { (limit / MAX_TRACE_PART) as u64 } else { 0 };
        let max_trace_bytes = config.maximum_trace_size_bytes.unwrap_or(automatic);
        let max_trace_bytes = u32::try_from(max_trace_bytes).unwrap_or(u32::MAX);
        let stress = config.stress.unwrap_or_default();
        Settings {
            hash: IdHash::new(shards),
            wait: millis(match config.compat {
                Some(Compat::Otelcol) => whole_seconds(config.decision_wait.0).max(Duration::from_secs(1)),
                None => config.decision_wait.0,
            }),
            wait_after_root: timer(match config.compat {
                Some(Compat::Otelcol) => whole_seconds(config.decision_wait_after_root_received.0),
                None => config.decision_wait_after_root_received.0,
            }),
            wait_after_last: timer(config.decision_wait_after_last_span.0),
            max_trace_bytes: or_none(max_trace_bytes, u32::MAX),
            max_trace_spans: or_none(config.span_limit, u32::MAX),
            max_traces: match num_traces {
                Some(traces) if !config.block_on_overflow => traces.div_ceil(shards),
                _ => usize::MAX,
            },
            giant: (limit / shards / GIANT_PART).max(MIN_GIANT) as u32,
            stress_threshold: rejection_threshold(stress.sampling_percentage),
            stress_percentage: stress.sampling_percentage,
            randomness: Randomness::new(&config.hash_salt),
            record: config.record,
            block_size,
            compression: config.compression,
            compression_delay: millis(config.compression_delay().0),
            batch_size,
            sampled_cache: per_shard(sampled_cache),
            non_sampled_cache: per_shard(non_sampled_cache),
            decision_log: match config.decision_log.size {
                Some(size) => per_shard(size).min(limit / LOG_SHARE as usize / DecisionLog::BYTES_EACH / shards),
                None => LOGGED_DECISIONS.min(limit / 16 / DecisionLog::BYTES_EACH) / shards,
            },
            // A hint may not cost more than a sixteenth of the budget.
            expected_traces: expected.min(limit / 16 / 16) / shards,
            rules,
        }
    }
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

/// `none` for 0.
fn or_none<T: Default + PartialEq>(limit: T, none: T) -> T {
    if limit == T::default() { none } else { limit }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn prev_power_of_two(number: usize) -> usize {
    if number == 0 { 0 } else { 1 << number.ilog2() }
}
