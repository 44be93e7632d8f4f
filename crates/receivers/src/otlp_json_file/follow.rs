//! Following files: what is there, what has been read. Blocks.
//!
//! A file is known by its device and inode and kept open, so that it is read to its end after it was
//! renamed or removed. One that has become shorter than what was read of it is read anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::de::IgnoredAny;

use super::config::{OtlpJsonFileConfig, StartAt};
use super::glob::Glob;

/// How much is read at once.
const BLOCK: usize = 256 << 10;

/// Device and inode.
pub(super) type FileId = (u64, u64);

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
    /// All files have been read as far as they go.
    pub(super) is_round_done: bool,
}

struct Followed {
    path: PathBuf,
    file: File,
    /// Everything before it has been taken.
    taken: u64,
    /// In the middle of a line that is too long.
    is_skipping: bool,
    /// The file's length when it last ended within a line.
    tail: Option<u64>,
    is_listed: bool,
}

/// The files that are followed.
pub(super) struct Follower {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
    config: OtlpJsonFileConfig,
    files: BTreeMap<FileId, Followed>,
    /// The files that this round has still to read.
    round: VecDeque<FileId>,
    is_first_round: bool,
    has_warned: bool,
}

impl Follower {
    /// A follower of what `config` says, which has been validated.
    pub(super) fn new(config: &OtlpJsonFileConfig) -> Result<Self, String> {
        let globs = |patterns: &[String]| patterns.iter().map(|pattern| Glob::new(pattern)).collect::<Result<_, _>>();
        Ok(Self {
            include: globs(&config.include)?,
            exclude: globs(&config.exclude)?,
            config: config.clone(),
            files: BTreeMap::new(),
            round: VecDeque::new(),
            is_first_round: true,
            has_warned: false,
        })
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
                Ok(None) => {
                    if self.config.replay_file {
                        followed.taken = 0;
                    } else if !followed.is_listed {
                        self.files.remove(&id);
                    }
                }
                Err(error) => {
                    tracing::warn!(receiver = "otlp_json_file", path = %followed.path.display(), %error, "cannot read");
                    self.files.remove(&id);
                }
            }
            self.round.pop_front();
        }
        Step { is_round_done: true, ..Step::default() }
    }

    /// Finds out which files there are.
    fn look(&mut self) {
        let mut paths = BTreeSet::new();
        self.include.iter().for_each(|glob| glob.find(&mut paths));
        paths.retain(|path| !self.exclude.iter().any(|glob| glob.matches(path)));
        self.files.values_mut().for_each(|followed| followed.is_listed = false);
        for path in paths {
            if let Err(error) = self.add(path.clone()) {
                tracing::warn!(receiver = "otlp_json_file", path = %path.display(), %error, "cannot open");
            }
        }
        self.is_first_round = false;
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
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        let is_skipped = self.is_first_round && self.config.start_at == StartAt::End;
        let taken = if is_skipped { metadata.len() } else { 0 };
        let followed = Followed { path, file, taken, is_skipping: false, tail: None, is_listed: true };
        self.files.insert(id(&metadata), followed);
        Ok(())
    }
}

/// Appends at most `most` bytes to `bytes`; fewer at the end of the file.
#[expect(clippy::disallowed_methods, reason = "bounded by take")]
fn read_up_to(file: &File, most: usize, bytes: &mut Vec<u8>) -> io::Result<usize> {
    file.take(most as u64).read_to_end(bytes)
}

impl Followed {
    /// The next lines; `None` at the end of the file.
    fn read(&mut self, id: FileId, limit: usize) -> io::Result<Option<Step>> {
        let length = self.file.metadata()?.len();
        if length < self.taken {
            (self.taken, self.is_skipping) = (0, false);
        }
        if length == self.taken {
            return Ok(None);
        }
        self.file.seek(SeekFrom::Start(self.taken))?;
        let mut bytes = Vec::new();
        let mut wanted = BLOCK;
        loop {
            let read = read_up_to(&self.file, wanted, &mut bytes)?;
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
