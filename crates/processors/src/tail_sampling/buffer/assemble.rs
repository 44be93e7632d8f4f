//! Kept traces as export requests again, grouped by resource and scope.

use nyquist_core::wire::{put_tag, put_varint, varint_len};

use super::cache::Past;
use super::freeze::thawing;
use super::headers::{Headers, NONE};
use super::journal::Note;
use super::log::Log;
use super::record::{Addr, Record as LogRecord, UNIT};
use super::rewrite::{Rewrite, Scratch, Target};
use super::shard::Shard;
use super::trace::{LATE_ERROR, STRESS, Trace};
use super::work::ENOUGH;
use crate::tail_sampling::config::Record;
use crate::tail_sampling::rules::RuleSet;
use crate::tail_sampling::rules::compile::{AttributeValue, Odds, SAMPLING_RATE, put_attribute};
use crate::tail_sampling::rules::extra::Extra;
use crate::tail_sampling::tally::Trigger;

/// Bytes that are worth a batch of their own where somebody waits for the shard; copied in about 50 us.
const WORTHWHILE: usize = 128 << 10;
/// A batch of smaller pieces than of so many bytes is unusual.
const SMALL: usize = 32;
/// End of a list.
const END: u32 = u32::MAX;

/// Kept spans as export requests: one, or one for each client.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) parts: Vec<Part>,
    /// The traces that they complete, and since when these need what is in the log on disk.
    pub(crate) left: (Vec<Note>, Option<u64>),
}

/// An export request of kept spans.
#[derive(Debug)]
pub(crate) struct Part {
    /// What is kept of the client that sent them; empty if nothing is.
    pub(crate) client: Box<[u8]>,
    /// The request.
    pub(crate) message: Vec<u8>,
    /// How many spans it holds.
    pub(crate) spans: usize,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Log(Addr),
    /// A run with spans that were changed, or whose block is compressed: its place in `rewritten`.
    Rewritten(usize),
}

#[derive(Debug)]
struct Piece {
    source: Source,
    len: usize,
    next: u32,
}

#[derive(Debug)]
struct ScopeGroup {
    header: u32,
    first: u32,
    last: u32,
    len: usize,
    spans: usize,
    /// The resource's next scope.
    next: u32,
}

#[derive(Debug)]
struct ResourceGroup {
    header: u32,
    /// The header of its client, or none.
    client: u32,
    first: u32,
    last: u32,
    len: usize,
}

/// A batch in the making; its vectors are used again for the next.
#[derive(Debug)]
pub(super) struct Assembly {
    record: Record,
    /// The attributes that say what triggered the decision, by trigger.
    triggers: [Vec<u8>; Trigger::ALL.len()],
    late: [Vec<u8>; 2],
    incomplete: Vec<u8>,
    /// Bytes of the headers in the batch.
    header_bytes: usize,
    number: u64,
    pieces: Vec<Piece>,
    scopes: Vec<ScopeGroup>,
    resources: Vec<ResourceGroup>,
    rewritten: Vec<u8>,
    attributes: Vec<u8>,
    scratch: Scratch,
    /// What copying a trace had to decompress.
    pub(super) thawed: usize,
    /// About the bytes of a batch.
    max_bytes: usize,
}

impl Assembly {
    pub(super) fn new(record: Record, stress_percentage: f64) -> Self {
        let attribute = |key: &str, value: AttributeValue<'_>| {
            let mut out = Vec::new();
            put_attribute(&mut out, key, value);
            out
        };
        let triggers = Trigger::ALL.map(|trigger| {
            let name = attribute("nyquist.sampling.trigger", AttributeValue::Text(trigger.name()));
            match trigger {
                Trigger::Stress => [name, attribute(SAMPLING_RATE, AttributeValue::Double(stress_percentage))].concat(),
                _ => name,
            }
        });
        Self {
            record,
            triggers,
            late: ["tailsampling.cached_decision", "nyquist.sampling.late"]
                .map(|key| attribute(key, AttributeValue::Bool(true))),
            incomplete: attribute("nyquist.sampling.incomplete", AttributeValue::Bool(true)),
            header_bytes: 0,
            number: 0,
            pieces: Vec::new(),
            scopes: Vec::new(),
            resources: Vec::new(),
            rewritten: Vec::new(),
            attributes: Vec::new(),
            scratch: Scratch::default(),
            thawed: 0,
            max_bytes: 0,
        }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.capacity() * size_of::<Piece>()
            + self.scopes.capacity() * size_of::<ScopeGroup>()
            + self.resources.capacity() * size_of::<ResourceGroup>()
            + self.rewritten.capacity()
            + self.scratch.bytes()
    }

    pub(super) fn begin(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
        self.number += 1;
        self.header_bytes = 0;
        self.pieces.clear();
        self.scopes.clear();
        self.resources.clear();
        self.rewritten.clear();
        // What a record larger than a batch has left, or a trace that was copied whole.
        self.rewritten.shrink_to(2 * max_bytes);
        self.pieces.shrink_to(max_bytes / SMALL);
        self.scopes.shrink_to(max_bytes / SMALL);
        self.resources.shrink_to(max_bytes / SMALL);
    }

    /// The attributes that say why `trace` is kept, as fields of a span.
    fn set_reason(&mut self, trace: &Trace, extra: &Extra, rules: &RuleSet) {
        self.attributes.clear();
        if let Some(reason) = rules.reasons.get(usize::from(trace.reason)) {
            self.attributes.extend_from_slice(&reason.attributes);
        }
        if let Some(tried) = extra.tried.and_then(|tried| rules.reasons.get(usize::from(tried))) {
            self.attributes.extend_from_slice(&tried.attributes);
        }
        if trace.marks.is_late() {
            let mark = usize::from(rules.ordered || trace.reason == LATE_ERROR);
            self.attributes.extend_from_slice(&self.late[mark]);
            match trace.reason {
                LATE_ERROR => self.attributes.extend_from_slice(&self.incomplete),
                STRESS => self.attributes.extend_from_slice(&self.triggers[Trigger::Stress as usize]),
                _ => {}
            }
        } else if let Some(trigger) = trace.marks.trigger() {
            self.attributes.extend_from_slice(&self.triggers[trigger as usize]);
        }
    }

    /// Which of a run's spans get the attributes.
    fn target(&self, trace: &Trace, root_run: bool) -> Target {
        match self.record {
            Record::None => Target::None,
            Record::All => Target::All,
            Record::Root if trace.marks.is_recorded() => Target::None,
            Record::Root if !trace.marks.has_root() => Target::First,
            Record::Root if root_run => Target::Root,
            Record::Root => Target::None,
        }
    }

    /// Adds a run of spans; returns how many bytes it takes.
    fn add(&mut self, scope: u32, source: Source, (spans, len): (u16, usize), headers: &mut Headers) {
        let piece = self.pieces.len() as u32;
        self.pieces.push(Piece { source, len, next: END });
        let Some(group) = self.scope(scope, headers) else {
            return;
        };
        let last = std::mem::replace(&mut group.last, piece);
        group.len += len;
        group.spans += usize::from(spans);
        if last == END {
            group.first = piece;
        } else if let Some(last) = self.pieces.get_mut(last as usize) {
            last.next = piece;
        }
    }

    /// Adds a run of spans as it is in the log.
    pub(super) fn add_from_log(&mut self, record: &LogRecord, addr: Addr, headers: &mut Headers) {
        self.add(record.scope, Source::Log(addr), (record.contents.spans, record.len), headers);
    }

    fn scope(&mut self, id: u32, headers: &mut Headers) -> Option<&mut ScopeGroup> {
        let header = headers.get(id)?;
        if header.batch == self.number {
            return self.scopes.get_mut(header.group as usize);
        }
        let (parent, len) = (header.parent, header.bytes.len());
        let group = self.scopes.len() as u32;
        let resource = self.resource(parent, headers)?;
        let last = std::mem::replace(&mut resource.last, group);
        if last == END {
            resource.first = group;
        } else if let Some(last) = self.scopes.get_mut(last as usize) {
            last.next = group;
        }
        let header = headers.get_mut(id)?;
        (header.batch, header.group) = (self.number, group);
        self.header_bytes += len;
        self.scopes.push(ScopeGroup { header: id, first: END, last: END, len, spans: 0, next: END });
        self.scopes.last_mut()
    }

    fn resource(&mut self, id: u32, headers: &mut Headers) -> Option<&mut ResourceGroup> {
        let header = headers.get_mut(id)?;
        if header.batch == self.number {
            return self.resources.get_mut(header.group as usize);
        }
        (header.batch, header.group) = (self.number, self.resources.len() as u32);
        let (len, client) = (header.bytes.len(), header.parent);
        self.header_bytes += len;
        if let Some(client) = headers.get_mut(client).filter(|client| client.batch != self.number) {
            client.batch = self.number;
            self.header_bytes += client.bytes.len();
        }
        self.resources.push(ResourceGroup { header: id, client, first: END, last: END, len });
        self.resources.last_mut()
    }

    /// The batch, in as many parts as there are clients; none if it is empty.
    pub(super) fn write(&mut self, headers: &Headers, log: &mut Log) -> Vec<Part> {
        self.resources.sort_by_key(|resource| resource.client);
        let mut resources = std::mem::take(&mut self.resources);
        let of_clients = resources.chunk_by_mut(|one, other| one.client == other.client);
        let parts = of_clients.map(|resources| self.write_part(resources, headers, log)).collect();
        self.resources = resources;
        self.scratch.shrink_to(self.max_bytes);
        parts
    }

    /// The resources of one client.
    fn write_part(&self, resources: &mut [ResourceGroup], headers: &Headers, log: &mut Log) -> Part {
        let (mut total, mut spans) = (0, 0);
        for resource in resources.iter_mut() {
            let mut scope = resource.first;
            while let Some(group) = self.scopes.get(scope as usize) {
                resource.len += field_len(group.len);
                spans += group.spans;
                scope = group.next;
            }
            total += field_len(resource.len);
        }
        let mut out = Vec::with_capacity(total);
        for resource in resources.iter() {
            put_tag(&mut out, 1, 2);
            put_varint(&mut out, resource.len as u64);
            out.extend_from_slice(header_bytes(headers, resource.header));
            let mut scope = resource.first;
            while let Some(group) = self.scopes.get(scope as usize) {
                put_tag(&mut out, 2, 2);
                put_varint(&mut out, group.len as u64);
                out.extend_from_slice(header_bytes(headers, group.header));
                self.write_pieces(group, log, &mut out);
                scope = group.next;
            }
        }
        debug_assert_eq!(out.len(), total);
        let client = resources.first().map_or(NONE, |resource| resource.client);
        Part { client: header_bytes(headers, client).into(), message: out, spans }
    }

    fn write_pieces(&self, group: &ScopeGroup, log: &mut Log, out: &mut Vec<u8>) {
        let mut index = group.first;
        while let Some(piece) = self.pieces.get(index as usize) {
            let bytes = match piece.source {
                Source::Log(addr) => {
                    log.thaw(addr);
                    log.read(addr).map(|(_, bytes)| bytes)
                }
                Source::Rewritten(start) => self.rewritten.get(start..start + piece.len),
            };
            out.extend_from_slice(bytes.unwrap_or_default());
            index = piece.next;
        }
    }
}

fn header_bytes(headers: &Headers, id: u32) -> &[u8] {
    headers.get(id).map_or(&[], |header| &header.bytes)
}

/// A length-delimited field with a one-byte tag.
fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

impl Shard {
    /// The next kept traces as requests of about `max_bytes` in all; `None` if there are none. A trace
    /// that does not fit goes on with the next. Where `is_wanted` says that somebody waits for the shard, less will do.
    pub(crate) fn take_kept(&mut self, max_bytes: usize, now: u64, is_wanted: impl Fn() -> bool) -> Option<Kept> {
        self.assembly.begin(max_bytes);
        let mut spans = 0;
        let mut bytes = 0;
        while bytes + self.assembly.header_bytes < max_bytes
            && (bytes < WORTHWHILE || !is_wanted())
            && (spans == 0 || !self.has_done_enough())
            && let Some(slot) = self.kept.front()
        {
            let (some_spans, some_bytes, complete) = self.collect(slot, max_bytes - bytes);
            spans += some_spans;
            bytes += some_bytes;
            if complete {
                self.kept.pop();
                self.leave(slot, now);
            }
        }
        if spans == 0 {
            if let Some(journal) = &mut self.journal {
                // There was no room for any of their spans.
                journal.take_left();
            }
            self.tidy();
            return None;
        }
        let parts = self.assembly.write(&self.headers, &mut self.log);
        self.tidy();
        let left = self.journal.as_mut().map(|journal| journal.take_left()).unwrap_or_default();
        Some(Kept { parts, left })
    }

    /// Adds the records of a trace to the batch until `max_bytes` are reached, with what is written to them: how many
    /// spans and bytes, and whether that was all.
    fn collect(&mut self, slot: u32, max_bytes: usize) -> (usize, usize, bool) {
        let (mut spans, mut bytes) = (0, 0);
        let Some(trace) = self.traces.get_mut(slot) else {
            return (spans, bytes, true);
        };
        self.assembly.set_reason(trace, self.extras.get(trace.extra), &self.settings.rules);
        let rules = &self.settings.rules;
        let change = match trace.reason {
            STRESS => rules.change_to(Odds::Threshold(self.settings.stress_threshold), &trace.id),
            LATE_ERROR => rules.change_to(Odds::Unknown, &trace.id),
            reason => rules.trace_state_change(reason, &trace.id),
        };
        let mut addr = trace.first;
        let mut is_readable = true;
        while addr != Addr::NONE && bytes + self.assembly.header_bytes < max_bytes && (spans == 0 || self.work < ENOUGH)
        {
            let thawed = self.log.thaw(addr);
            self.work += thawed.map_or(0, thawing);
            let Some((record, run)) = self.log.read(addr) else {
                is_readable = false;
                break;
            };
            let assembly = &mut self.assembly;
            let target = assembly.target(trace, record.contents.has_root());
            let rewrite = Rewrite { target, attributes: &assembly.attributes, change };
            let (source, len) = if rewrite.is_needed() {
                let start = assembly.rewritten.len();
                if rewrite.run(run, record.contents, &mut assembly.scratch, &mut assembly.rewritten) {
                    trace.marks.record();
                }
                (Source::Rewritten(start), assembly.rewritten.len() - start)
            } else if thawed.is_some() {
                // The copy that was read will be gone when the batch is written.
                let start = assembly.rewritten.len();
                assembly.rewritten.extend_from_slice(run);
                (Source::Rewritten(start), run.len())
            } else {
                (Source::Log(addr), run.len())
            };
            self.assembly.add(record.scope, source, (record.contents.spans, len), &mut self.headers);
            spans += usize::from(record.contents.spans);
            bytes += len;
            let footprint = self.log.footprint(run.len());
            self.kept_bytes = self.kept_bytes.saturating_sub(footprint as u64);
            trace.units = trace.units.saturating_sub((footprint / UNIT) as u32);
            self.live_bytes = self.live_bytes.saturating_sub(footprint as u64);
            if footprint > self.settings.block_size {
                self.log.sent(addr);
            }
            addr = record.next;
        }
        trace.spans = trace.spans.saturating_sub(spans as u32);
        if !is_readable {
            // It cannot be, but nobody may wait for it for ever.
            addr = Addr::NONE;
            self.tally.no_room += trace.spans as usize;
            self.tally.held -= i64::from(std::mem::take(&mut trace.spans));
        }
        let complete = addr == Addr::NONE;
        if trace.first != Addr::NONE {
            self.log.remove_first(trace.first);
        }
        trace.first = addr;
        if complete {
            trace.last = Addr::NONE;
        } else {
            self.log.add_first(addr);
        }
        (spans, bytes, complete)
    }

    /// A kept trace has left the buffer.
    fn leave(&mut self, slot: u32, now: u64) {
        if let Some(trace) = self.traces.get(slot) {
            let (_, tag) = self.settings.hash.of(&trace.id);
            let why = self.sampled.why(tag, trace);
            let forgotten = self.sampled.insert(tag, &trace.id, Past::new(why, now));
            self.tally.forgotten[0] += u64::from(forgotten);
            self.tally.ages.push(trace.age(now));
            if let Some(journal) = &mut self.journal {
                journal.leave(slot, trace.arrival, trace.id, why);
            }
        }
        self.kept_count = self.kept_count.saturating_sub(1);
        self.remove(slot);
    }
}
