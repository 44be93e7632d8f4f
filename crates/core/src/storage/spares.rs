//! Files of segments that are not needed any more, kept to be written over.
//!
//! A new file costs the kernel a page of cache and a block of disk for every 4 KiB, and giving them back
//! when it is deleted: measured, two thirds of what writing costs. A file that is written over has both.
//! What it holds from its life before is no danger: records carry the salt of their segment.

use std::io;

use super::disk::{Disk, DiskFile};
use super::format::spare_name;

/// So many are always kept: what a small sampler lets go of at once.
const FEW: usize = 8;

/// More are kept up to this part of what is live. Who holds data for seconds lets go of tens of files in one tick, and fills
/// as many until the next.
const PART: u64 = 4;

/// The spare files, by base and length; the warmest last.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<(u64, u64)>);

impl Spares {
    /// What they take on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, length)| length).sum()
    }

    /// The length of the one that is used next; 0 if there is none.
    pub(super) fn next_length(&self) -> u64 {
        self.0.last().map_or(0, |(_, length)| *length)
    }

    /// One was found.
    pub(super) fn push(&mut self, base: u64, length: u64) {
        self.0.push((base, length));
    }

    /// Keeps the file `name`, if there are not enough beside `live` bytes of segments.
    pub(super) fn keep(&mut self, disk: &dyn Disk, name: &str, base: u64, length: u64, live: u64) -> bool {
        let is_wanted = self.0.len() < FEW || self.bytes() < live / PART;
        let is_kept = is_wanted && disk.rename(name, &spare_name(base)).is_ok();
        if is_kept {
            self.push(base, length);
        }
        is_kept
    }

    /// Gives one up, if there is one, to become the segment `name`: `begin` writes its header. Returns the
    /// file and its length.
    pub(super) fn take(
        &mut self,
        disk: &dyn Disk,
        name: &str,
        begin: impl FnOnce(&mut dyn DiskFile) -> io::Result<()>,
    ) -> Option<io::Result<(Box<dyn DiskFile>, u64)>> {
        let (base, length) = self.0.pop()?;
        let old = spare_name(base);
        let made = disk.open(&old).and_then(|mut file| {
            // In this order, so that a segment has its header from the first moment.
            begin(file.as_mut())?;
            disk.rename(&old, name)?;
            Ok((file, length))
        });
        Some(made.inspect_err(|_| self.remove(disk, base, length)))
    }

    /// Deletes those that are too many beside `live` bytes of segments, the coldest first.
    pub(super) fn trim(&mut self, disk: &dyn Disk, live: u64) {
        let mut bytes = self.bytes();
        let mut count = self.0.len();
        let is_too_many = |(_, length): &&(u64, u64)| {
            let is_one = count > FEW && bytes > live / PART;
            if is_one {
                bytes -= length;
                count -= 1;
            }
            is_one
        };
        let end = self.0.iter().take_while(is_too_many).count();
        let cold: Vec<_> = self.0.drain(..end).collect();
        cold.into_iter().for_each(|(base, length)| self.remove(disk, base, length));
    }

    /// Deletes all; what cannot be deleted still counts.
    pub(super) fn clear(&mut self, disk: &dyn Disk) {
        for (base, length) in std::mem::take(&mut self.0) {
            self.remove(disk, base, length);
        }
    }

    fn remove(&mut self, disk: &dyn Disk, base: u64, length: u64) {
        let removed = disk.remove(&spare_name(base));
        if removed.is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
            self.push(base, length);
        }
    }
}
