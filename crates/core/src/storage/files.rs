//! Open files: few, whatever the number of segments.

use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::format::FileKind;

/// Files that are kept open.
const OPEN_FILES: usize = 16;

/// The files used last.
#[derive(Default)]
pub(super) struct Files(Vec<((FileKind, u64), Box<dyn DiskFile>)>);

impl Files {
    pub(super) fn get(&mut self, disk: &Arc<dyn Disk>, kind: FileKind, base: u64) -> io::Result<&mut dyn DiskFile> {
        let file = match self.0.iter().position(|(key, _)| *key == (kind, base)) {
            Some(index) => self.0.remove(index).1,
            None => disk.open(&kind.name(base))?,
        };
        Ok(self.put(kind, base, file))
    }

    pub(super) fn put(&mut self, kind: FileKind, base: u64, file: Box<dyn DiskFile>) -> &mut dyn DiskFile {
        self.forget(kind, base);
        if self.0.len() >= OPEN_FILES {
            self.0.remove(0);
        }
        self.0.push(((kind, base), file));
        match self.0.last_mut() {
            Some((_, file)) => file.as_mut(),
            None => unreachable!("a file was pushed"),
        }
    }

    pub(super) fn forget(&mut self, kind: FileKind, base: u64) {
        self.0.retain(|(key, _)| *key != (kind, base));
    }
}
