//! One shard: taking spans in.

use std::sync::Arc;

use super::assemble::Assembly;
use super::cache::DecisionCache;
use super::fifo::Fifo;
use super::headers::{self, Headers};
use super::index::Index;
use super::log::{Addr, Log};
use super::slab::{Slab, State, Trace};
use crate::tail_sampling::config::Record;
use crate::tail_sampling::request::{IdHash, NO_PARENT, Request, Run};
use crate::tail_sampling::rules::RuleSet;
use crate::tail_sampling::rules::extra::{Extras, NO_EXTRA};
use crate::tail_sampling::tally::{Tally, Trigger};

/// What all shards go by. Times are in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) rules: Arc<RuleSet>,
    pub(crate) hash: IdHash,
    pub(crate) wait: u64,
    /// 0: a root span triggers nothing.
    pub(crate) wait_after_root: u64,
    /// 0: no limit.
    pub(crate) max_trace_bytes: u64,
    /// Undecided traces per shard; `usize::MAX` for no limit.
    pub(crate) max_traces: usize,
    pub(crate) record: Record,
    pub(crate) block_size: usize,
    /// Ids per shard.
    pub(crate) sampled_cache: usize,
    pub(crate) non_sampled_cache: usize,
    /// Traces per shard that tables have room for from the start.
    pub(crate) expected_traces: usize,
}

/// A request on its way into a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) message: &'a [u8],
    pub(crate) request: &'a Request,
    pub(crate) now: u64,
}

/// A trace that is to be decided at `due`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timer {
    pub(super) due: u64,
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// The state of one shard; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(super) settings: Settings,
    pub(super) log: Log,
    pub(super) index: Index,
    pub(super) slab: Slab,
    pub(super) headers: Headers,
    pub(super) extras: Extras,
    /// All traces in the order of arrival. Some may have been decided since.
    pub(super) waiting: Fifo<Timer>,
    /// Traces whose root has come, in that order.
    pub(super) rooted: Fifo<Timer>,
    /// Kept traces that wait to be handed on.
    pub(super) kept: Fifo<u32>,
    pub(super) kept_bytes: u64,
    pub(super) kept_count: usize,
    pub(super) sampled: DecisionCache,
    pub(super) not_sampled: DecisionCache,
    /// Bytes in the log that belong to traces in the buffer.
    pub(super) live_bytes: u64,
    pub(super) tally: Tally,
    pub(super) assembly: Assembly,
    pub(super) scratch: super::decide::Scratch,
    pub(super) batches: super::ingest::Batches,
    header_ids: Vec<u32>,
    /// What was charged to the budget so far.
    pub(crate) charged: usize,
    /// How many undecided traces were counted so far.
    pub(crate) charged_pending: usize,
}

impl Shard {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            log: Log::new(settings.block_size),
            index: Index::with_capacity(settings.expected_traces),
            slab: Slab::default(),
            headers: Headers::default(),
            extras: Extras::default(),
            waiting: Fifo::default(),
            rooted: Fifo::default(),
            kept: Fifo::default(),
            kept_bytes: 0,
            kept_count: 0,
            sampled: DecisionCache::new(settings.sampled_cache),
            not_sampled: DecisionCache::new(settings.non_sampled_cache),
            live_bytes: 0,
            tally: Tally::new(settings.rules.names.len()),
            assembly: Assembly::new(settings.record),
            scratch: super::decide::Scratch::default(),
            batches: super::ingest::Batches::default(),
            header_ids: Vec::new(),
            charged: 0,
            charged_pending: 0,
            settings,
        }
    }

    /// Bytes of memory that the shard's contents take.
    pub(crate) fn footprint(&self) -> usize {
        const PER_TRACE: usize = size_of::<Trace>() + Index::BYTES_PER_TRACE;
        let timers = (self.waiting.len() + self.rooted.len()) * size_of::<Timer>();
        self.log.bytes() + self.headers.bytes() + self.extras.bytes() + self.slab.used() * PER_TRACE + timers
    }

    /// Bytes of memory beyond the footprint that are kept for use again.
    pub(crate) fn spare(&self) -> usize {
        self.log.spare_bytes()
    }

    /// Bytes of kept traces that wait to be handed on.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// How many traces are undecided.
    pub(crate) fn pending(&self) -> usize {
        self.slab.used() - self.kept_count
    }

    /// What has been counted since the last call.
    pub(crate) fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// Takes the runs of a request in.
    pub(crate) fn insert(&mut self, arrival: Arrival<'_>, runs: &[Run]) {
        self.header_ids.clear();
        self.header_ids.resize(arrival.request.headers(), headers::NONE);
        for run in runs {
            let Some(slot) = self.slot(run, arrival.now) else {
                self.tally.late_not_sampled += u64::from(run.spans);
                self.tally.sampled_out += run.spans as usize;
                continue;
            };
            if self.settings.rules.span_ingest {
                self.begin_batch(slot);
            }
            self.add(slot, run, arrival);
        }
        if self.settings.rules.span_ingest {
            self.decide_batches(arrival.now);
        }
        while self.pending() > self.settings.max_traces {
            if !self.decide_oldest(Trigger::Count, arrival.now) {
                break;
            }
        }
    }

    /// The slot that `run` goes into; `None` if its trace was decided against.
    fn slot(&mut self, run: &Run, now: u64) -> Option<u32> {
        let slab = &self.slab;
        let found = self.index.find(run.tag, |slot| slab.get(slot).is_some_and(|trace| trace.id == run.id));
        if found.is_some() {
            return found;
        }
        let sampled = self.sampled.get(run.tag, &run.id);
        if sampled.is_none() && self.not_sampled.get(run.tag, &run.id).is_some() {
            return None;
        }
        let slot = self.slab.take(run.id, run.tag, now);
        self.index.insert(run.tag, slot);
        self.tally.traces += 1;
        match sampled {
            Some(reason) => self.keep_late(slot, reason, run.spans),
            None => {
                self.tally.new_traces += 1;
                let generation = self.slab.get(slot).map_or(0, |trace| trace.generation);
                self.waiting.push(Timer { due: now.saturating_add(self.settings.wait), slot, generation });
            }
        }
        Some(slot)
    }

    fn keep_late(&mut self, slot: u32, reason: u16, spans: u32) {
        self.tally.late_sampled += u64::from(spans);
        if let Some(trace) = self.slab.get_mut(slot) {
            trace.state = State::Kept;
            trace.reason = reason;
            trace.late = true;
        }
        self.kept_count += 1;
        self.kept.push(slot);
    }

    fn add(&mut self, slot: u32, run: &Run, arrival: Arrival<'_>) {
        let scope = self.scope(run.header, arrival.request);
        let bytes = arrival.message.get(run.bytes.clone()).unwrap_or_default();
        let Some(addr) = self.log.append(bytes, scope, run.spans, run.root) else {
            self.tally.no_room += run.spans as usize;
            // A trace without any record must not stay.
            if self.slab.get(slot).is_some_and(|trace| trace.first == Addr::NONE) {
                self.forget_empty(slot);
            }
            return;
        };
        self.headers.touch(scope, self.log.current());
        let footprint = Log::footprint(bytes.len()) as u64;
        self.live_bytes += footprint;
        self.tally.held += i64::from(run.spans);
        let Some(trace) = self.slab.get_mut(slot) else {
            return;
        };
        self.settings.rules.plan.fold_in_order(bytes, trace.start, trace.end, &mut trace.bits);
        trace.bits.merge(&run.bits);
        if run.extra != NO_EXTRA
            && let Some(extra) = self.extras.at(&mut trace.extra)
        {
            extra.merge(arrival.request.extras.get(run.extra));
        }
        trace.start = trace.start.min(run.start);
        trace.end = trace.end.max(run.end);
        trace.bytes += bytes.len() as u64;
        trace.footprint += footprint;
        trace.spans = trace.spans.saturating_add(run.spans);
        let last = std::mem::replace(&mut trace.last, addr);
        let is_first = last == Addr::NONE;
        if is_first {
            trace.first = addr;
        }
        let root_came = run.root && !trace.has_root;
        trace.has_root |= run.root;
        let kept = trace.state == State::Kept;
        let too_large = self.settings.max_trace_bytes > 0 && trace.bytes > self.settings.max_trace_bytes;
        let generation = trace.generation;
        if is_first {
            self.log.add_first(addr);
        } else {
            self.log.link(last, addr);
        }
        if kept {
            self.kept_bytes += bytes.len() as u64;
        } else if too_large {
            self.decide_too_large(slot, arrival.now);
        } else if root_came && self.settings.wait_after_root > 0 {
            let due = arrival.now.saturating_add(self.settings.wait_after_root);
            self.rooted.push(Timer { due, slot, generation });
        }
    }

    /// The interned header of a scope of the request.
    fn scope(&mut self, header: u32, request: &Request) -> u32 {
        if let Some(&id) = self.header_ids.get(header as usize)
            && id != headers::NONE
        {
            return id;
        }
        let Some((scope, bytes)) = request.header(header) else {
            return headers::NONE;
        };
        let parent = if scope.parent == NO_PARENT { headers::NONE } else { self.scope(scope.parent, request) };
        // The block after the current one, in case that one is full.
        let block = self.log.current() + 1;
        let id = self.headers.intern(bytes, scope.hash, parent, block, self.log.oldest());
        if let Some(known) = self.header_ids.get_mut(header as usize) {
            *known = id;
        }
        id
    }

    /// Takes back a slot that got no record. (A kept one goes when its turn comes.)
    fn forget_empty(&mut self, slot: u32) {
        if self.slab.get(slot).is_some_and(|trace| trace.state == State::Pending) {
            self.remove(slot);
        }
    }
}
