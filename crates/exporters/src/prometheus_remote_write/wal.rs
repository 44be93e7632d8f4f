//! `wal`: the Collector's key for a log on disk. Here it is the queue on disk that `sending_queue.storage` makes, in a
//! directory of the exporter's own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nyquist_core::config::{ByteSize, Check, Duration};
use nyquist_core::delivery::{QueueConfig, Sizer};
use nyquist_core::storage::{Directory, Fsync, Options};
use nyquist_core::telemetry::Telemetry;
use serde::Deserialize;

/// What the log holds at the most unless `sending_queue` says otherwise, in bytes of OTLP: the Collector's has no bound but the
/// disk.
const MAX_BYTES: ByteSize = ByteSize(10 << 30);

/// Where the Collector's own log is, below `directory`.
const COLLECTORS: &str = "prom_remotewrite";

/// `wal`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct WalConfig {
    /// Where the queue is kept, in a directory below it; made if it is missing. Required.
    pub directory: PathBuf,
    /// Of the Collector: how many requests its log is read ahead by. No effect.
    pub buffer_size: i64,
    /// Of the Collector: how long data may wait in its log before it is sent. No effect.
    pub truncate_frequency: Duration,
    /// Of the Collector: how often a gauge is set. No effect.
    pub lag_record_frequency: Duration,
}

impl WalConfig {
    /// The queue, if `sending_queue` says nothing.
    pub(super) fn queue(&self) -> QueueConfig {
        let queue_size = usize::try_from(MAX_BYTES.0).unwrap_or(usize::MAX);
        QueueConfig { sizer: Some(Sizer::Bytes), queue_size, max_bytes: MAX_BYTES, ..QueueConfig::default() }
    }

    /// Where the queue is, for the exporter `id`. Every write is synced, as the Collector does.
    pub(super) fn directory(&self, id: String, telemetry: Arc<Telemetry>) -> Arc<Directory> {
        let options = Options { fsync: Fsync::Always, ..Options::new(self.directory.clone()) };
        Arc::new(Directory::new(id, options, telemetry))
    }

    /// `queue`: what `sending_queue` says, if it is there.
    pub(super) fn check(&self, check: &mut Check<'_>, queue: Option<&QueueConfig>) {
        if self.directory.as_os_str().is_empty() {
            check.error(&["wal", "directory"], "must not be empty: it is where the queue is kept");
        } else if std::fs::metadata(&self.directory).is_ok_and(|found| !found.is_dir()) {
            check.error(&["wal", "directory"], format!("{} is not a directory", self.directory.display()));
        }
        if queue.is_some_and(|queue| queue.storage.is_some()) {
            let message = "sending_queue.storage keeps the queue on disk, too: remove one of the two";
            check.error(&["wal"], message);
        }
        if queue.is_some_and(|queue| !queue.enabled) {
            check.error(&["sending_queue", "enabled"], "the wal is the queue: write true, or remove wal");
        }
        if queue.is_some_and(|queue| queue.wait_for_result) {
            let message = "is not supported with a queue on disk, which wal asks for: remove one of the two";
            check.error(&["sending_queue", "wait_for_result"], message);
        }
        for (path, message) in [
            (["wal", "buffer_size"], "has no effect: what is on disk is sent at once, not read ahead in batches"),
            (
                ["wal", "truncate_frequency"],
                "has no effect: data is sent at once, and disk space comes back as it is delivered",
            ),
            (
                ["wal", "lag_record_frequency"],
                "has no effect: nyquist_storage_records and _bytes say what is waiting, at any time",
            ),
            (["remote_write_queue", "queue_size"], "has no effect beside wal: the queue is on disk"),
            (["remote_write_queue", "enabled"], "has no effect beside wal: the queue is on disk"),
            (
                ["retry_on_failure", "enabled"],
                "has no effect beside wal: what is on disk is sent again until the backend answers",
            ),
            (
                ["retry_on_failure", "max_elapsed_time"],
                "has no effect beside wal: what is on disk is sent again until the backend answers; \
                 `sending_queue: {storage: ...}` instead of wal would give up",
            ),
        ] {
            if check.is_written(&path) {
                check.warning(&path, message);
            }
        }
    }
}

/// The queue's place, of an exporter that has one of its own.
pub(super) struct Wal {
    pub(super) exporter: String,
    pub(super) config: WalConfig,
    pub(super) directory: Arc<Directory>,
}

impl Wal {
    /// Says if the Collector has left something behind that nobody sends.
    pub(super) async fn prepare(&self) {
        let directory = self.config.directory.join(COLLECTORS);
        let bytes = {
            let directory = directory.clone();
            tokio::task::spawn_blocking(move || size_of_files(&directory)).await.unwrap_or_default()
        };
        if bytes > 0 {
            tracing::warn!(
                exporter = self.exporter,
                directory = %directory.display(),
                bytes,
                "the Collector's write-ahead log is here: it is left alone, and what it holds is not sent; let the Collector \
                 deliver it first, or delete it"
            );
        }
    }
}

/// The bytes of the files in `directory`; 0 if it cannot be read.
fn size_of_files(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| entry.metadata().ok()).filter(std::fs::Metadata::is_file);
    files.map(|file| file.len()).sum()
}
