//! Letting go: releases are written down, and segments of which nothing is left are deleted, or kept to
//! be written over.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::disk::write_all_at;
use super::engine::Engine;
use super::format::{FILE_HEADER, FileHeader, FileKind};

impl Engine {
    /// The records of `range` are not needed any more. What it means is on the disk after
    /// [`Engine::settle`].
    pub(super) fn release(&mut self, range: Range<u64>) {
        let first = self.segments.range(..=range.start).next_back().map_or(0, |(base, _)| *base);
        for (base, segment) in self.segments.range_mut(first..range.end.max(first)) {
            let released = segment.release(&range);
            if released > 0 {
                self.live -= u64::from(released);
                self.unsettled.insert(*base);
            }
        }
    }

    /// Writes down what was released, and deletes segments of which nothing is left.
    pub(super) fn settle(&mut self) {
        self.sweep();
        for base in self.unsettled.clone() {
            let Some(segment) = self.segments.get(&base) else { continue };
            let entries = segment.encode_unwritten();
            if entries.is_empty() {
                if segment.live > 0 || self.active == Some(base) {
                    self.unsettled.remove(&base);
                }
                continue;
            }
            match self.write_acks(base, &entries) {
                Ok(length) => {
                    let Some(segment) = self.segments.get_mut(&base) else { continue };
                    self.bytes += length - segment.acks_length;
                    segment.acks_written(length);
                    if segment.live > 0 || self.active == Some(base) {
                        self.unsettled.remove(&base);
                    }
                }
                // Tried again with the next release.
                Err(_) => _ = self.stats.failed_writes.fetch_add(1, Ordering::Relaxed),
            }
        }
        if self.is_wanted {
            // What was released may be in a file that others keep, or in the one that is open.
            self.make_way();
        }
        self.publish();
    }

    fn write_acks(&mut self, base: u64, entries: &[u8]) -> io::Result<u64> {
        let Some(segment) = self.segments.get(&base) else { return Err(io::ErrorKind::NotFound.into()) };
        let before = segment.acks_length;
        if before == 0 {
            let header = FileHeader { base, salt: segment.salt, ..FileHeader::default() }.encode(FileKind::Acks);
            let (name, length) = (FileKind::Acks.name(base), (FILE_HEADER + entries.len()) as u64);
            let file = self.disk.create(&name)?;
            let file = self.files.put(FileKind::Acks, base, file);
            let written = write_all_at(file, 0, &mut [IoSlice::new(&header), IoSlice::new(entries)]);
            if written.is_err() {
                self.files.forget(FileKind::Acks, base);
                self.litter.insert(name, length);
                self.clear_litter();
            } else {
                self.litter.remove(&name);
            }
            return written.map(|()| length);
        }
        let file = self.files.get(&self.disk, FileKind::Acks, base)?;
        // Cuts off what a write that failed may have left.
        if file.length()? != before {
            file.truncate(before)?;
        }
        write_all_at(file, before, &mut [IoSlice::new(entries)])?;
        Ok(before + entries.len() as u64)
    }

    /// Deletes segments of which nothing is left.
    pub(super) fn sweep(&mut self) {
        self.clear_litter();
        let active = self.active;
        let is_done =
            |base: &u64| self.segments.get(base).is_none_or(|segment| segment.live == 0) && active != Some(*base);
        let done: Vec<u64> = self.unsettled.iter().copied().filter(is_done).collect();
        done.into_iter().for_each(|base| self.delete(base));
    }

    /// Deletes a segment; if that fails, it is tried again.
    pub(super) fn delete(&mut self, base: u64) {
        self.files.forget(FileKind::Segment, base);
        self.files.forget(FileKind::Acks, base);
        let name = FileKind::Segment.name(base);
        let is_gone = self.keep_as_spare(base, &name)
            || match self.disk.remove(&name) {
                Ok(()) => true,
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            };
        if !is_gone {
            self.unsettled.insert(base);
            return;
        }
        let acks = self.segments.get(&base).map_or(0, |segment| segment.acks_length);
        self.litter.insert(FileKind::Acks.name(base), acks);
        self.drop_segment(base);
        self.spares.trim(&*self.disk, self.bytes);
        self.clear_litter();
    }

    /// Writing over a file costs a third of writing a new one, so a few are kept while there is plenty
    /// of room.
    fn keep_as_spare(&mut self, base: u64, name: &str) -> bool {
        let length = self.segments.get(&base).map_or(0, |segment| segment.length);
        let is_worth_it = (self.limits.segment_bytes / 2..=self.limits.segment_bytes).contains(&length);
        let is_roomy = self.held() <= self.limits.max_bytes / 2;
        is_worth_it && is_roomy && self.spares.keep(&*self.disk, name, base, length, self.bytes)
    }

    pub(super) fn drop_segment(&mut self, base: u64) -> u32 {
        self.dirty.remove(&base);
        self.unsettled.remove(&base);
        let Some(segment) = self.segments.remove(&base) else { return 0 };
        self.bytes -= segment.bytes();
        self.live -= u64::from(segment.live);
        segment.live
    }
}
