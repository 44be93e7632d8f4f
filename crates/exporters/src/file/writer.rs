//! The thread that writes, and the way to it.
//!
//! The hand-over is bounded: whoever comes while [`HAND_OVER`] bytes wait, waits too.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::num::NonZero;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use lru::LruCache;
use nyquist_core::clock::Clock;
use nyquist_core::component::Host;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit, oneshot};

use super::config::FileConfig;
use super::open::{Begin, OpenFile};
use super::rotation;

/// How many bytes may wait to be written.
const HAND_OVER: usize = 32 << 20;
/// What a request counts at the least.
const LEAST: usize = 4 << 10;

/// What goes into one file in one piece.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// What stands for the `*` of the path.
    pub(super) group: Option<String>,
    pub(super) bytes: Bytes,
}

pub(super) enum Job {
    Write(Vec<Record>, oneshot::Sender<(usize, io::Result<()>)>),
    Sync(oneshot::Sender<()>),
}

/// What the thread writes to. Blocks.
pub(super) trait Target {
    /// As [`Writer::write`].
    fn write(&mut self, records: &[Record]) -> (usize, io::Result<()>);

    /// Makes everything survive a power cut.
    fn sync(&mut self);
}

/// The way to the thread. Shared by the signals of an exporter.
pub(super) struct Writer {
    thread: OnceCell<Mutex<Sender<Job>>>,
    room: Semaphore,
}

impl Default for Writer {
    fn default() -> Self {
        Self { thread: OnceCell::new(), room: Semaphore::new(HAND_OVER) }
    }
}

impl Writer {
    /// Starts the thread, unless another signal has, and opens the file. An error is for people.
    pub(super) async fn start(&self, config: &Arc<FileConfig>, host: &Host) -> Result<(), String> {
        let begin = || async {
            let (jobs, inbox) = channel();
            let (answer, opened) = oneshot::channel();
            let interval = config.flush_interval.0;
            let mut files = Files::new(Arc::clone(config), Arc::clone(&host.clock));
            let body = move || {
                let outcome = files.open_first();
                let is_open = outcome.is_ok();
                let _ = answer.send(outcome);
                if is_open {
                    run(&mut files, interval, &inbox);
                }
            };
            let spawned = std::thread::Builder::new().name("file".to_owned()).spawn(body);
            spawned.map_err(|error| format!("cannot start a thread: {error}"))?;
            let opened = opened.await.unwrap_or_else(|_| Err(stopped()));
            opened.map_err(|error| format!("cannot open {}: {error}", config.path))?;
            Ok(Mutex::new(jobs))
        };
        self.thread.get_or_try_init(begin).await.map(drop)
    }

    /// Writes `records` in order. Answers how many of them the kernel has, and what kept it from the
    /// next one.
    pub(super) async fn write(&self, records: Vec<Record>) -> (usize, io::Result<()>) {
        let bytes: usize = records.iter().map(|record| record.bytes.len()).sum();
        let Ok(_room) = self.wait_for_room(bytes).await else { return (0, Err(stopped())) };
        let (answer, written) = oneshot::channel();
        self.send(Job::Write(records, answer));
        written.await.unwrap_or_else(|_| (0, Err(stopped())))
    }

    /// Makes what has been written survive a power cut.
    pub(super) async fn sync(&self) {
        let (answer, done) = oneshot::channel();
        self.send(Job::Sync(answer));
        let _ = done.await;
    }

    async fn wait_for_room(&self, bytes: usize) -> Result<SemaphorePermit<'_>, tokio::sync::AcquireError> {
        self.room.acquire_many(u32::try_from(bytes.clamp(LEAST, HAND_OVER)).unwrap_or(u32::MAX)).await
    }

    fn send(&self, job: Job) {
        if let Some(thread) = self.thread.get() {
            // A thread that has ended drops the job, and with it the answer.
            let _ = thread.lock().send(job);
        }
    }
}

fn stopped() -> io::Error {
    io::Error::other("the writing thread does not run")
}

/// The thread, until nobody can send any more: what it writes is synced after `interval` at the latest.
pub(super) fn run(files: &mut impl Target, interval: Duration, inbox: &Receiver<Job>) {
    let interval = interval.max(Duration::from_millis(1));
    let mut due: Option<std::time::Instant> = None;
    loop {
        let job = match due {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => inbox.recv_timeout(due.saturating_duration_since(std::time::Instant::now())),
        };
        match job {
            Ok(Job::Write(records, answer)) => {
                due = due.or_else(|| Some(std::time::Instant::now() + interval));
                let _ = answer.send(files.write(&records));
            }
            Ok(Job::Sync(answer)) => {
                files.sync();
                due = None;
                let _ = answer.send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return files.sync(),
        }
        if due.is_some_and(|due| due <= std::time::Instant::now()) {
            files.sync();
            due = None;
        }
    }
}

/// The files that are open. Blocks.
pub(super) struct Files {
    config: Arc<FileConfig>,
    clock: Arc<dyn Clock>,
    open: LruCache<PathBuf, OpenFile>,
    /// Files that this process began, by the hash of their path: what is opened again goes on.
    begun: HashSet<u64>,
}

impl Files {
    pub(super) fn new(config: Arc<FileConfig>, clock: Arc<dyn Clock>) -> Self {
        let most = if config.group_by.enabled { config.group_by.max_open_files } else { 1 };
        let most = NonZero::new(most).unwrap_or(NonZero::<usize>::MIN);
        Self { config, clock, open: LruCache::new(most), begun: HashSet::new() }
    }

    /// Opens the file, if there is only one.
    pub(super) fn open_first(&mut self) -> io::Result<()> {
        if self.config.group_by.enabled { Ok(()) } else { self.file(None).map(drop) }
    }

    fn write_one(&mut self, record: &Record) -> io::Result<()> {
        let config = Arc::clone(&self.config);
        let clock = Arc::clone(&self.clock);
        let file = self.file(record.group.as_deref())?;
        if let Some(rotation) = config.rotation.as_ref().filter(|_| !config.group_by.enabled) {
            let limit = rotation.max_megabytes.saturating_mul(1 << 20);
            if file.length() > 0 && file.length().saturating_add(record.bytes.len() as u64) > limit {
                rotation::set_aside(file, config.file_mode(), clock.unix_nanos())?;
                rotation::clean_up(file.path(), rotation, clock.unix_nanos());
            }
        }
        file.append(&record.bytes)
    }

    fn file(&mut self, group: Option<&str>) -> io::Result<&mut OpenFile> {
        let path = group.map_or_else(|| PathBuf::from(&self.config.path), |group| path_of(&self.config.path, group));
        if !self.open.contains(&path) {
            let file = self.open_file(&path)?;
            if let Some((path, mut evicted)) = self.open.push(path.clone(), file)
                && let Err(error) = evicted.sync()
            {
                tracing::warn!(exporter = "file", path = %path.display(), %error, "cannot sync");
            }
        }
        self.open.get_mut(&path).ok_or_else(|| io::Error::other("the file is gone"))
    }

    fn open_file(&mut self, path: &Path) -> io::Result<OpenFile> {
        if let (Some(mode), Some(folder)) = (self.config.directory_mode(), path.parent()) {
            make_folder(folder, mode)?;
        }
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let is_new = self.begun.insert(hasher.finish());
        let goes_on = self.config.append || self.config.rotation.is_on() || !is_new;
        let begin = match (goes_on, self.config.is_framed()) {
            (false, _) => Begin::Empty,
            (true, true) => Begin::BehindRecords,
            (true, false) => Begin::BehindLines,
        };
        OpenFile::open(path, begin, self.config.file_mode())
    }
}

impl Target for Files {
    fn write(&mut self, records: &[Record]) -> (usize, io::Result<()>) {
        for (written, record) in records.iter().enumerate() {
            if let Err(error) = self.write_one(record) {
                return (written, Err(error));
            }
        }
        (records.len(), Ok(()))
    }

    fn sync(&mut self) {
        for (path, file) in &mut self.open {
            if let Err(error) = file.sync() {
                tracing::warn!(exporter = "file", path = %path.display(), %error, "cannot sync");
            }
        }
    }
}

fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(folder)
}

/// `path` with `group` for its `*`: never outside the folder that `path` names.
pub(super) fn path_of(path: &str, group: &str) -> PathBuf {
    let parts = Path::new(group).components().filter_map(|part| match part {
        Component::Normal(part) => part.to_str(),
        _ => None,
    });
    let group: Vec<&str> = parts.collect();
    PathBuf::from(path.replacen('*', &group.join("/"), 1))
}
