//! What all shards go by.

use std::sync::Arc;

use crate::tail_sampling::config::{Compression, Record};
use crate::tail_sampling::request::IdHash;
use crate::tail_sampling::rules::RuleSet;
use crate::tail_sampling::rules::random::Randomness;

/// What all shards go by.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) rules: Arc<RuleSet>,
    pub(crate) hash: IdHash,
    /// From the first span to the decision, in milliseconds.
    pub(crate) wait: u32,
    /// From the root span, in milliseconds; 0: a root span triggers nothing.
    pub(crate) wait_after_root: u32,
    /// From the last span, in milliseconds; 0: silence triggers nothing.
    pub(crate) wait_after_last: u32,
    /// A trace of more bytes is decided. (`u32::MAX`: none can have more.)
    pub(crate) max_trace_bytes: u32,
    /// `u32::MAX`: no limit.
    pub(crate) max_trace_spans: u32,
    /// Undecided traces per shard; `usize::MAX` for no limit.
    pub(crate) max_traces: usize,
    /// Under pressure a trace of so many bytes is decided before older ones.
    pub(crate) giant: u32,
    /// Under stress the traces whose randomness is at least this are kept.
    pub(crate) stress_threshold: u64,
    /// In percent.
    pub(crate) stress_percentage: f64,
    pub(crate) randomness: Randomness,
    pub(crate) record: Record,
    pub(crate) block_size: usize,
    /// What full blocks are compressed with, and for how many milliseconds they are not yet.
    pub(crate) compression: Compression,
    pub(crate) compression_delay: u32,
    /// About the bytes of kept spans that leave in one batch.
    pub(crate) batch_size: usize,
    /// Ids per shard.
    pub(crate) sampled_cache: usize,
    pub(crate) non_sampled_cache: usize,
    /// Past decisions per shard that can be asked for.
    pub(crate) decision_log: usize,
    /// Traces per shard that tables have room for from the start.
    pub(crate) expected_traces: usize,
}
