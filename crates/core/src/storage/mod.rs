//! The storage log: what must survive the process.
//!
//! An append-only, checksummed log in segments (the bytes: `docs/storage-format.md`). One log is one
//! directory with one user: an exporter's queue, the sampler's buffer.
//!
//! # Use
//!
//! ```text
//! build   let storage = context.extensions.storage("file_storage/x")?;        // no side effects
//! start   let (log, recovered) = storage.open(&owner).await?;                 // lock, scan
//!         while let chunk = log.read(cursor, 1 << 20).await? { .. }           // what is there, in order
//! run     let position = log.append(kind, weight, arrival, pieces).await?;    // durable; now say yes
//!         log.release(position.sequence);                                     // not needed any more
//! stop    log.close().await;                                                  // written, synced, unlocked
//! ```
//!
//! - [`Log::append`] answers when the record is as durable as [`Fsync`] says. Appends that come
//!   together share one write and one fsync. Payloads are taken in pieces and written from where
//!   they are; nothing is copied.
//! - [`Log::release`] costs a push to a list. Records may be released in any order. Disk space
//!   comes back by whole segments (a sixteenth of the limit, at most 16 MiB each); when room is scarce,
//!   a segment that few records keep is packed: what is left of it goes to a shorter file. So one record
//!   that is never released keeps its own bytes. A few files are kept and written over.
//! - [`Log::read`] gives what is not released, in order, from a [`Cursor`]; what was appended
//!   meanwhile as well. It holds `max_bytes` in memory, or one record.
//! - At the limit ([`Options::max_bytes`]) an append fails with [`Error::Full`], a typed refusal that
//!   a client may retry; so does a full disk ([`Error::NoSpace`]). Nothing is overwritten.
//!   [`Log::freed`] tells when another try is worth it.
//! - Damage never stops a start: what cannot be read is skipped, counted ([`Recovered`],
//!   [`Log::usage`]) and logged. What a newer version wrote does ([`Error::Newer`]): nothing is touched.
//!
//! # Two kinds of user
//!
//! A queue releases each record when it is delivered. A buffer whose records hold parts of many
//! traces has two ways to say what it does not need: [`Log::release`] when a reference count of a
//! record reaches zero; [`Log::release_before`], a low-water mark.
//! What was decided about records that are still there is a record too, of another kind: append it, and
//! release it no earlier than what it is about (releasing by low-water mark does that by itself).
//! What holds back a segment for too long can be appended anew and released at its old place.
//!
//! # What survives
//!
//! See [`Fsync`]. A release that a crash forgot means that the record is read again at the next start.
//!
//! # Threads
//!
//! Each log has a thread of its own, the only one that touches its files. The hand-over is bounded
//! ([`HAND_OVER`] bytes): whoever comes when it is full waits.

mod directory;
mod disk;
mod engine;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod faulty;
mod files;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod owner;
mod packing;
mod reading;
mod recovery;
mod releasing;
mod segment;
mod spares;
mod stats;
#[cfg(test)]
mod tests;
mod walk;
mod worker;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

pub use directory::Directory;
pub use disk::{Disk, DiskFile, RealDisk};
pub use error::Error;
pub use owner::{Owner, Storage};
pub use stats::Usage;

use crate::telemetry::Telemetry;
use engine::{Engine, Incoming, Limits};
use stats::Stats;
use worker::{Append, Inbox};

/// How many bytes of payload may wait to be written.
pub const HAND_OVER: usize = 64 << 20;

/// When an append is answered, and so: what survives which crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// When the kernel has the bytes. Survives `kill -9` of the process; a power cut or a kernel panic
    /// may lose what the kernel had not written back.
    #[default]
    None,
    /// When the kernel has the bytes; fsync follows within this time. Survives `kill -9`; a power cut may
    /// lose what was answered within this time before it.
    Interval(Duration),
    /// When fsync has returned. Survives `kill -9` and a power cut.
    Always,
}

/// How a log is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where; made if it is missing. One log each.
    pub directory: PathBuf,
    /// What an answer promises.
    pub fsync: Fsync,
    /// The most that all its files may take, in bytes; 0 for no limit.
    pub max_bytes: u64,
    /// How long to wait for another process to let go of the directory.
    pub lock_timeout: Duration,
    /// The version of the format whose builds can read the payloads: see [`Owner::format`].
    pub format: u32,
}

impl Options {
    /// A log in `directory` without fsync or limit.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, fsync: Fsync::None, max_bytes: 0, lock_timeout: Duration::from_secs(1), format: 1 }
    }

    fn limits(&self) -> Limits {
        let max_bytes = if self.max_bytes == 0 { u64::MAX } else { self.max_bytes };
        Limits {
            directory: self.directory.clone(),
            max_bytes,
            segment_bytes: (max_bytes / 16).clamp(4 << 10, format::LONGEST_SEGMENT),
            fsync: self.fsync,
            format: self.format,
        }
    }
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Its number in the log: ascending, never used twice while the log is not empty.
    pub sequence: u64,
    /// The segment it is in, by the sequence number of that segment's first record.
    pub segment: u64,
}

/// A record, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it is.
    pub position: Position,
    /// What its payload is: the user of the log knows.
    pub kind: u8,
    /// How many items it holds.
    pub weight: u32,
    /// When it arrived, in nanoseconds since the Unix epoch.
    pub arrival: u64,
    /// Its content.
    pub payload: Bytes,
}

/// Where reading goes on. The default is the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    segment: u64,
    /// 0: the segment's first record.
    offset: u64,
    /// Of the segment's file.
    edition: u32,
    sequence: u64,
    /// Records with smaller numbers are passed over.
    from: u64,
}

impl Cursor {
    /// From the record at `position` on.
    #[must_use]
    pub fn at(position: Position) -> Self {
        Self { segment: position.segment, from: position.sequence, ..Self::default() }
    }

    /// All records with smaller numbers have been passed.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence.max(self.from)
    }
}

/// What one read gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// In order.
    pub records: Vec<Record>,
    /// Where to go on.
    pub next: Cursor,
    /// There was nothing more when it was read.
    pub is_end: bool,
}

/// What was there when a log was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Records that are not released. Their payloads are checked when they are read.
    pub records: u64,
    /// The bytes of their payloads.
    pub bytes: u64,
    /// The sum of their weights.
    pub weight: u64,
    /// New records have this number or higher ones.
    pub next_sequence: u64,
    /// Files that are not the log's, with their lengths.
    pub foreign: Vec<(String, u64)>,
    /// What opening it found: damage among others.
    pub usage: Usage,
}

/// An open log. Clones are the same log; it closes when the last one is dropped.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    inbox: Arc<Inbox>,
    hand_over: Arc<Semaphore>,
    stats: Arc<Stats>,
    /// The most bytes of files.
    limit: u64,
    ended: parking_lot::Mutex<Option<oneshot::Receiver<()>>>,
}

/// Looks at a log without keeping it open.
#[derive(Debug, Clone)]
pub struct Monitor(Arc<Stats>);

impl Monitor {
    /// The error of the last write or fsync, if it failed.
    #[must_use]
    pub fn failing(&self) -> Option<Error> {
        self.0.failing()
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Log").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

impl Log {
    /// Something that tells how it is doing, also to who must not keep it open.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        Monitor(Arc::clone(&self.shared.stats))
    }

    /// Opens the log in `options.directory`: locks it and finds out what is there.
    ///
    /// # Errors
    /// If the directory cannot be made, locked or listed, or a newer version wrote it. Never for damage.
    pub async fn open(options: &Options) -> Result<(Self, Recovered), Error> {
        let directory = options.directory.clone();
        let make = move || RealDisk::open(&directory).map_err(|error| Error::from_io(&directory, &error));
        Self::open_with(options, make).await
    }

    /// The same on any disk, which `make` makes on the log's thread.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub async fn open_with<D, M>(options: &Options, make: M) -> Result<(Self, Recovered), Error>
    where
        D: Disk,
        M: FnOnce() -> Result<D, Error> + Send + 'static,
    {
        let inbox = Arc::new(Inbox::default());
        let stats = Arc::new(Stats::default());
        let (answer, opened) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let body = {
            let (inbox, stats, options) = (Arc::clone(&inbox), Arc::clone(&stats), options.clone());
            move || {
                let opened = make().and_then(|disk| open_engine(disk, &options, Arc::clone(&stats)));
                match opened {
                    Ok((lock, engine, recovered)) => {
                        let _ = answer.send(Ok(recovered));
                        let run = std::panic::AssertUnwindSafe(|| worker::run(engine, &inbox));
                        if std::panic::catch_unwind(run).is_err() {
                            tracing::error!(directory = %options.directory.display(), "the storage log failed; it is closed");
                        }
                        inbox.abandon();
                        // Nobody waits for what does not come.
                        stats.settled(u64::MAX);
                        drop(lock);
                    }
                    Err(error) => _ = answer.send(Err(error)),
                }
                let _ = end.send(());
            }
        };
        let spawned = std::thread::Builder::new().name("storage".to_owned()).spawn(body);
        spawned.map_err(|error| Error::from_io(&options.directory, &error))?;
        let recovered = opened.await.unwrap_or(Err(Error::Closed))?;
        let hand_over = Arc::new(Semaphore::new(HAND_OVER));
        let limit = options.limits().max_bytes;
        let shared = Shared { inbox, hand_over, stats, limit, ended: parking_lot::Mutex::new(Some(ended)) };
        Ok((Self { shared: Arc::new(shared) }, recovered))
    }

    /// Appends a record whose payload is `pieces`, one after the other. `weight` is how many items it
    /// holds, `arrival` when it came (nanoseconds since the Unix epoch); both come back with it.
    ///
    /// If the future is dropped before it is ready, the record may or may not be in the log.
    ///
    /// # Errors
    /// If the record is not as durable as promised: it will not be read back while the process
    /// lives, and is given back after a crash at the most.
    pub async fn append(&self, kind: u8, weight: u32, arrival: u64, pieces: Vec<Bytes>) -> Result<Position, Error> {
        let record = Incoming::new(kind, weight, arrival, pieces);
        let share = u32::try_from(record.length).unwrap_or(u32::MAX).min(HAND_OVER as u32);
        let permit = Arc::clone(&self.shared.hand_over).acquire_many_owned(share).await;
        let permit = permit.map_err(|_| Error::Closed)?;
        let (answer, position) = oneshot::channel();
        self.shared.inbox.append(Append { record, answer, _permit: permit });
        position.await.unwrap_or(Err(Error::Closed))
    }

    /// How many calls of `release` and the like there were, of all clones.
    #[must_use]
    pub fn releases(&self) -> u64 {
        self.shared.inbox.ordered()
    }

    /// How many of them are written down, or could not be: what comes later may be forgotten in a crash.
    #[must_use]
    pub fn settled_releases(&self) -> u64 {
        self.shared.stats.how_many_settled()
    }

    /// Ready when the first `releases` of them are.
    pub fn wait_until_settled(&self, releases: u64) -> impl Future<Output = ()> + use<> {
        let stats = Arc::clone(&self.shared.stats);
        async move { stats.wait_until_settled(releases).await }
    }

    /// The record `sequence` is not needed any more. Written down soon, not waited for.
    pub fn release(&self, sequence: u64) {
        self.release_range(sequence..sequence.saturating_add(1));
    }

    /// The records of `range` are not needed any more.
    pub fn release_range(&self, range: Range<u64>) {
        self.shared.inbox.release(range);
    }

    /// No record before `sequence` is needed any more.
    pub fn release_before(&self, sequence: u64) {
        self.release_range(0..sequence);
    }

    /// The records from `cursor` on that are not released, until their payloads exceed `max_bytes`
    /// (at least one).
    ///
    /// # Errors
    /// Of the operating system; worth another try. A segment that cannot be read three times in a row
    /// is set aside, so that this ends.
    pub async fn read(&self, cursor: Cursor, max_bytes: usize) -> Result<Chunk, Error> {
        let (answer, chunk) = oneshot::channel();
        self.shared.inbox.read(cursor, max_bytes, answer);
        chunk.await.unwrap_or(Err(Error::Closed))
    }

    /// Whether a record of `bytes` is likely to be taken: for who must know before others commit
    /// themselves. Not a promise.
    ///
    /// # Errors
    /// As [`Log::append`] would say, or has said; a disk that failed is tried by the log itself until it works.
    pub fn check_room(&self, bytes: u64) -> Result<(), Error> {
        if let Some(error) = self.shared.stats.failing() {
            return Err(error);
        }
        let (claimed, limit) = (self.shared.stats.claimed(), self.shared.limit);
        if claimed.saturating_add(engine::claim(bytes)) <= limit {
            return Ok(());
        }
        // An append would have made what room can be made.
        self.shared.inbox.make_way();
        Err(Error::Full { used: claimed, limit })
    }

    /// Ready when there is more room than there was at the call of this function.
    pub fn freed(&self) -> impl Future<Output = ()> + use<> {
        self.shared.stats.freed()
    }

    /// Makes everything so far survive a power cut, whatever the level.
    ///
    /// # Errors
    /// Of the operating system.
    pub async fn sync(&self) -> Result<(), Error> {
        let (answer, done) = oneshot::channel();
        self.shared.inbox.sync(answer);
        done.await.unwrap_or(Err(Error::Closed))
    }

    /// Writes and syncs everything, and lets go of the directory. What comes later is answered with
    /// [`Error::Closed`].
    pub async fn close(&self) {
        self.shared.inbox.close();
        let ended = self.shared.ended.lock().take();
        if let Some(ended) = ended {
            let _ = ended.await;
        }
    }

    /// Shows how it is doing in the gateway's own metrics, `nyquist_storage_*{storage, owner}`. Called
    /// once, by the extension that opened it.
    pub fn report_to(&self, telemetry: &Telemetry, storage: &str, owner: &str) {
        self.shared.stats.report_to(telemetry, storage, owner);
    }

    /// How it is doing, as of the last write.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.stats.usage()
    }
}

fn open_engine(
    disk: impl Disk,
    options: &Options,
    stats: Arc<Stats>,
) -> Result<(Box<dyn Send>, Engine, Recovered), Error> {
    let lock = lock(&disk, options)?;
    let mut engine = Engine::new(Arc::new(disk), options.limits(), stats, Box::new(rand::random));
    let recovered = engine.recover()?;
    let Usage { corrupt_records, torn_bytes, .. } = recovered.usage;
    let directory = options.directory.display();
    if corrupt_records > 0 {
        tracing::error!(%directory, records = corrupt_records, "storage is damaged; records that cannot be read are lost");
    }
    if torn_bytes > 0 {
        tracing::warn!(%directory, bytes = torn_bytes, "cut off a write that a crash left unfinished");
    }
    for (file, bytes) in &recovered.foreign {
        tracing::warn!(%directory, file, bytes, "not a file of this storage format; it is left alone and not read");
    }
    Ok((lock, engine, recovered))
}

fn lock(disk: &impl Disk, options: &Options) -> Result<Box<dyn Send>, Error> {
    const PAUSE: Duration = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    loop {
        match disk.lock() {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                return Err(Error::from_io(&options.directory, &error));
            }
            Err(_) if waited >= options.lock_timeout => {
                return Err(Error::Locked { directory: options.directory.clone() });
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
        waited += PAUSE;
    }
}
