//! Following files: what is there, what has been read. Blocks.
//!
//! A file is known by its device and inode and kept open, so that it is read to its end after it was
//! renamed or removed. One that has become shorter than what was read of it is read anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use nyquist_core::clock::Clock;
use serde::de::IgnoredAny;

use super::config::{OtlpJsonFileConfig, StartAt};
use super::glob::Glob;
use super::offsets::{FileId, HEAD, Head, Offset};
use super::source::Source;

/// How much is read at once.
const BLOCK: usize = 256 << 10;

/// How many offsets are kept of files that are not there.
const ABSENT: usize = 1024;

/// A line, and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) file: FileId,
    pub(super) path: PathBuf,
    /// Without the line break.
    pub(super) bytes: Vec<u8>,
    /// What has been read of the file once this line is done with.
    pub(super) end: u64,
}

/// What one step gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) lines: Vec<Line>,
    /// Lines that were left out because they are too long.
    pub(super) too_long: usize,
    /// All files have been read as far as they go; what cannot be read is the follower's `trouble`.
    pub(super) is_round_done: bool,
}

struct Followed {
    path: PathBuf,
    source: Source,
    head: Head,
    /// Everything before it has been taken.
    taken: u64,
    /// In the middle of a line that is too long.
    is_skipping: bool,
    /// The file's length when it last ended within a line.
    tail: Option<u64>,
    /// The file's length when it could not be decompressed.
    broken_at: Option<u64>,
    is_listed: bool,
}

/// The files that are followed.
pub(super) struct Follower {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
    config: OtlpJsonFileConfig,
    clock: Arc<dyn Clock>,
    /// How far files had been read that have not been seen since the start.
    absent: Vec<Offset>,
    files: BTreeMap<FileId, Followed>,
    /// The files that this round has still to read.
    round: VecDeque<FileId>,
    /// Files that turn up now have been there before.
    is_start: bool,
    has_warned: bool,
    /// What could not be read in the last round, and why.
    unreadable: BTreeMap<PathBuf, String>,
    /// The same of this round, as far as it has come.
    failed: BTreeMap<PathBuf, String>,
}

impl Follower {
    /// A follower of what `config` says, which has been validated. With `offsets` it goes on where another
    /// one ended; `start_at` was for that one.
    pub(super) fn new(
        config: &OtlpJsonFileConfig,
        clock: Arc<dyn Clock>,
        offsets: Option<Vec<Offset>>,
    ) -> Result<Self, String> {
        let globs = |patterns: &[String]| patterns.iter().map(|pattern| Glob::new(pattern)).collect::<Result<_, _>>();
        Ok(Self {
            include: globs(&config.include)?,
            exclude: globs(&config.exclude)?,
            config: config.clone(),
            clock,
            is_start: offsets.is_none(),
            absent: offsets.unwrap_or_default(),
            files: BTreeMap::new(),
            round: VecDeque::new(),
            has_warned: false,
            unreadable: BTreeMap::new(),
            failed: BTreeMap::new(),
        })
    }

    /// How far everything has been read.
    pub(super) fn offsets(&mut self) -> Vec<Offset> {
        let surplus = self.absent.len().saturating_sub(ABSENT);
        self.absent.drain(..surplus);
        let of_file = |(id, followed): (&FileId, &mut Followed)| Offset {
            file: *id,
            head: followed.current_head(),
            taken: followed.taken,
            path: followed.path.display().to_string(),
        };
        self.absent.iter().cloned().chain(self.files.iter_mut().map(of_file)).collect()
    }

    /// Everything before `end` has been taken.
    pub(super) fn taken(&mut self, file: FileId, end: u64) {
        if let Some(followed) = self.files.get_mut(&file) {
            followed.taken = end;
        }
    }

    /// Reads on: some lines of one file.
    pub(super) fn step(&mut self) -> Step {
        if self.round.is_empty() {
            self.look();
            self.round = self.files.keys().copied().collect();
        }
        while let Some(&id) = self.round.front() {
            let limit = usize::try_from(self.config.max_log_size.0).unwrap_or(usize::MAX);
            let Some(followed) = self.files.get_mut(&id) else {
                self.round.pop_front();
                continue;
            };
            match followed.read(id, limit) {
                Ok(Some(step)) => return step,
                Ok(None) if followed.broken_at.is_some() && followed.is_listed => {
                    self.failed.extend(self.unreadable.remove_entry(&followed.path));
                }
                Ok(None) => {
                    if self.config.replay_file {
                        followed.taken = 0;
                    } else if !followed.is_listed {
                        self.files.remove(&id);
                    }
                }
                Err(error) => {
                    let path = followed.path.clone();
                    if followed.source.is_compressed() {
                        // It says the same until it is another file.
                        followed.broken_at = followed.source.metadata().map(|metadata| metadata.len()).ok();
                    } else {
                        self.files.remove(&id);
                    }
                    self.fail(path, &error);
                }
            }
            self.round.pop_front();
        }
        self.unreadable = std::mem::take(&mut self.failed);
        Step { is_round_done: true, ..Step::default() }
    }

    /// What could not be read in the last round.
    pub(super) fn trouble(&self) -> Option<String> {
        let (path, error) = self.unreadable.first_key_value()?;
        let others = self.unreadable.len() - 1;
        let more = if others > 0 { format!("; nor can {others} others be read") } else { String::new() };
        Some(format!("cannot read {}: {error}{more}", path.display()))
    }

    /// Said once, for as long as it lasts.
    fn fail(&mut self, path: PathBuf, error: &io::Error) {
        if !self.unreadable.contains_key(&path) {
            tracing::warn!(receiver = "otlp_json_file", path = %path.display(), %error, "cannot read a file");
        }
        self.failed.insert(path, error.to_string());
    }

    /// Finds out which files there are.
    fn look(&mut self) {
        let mut paths = BTreeSet::new();
        self.include.iter().for_each(|glob| glob.find(&mut paths));
        paths.retain(|path| !self.exclude.iter().any(|glob| glob.matches(path)));
        self.files.values_mut().for_each(|followed| followed.is_listed = false);
        for path in paths {
            if let Err(error) = self.add(path.clone()) {
                self.fail(path, &error);
            }
        }
        self.is_start = false;
    }

    fn add(&mut self, path: PathBuf) -> io::Result<()> {
        let id = |metadata: &Metadata| (metadata.dev(), metadata.ino());
        if let Some(followed) = self.files.get_mut(&id(&std::fs::metadata(&path)?)) {
            followed.path = path;
            followed.is_listed = true;
            return Ok(());
        }
        if self.files.len() >= self.config.max_concurrent_files {
            if !std::mem::replace(&mut self.has_warned, true) {
                let most = self.config.max_concurrent_files;
                tracing::warn!(
                    receiver = "otlp_json_file",
                    most,
                    "more files match than max_concurrent_files; some wait"
                );
            }
            return Ok(());
        }
        let name = path.to_string_lossy();
        let mut source = Source::open(&path, self.config.is_compressed(&name))?;
        let metadata = source.metadata()?;
        if self.is_too_old(&metadata) {
            return Ok(());
        }
        let beginning = source.head(HEAD)?;
        let known = self.absent.iter().position(|offset| offset.file == id(&metadata));
        let known = known.map(|index| self.absent.remove(index)).filter(|known| known.head.fits(&beginning));
        let taken = match known {
            Some(known) => known.taken,
            None if self.is_start && self.config.start_at == StartAt::End => source.length()?,
            None => 0,
        };
        let followed = Followed {
            path,
            source,
            head: Head::of(&beginning),
            taken,
            is_skipping: false,
            tail: None,
            broken_at: None,
            is_listed: true,
        };
        self.files.insert(id(&metadata), followed);
        Ok(())
    }

    /// `exclude_older_than`.
    fn is_too_old(&self, metadata: &Metadata) -> bool {
        let limit = self.config.exclude_older_than.0;
        let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let now = Duration::from_nanos(self.clock.unix_nanos());
        !limit.is_zero() && changed.is_some_and(|changed| now.saturating_sub(changed) > limit)
    }
}

impl Followed {
    /// The next lines; `None` at the end of the file.
    fn read(&mut self, id: FileId, limit: usize) -> io::Result<Option<Step>> {
        let length = self.source.metadata()?.len();
        if !self.source.is_compressed() && length < self.taken {
            (self.taken, self.is_skipping, self.head) = (0, false, Head::default());
        }
        if self.source.is_at_end(length, self.taken) || self.broken_at == Some(length) {
            return Ok(None);
        }
        self.broken_at = None;
        self.source.forget(self.taken);
        let mut bytes = Vec::new();
        let mut wanted = BLOCK;
        loop {
            let read = self.source.read(self.taken + bytes.len() as u64, wanted, &mut bytes)?;
            let is_end = read < wanted;
            if self.is_skipping {
                return Ok(Some(self.skip(&bytes)));
            }
            if let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') {
                self.tail = None;
                return Ok(Some(self.cut(id, bytes.get(..=last).unwrap_or_default(), limit)));
            }
            if bytes.len() > limit {
                self.is_skipping = true;
                self.taken += bytes.len() as u64;
                return Ok(Some(Step { too_long: 1, ..Step::default() }));
            }
            if is_end {
                return Ok(self.last_line(id, bytes));
            }
            wanted = bytes.len();
        }
    }

    /// What tells the file from others; it grows with the file at first.
    fn current_head(&mut self) -> Head {
        if self.head.length < HEAD
            && let Ok(beginning) = self.source.head(HEAD)
        {
            self.head = Head::of(&beginning);
        }
        self.head
    }

    /// Passes over the rest of a line that is too long.
    fn skip(&mut self, bytes: &[u8]) -> Step {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        self.is_skipping = end.is_none();
        self.taken += end.map_or(bytes.len(), |end| end + 1) as u64;
        Step::default()
    }

    fn cut(&self, id: FileId, bytes: &[u8], limit: usize) -> Step {
        let mut step = Step::default();
        let mut end = self.taken;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            end += line.len() as u64;
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            // What is left out is taken, too: as an empty line.
            let is_long = content.len() > limit;
            step.too_long += usize::from(is_long);
            let bytes = if is_long { Vec::new() } else { content.to_vec() };
            step.lines.push(Line { file: id, path: self.path.clone(), bytes, end });
        }
        step
    }

    /// A last line without a line break: taken if it has not grown since the last round and is whole.
    fn last_line(&mut self, id: FileId, bytes: Vec<u8>) -> Option<Step> {
        let end = self.taken + bytes.len() as u64;
        let has_rested = self.tail.replace(end) == Some(end);
        if !has_rested || serde_json::from_slice::<IgnoredAny>(&bytes).is_err() {
            return None;
        }
        let line = Line { file: id, path: self.path.clone(), bytes, end };
        Some(Step { lines: vec![line], ..Step::default() })
    }
}
