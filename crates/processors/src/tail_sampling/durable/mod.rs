//! The sampler's buffer on disk (`storage`): what was acknowledged is decided, whatever happens to the
//! process.
//!
//! - Taking in ([`Durable::store`]): a request is appended to the storage log, as it came, and is as
//!   durable as the log promises before it goes into the buffer and is acknowledged.
//! - Letting go ([`Keeper`]): every [`TICK`] decisions are written down and the log is told what is
//!   not needed any more (`low_water`). A trace is needed until it is decided against, or the next stage
//!   has all of it. The few that hold back a log that is mostly dead are written anew at its end, up
//!   to a cut (`buffer::anew`).
//! - Coming back (`replay`): first the decisions are read, then the requests, without the spans of
//!   traces that were dropped or delivered, at the times at which they came.
//!
//! What a crash may cost: the decisions of the last tick are made again, and batches that were on
//! their way to the next stage are sent again. Nothing that was acknowledged is lost, at the level
//! that the log's `fsync` says.

mod keeper;
mod low_water;
mod place;
mod record;
mod replay;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nyquist_core::batch::{Batch, Refusal};
use nyquist_core::clock::Clock;
use nyquist_core::delivery::Status;
use nyquist_core::storage::{Error, Log};
use nyquist_core::telemetry::{Counter, Share, Telemetry};
use parking_lot::Mutex;

use keeper::Keeper;
pub(super) use place::Place;
use replay::Replay;

use super::buffer::Note;
use super::config::StorageFull;
use low_water::{Intake, Marks};

/// How often decisions are written down and records let go.
const TICK: Duration = Duration::from_millis(200);
/// What came longer ago than this counts as if it had come so long ago: all timers are shorter.
const MAX_AGE: Duration = Duration::from_secs(8 * 24 * 3600);
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The log, and what of it is needed.
#[derive(Debug)]
pub(super) struct Durable {
    log: Log,
    when_full: StorageFull,
    /// What reasons in the log refer to.
    rules: u32,
    intake: Mutex<Intake>,
    marks: Mutex<Marks>,
    /// Since when, in milliseconds, batches that are on their way need what came.
    away: Mutex<BTreeMap<u64, u32>>,
    /// Since when requests are not written, and why.
    memory_only: Mutex<Option<(std::time::Instant, String)>>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Metrics {
    bytes: Share,
    restored: Counter,
    memory_only: Counter,
    failed: Counter,
    anew: Counter,
}

impl Metrics {
    fn new(telemetry: &Telemetry) -> Self {
        let name = |name: &str| format!("otelcol_processor_tail_sampling_storage_{name}");
        let counter = |metric: &str, help: &str| telemetry.counter(&name(metric), help, &[]);
        Self {
            bytes: Share::new(telemetry.gauge(&name("bytes"), "Bytes of the files of all buffers.", &[])),
            restored: counter("restored_spans", "Spans that were taken from the storage at the start."),
            memory_only: counter(
                "memory_only_spans",
                "Spans that were acknowledged while the storage was full and are in memory only.",
            ),
            failed: counter("failed_notes", "Decisions that could not be written down: a crash would make them again."),
            anew: counter("rewritten_spans", "Spans that were written anew because they held back the storage."),
        }
    }
}

impl Durable {
    /// On an open log. `rules` is a fingerprint of the rules that reasons refer to.
    pub(super) fn new(log: Log, when_full: StorageFull, rules: u32, telemetry: &Telemetry) -> Arc<Self> {
        Arc::new(Self {
            log,
            when_full,
            rules,
            intake: Mutex::default(),
            marks: Mutex::default(),
            away: Mutex::default(),
            memory_only: Mutex::default(),
            metrics: Metrics::new(telemetry),
        })
    }

    /// Writes a request of `client` down. What it returns is to be kept until the request is in the buffer.
    ///
    /// # Errors
    /// Retryable if the storage is full (unless memory is enough) or fails; permanent if the request can
    /// never fit.
    pub(super) async fn store(
        &self,
        batch: &mut Batch,
        client: &[u8],
        clock: &dyn Clock,
    ) -> Result<Stored<'_>, Refusal> {
        let items = batch.items();
        let request = record::encode_request(client, batch.wire());
        let mut stored = Stored { durable: self, floor: self.intake.lock().begin(), sequence: None };
        let weight = u32::try_from(items).unwrap_or(u32::MAX);
        match self.log.append(record::REQUEST, weight, clock.unix_nanos(), request).await {
            Ok(position) => {
                self.intake.lock().see(position.sequence);
                stored.sequence = Some(position.sequence);
                self.is_written_again();
                Ok(stored)
            }
            Err(error) if self.when_full == StorageFull::Memory && is_full(&error) => {
                self.metrics.memory_only.inc_by(items as u64);
                self.is_memory_only(&error);
                Ok(stored)
            }
            Err(error) => Err(refusal(&error)),
        }
    }

    /// Whether the storage is likely to take `batch`.
    ///
    /// # Errors
    /// As [`Durable::store`].
    pub(super) fn room(&self, batch: &Batch) -> Result<(), Refusal> {
        match self.log.check_room(batch.size() as u64) {
            Err(error) if self.when_full == StorageFull::Memory && is_full(&error) => Ok(()),
            checked => checked.map_err(|error| refusal(&error)),
        }
    }

    fn is_memory_only(&self, error: &Error) {
        let mut memory_only = self.memory_only.lock();
        if memory_only.is_none() {
            tracing::error!(
                %error,
                "tail_sampling: the storage is full; what comes now is acknowledged and kept in memory only, and would be \
                 lost in a crash (storage_full: memory)"
            );
            *memory_only = Some((std::time::Instant::now(), error.to_string()));
        }
    }

    fn is_written_again(&self) {
        if let Some((since, _)) = self.memory_only.lock().take() {
            let seconds = since.elapsed().as_secs_f64();
            tracing::info!(seconds, "tail_sampling: the storage has room again; what comes now is written to it");
        }
    }

    /// How it is doing.
    pub(super) fn status(&self) -> Option<Status> {
        let memory_only = self.memory_only.lock();
        let (since, error) = memory_only.as_ref()?;
        Some(Status { failing_since: Some(*since), last_error: Some(error.clone()), ..Status::default() })
    }

    /// Every record up to this number is in the buffer, or not needed.
    pub(super) fn floor(&self) -> u64 {
        self.intake.lock().floor()
    }

    /// No record that has come into the buffer has a higher number.
    fn seen(&self) -> u64 {
        self.intake.lock().seen()
    }

    /// A batch is about to leave the buffer, with traces that need what came since `since`. Called
    /// while the shard is locked, so that there is no moment in which nobody needs it.
    pub(super) fn hold(&self, since: u64) {
        *self.away.lock().entry(since).or_default() += 1;
    }

    fn let_go(&self, since: u64) {
        let mut away = self.away.lock();
        if let Some(count) = away.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                away.remove(&since);
            }
        }
    }

    /// Writes decisions down. If that fails they would be made again after a crash; nobody waits.
    async fn write(&self, upto: u64, notes: &[Note], clock: &dyn Clock) {
        for notes in notes.chunks(record::MOST_OUTCOMES) {
            let payload = record::encode_outcomes(upto, self.rules, notes);
            match self.log.append(record::OUTCOMES, 0, clock.unix_nanos(), vec![payload]).await {
                Ok(position) => self.intake.lock().see(position.sequence),
                Err(_) => self.metrics.failed.inc_by(notes.len() as u64),
            }
        }
    }

    /// Writes and syncs everything.
    pub(super) async fn close(&self) {
        self.log.close().await;
        let usage = self.log.usage();
        self.metrics.bytes.set(i64::try_from(usage.bytes).unwrap_or(i64::MAX));
        if usage.records > 0 {
            let requests = usage.records;
            tracing::info!(requests, "tail_sampling: traces that are not decided or delivered yet stay in the storage");
        }
    }
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::Full { .. } | Error::NoSpace { .. } | Error::TooLarge { .. })
}

fn refusal(error: &Error) -> Refusal {
    let message = format!("tail_sampling: {error}");
    if error.is_retryable() { Refusal::retryable(Some(RETRY_DELAY), message) } else { Refusal::permanent(message) }
}

/// A request that is in the log, and not in the buffer yet.
#[derive(Debug)]
pub(super) struct Stored<'a> {
    durable: &'a Durable,
    floor: u64,
    sequence: Option<u64>,
}

impl Stored<'_> {
    /// The number of its record; 0 if it is in memory only.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence.unwrap_or_default()
    }

    /// The buffer has refused it: so is the sender, and the log forgets it.
    pub(super) fn refused(self) {
        if let Some(sequence) = self.sequence {
            self.durable.log.release(sequence);
        }
    }
}

impl Drop for Stored<'_> {
    fn drop(&mut self) {
        self.durable.intake.lock().end(self.floor);
    }
}

/// Traces on their way to the next stage. If it is dropped unsettled, the log keeps them.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) durable: Arc<Durable>,
    /// Since when they need what came.
    pub(super) since: u64,
    /// All their spans up to here are on their way.
    pub(super) upto: u64,
    pub(super) notes: Vec<Note>,
}

impl Parcel {
    /// The next stage has them: written down, then the log may let go.
    pub(super) async fn delivered(self, clock: &dyn Clock) {
        self.durable.write(self.upto, &self.notes, clock).await;
        self.durable.let_go(self.since);
    }

    /// The same without writing it down: they may come again after a crash.
    pub(super) fn settle(self) {
        self.durable.let_go(self.since);
    }
}

/// A clock that is ahead, so that what came before the process began has a time too.
pub(super) struct Ahead(pub(super) Arc<dyn Clock>);

impl Clock for Ahead {
    fn now(&self) -> Duration {
        self.0.now() + MAX_AGE
    }

    fn unix_nanos(&self) -> u64 {
        self.0.unix_nanos()
    }
}
