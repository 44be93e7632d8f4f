//! Reading an export request: runs of spans per shard, folded, before any lock is taken.

use std::hash::BuildHasher;
use std::ops::Range;

use nyquist_core::wire::{Field, Fields, Value};

use super::buffer::{Contents, LATER};
use super::client;
use super::rules::Bits;
use super::rules::extra::{Extras, Given, NO_EXTRA};
use super::rules::marks::Single;
use super::rules::ottl::Surroundings;
use super::rules::plan::{Plan, SpanFold};
use super::sizes::Sizes;

/// The longest run of several spans: what is copied and written out as one piece.
const MAX_RUN: usize = 16 << 10;
/// What a span takes at least: two tags, two lengths, and a trace id.
const MIN_SPAN: usize = 20;
const _: () = assert!(MAX_RUN / MIN_SPAN < LATER as usize);
/// Runs that are kept allocated from request to request: of all shards together, and of one.
const KEEP_RUNS: usize = 16 << 10;
const KEEP_RUNS_OF_ONE: usize = 4096;
/// The same of headers, and of their bytes.
const KEEP_HEADERS: usize = 4096;
const KEEP_BYTES: usize = 1 << 20;
/// The same of extras.
const KEEP_EXTRAS: usize = 1024;
/// No header: the parent of clients, and of resources whose client is not told.
pub(super) const NO_PARENT: u32 = u32::MAX;

/// Spans of one trace that stand next to each other.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) id: [u8; 16],
    pub(super) tag: u32,
    /// The scope's header, as an index into the request's headers.
    pub(super) header: u32,
    /// Their place in the request.
    pub(super) bytes: Range<usize>,
    pub(super) contents: Contents,
    /// By how many bytes it makes its trace larger: its own, unless the plan asks for [`Sizes`].
    pub(super) size: u32,
    /// The earliest start that is set; `u64::MAX` if none is.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) bits: Bits,
    /// A place in the request's extras.
    pub(super) extra: u32,
}

/// What a `ResourceSpans` or `ScopeSpans` holds beside its children; or what is kept of a client.
#[derive(Debug, Clone)]
pub(super) struct RequestHeader {
    /// Its place in the bytes of all headers.
    bytes: Range<usize>,
    pub(super) hash: u64,
    /// A scope's resource or a resource's client, as an index into the request's headers, or [`NO_PARENT`].
    pub(super) parent: u32,
}

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender<'a> {
    /// A client, of which this is kept; it may be nothing.
    Client(&'a [u8]),
    /// It comes from the log on disk, and says itself whose it is.
    Log,
}

/// Keyed hashes of trace ids: which shard, and which place in its tables.
#[derive(Debug, Clone)]
pub(super) struct IdHash {
    seeds: [u64; 2],
    shards: u64,
    pub(super) state: foldhash::quality::RandomState,
}

impl IdHash {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            seeds: [rand::random(), rand::random()],
            shards: shards as u64,
            state: foldhash::quality::RandomState::default(),
        }
    }

    /// The shard of `id` and its tag there.
    #[inline]
    pub(super) fn of(&self, id: &[u8; 16]) -> (usize, u32) {
        let (halves, _) = id.as_chunks::<8>();
        let half = |index: usize| halves.get(index).map_or(0, |half| u64::from_le_bytes(*half));
        let product = u128::from(half(0) ^ self.seeds[0]) * u128::from(half(1) ^ self.seeds[1]);
        let folded = (product as u64) ^ ((product >> 64) as u64);
        let hash = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (folded >> 32);
        ((((hash >> 32) * self.shards) >> 32) as usize, hash as u32)
    }
}

/// The runs of one request, by shard. Reused from request to request.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) shards: Vec<Vec<Run>>,
    /// The shards that have runs.
    pub(super) touched: Vec<usize>,
    headers: Vec<RequestHeader>,
    header_bytes: Vec<u8>,
    pub(super) extras: Extras,
    widest_header: usize,
    /// The client of the resources that come, as an index into the headers, or [`NO_PARENT`].
    client: u32,
    /// Headers above a span: scope and resource, and a client.
    levels: usize,
    /// Filled only for conditions that may look at it.
    around: Surroundings,
    /// Filled only where the plan asks for it.
    sizes: Sizes,
    /// Spans with a sound id.
    pub(super) spans: usize,
    /// Spans without a valid trace id.
    pub(super) invalid: usize,
    pub(super) bad_trace_states: usize,
}

impl Request {
    pub(super) fn header(&self, index: u32) -> Option<(&RequestHeader, &[u8])> {
        let header = self.headers.get(index as usize)?;
        Some((header, self.header_bytes.get(header.bytes.clone())?))
    }

    pub(super) fn headers(&self) -> usize {
        self.headers.len()
    }

    /// Bytes of all headers.
    pub(super) fn header_bytes(&self) -> usize {
        self.header_bytes.len()
    }

    /// Bytes of the longest header.
    pub(super) fn widest_header(&self) -> usize {
        self.widest_header
    }

    /// How many headers stand above a span, at most.
    pub(super) fn levels(&self) -> usize {
        self.levels
    }

    /// How many runs there are.
    pub(super) fn runs(&self) -> usize {
        self.touched.iter().filter_map(|&shard| self.shards.get(shard)).map(Vec::len).sum()
    }

    /// Gives back the memory of an unusually large request: every thread that takes requests in keeps one of these for
    /// good, and no budget knows of it. Whoever has read a request calls this when it is done with, whatever became of it.
    pub(super) fn shrink(&mut self) {
        let keep = self.runs_to_keep();
        for &shard in &self.touched {
            if let Some(runs) = self.shards.get_mut(shard) {
                give_back(runs, keep);
            }
        }
        self.around.shrink(KEEP_BYTES);
        give_back(&mut self.headers, KEEP_HEADERS);
        give_back(&mut self.header_bytes, KEEP_BYTES);
        self.extras.clear(KEEP_EXTRAS);
        self.sizes.clear();
    }

    /// Runs of each shard that are kept allocated.
    fn runs_to_keep(&self) -> usize {
        (KEEP_RUNS / self.shards.len().max(1)).min(KEEP_RUNS_OF_ONE)
    }

    /// Leaves out the spans of traces that are not needed, and what was counted when the request came.
    pub(super) fn retain(&mut self, mut is_needed: impl FnMut(&[u8; 16]) -> bool) {
        let keep = self.runs_to_keep();
        let shards = &mut self.shards;
        self.spans = 0;
        self.touched.retain(|&shard| {
            let Some(runs) = shards.get_mut(shard) else { return false };
            runs.retain(|run| is_needed(&run.id));
            self.spans += runs.iter().map(|run| usize::from(run.contents.spans)).sum::<usize>();
            if runs.is_empty() {
                // It is not among the touched ones any more, which `shrink` looks at.
                give_back(runs, keep);
            }
            !runs.is_empty()
        });
        self.invalid = 0;
        self.bad_trace_states = 0;
    }

    fn clear(&mut self, shards: usize) {
        for &shard in &self.touched {
            if let Some(runs) = self.shards.get_mut(shard) {
                runs.clear();
            }
        }
        self.touched.clear();
        self.shards.resize_with(shards, Vec::new);
        self.headers.clear();
        self.header_bytes.clear();
        self.extras.clear(KEEP_EXTRAS);
        self.widest_header = 0;
        (self.client, self.levels) = (NO_PARENT, 2);
        self.spans = 0;
        self.invalid = 0;
        self.bad_trace_states = 0;
    }

    /// Reads `message`, an `ExportTraceServiceRequest` of `sender`, for as many shards as `hash` knows.
    pub(super) fn read(&mut self, message: &[u8], sender: Sender<'_>, plan: &Plan, hash: &IdHash) {
        self.clear(hash.shards as usize);
        self.around.begin(message.len());
        if plan.sizes {
            self.sizes.clear();
        }
        if let Sender::Client(client) = sender {
            self.begin_client(client, hash);
        }
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next() {
            if let Field { number: 1, value: Value::Len(resource_spans) } = field {
                self.resource_spans(resource_spans, fields.position() - resource_spans.len(), plan, hash);
            } else if sender == Sender::Log
                && let Some(client) = client::named_in(&field)
            {
                self.begin_client(client, hash);
            }
        }
    }

    /// What comes now is of `client`, of which that is known.
    fn begin_client(&mut self, client: &[u8], hash: &IdHash) {
        if client.is_empty() {
            self.client = NO_PARENT;
            return;
        }
        let begin = self.header_bytes.len();
        self.header_bytes.extend_from_slice(client);
        self.client = self.end_header(begin, NO_PARENT, hash);
        self.levels = 3;
    }

    /// `at` is the place of `message` in the request.
    fn resource_spans(&mut self, message: &[u8], at: usize, plan: &Plan, hash: &IdHash) {
        // Twice, because the resource may be written after its spans, and folds need it first.
        let mut base = Base::default();
        let begin = self.header_bytes.len();
        let mut fields = Fields::new(message);
        let (mut before, mut resource_len) = (0, 0);
        while let Some(Field { number, value }) = fields.next() {
            match (number, value) {
                (2, Value::Len(_)) => {}
                (1, Value::Len(resource)) => {
                    resource_len += resource.len();
                    plan.fold_resource(resource, &mut base.bits);
                    plan.values_of_resource(resource, &mut base.values);
                    self.keep(message, before..fields.position());
                }
                _ => self.keep(message, before..fields.position()),
            }
            before = fields.position();
        }
        if !plan.ottl.is_empty() {
            self.around.set_resource(self.header_bytes.get(begin..).unwrap_or_default());
        }
        if plan.sizes {
            self.sizes.begin_resource(resource_len);
        }
        let (spans, widest) = (self.spans, self.widest_header);
        let resource = self.end_header(begin, self.client, hash);
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next() {
            if let Field { number: 2, value: Value::Len(scope_spans) } = field {
                let at = at + fields.position() - scope_spans.len();
                self.scope_spans(scope_spans, at, resource, &base, plan, hash);
            }
        }
        // Nothing refers to it. (Two bytes are an empty one, and a header takes sixteen times as many.)
        if self.spans == spans {
            self.headers.truncate(resource as usize);
            self.header_bytes.truncate(begin);
            self.widest_header = widest;
        }
    }

    fn scope_spans(&mut self, message: &[u8], at: usize, resource: u32, base: &Base, plan: &Plan, hash: &IdHash) {
        let mut bits = base.bits;
        plan.fold_scope(message, &mut bits);
        let begin = self.header_bytes.len();
        // The index that the header is going to have, if any span refers to it.
        let header = self.headers.len() as u32;
        let spans = self.spans;
        let mut open: Option<(usize, Run)> = None;
        if !plan.ottl.is_empty() {
            self.around.set_scope(message);
        }
        if plan.sizes {
            self.sizes.begin_scope(scope_len(message));
        }
        let mut fields = Fields::new(message);
        let mut before = 0;
        while let Some(Field { number, value }) = fields.next() {
            let place = before..fields.position();
            before = place.end;
            let (2, Value::Len(span)) = (number, value) else {
                self.keep(message, place);
                continue;
            };
            let mut bits = bits;
            if !plan.ottl.is_empty() {
                plan.ottl.fold(span, &self.around, &mut bits);
            }
            let fold = plan.fold_span(span, bits);
            self.bad_trace_states += usize::from(fold.bad_trace_state);
            let Some(id) = fold.id.filter(|id| plan.takes(id)) else {
                self.invalid += 1;
                continue;
            };
            self.spans += 1;
            let bytes = at + place.start..at + place.end;
            let start = if fold.start == 0 { u64::MAX } else { fold.start };
            if let Some((_, run)) = &mut open
                && run.id == id
                && run.bytes.end == bytes.start
                && bytes.end - run.bytes.start <= MAX_RUN
            {
                run.bytes.end = bytes.end;
                if fold.root && !run.contents.has_root() {
                    run.contents.root = run.contents.spans;
                }
                run.contents.spans += 1;
                run.contents.trace_state |= fold.trace_state;
                run.start = run.start.min(start);
                run.end = run.end.max(fold.end);
                run.bits.merge(&fold.bits);
                self.extras.note(run, &fold, span, base, plan);
                continue;
            }
            let (shard, tag) = hash.of(&id);
            let mut run = Run {
                id,
                tag,
                header,
                bytes,
                contents: Contents {
                    spans: 1,
                    root: if fold.root { 0 } else { Contents::NO_ROOT },
                    trace_state: fold.trace_state,
                    later: false,
                },
                size: 0,
                start,
                end: fold.end,
                bits: fold.bits,
                extra: NO_EXTRA,
            };
            self.extras.note(&mut run, &fold, span, base, plan);
            if let Some((shard, run)) = open.replace((shard, run)) {
                self.push(shard, run, plan);
            }
        }
        if let Some((shard, run)) = open {
            self.push(shard, run, plan);
        }
        if self.spans == spans {
            self.header_bytes.truncate(begin);
        } else {
            self.end_header(begin, resource, hash);
        }
    }

    fn push(&mut self, shard: usize, mut run: Run, plan: &Plan) {
        let size = if plan.sizes { self.sizes.add(&run.id, run.bytes.len()) } else { run.bytes.len() };
        run.size = u32::try_from(size).unwrap_or(u32::MAX);
        if let Some(runs) = self.shards.get_mut(shard) {
            if runs.is_empty() {
                self.touched.push(shard);
            }
            runs.push(run);
        }
    }

    fn keep(&mut self, message: &[u8], place: Range<usize>) {
        self.header_bytes.extend_from_slice(message.get(place).unwrap_or_default());
    }

    fn end_header(&mut self, begin: usize, parent: u32, hash: &IdHash) -> u32 {
        let bytes = begin..self.header_bytes.len();
        self.widest_header = self.widest_header.max(bytes.len());
        let hash = hash.state.hash_one(self.header_bytes.get(bytes.clone()).unwrap_or_default());
        self.headers.push(RequestHeader { bytes, hash, parent });
        (self.headers.len() - 1) as u32
    }
}

/// Keeps no more than `keep` elements allocated.
fn give_back<T>(list: &mut Vec<T>, keep: usize) {
    if list.capacity() > keep {
        list.clear();
        list.shrink_to(keep);
    }
}

/// The bytes of the scope of a `ScopeSpans`. (Everybody writes it first.)
fn scope_len(scope_spans: &[u8]) -> usize {
    let scope = Fields::new(scope_spans).find_map(|field| match field {
        Field { number: 1, value: Value::Len(scope) } => Some(scope.len()),
        _ => None,
    });
    scope.unwrap_or_default()
}

/// What the spans of a resource have from it.
#[derive(Debug, Clone, Copy, Default)]
struct Base {
    bits: Bits,
    /// That adaptive rates ask for.
    values: Single,
}

impl Extras {
    /// Notes what a span brings beside its bits, which most do not.
    #[inline]
    fn note(&mut self, run: &mut Run, fold: &SpanFold, span: &[u8], base: &Base, plan: &Plan) {
        if fold.given != Given::NOTHING
            && let Some(extra) = self.at(&mut run.extra)
        {
            extra.given.merge(fold.given);
        }
        if plan.wants_marks() {
            self.note_values(run, fold.root, span, base, plan);
        }
    }

    /// Notes the values that adaptive rates ask for.
    fn note_values(&mut self, run: &mut Run, root: bool, span: &[u8], base: &Base, plan: &Plan) {
        let mut first = self.get(run.extra).values;
        // All of a run are of one resource.
        if run.contents.spans == 1 {
            for &value in base.values.iter().filter(|&&value| value != 0) {
                self.add_value(&mut first, value);
            }
        }
        plan.values_of_span(span, root, |value| self.add_value(&mut first, value));
        self.set_values(&mut run.extra, first);
    }
}
