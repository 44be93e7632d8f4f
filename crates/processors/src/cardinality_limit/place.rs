//! Where the choice of what keeps a slot survives the process (`storage`).
//!
//! Every minute and at the shutdown a snapshot is appended to the storage log, in parts; once its last
//! one is written the one before is let go. At a start the newest one that is whole is taken over. The log
//! may be damaged: then the limiter starts empty, says so and counts it.

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use nyquist_core::component::{BuildError, ProcessorContext, StartError};
use nyquist_core::storage::{Cursor, Error, Log, Owner, Record, Recovered, Storage, Usage};
use nyquist_core::wire::put_varint;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::config::CardinalityLimitConfig;
use super::limiter::Limiter;

/// How often a snapshot is written.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);
/// How long the last one may take, after the deadline.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// A part of a snapshot; what is read at once.
const PART: usize = 256 << 10;

/// The first part of a snapshot.
const FIRST: u8 = 1;
/// A further part.
const FURTHER: u8 = 2;
/// It is whole: how many parts it has.
const WHOLE: u8 = 3;

/// Where the choice survives the process.
pub(super) struct Place {
    storage: Arc<dyn Storage>,
    owner: Owner,
    log: OnceLock<Log>,
    /// The last snapshot could not be written.
    is_failing: Mutex<bool>,
    /// One snapshot at a time.
    writing: tokio::sync::Mutex<()>,
}

impl Place {
    /// The place that `storage` names, if it names one.
    ///
    /// # Errors
    /// If there is no such storage.
    pub(super) fn find(
        config: &CardinalityLimitConfig,
        context: &ProcessorContext<'_>,
    ) -> Result<Option<Self>, BuildError> {
        let Some(id) = &config.storage else { return Ok(None) };
        let (storage, owner) = context.find_storage(id, "cardinality_limit", 1)?;
        Ok(Some(Self {
            storage,
            owner,
            log: OnceLock::new(),
            is_failing: Mutex::default(),
            writing: Default::default(),
        }))
    }

    /// Opens the storage, and lets `limiter` take over what is in it.
    ///
    /// # Errors
    /// If it cannot be opened; never for what is in it.
    pub(super) async fn open(self: &Arc<Self>, limiter: &mut Limiter) -> Result<(), StartError> {
        limiter.place = Some(Arc::clone(self));
        let opened = self.storage.open(&self.owner).await;
        let (log, recovered) = opened.map_err(|error| StartError(format!("storage: {error}")))?;
        let found = newest(&log, &recovered).await;
        let _ = self.log.set(log);
        match found {
            Found::Nothing => {}
            Found::Snapshot(bytes) if limiter.restore(&bytes) => {
                let series = limiter.shared.series();
                limiter.shared.report.snapshots.restored.inc();
                tracing::info!(series, bytes = bytes.len(), "cardinality_limit: took over which series have slots");
            }
            Found::Snapshot(_) | Found::Damaged => {
                limiter.shared.report.snapshots.unreadable.inc();
                tracing::warn!(
                    "cardinality_limit: the snapshot in the storage cannot be read; the first values seen get the slots"
                );
            }
        }
        Ok(())
    }

    /// Writes a snapshot from time to time, for ever.
    pub(super) async fn keep(&self, limiter: &Limiter) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.save(limiter).await;
        }
    }

    /// Writes a snapshot. False if that fails.
    pub(super) async fn save(&self, limiter: &Limiter) -> bool {
        let Some(log) = self.log.get() else { return false };
        let _one = self.writing.lock().await;
        let result = write(log, limiter).await;
        let snapshots = &limiter.shared.report.snapshots;
        let mut is_failing = self.is_failing.lock();
        match result {
            Ok(()) => snapshots.written.inc(),
            Err(error) => {
                snapshots.failed.inc();
                if !*is_failing {
                    tracing::warn!(%error, "cardinality_limit: cannot write a snapshot; after a restart slots are as in the last one");
                }
                *is_failing = true;
                return false;
            }
        }
        *is_failing = false;
        true
    }

    /// Writes the last snapshot and closes the storage.
    pub(super) async fn close(&self, limiter: &Limiter, deadline: Instant) {
        let finish = async {
            self.save(limiter).await;
            if let Some(log) = self.log.get() {
                log.close().await;
            }
        };
        if tokio::time::timeout_at(deadline + LAST_WRITE, finish).await.is_err() {
            tracing::warn!("cardinality_limit: the storage does not answer; after a restart slots are as a minute ago");
        }
    }
}

/// Appends a snapshot, and lets go of the one before.
async fn write(log: &Log, limiter: &Limiter) -> Result<(), Error> {
    let now = limiter.shared.clock.unix_nanos();
    let mut written: Vec<u64> = Vec::new();
    let mut saved = Ok(());
    for part in limiter.snapshot(PART) {
        let kind = if written.is_empty() { FIRST } else { FURTHER };
        match log.append(kind, 0, now, vec![part.into()]).await {
            Ok(position) => written.push(position.sequence),
            Err(error) => {
                saved = Err(error);
                break;
            }
        }
        // A snapshot of a million series takes its time: others have their turns.
        tokio::task::yield_now().await;
    }
    if saved.is_ok() {
        let mut parts = Vec::new();
        put_varint(&mut parts, written.len() as u64);
        saved = log.append(WHOLE, 0, now, vec![parts.into()]).await.map(|_| ());
    }
    match (&saved, written.first()) {
        (Ok(()), Some(first)) => log.release_before(*first),
        // Half a snapshot is none.
        _ => written.iter().for_each(|sequence| log.release(*sequence)),
    }
    saved
}

enum Found {
    Nothing,
    Snapshot(Vec<u8>),
    /// There was something, but no whole snapshot.
    Damaged,
}

/// The newest whole snapshot.
async fn newest(log: &Log, recovered: &Recovered) -> Found {
    let Usage { corrupt_records, torn_bytes, .. } = recovered.usage;
    let mut found = if corrupt_records > 0 || torn_bytes > 0 { Found::Damaged } else { Found::Nothing };
    let mut parts: Vec<Bytes> = Vec::new();
    let mut cursor = Cursor::default();
    loop {
        let chunk = match log.read(cursor, 1 << 20).await {
            Ok(chunk) => chunk,
            Err(error) => {
                tracing::warn!(%error, "cardinality_limit: cannot read the storage");
                return Found::Damaged;
            }
        };
        for Record { kind, payload, .. } in chunk.records {
            if matches!(found, Found::Nothing) {
                found = Found::Damaged;
            }
            match kind {
                FIRST => parts = vec![payload],
                FURTHER if !parts.is_empty() => parts.push(payload),
                WHOLE => {
                    let mut expected = Vec::new();
                    put_varint(&mut expected, parts.len() as u64);
                    if *payload == *expected && !parts.is_empty() {
                        found = Found::Snapshot(parts.concat());
                    }
                    parts.clear();
                }
                _ => {}
            }
        }
        if chunk.is_end {
            return found;
        }
        cursor = chunk.next;
    }
}
