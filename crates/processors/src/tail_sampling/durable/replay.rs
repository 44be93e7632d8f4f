//! What is in the log at the start.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nyquist_core::batch::Refusal;
use nyquist_core::clock::Clock;
use nyquist_core::storage::{Chunk, Cursor, Error, Record};
use tokio::time::sleep;

use super::record::{self, Outcomes, Spans};
use super::{Durable, MAX_AGE};
use crate::tail_sampling::buffer::Outcome;
use crate::tail_sampling::sampler::Sampler;

/// Bytes that are read at once.
const CHUNK: usize = 4 << 20;
/// What one remembered trace takes.
const ENTRY: usize = 96;
/// The part of the byte budget that remembered traces take, at most.
const PART: usize = 4;
/// How long to wait if the buffer has no room, or the disk fails.
const PAUSE: Duration = Duration::from_millis(20);

/// What was restored.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::tail_sampling) struct Restored {
    pub(in crate::tail_sampling) requests: usize,
    pub(in crate::tail_sampling) spans: usize,
    /// Traces of which the log says that they were decided.
    pub(in crate::tail_sampling) decided: usize,
    /// Records of no known kind.
    pub(in crate::tail_sampling) unknown: usize,
}

/// What the log says of a trace.
#[derive(Debug, Default, Clone, Copy)]
struct Past {
    /// Its spans up to here are not needed: they were dropped or delivered, or written anew.
    upto: u64,
    /// Up to here they were dropped or delivered.
    decided: u64,
    /// The record with its spans as they were last written anew.
    anew: u64,
}

/// Reads the log back into the buffer.
pub(in crate::tail_sampling) struct Replay {
    durable: Arc<Durable>,
    sampler: Arc<Sampler>,
    clock: Arc<dyn Clock>,
    past: HashMap<[u8; 16], Past, foldhash::quality::RandomState>,
    most: usize,
    /// All before it has been restored.
    floor: u64,
    /// The latest arrival so far, in milliseconds.
    latest: u64,
    restored: Restored,
}

impl Replay {
    /// Until it is run to its end, nothing in the log is let go, and no trace is decided but for want of room.
    pub(in crate::tail_sampling) fn new(durable: Arc<Durable>, sampler: Arc<Sampler>, clock: Arc<dyn Clock>) -> Self {
        let floor = durable.intake.lock().begin();
        sampler.set_restoring(true);
        let most = sampler.memory_limit() / PART / ENTRY;
        let past = HashMap::default();
        Self { durable, sampler, clock, past, most, floor, latest: 0, restored: Restored::default() }
    }

    /// Restores everything that is there now.
    ///
    /// # Errors
    /// If the log is closed meanwhile.
    pub(in crate::tail_sampling) async fn run(mut self) -> Result<Restored, Error> {
        let last = self.read_outcomes().await?;
        let charge = self.sampler.charge(self.past.len() * ENTRY);
        // What comes into the buffer now is not above a cut that is made meanwhile.
        self.durable.intake.lock().see(last);
        self.read_requests(last).await?;
        drop(charge);
        for shard in 0..self.sampler.shards() {
            self.sampler.visit(shard, |shard| shard.sort_waiting());
        }
        self.sampler.set_restoring(false);
        let mut intake = self.durable.intake.lock();
        intake.see(last);
        intake.end(self.floor);
        drop(intake);
        self.restored.decided = self.past.len();
        Ok(self.restored)
    }

    /// What became of traces. Returns the number of the last record.
    async fn read_outcomes(&mut self) -> Result<u64, Error> {
        let mut cursor = Cursor::default();
        let mut last = 0;
        let mut forgotten = 0;
        loop {
            let chunk = self.read(cursor).await?;
            for record in &chunk.records {
                last = record.position.sequence;
                match record.kind {
                    record::OUTCOMES => {
                        if let Some(outcomes) = record::decode_outcomes(&record.payload) {
                            forgotten += self.remember(&outcomes);
                        }
                    }
                    record::SPANS => {
                        if let Some(spans) = record::decode_spans(&record.payload) {
                            if self.past.len() < self.most || self.past.contains_key(&spans.id) {
                                let past = self.past.entry(spans.id).or_default();
                                past.upto = past.upto.max(spans.upto);
                                past.anew = last;
                            } else {
                                forgotten += 1;
                            }
                        }
                    }
                    _ => {}
                }
            }
            cursor = chunk.next;
            if chunk.is_end {
                break;
            }
        }
        if forgotten > 0 {
            tracing::warn!(
                decisions = forgotten,
                "tail_sampling: more decisions are in the storage than memory_limit_mib has room for; these are made again, \
                 and what was kept is sent again"
            );
        }
        Ok(last)
    }

    /// Returns how many there was no room for.
    fn remember(&mut self, outcomes: &Outcomes) -> usize {
        let now = self.clock.now();
        let is_same = outcomes.rules == self.durable.rules;
        let mut forgotten = 0;
        for note in &outcomes.notes {
            self.sampler.remember(*note, is_same, now);
            if note.outcome == Outcome::Kept {
                continue;
            }
            if self.past.len() >= self.most && !self.past.contains_key(&note.id) {
                forgotten += 1;
                continue;
            }
            let past = self.past.entry(note.id).or_default();
            past.upto = past.upto.max(outcomes.upto);
            past.decided = past.decided.max(outcomes.upto);
        }
        forgotten
    }

    /// What is needed of the records up to `last`.
    async fn read_requests(&mut self, last: u64) -> Result<(), Error> {
        let mut cursor = Cursor::default();
        loop {
            let chunk = self.read(cursor).await?;
            for record in &chunk.records {
                if record.position.sequence > last {
                    return Ok(());
                }
                self.restore(record).await;
            }
            if let Some(record) = chunk.records.last() {
                let mut intake = self.durable.intake.lock();
                intake.see(record.position.sequence);
                let before = std::mem::replace(&mut self.floor, record.position.sequence);
                intake.reopen(before, self.floor);
            }
            cursor = chunk.next;
            if chunk.is_end {
                return Ok(());
            }
            // Others want to work too.
            tokio::task::yield_now().await;
        }
    }

    async fn restore(&mut self, record: &Record) {
        let sequence = record.position.sequence;
        let arrival = self.time_of(record.arrival);
        let at = u64::try_from(arrival.as_millis()).unwrap_or(u64::MAX);
        if at > self.latest {
            self.latest = at;
            self.durable.marks.lock().add(at, sequence.saturating_sub(1));
        }
        let restored = match record.kind {
            record::REQUEST => self.insert(&record.payload, sequence, arrival, None).await,
            record::SPANS => match record::decode_spans(&record.payload) {
                Some(spans) => {
                    let last = arrival + Duration::from_millis(u64::from(spans.last_seen));
                    let last = last.min(self.clock.now());
                    self.insert(&spans.message, sequence, last, Some((&spans, arrival))).await
                }
                None => return self.unknown(record),
            },
            record::OUTCOMES if record::decode_outcomes(&record.payload).is_some() => return,
            _ => return self.unknown(record),
        };
        match restored {
            Ok(0) => {}
            Ok(spans) => {
                self.restored.requests += 1;
                self.restored.spans += spans;
                self.durable.metrics.restored.inc_by(spans as u64);
            }
            Err(error) => {
                tracing::error!(%error, "tail_sampling: a request in the storage cannot be restored and is lost")
            }
        }
    }

    /// Waits for room if there is none: what is decided meanwhile makes it.
    async fn insert(
        &self,
        message: &[u8],
        sequence: u64,
        at: Duration,
        anew: Option<(&Spans, Duration)>,
    ) -> Result<usize, Refusal> {
        let is_needed = |id: &[u8; 16]| {
            self.past.get(id).is_none_or(|past| match anew {
                None => sequence > past.upto,
                // It stands for records up to a number, wherever it stands itself: a decision may have been made when it
                // was on its way to the disk.
                Some((spans, _)) => spans.upto > past.decided && (past.anew == 0 || past.anew == sequence),
            })
        };
        let began = anew.map(|(spans, arrival)| (spans.id, arrival));
        loop {
            match self.sampler.restore(message, sequence, at, is_needed, began) {
                Err(refusal) if refusal.is_retryable() => sleep(PAUSE).await,
                result => return result,
            }
        }
    }

    fn unknown(&mut self, record: &Record) {
        self.restored.unknown += 1;
        if self.restored.unknown == 1 {
            tracing::error!(
                kind = record.kind,
                "tail_sampling: the storage holds records that this version cannot read"
            );
        }
    }

    /// When a record came, on the sampler's clock.
    fn time_of(&self, arrival: u64) -> Duration {
        let age = Duration::from_nanos(self.clock.unix_nanos().saturating_sub(arrival));
        self.clock.now().saturating_sub(age.min(MAX_AGE))
    }

    /// The next records; a disk that fails is tried again, and what stays unreadable is set aside by the
    /// log.
    async fn read(&self, cursor: Cursor) -> Result<Chunk, Error> {
        loop {
            match self.durable.log.read(cursor, CHUNK).await {
                Err(Error::Closed) => return Err(Error::Closed),
                Err(error) => {
                    tracing::error!(%error, "tail_sampling: cannot read the storage, trying again");
                    sleep(PAUSE).await;
                }
                Ok(chunk) => return Ok(chunk),
            }
        }
    }
}
