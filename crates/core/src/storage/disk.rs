//! The files of one directory, behind a trait, so that tests can make them fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The directory of one log.
pub trait Disk: Send + Sync + 'static {
    /// Locks the directory against other processes until the value is dropped; `WouldBlock` if
    /// another one has the lock.
    ///
    /// # Errors
    /// Of the operating system.
    fn lock(&self) -> io::Result<Box<dyn Send>>;

    /// The names and lengths of the files.
    ///
    /// # Errors
    /// Of the operating system.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Makes the file `name`, empty; replaces what has this name.
    ///
    /// # Errors
    /// Of the operating system.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens the file `name` for reading and writing.
    ///
    /// # Errors
    /// Of the operating system.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file; replaces what has the name `to`.
    ///
    /// # Errors
    /// Of the operating system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Deletes a file.
    ///
    /// # Errors
    /// Of the operating system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes what was created, renamed and removed survive a power cut.
    ///
    /// # Errors
    /// Of the operating system.
    fn sync_directory(&self) -> io::Result<()>;

    /// Makes the directory itself survive a power cut, and those that it is in: one of them may have been made just
    /// now, or by a process that was killed before it came to this.
    ///
    /// # Errors
    /// Of the operating system.
    fn sync_place(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Of the operating system.
    fn length(&self) -> io::Result<u64>;

    /// Reads from `offset`; less than asked for only at the end of the file.
    ///
    /// # Errors
    /// Of the operating system.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes some of `pieces`, one after the other, from `offset` on, over what is there; returns how
    /// many bytes.
    ///
    /// # Errors
    /// Of the operating system.
    fn write_at(&mut self, offset: u64, pieces: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Cuts the file off at `length`.
    ///
    /// # Errors
    /// Of the operating system.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// Makes the content survive a power cut.
    ///
    /// # Errors
    /// Of the operating system. Content that was not synced before may be lost then.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
}

impl RealDisk {
    /// The directory, made (mode 0700) if it is missing.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The directories that hold the name of `directory`, of its parent and so on, as far as they are on the same file
/// system: the first name on it is where it is mounted.
fn parents(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = fs::canonicalize(directory)?;
    let device = fs::metadata(&directory)?.dev();
    let is_here = |parent: &&Path| fs::metadata(parent).is_ok_and(|metadata| metadata.dev() == device);
    Ok(directory.ancestors().skip(1).take_while(is_here).map(Path::to_owned).collect())
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Disk for RealDisk {
    fn lock(&self) -> io::Result<Box<dyn Send>> {
        let file = options().create(true).truncate(false).open(self.path("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // A file that goes away meanwhile, or has a name that is not ours, is of no interest.
            if let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = options().create(true).truncate(true).open(self.path(name))?;
        Ok(Box::new(RealFile { file, position: 0 }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile { file: options().open(self.path(name))?, position: 0 }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn sync_place(&self) -> io::Result<()> {
        for parent in parents(&self.directory)? {
            match File::open(&parent) {
                Ok(parent) => parent.sync_all()?,
                // Who may not even look into it has not made anything in it.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

struct RealFile {
    file: File,
    /// Where the next write without an offset goes.
    position: u64,
}

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&mut self, offset: u64, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        // There is no stable call that takes both pieces and an offset.
        if self.position != offset {
            self.position = self.file.seek(SeekFrom::Start(offset))?;
        }
        let written = self.file.write_vectored(pieces)?;
        self.position += written as u64;
        Ok(written)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Writes all of `pieces` from `offset` on.
pub(super) fn write_all_at(file: &mut dyn DiskFile, mut offset: u64, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
    // More than the operating systems' limit would be refused.
    const AT_ONCE: usize = 1024;
    IoSlice::advance_slices(&mut pieces, 0);
    while !pieces.is_empty() {
        let some = pieces.get(..AT_ONCE).unwrap_or(pieces);
        match file.write_at(offset, some) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut pieces, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads exactly `buffer`, or fails with `UnexpectedEof`.
pub(super) fn read_exactly(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    if file.read_at(offset, buffer)? == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: of a directory that is made in others that are made with it, the names of all of them are synced.
    #[test]
    fn the_names_of_all_directories_are_synced() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a/b/log");
        let disk = RealDisk::open(&directory).unwrap();
        let parents = parents(&directory).unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        assert_eq!(parents[..3], [root.join("a/b"), root.join("a"), root]);
        disk.sync_place().unwrap();
        disk.sync_directory().unwrap();
    }
}
