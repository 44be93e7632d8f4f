//! One shard: taking spans in.

use std::hint::black_box;
use std::sync::Arc;

use super::anew::Cut;
use super::assemble::Assembly;
use super::cache::{DecisionCache, Past};
use super::decisions::DecisionLog;
use super::extras::TraceExtras;
use super::fifo::Fifo;
use super::frozen::Frozen;
use super::headers::{self, Headers};
use super::index::Index;
use super::ingest::Batches;
use super::journal::{Journal, Outcome};
use super::log::{FrozenBlocks, Log};
use super::record::{Addr, Contents, UNIT};
use super::settings::Settings;
use super::slab::Slab;
use super::timers::{Handle, Ladder, Millis, Timer};
use super::trace::{LATE_ERROR, Marks, NO_REASON, STRESS, State, Trace, Why};
use crate::tail_sampling::budget::Budget;
use crate::tail_sampling::request::{NO_PARENT, Request, Run};
use crate::tail_sampling::rules::extra::NO_EXTRA;
use crate::tail_sampling::rules::verdict::{Decision, Verdict};
use crate::tail_sampling::tally::{Tally, Trigger};

/// Headers of a request whose places are kept allocated from request to request.
const KEEP_HEADERS: usize = 4096;

/// A request on its way into a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) message: &'a [u8],
    pub(crate) request: &'a Request,
    /// In nanoseconds of the sampler's clock.
    pub(crate) now: u64,
    /// New traces are to be decided by their id alone.
    pub(crate) stress: bool,
    /// It was taken in before, by a process that is gone.
    pub(crate) restored: bool,
    /// The number of its record on disk; 0 if it has none.
    pub(crate) sequence: u64,
}

/// The state of one shard; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(super) settings: Settings,
    pub(super) log: Log,
    pub(super) index: Index,
    pub(super) traces: Slab<Trace>,
    pub(super) headers: Headers,
    pub(super) extras: TraceExtras,
    /// All undecided traces in the order of arrival, among some that have been decided since.
    pub(super) waiting: Fifo<Handle>,
    /// Traces whose root has come, in that order.
    pub(super) rooted: Fifo<Timer>,
    /// Traces to look at for silence.
    pub(super) silent: Ladder,
    /// Traces that have grown to [`Settings::giant`], to twice that, and so on.
    pub(super) giants: Vec<Fifo<Handle>>,
    /// Kept traces that wait to be handed on.
    pub(super) kept: Fifo<u32>,
    /// Bytes that they take in the log.
    pub(super) kept_bytes: u64,
    pub(super) kept_count: usize,
    pub(super) vain: super::pressure::Vain,
    pub(super) sampled: DecisionCache,
    pub(super) not_sampled: DecisionCache,
    pub(crate) decisions: DecisionLog,
    /// Bytes in the log that belong to traces in the buffer.
    pub(super) live_bytes: u64,
    /// Lent by who visits the shard.
    pub(super) tally: Box<Tally>,
    pub(super) assembly: Assembly,
    pub(super) scratch: super::decide::Scratch,
    pub(super) batches: Batches,
    /// What the log on disk needs to know, if there is one.
    pub(super) journal: Option<Box<Journal>>,
    /// Parts what is on disk from what comes.
    pub(super) cut: Cut,
    /// The number of the next trace.
    generation: u32,
    header_ids: Vec<u32>,
    /// What was done since the shard was locked, beside taking in: see `decide`.
    pub(super) work: u64,
    pub(super) budget: Arc<Budget>,
    /// What is charged to the budget until the shard is settled, beside `charged`.
    pub(crate) claimed: usize,
    /// What was counted so far.
    pub(super) counted_frozen: FrozenBlocks,
    /// What was charged to the budget so far.
    pub(crate) charged: usize,
    /// How many undecided traces were counted so far.
    pub(crate) charged_pending: usize,
}

impl Shard {
    pub(crate) fn new(settings: Settings, budget: &Arc<Budget>) -> Self {
        Self {
            log: Log::new(settings.block_size, settings.compression, settings.compression_delay),
            index: Index::with_capacity(settings.expected_traces),
            traces: Slab::default(),
            headers: Headers::default(),
            extras: TraceExtras::default(),
            waiting: Fifo::default(),
            rooted: Fifo::default(),
            silent: Ladder::new(settings.wait_after_last),
            giants: Vec::new(),
            kept: Fifo::default(),
            kept_bytes: 0,
            kept_count: 0,
            vain: super::pressure::Vain::default(),
            sampled: DecisionCache::new(settings.sampled_cache),
            not_sampled: DecisionCache::new(settings.non_sampled_cache),
            decisions: DecisionLog::new(settings.decision_log),
            live_bytes: 0,
            tally: Box::default(),
            assembly: Assembly::new(settings.record, settings.stress_percentage),
            scratch: super::decide::Scratch::default(),
            batches: Batches::default(),
            journal: None,
            cut: Cut::NONE,
            generation: 0,
            header_ids: Vec::new(),
            work: 0,
            budget: Arc::clone(budget),
            claimed: 0,
            counted_frozen: FrozenBlocks::default(),
            charged: 0,
            charged_pending: 0,
            settings,
        }
    }

    /// Bytes of memory: of blocks, tables, timers, headers and past decisions.
    pub(crate) fn footprint(&self) -> usize {
        self.log.charged()
            + self.headers.bytes()
            + self.tables()
            + self.sampled.bytes()
            + self.not_sampled.bytes()
            + self.assembly.bytes()
            + self.scratch.bytes()
            + self.header_ids.capacity() * size_of::<u32>()
            + self.batches.bytes()
            + self.decisions.bytes()
            + self.journal.as_ref().map_or(0, |journal| journal.bytes())
    }

    /// Bytes of what traces take beside their records: slots, index and timers.
    pub(crate) fn tables(&self) -> usize {
        self.traces.bytes()
            + self.extras.bytes()
            + self.index.bytes()
            + self.waiting.bytes()
            + self.rooted.bytes()
            + self.silent.bytes()
            + self.giants.iter().map(Fifo::bytes).sum::<usize>()
            + self.kept.bytes()
    }

    /// By how much the footprints of all shards that `request` touches can grow, at most.
    pub(crate) fn growth(settings: &Settings, request: &Request, bytes: usize) -> usize {
        let (shards, runs) = (request.touched.len(), request.runs());
        // What any one shard may need although little comes in.
        let each = Slab::<Trace>::growth(0)
            + Index::growth(0)
            + 4 * Fifo::<Timer>::growth(0)
            + Fifo::<Handle>::growth(0)
            + Log::growth(settings.block_size, 0, 0)
            + Headers::growth(0, 0);
        // Each trace gets one where rules try: not when they are decided, for which nothing is set aside.
        let extras = if settings.rules.tries { runs } else { request.extras.len() };
        // A shard knows a header only if one of its runs is below it.
        let headers = (request.headers() * shards).min(request.levels() * runs);
        let header_bytes = (request.header_bytes() * shards).min(headers * request.widest_header());
        shards * (each + request.headers() * size_of::<u32>())
            + Slab::<Trace>::growth(runs)
            + TraceExtras::growth(shards, extras, request.extras.nodes())
            + Index::growth(runs)
            + 4 * Fifo::<Timer>::growth(runs)
            + Fifo::<Handle>::growth(runs)
            + Log::growth(settings.block_size, runs, bytes)
            + if settings.compression.is_none() { 0 } else { runs * Frozen::PATCH }
            + if settings.rules.span_ingest { Batches::growth(shards, runs) } else { 0 }
            + Headers::growth(headers, header_bytes)
    }

    /// Gives memory back that could be used again; how many bytes.
    pub(crate) fn limit_spares(&mut self) -> usize {
        let freed = self.log.limit_spares();
        self.work += (freed / self.settings.block_size) as u64 * super::work::BLOCK;
        freed
    }

    /// Bytes of kept traces that wait to be handed on.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// How many traces are undecided.
    pub(crate) fn pending(&self) -> usize {
        self.traces.used() - self.kept_count
    }

    /// The trace `id`, if it is not decided yet.
    pub(crate) fn undecided(&self, id: &[u8; 16], tag: u32) -> Option<&Trace> {
        let slot = self.index.find(tag, |slot| self.traces.get(slot).is_some_and(|trace| trace.id == *id))?;
        self.traces.get(slot).filter(|trace| trace.state == State::Pending)
    }

    /// What is remembered for late spans of the trace `id`: whether they are kept, and why.
    pub(crate) fn cached(&self, id: &[u8; 16], tag: u32) -> Option<(bool, Why)> {
        let sampled = self.sampled.get(tag, id).map(|past| (true, past.why));
        sampled.or_else(|| Some((false, self.not_sampled.get(tag, id)?.why)))
    }

    /// Is this reason a late span that was an error?
    pub(crate) fn is_late_error(reason: u16) -> bool {
        reason == LATE_ERROR
    }

    /// Entries of the index that were moved since the last call.
    #[cfg(test)]
    pub(crate) fn moved(&mut self) -> u64 {
        self.index.take_moved()
    }

    /// Counts in `tally` from now on; what it has counted in so far is in `tally` then.
    pub(crate) fn swap_tally(&mut self, tally: &mut Box<Tally>) {
        std::mem::swap(&mut self.tally, tally);
    }

    /// Takes the runs of a request in.
    pub(crate) fn insert(&mut self, arrival: Arrival<'_>, runs: &[Run]) {
        self.header_ids.clear();
        self.header_ids.resize(arrival.request.headers(), headers::NONE);
        self.see(arrival.now);
        // Look-ups of one trace do not wait for the cache misses of another: what they read first is on its way.
        for run in runs {
            black_box(self.index.find(run.tag, |_| true));
            self.sampled.touch(run.tag);
            self.not_sampled.touch(run.tag);
        }
        for run in runs {
            if let Some(slot) = self.slot(run, arrival) {
                if self.settings.rules.span_ingest {
                    self.begin_batch(slot);
                }
                self.add(slot, run, arrival);
            } else {
                self.tally.sampled_out += usize::from(run.contents.spans);
            }
        }
        if self.settings.rules.span_ingest {
            self.decide_batches(arrival.now);
        }
        if self.header_ids.capacity() > KEEP_HEADERS {
            self.header_ids.clear();
            self.header_ids.shrink_to(KEEP_HEADERS);
        }
        while self.pending() > self.settings.max_traces {
            if !self.decide_oldest(Trigger::Count, arrival.now) {
                break;
            }
        }
    }

    /// The slot that `run` goes into; `None` if its trace was decided against.
    fn slot(&mut self, run: &Run, arrival: Arrival<'_>) -> Option<u32> {
        let traces = &self.traces;
        let found = self.index.find(run.tag, |slot| traces.get(slot).is_some_and(|trace| trace.id == run.id));
        if let Some(slot) = found {
            let is_kept = self.traces.get(slot).is_some_and(|trace| trace.state == State::Kept);
            self.tally.late_sampled += u64::from(run.contents.spans) * u64::from(is_kept);
            return Some(slot);
        }
        let now = arrival.now;
        if let Some(past) = self.sampled.get(run.tag, &run.id) {
            self.sampled.refresh(run.tag, &run.id);
            if arrival.restored {
                let marks = match past.why.reason {
                    LATE_ERROR => Marks::late(),
                    STRESS => Marks::of(Some(Trigger::Stress)),
                    _ => Marks::of(past.why.trigger),
                };
                return Some(self.keep(run, now, past.why.reason, marks));
            }
            self.note(run.id, Outcome::Kept, past.why);
            self.tally.late(past.age(now));
            self.tally.late_sampled += u64::from(run.contents.spans);
            return Some(self.keep(run, now, past.why.reason, Marks::late()));
        }
        if let Some(past) = self.not_sampled.get(run.tag, &run.id) {
            self.tally.late(past.age(now));
            if !self.settings.rules.is_late_error(&run.bits) {
                self.not_sampled.refresh(run.tag, &run.id);
                self.tally.late_not_sampled += u64::from(run.contents.spans);
                self.note(run.id, Outcome::Dropped, past.why);
                return None;
            }
            self.not_sampled.remove(run.tag, &run.id);
            self.tally.late_errors += 1;
            self.note(run.id, Outcome::Kept, Why::LATE_ERROR);
            self.tally.late_sampled += u64::from(run.contents.spans);
            return Some(self.keep(run, now, LATE_ERROR, Marks::late()));
        }
        self.tally.new_traces += 1;
        if arrival.stress {
            return self.decide_by_id(run, arrival);
        }
        let slot = self.new_trace(run, now);
        let trace = self.handle(slot);
        if self.waiting.push(trace) {
            self.purge_timers();
        }
        if !self.silent.is_empty() {
            self.silent.set(Millis::of(now), self.settings.wait_after_last, trace);
        }
        Some(slot)
    }

    /// Looks through some timers, where more than half of them are those of traces that were decided.
    #[cold]
    fn purge_timers(&mut self) {
        /// As each queue grows by one, it gives back half of what is looked through.
        const CHUNKS: usize = 2;
        const FEW: usize = 1024;
        let enough = 2 * self.pending() + FEW;
        let traces = &self.traces;
        let keep = |trace: Handle| is_pending(traces, trace);
        if self.waiting.len() > enough {
            self.waiting.purge(CHUNKS, keep);
        }
        if self.rooted.len() > enough {
            self.rooted.purge(CHUNKS, |timer| keep(timer.trace));
        }
        if self.silent.len() > enough {
            self.silent.purge(CHUNKS, keep);
        }
    }

    fn new_trace(&mut self, run: &Run, now: u64) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        let mut trace = Trace::new(run.id, now, self.generation);
        if self.settings.rules.tries {
            self.extras.at(&mut trace.extra);
        }
        let slot = self.traces.take(trace);
        self.index.insert(run.tag, slot);
        if let Some(journal) = &mut self.journal {
            journal.enter(Millis::of(now));
        }
        self.tally.traces += 1;
        slot
    }

    fn handle(&self, slot: u32) -> Handle {
        Handle { slot, generation: self.traces.get(slot).map_or(0, |trace| trace.generation) }
    }

    /// A slot for spans of a trace that is decided: for those that come after the decision, or for all.
    fn keep(&mut self, run: &Run, now: u64, reason: u16, marks: Marks) -> u32 {
        let slot = self.new_trace(run, now);
        if let Some(trace) = self.traces.get_mut(slot) {
            trace.state = State::Kept;
            trace.reason = reason;
            trace.marks = marks;
        }
        self.kept_count += 1;
        self.kept.push(slot);
        slot
    }

    /// Stress: decides a trace at its first span, by its id.
    #[cold]
    fn decide_by_id(&mut self, run: &Run, arrival: Arrival<'_>) -> Option<u32> {
        let now = arrival.now;
        let given = arrival.request.extras.get(run.extra).given;
        let kept = self.settings.randomness.of(&run.id, given) >= self.settings.stress_threshold;
        let decision = if kept { Decision::Sampled } else { Decision::NotSampled };
        self.count(Trigger::Stress, Verdict { decision, ..Verdict::NONE });
        self.remember_stress(run, given, decision, now);
        let why = Why { reason: if kept { STRESS } else { NO_REASON }, trigger: Some(Trigger::Stress) };
        self.note(run.id, if kept { Outcome::Kept } else { Outcome::Dropped }, why);
        if kept {
            return Some(self.keep(run, now, STRESS, Marks::of(Some(Trigger::Stress))));
        }
        let forgotten = self.not_sampled.insert(run.tag, &run.id, Past::new(why, now));
        self.tally.forgotten[1] += u64::from(forgotten);
        None
    }

    fn add(&mut self, slot: u32, run: &Run, arrival: Arrival<'_>) {
        let scope = self.scope(run.header, arrival.request);
        let bytes = arrival.message.get(run.bytes.clone()).unwrap_or_default();
        let contents = Contents { later: arrival.sequence > self.cut.upto, ..run.contents };
        let Some(addr) = self.log.append(bytes, scope, contents) else {
            self.tally.no_room += usize::from(run.contents.spans);
            // A trace without any record must not stay.
            if self.traces.get(slot).is_some_and(|trace| trace.first == Addr::NONE) {
                self.forget_empty(slot);
            }
            return;
        };
        self.headers.touch(scope, self.log.current());
        let footprint = self.log.footprint(bytes.len()) as u64;
        self.live_bytes += footprint;
        self.tally.held += i64::from(run.contents.spans);
        let Some(trace) = self.traces.get_mut(slot) else {
            return;
        };
        self.settings.rules.plan.fold_in_order(bytes, trace.start, trace.end, &mut trace.bits);
        trace.bits.merge(&run.bits);
        if run.extra != NO_EXTRA {
            self.extras.merge(&mut trace.extra, &arrival.request.extras, run.extra);
        }
        trace.start = trace.start.min(run.start);
        trace.end = trace.end.max(run.end);
        trace.last_seen = trace.arrival.late_by(Millis::of(arrival.now)).unwrap_or_default();
        trace.bytes = trace.bytes.saturating_add(run.size);
        let units = trace.units;
        trace.units = units.saturating_add((footprint / UNIT as u64) as u32);
        trace.spans = trace.spans.saturating_add(u32::from(run.contents.spans));
        let last = std::mem::replace(&mut trace.last, addr);
        let is_first = last == Addr::NONE;
        if is_first {
            trace.first = addr;
        }
        let root_came = run.contents.has_root() && !trace.marks.has_root();
        if run.contents.has_root() {
            trace.marks.root_came();
        }
        let kept = trace.state == State::Kept;
        let too_large = trace.bytes > self.settings.max_trace_bytes || trace.bytes == u32::MAX;
        let too_many = trace.spans >= self.settings.max_trace_spans;
        let handle = Handle { slot, generation: trace.generation };
        let grown = (units, trace.units);
        if is_first {
            self.log.add_first(addr);
        } else {
            self.log.link(last, addr);
        }
        if kept {
            self.kept_bytes += footprint;
            return;
        }
        if grown.1 >= self.settings.giant / UNIT as u32 {
            self.note_giant(handle, grown);
        }
        if too_large {
            self.decide_too_large(slot, arrival.now);
        } else if too_many {
            self.decide_now(slot, Trigger::Spans, arrival.now);
        } else if root_came && self.settings.wait_after_root > 0 {
            let due = Millis::of(arrival.now).after(self.settings.wait_after_root);
            self.rooted.push(Timer { due, trace: handle });
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
        // Where its first record will be is noted when it is there.
        let oldest = self.log.oldest();
        let id = self.headers.intern(bytes, scope.hash, parent, self.log.current().max(oldest), oldest);
        if let Some(known) = self.header_ids.get_mut(header as usize) {
            *known = id;
        }
        id
    }

    /// Takes back a slot that got no record. (A kept one goes when its turn comes.)
    fn forget_empty(&mut self, slot: u32) {
        if self.traces.get(slot).is_some_and(|trace| trace.state == State::Pending) {
            self.remove(slot);
        }
    }
}

/// Is it still the same trace, and not decided?
pub(super) fn is_pending(traces: &Slab<Trace>, handle: Handle) -> bool {
    traces.get(handle.slot).is_some_and(|trace| trace.generation == handle.generation && trace.state == State::Pending)
}
