//! A file that is written to, one whole record after the other.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where writing begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// What was there is gone.
    Empty,
    /// Behind the lines that are there.
    BehindLines,
    /// Behind the records that are there, each with its length in front.
    BehindRecords,
}

/// An open file. It ends with a whole record, whatever fails.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    file: File,
    /// Where the last whole record ends.
    length: u64,
    /// A write failed, and its traces could not be removed.
    is_torn: bool,
    is_dirty: bool,
    /// The folder knows its name, also after a power cut.
    is_named: bool,
}

impl OpenFile {
    /// Opens the file at `path`, or makes it with the permissions `mode`: those of a file that is there stay.
    pub(super) fn open(path: &Path, begin: Begin, mode: u32) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(begin != Begin::Empty).write(true).create(true).truncate(begin == Begin::Empty).mode(mode);
        let mut file = options.open(path)?;
        let end = file.metadata()?.len();
        let length = match begin {
            Begin::Empty => 0,
            Begin::BehindLines => end_of_lines(&mut file, end)?,
            Begin::BehindRecords => end_of_records(&mut file, end)?,
        };
        if length < end {
            let bytes = end - length;
            tracing::warn!(exporter = "file", path = %path.display(), bytes, "cut off a write that was left unfinished");
            file.set_len(length)?;
        }
        file.seek(SeekFrom::Start(length))?;
        Ok(Self { path: path.to_owned(), file, length, is_torn: false, is_dirty: false, is_named: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Appends a whole record, or nothing.
    pub(super) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.mend()?;
        }
        if let Err(error) = self.file.write_all(record) {
            self.is_torn = self.mend().is_err();
            return Err(error);
        }
        self.length += record.len() as u64;
        self.is_dirty = true;
        Ok(())
    }

    fn mend(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.is_torn = false;
        Ok(())
    }

    /// Makes what was written survive a power cut.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if !self.is_dirty {
            return Ok(());
        }
        match self.file.sync_data() {
            // A pipe or a device: there is nothing to sync.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            outcome => outcome?,
        }
        if !self.is_named {
            // With it what rotation has renamed. Not every folder may be read, or can be synced.
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let _ = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
            self.is_named = true;
        }
        self.is_dirty = false;
        Ok(())
    }
}

/// The end of the last whole line.
fn end_of_lines(file: &mut File, end: u64) -> io::Result<u64> {
    let mut at = end;
    let mut block = [0; 4096];
    while at > 0 {
        let begin = at.saturating_sub(block.len() as u64);
        let Some(block) = block.get_mut(..(at - begin) as usize) else { break };
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(block)?;
        if let Some(found) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + found as u64 + 1);
        }
        at = begin;
    }
    if end == 0 { Ok(0) } else { Err(foreign()) }
}

/// The end of the last whole record.
fn end_of_records(file: &mut File, end: u64) -> io::Result<u64> {
    let mut at = 0;
    let mut prefix = [0; 4];
    while at + 4 <= end {
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut prefix)?;
        let next = at + 4 + u64::from(u32::from_be_bytes(prefix));
        if next > end {
            break;
        }
        at = next;
    }
    if at == 0 && end > 0 { Err(foreign()) } else { Ok(at) }
}

/// What is there was not written by this exporter: it is not for us to cut it off.
fn foreign() -> io::Error {
    io::Error::other("it holds no record of this format, so that it cannot be appended to; move it away")
}
