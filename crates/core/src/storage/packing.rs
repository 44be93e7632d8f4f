//! Making room where records that stay keep files that are mostly released.
//!
//! What is left of such a segment is copied to a new file, which then takes the segment's name: numbers, salt and
//! ack file stay as they are. It is synced before it is renamed at every level, because what it replaces may be on
//! the disk already. A crash in between leaves the segment as it was.

use std::io::{self, IoSlice};

use super::disk::{DiskFile, read_exactly, write_all_at};
use super::engine::Engine;
use super::format::{FILE_HEADER, FileHeader, FileKind, packing_name};
use super::segment::Segment;
use super::walk::{Step, Walk};

/// A log without a limit is packed as if this were its limit.
const PLENTY: u64 = 512 << 20;
/// While there is room, nothing is packed ahead if less than this part of the log is dead: a prefix that is released bit by bit goes in whole
/// segments soon, and their files are written over, which packing would lose.
const DEAD: u64 = 4;
/// Segments that are packed before a new one is begun.
const AT_ONCE: usize = 2;
/// How much is copied at once.
const WINDOW: usize = 256 << 10;

impl Engine {
    /// A new segment is about to begin: packs some, while there is room to do it.
    pub(super) fn pack_ahead(&mut self) {
        let (claimed, limit) = (self.claimed(), self.limits.max_bytes);
        let is_short = claimed + AT_ONCE as u64 * self.limits.segment_bytes > limit;
        let is_large = claimed > limit.min(PLENTY) / 2;
        let dead = || self.segments.values().map(Segment::dead_bytes).sum::<u64>();
        if is_short || is_large && dead() > self.bytes / DEAD {
            self.pack(AT_ONCE);
        }
    }

    /// Makes what room can be made, for somebody who found none.
    pub(super) fn make_way(&mut self) {
        self.is_wanted = true;
        // Perhaps only what could not be deleted before, spare files, or what few records keep, in the open
        // segment too, are in the way.
        self.sweep();
        if self.active_segment().is_some_and(|segment| segment.live == 0 || segment.may_be_packed()) {
            self.seal();
        }
        self.spares.clear(&*self.disk);
        self.pack(usize::MAX);
        self.publish();
    }

    /// Packs up to `most` segments, those with the least in them first.
    fn pack(&mut self, most: usize) {
        let candidates = self.segments.values().filter(|segment| Some(segment.base) != self.active);
        let mut bases: Vec<(u32, u64)> =
            candidates.filter(|segment| segment.may_be_packed()).map(|segment| (segment.live, segment.base)).collect();
        bases.sort_unstable();
        for (_, base) in bases.into_iter().take(most) {
            if self.pack_segment(base).is_err() {
                self.clear_litter();
            }
        }
    }

    /// Leaves out what was released of the segment `base`, if that is worth it and there is room.
    fn pack_segment(&mut self, base: u64) -> io::Result<()> {
        let Some(segment) = self.segments.get_mut(&base) else { return Ok(()) };
        segment.tried_packing();
        let (salt, before, format) = (segment.salt, segment.length, segment.format);
        let file: &dyn DiskFile = self.files.get(&self.disk, FileKind::Segment, base)?;
        let Some(stretches) = what_stays(file, segment)? else { return Ok(()) };
        let length = FILE_HEADER as u64 + stretches.iter().map(|(from, to)| to - from).sum::<u64>();
        let is_worth_it = length <= before / 2;
        if !is_worth_it || self.claimed() + length > self.limits.max_bytes {
            return Ok(());
        }
        let name = packing_name(base);
        self.litter.insert(name.clone(), length);
        let mut packed = self.disk.create(&name)?;
        let header = FileHeader { base, salt, packed: true, format, ..FileHeader::default() }.encode(FileKind::Segment);
        write_all_at(packed.as_mut(), 0, &mut [IoSlice::new(&header)])?;
        let file: &dyn DiskFile = self.files.get(&self.disk, FileKind::Segment, base)?;
        copy(file, &stretches, packed.as_mut())?;
        packed.sync()?;
        self.disk.rename(&name, &FileKind::Segment.name(base))?;
        self.litter.remove(&name);
        self.files.put(FileKind::Segment, base, packed);
        if let Some(segment) = self.segments.get_mut(&base) {
            segment.packed(length);
        }
        self.bytes = self.bytes - before + length;
        self.dirty.remove(&base);
        // After a power cut it is the file before or this one: either will do.
        self.names_are_synced = false;
        Ok(())
    }
}

/// Where the records are that are not released, from byte to byte; nothing if the segment is damaged: it is
/// left to whoever reads it.
fn what_stays(file: &dyn DiskFile, segment: &Segment) -> io::Result<Option<Vec<(u64, u64)>>> {
    let mut walk =
        Walk::new(file, segment.salt, segment.end, FILE_HEADER as u64, segment.base).packed(segment.is_packed);
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    let mut found = 0;
    loop {
        let expected = walk.offset;
        match walk.step()? {
            Step::Record { offset, .. } if offset != expected => return Ok(None),
            Step::Record { header, .. } if segment.is_released(header.sequence) => {}
            Step::Record { offset, header } => {
                found += 1;
                let end = offset + header.total();
                match stretches.last_mut() {
                    Some((_, last)) if *last == offset => *last = end,
                    _ => stretches.push((offset, end)),
                }
            }
            Step::End { .. } => return Ok((found == segment.live).then_some(stretches)),
        }
    }
}

/// Appends the `stretches` of one file to the header of the other.
fn copy(from: &dyn DiskFile, stretches: &[(u64, u64)], to: &mut dyn DiskFile) -> io::Result<()> {
    let mut window = vec![0; WINDOW];
    let mut end = FILE_HEADER as u64;
    for &(mut at, until) in stretches {
        while at < until {
            let length = usize::try_from(until - at).unwrap_or(usize::MAX).min(WINDOW);
            let Some(part) = window.get_mut(..length) else { break };
            read_exactly(from, at, part)?;
            write_all_at(to, end, &mut [IoSlice::new(part)])?;
            at += length as u64;
            end += length as u64;
        }
    }
    Ok(())
}
