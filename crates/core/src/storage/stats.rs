//! How a log is doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::Error;
use crate::telemetry::{Counter, Telemetry, UpDown};

/// Written by the log's thread, read by anyone.
#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) bytes: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) segments: AtomicU64,
    pub(super) corrupt_records: AtomicU64,
    pub(super) torn_bytes: AtomicU64,
    pub(super) set_aside: AtomicU64,
    pub(super) failed_writes: AtomicU64,
    pub(super) failed_syncs: AtomicU64,
    /// What is used or spoken for.
    claimed: AtomicU64,
    freed: Arc<Notify>,
    /// How many releases were written down, or could not be, since it was opened.
    settled: AtomicU64,
    has_settled: Arc<Notify>,
    /// The last write or fsync that failed, unless one has succeeded since.
    failing: Mutex<Option<Error>>,
    metrics: Mutex<Option<Metrics>>,
}

/// `nyquist_storage_*` of one log.
#[derive(Debug)]
struct Metrics {
    bytes: UpDown,
    records: UpDown,
    corrupt: Counter,
    torn: Counter,
    set_aside: Counter,
    failed_writes: Counter,
    failed_syncs: Counter,
}

/// How a log is doing: [`super::Log::usage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// What its files take, in bytes, spare ones left out: they give way.
    pub bytes: u64,
    /// Records that are not released.
    pub records: u64,
    /// Segment files.
    pub segments: u64,
    /// Records that were lost to damage since it was opened.
    pub corrupt_records: u64,
    /// Bytes of unfinished writes that were cut off when it was opened.
    pub torn_bytes: u64,
    /// Segments that were set aside as `*.corrupt` since it was opened.
    pub set_aside: u64,
    /// Writes that failed since it was opened.
    pub failed_writes: u64,
    /// Calls of fsync that failed since it was opened.
    pub failed_syncs: u64,
}

impl Stats {
    /// From now on what changes is published under the labels `storage` and `owner` too.
    pub(super) fn report_to(&self, telemetry: &Telemetry, storage: &str, owner: &str) {
        let labels = [("storage", storage), ("owner", owner)];
        let gauge = |what: &str, help: &str| telemetry.gauge(&format!("nyquist_storage_{what}"), help, &labels);
        let counter = |what: &str, help: &str| telemetry.counter(&format!("nyquist_storage_{what}"), help, &labels);
        let metrics = Metrics {
            bytes: gauge("bytes", "What the files of a storage log take."),
            records: gauge("records", "Records of a storage log that are not released."),
            corrupt: counter("corrupt_records", "Records of a storage log that were lost to damage."),
            torn: counter("torn_bytes", "Bytes of writes that a crash left unfinished, cut off at the start."),
            set_aside: counter(
                "set_aside_segments",
                "Files of a storage log that could not be read, kept as *.corrupt.",
            ),
            failed_writes: counter("failed_writes", "Writes to a storage log that failed, on a full disk for example."),
            failed_syncs: counter("failed_syncs", "Calls of fsync on a storage log that failed."),
        };
        *self.metrics.lock() = Some(metrics);
        self.publish();
    }

    /// Brings the metrics up to date.
    pub(super) fn publish(&self) {
        let metrics = self.metrics.lock();
        let Some(metrics) = metrics.as_ref() else { return };
        let usage = self.usage();
        let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.bytes.set(signed(usage.bytes));
        metrics.records.set(signed(usage.records));
        let catch_up = |counter: &Counter, now: u64| counter.inc_by(now.saturating_sub(counter.get()));
        catch_up(&metrics.corrupt, usage.corrupt_records);
        catch_up(&metrics.torn, usage.torn_bytes);
        catch_up(&metrics.set_aside, usage.set_aside);
        catch_up(&metrics.failed_writes, usage.failed_writes);
        catch_up(&metrics.failed_syncs, usage.failed_syncs);
    }

    /// A write did not work.
    pub(super) fn failed_write(&self, error: &Error) {
        self.failed_writes.fetch_add(1, Ordering::Relaxed);
        *self.failing.lock() = Some(error.clone());
    }

    /// Fsync did not.
    pub(super) fn failed_sync(&self, error: &Error) {
        self.failed_syncs.fetch_add(1, Ordering::Relaxed);
        *self.failing.lock() = Some(error.clone());
    }

    /// A write worked.
    pub(super) fn succeeded(&self) {
        if self.failing.lock().take().is_some() {
            self.freed.notify_waiters();
        }
    }

    /// Why the last write or fsync failed, if it did.
    pub(super) fn failing(&self) -> Option<Error> {
        self.failing.lock().clone()
    }

    /// So much is used or spoken for. If it is less than before, whoever waits for room is told; is it?
    pub(super) fn claim(&self, bytes: u64) -> bool {
        let is_less = self.claimed.swap(bytes, Ordering::Relaxed) > bytes;
        if is_less {
            self.freed.notify_waiters();
        }
        is_less
    }

    pub(super) fn claimed(&self) -> u64 {
        self.claimed.load(Ordering::Relaxed)
    }

    /// Ready when there is more room.
    pub(super) fn freed(&self) -> OwnedNotified {
        Arc::clone(&self.freed).notified_owned()
    }

    /// The first `releases` are written down as far as that is possible.
    pub(super) fn settled(&self, releases: u64) {
        self.settled.store(releases, Ordering::Release);
        self.has_settled.notify_waiters();
    }

    /// Ready when the first `releases` are settled.
    pub(super) async fn wait_until_settled(&self, releases: u64) {
        while self.settled.load(Ordering::Acquire) < releases {
            let next = Arc::clone(&self.has_settled).notified_owned();
            if self.settled.load(Ordering::Acquire) < releases {
                next.await;
            }
        }
    }

    pub(super) fn how_many_settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    pub(super) fn usage(&self) -> Usage {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Usage {
            bytes: read(&self.bytes),
            records: read(&self.records),
            segments: read(&self.segments),
            corrupt_records: read(&self.corrupt_records),
            torn_bytes: read(&self.torn_bytes),
            set_aside: read(&self.set_aside),
            failed_writes: read(&self.failed_writes),
            failed_syncs: read(&self.failed_syncs),
        }
    }
}
