//! Opening a log: finding out what is there. Damage never stops it.

use std::io;
use std::sync::atomic::Ordering;

use super::disk::{DiskFile, read_exactly};
use super::engine::Engine;
use super::format::{
    ACK_ENTRY, AckEntry, FILE_HEADER, FileHeader, FileKind, RECORD_HEADER, RecordHeader, VERSION, packing_name,
    spare_base,
};
use super::segment::Segment;
use super::walk::{Step, Walk};
use super::{Error, Recovered};

/// How much is read at once while looking at a payload.
const WINDOW: usize = 64 << 10;

impl Engine {
    /// Reads the directory. Called once, first.
    ///
    /// # Errors
    /// If the directory cannot be listed, or a newer version wrote it.
    pub(super) fn recover(&mut self) -> Result<Recovered, Error> {
        let files = self.disk.list().map_err(|error| Error::from_io(&self.limits.directory, &error))?;
        self.refuse_newer(&files)?;
        let mut recovered = Recovered::default();
        let mut bases = Vec::new();
        for (name, length) in &files {
            let base = name.split('.').next().and_then(|base| base.parse::<u64>().ok());
            if FileKind::Segment.base(name).is_some() {
                bases.extend(base);
            } else if let Some(base) = spare_base(name) {
                self.spares.push(base, *length);
            } else if base.is_some_and(|base| packing_name(base) == *name) {
                // It never took the place of its segment.
                self.litter.insert(name.clone(), *length);
            } else if FileKind::Acks.base(name).is_none() && name != "lock" && !name.ends_with(".corrupt") {
                recovered.foreign.push((name.clone(), *length));
            }
            // Also above what was set aside.
            if let Some(base) = base.filter(|base| *base < 1 << 62) {
                self.next_sequence = self.next_sequence.max(base.saturating_add(1));
            }
        }
        bases.sort_unstable();
        for (index, base) in bases.iter().enumerate() {
            let until = bases.get(index + 1).copied().unwrap_or(u64::MAX);
            if self.recover_segment(*base, until, &mut recovered).is_err() {
                self.set_aside(*base);
            }
        }
        for (name, length) in &files {
            if FileKind::Acks.base(name).is_some_and(|base| !self.segments.contains_key(&base)) {
                self.litter.insert(name.clone(), *length);
            }
        }
        // Deletes what is released, writes down what is lost.
        self.settle();
        self.spares.trim(&*self.disk, self.bytes);
        recovered.records = self.live;
        recovered.next_sequence = self.next_sequence;
        recovered.usage = self.stats.usage();
        Ok(recovered)
    }

    /// Before anything is touched: a newer version's files are nothing to guess at.
    fn refuse_newer(&self, files: &[(String, u64)]) -> Result<(), Error> {
        for (name, _) in files {
            let kinds = [FileKind::Segment, FileKind::Acks];
            let Some(kind) = kinds.into_iter().find(|kind| kind.base(name).is_some()) else { continue };
            let mut header = [0; FILE_HEADER];
            // What cannot be read is damage, and another step's concern.
            let read = self.disk.open(name).and_then(|file| read_exactly(file.as_ref(), 0, &mut header));
            if let (Ok(()), Some(version)) = (read, FileHeader::newer(kind, &header)) {
                let directory = self.limits.directory.clone();
                return Err(Error::Newer { directory, file: name.clone(), version, known: VERSION });
            }
        }
        Ok(())
    }

    /// Reads the headers of the segment `base`, which ends before the sequence number `until`.
    fn recover_segment(&mut self, base: u64, until: u64, recovered: &mut Recovered) -> io::Result<()> {
        let file = self.file(FileKind::Segment, base)?;
        let length = file.length()?;
        let mut bytes = [0; FILE_HEADER];
        read_exactly(file, 0, &mut bytes)?;
        let header = FileHeader::decode(FileKind::Segment, &bytes).map_err(io::Error::other)?;
        if header.base != base {
            return Err(io::Error::other("its name is not that in its header"));
        }
        let mut segment = Segment::new(base, header.salt, length, length);
        let (is_reused, is_packed) = (header.reused, header.packed);
        segment.is_packed = is_packed;
        segment.format = header.format;
        // What is released must be known first, so that only the rest is weighed.
        let acks = self.read_acks(&mut segment);
        let file = self.file(FileKind::Segment, base)?;
        let mut walk = Walk::new(file, header.salt, length, FILE_HEADER as u64, base).packed(is_packed);
        let mut acks = Released::new(acks);
        let (mut bytes, mut weight, mut corrupt) = (0, 0, 0);
        let mut last = None;
        let (mut end, mut torn) = loop {
            let expected = walk.offset;
            let step = walk.step()?;
            // How many records are missing from a packed segment nobody knows.
            let is_damaged = match step {
                Step::Record { offset, .. } => offset != expected,
                Step::End { torn, .. } => torn > 0,
            };
            corrupt += u64::from(is_packed && is_damaged);
            match step {
                Step::Record { offset, header } if header.sequence >= until => break (offset, length - offset),
                Step::Record { offset, header } => {
                    let Ok(index) = u32::try_from(header.sequence - base) else { break (length, 0) };
                    for lost in segment.count..index {
                        segment.grow(1, 0);
                        if acks.contains(lost) || is_packed {
                            segment.forget(lost);
                        } else {
                            // Written down as released, so that it is counted once.
                            let sequence = base + u64::from(lost);
                            corrupt += u64::from(segment.release(&(sequence..sequence + 1)));
                        }
                    }
                    segment.grow(1, 0);
                    last = None;
                    if acks.contains(index) {
                        segment.forget(index);
                    } else {
                        last = is_reused.then_some((offset, header));
                        bytes += u64::from(header.length);
                        weight += u64::from(header.weight);
                    }
                }
                Step::End { offset, torn } => break (offset, torn),
            }
        };
        // Where there was something before, a write that was torn may look like a whole record.
        if let Some((offset, header)) = last
            && is_torn(file, offset, &header)
        {
            segment.forget_last();
            bytes -= u64::from(header.length);
            weight -= u64::from(header.weight);
            (end, torn) = (offset, length - offset);
        }
        segment.end = end;
        segment.length = length;
        if torn > 0 {
            let file = self.file(FileKind::Segment, base)?;
            if file.truncate(end).is_ok() {
                segment.length = end;
            }
        }
        // What is left of another life of the file is no sign of a write that was torn.
        if !is_reused && !is_packed {
            self.stats.torn_bytes.fetch_add(torn, Ordering::Relaxed);
        }
        self.stats.corrupt_records.fetch_add(corrupt, Ordering::Relaxed);
        recovered.bytes += bytes;
        recovered.weight += weight;
        self.next_sequence = self.next_sequence.max(segment.sequences().end);
        self.bytes += segment.bytes();
        self.live += u64::from(segment.live);
        self.unsettled.insert(base);
        // A process that was killed may not have come to it.
        self.dirty.insert(base);
        self.segments.insert(base, segment);
        Ok(())
    }

    /// What the ack file of `segment` says; nothing if it is not one.
    fn read_acks(&mut self, segment: &mut Segment) -> Vec<AckEntry> {
        let mut entries = Vec::new();
        let Ok(file) = self.file(FileKind::Acks, segment.base) else { return entries };
        let mut header = [0; FILE_HEADER];
        let is_whole = read_exactly(file, 0, &mut header).is_ok();
        let header = FileHeader::decode(FileKind::Acks, &header).ok();
        let expected = FileHeader { base: segment.base, salt: segment.salt, ..FileHeader::default() };
        let Ok(length) = file.length() else { return entries };
        if !is_whole || header != Some(expected) {
            // Goes at once; the next release begins a new one.
            self.files.forget(FileKind::Acks, segment.base);
            self.litter.insert(FileKind::Acks.name(segment.base), length);
            return entries;
        }
        let mut content = vec![0; usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(FILE_HEADER)];
        let Ok(read) = file.read_at(FILE_HEADER as u64, &mut content) else { return entries };
        let (chunks, _) = content.get(..read).unwrap_or_default().as_chunks::<ACK_ENTRY>();
        entries.extend(chunks.iter().filter_map(|chunk| AckEntry::decode(chunk, segment.salt)));
        // Appending goes on at the next whole entry.
        segment.acks_length = (FILE_HEADER + chunks.len() * ACK_ENTRY) as u64;
        entries
    }
}

/// Is the payload of the record at `offset` not what was to be written?
fn is_torn(file: &dyn DiskFile, offset: u64, header: &RecordHeader) -> bool {
    let mut window = vec![0; WINDOW.min(header.length as usize)];
    let (mut at, mut left, mut crc) = (offset + RECORD_HEADER as u64, header.length as usize, 0);
    while left > 0 {
        let length = window.len().min(left);
        let Some(part) = window.get_mut(..length) else { return false };
        // It is read again when it is asked for.
        if read_exactly(file, at, part).is_err() {
            return false;
        }
        crc = crc32c::crc32c_append(crc, part);
        at += length as u64;
        left -= length;
    }
    crc != header.payload_crc
}

/// Released records, to be asked for in ascending order.
struct Released {
    /// In descending order of the first.
    entries: Vec<AckEntry>,
    /// Everything below, of the entries begun so far.
    until: u64,
}

impl Released {
    fn new(mut entries: Vec<AckEntry>) -> Self {
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.first));
        Self { entries, until: 0 }
    }

    fn contains(&mut self, index: u32) -> bool {
        while let Some(entry) = self.entries.pop_if(|entry| entry.first <= index) {
            self.until = self.until.max(u64::from(entry.first) + u64::from(entry.count));
        }
        u64::from(index) < self.until
    }
}
