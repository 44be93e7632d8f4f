//! The log itself, without threads: appends, releases, rotates, deletes.
//!
//! One segment at a time is appended to. A write that fails is cut off again; if even that fails,
//! or if fsync does, the segment is left as it is and the next record begins a new one, because
//! what a disk says about a file after a failed fsync means nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::disk::{Disk, DiskFile, append_all};
use super::files::Files;
use super::format::{FILE_HEADER, FileHeader, FileKind, RECORD_HEADER, RecordHeader};
use super::segment::Segment;
use super::stats::Stats;
use super::{Error, Fsync, Position};

/// Longer records are refused whatever the limits say: 1 GiB.
const MAX_RECORD: u64 = 1 << 30;
/// Records that are written by one call.
const MAX_BATCH: usize = 1024;

/// A record on its way into the log, its payload in pieces.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    pub(super) kind: u8,
    pub(super) weight: u32,
    pub(super) arrival: u64,
    pub(super) pieces: Vec<Bytes>,
    pub(super) length: u64,
    pub(super) crc: u32,
}

impl Incoming {
    pub(super) fn new(kind: u8, weight: u32, arrival: u64, pieces: Vec<Bytes>) -> Self {
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let crc = pieces.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
        Self { kind, weight, arrival, pieces, length, crc }
    }

    fn total(&self) -> u64 {
        RECORD_HEADER as u64 + self.length
    }
}

/// How large files and the whole may get.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) directory: PathBuf,
    /// Of all files; `u64::MAX` for none.
    pub(super) max_bytes: u64,
    /// A segment is closed rather than getting longer, unless it would be empty.
    pub(super) segment_bytes: u64,
    pub(super) fsync: Fsync,
}

/// The open log.
pub(super) struct Engine {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) limits: Limits,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// The segment that is appended to.
    pub(super) active: Option<u64>,
    pub(super) next_sequence: u64,
    /// What all segments and ack files take.
    pub(super) bytes: u64,
    /// Records that are not released.
    pub(super) live: u64,
    /// Segments with content that is not synced.
    pub(super) dirty: BTreeSet<u64>,
    /// A power cut leaves all segments their names.
    names_are_synced: bool,
    /// Segments with releases that are not written down, or that are to be deleted.
    pub(super) unsettled: BTreeSet<u64>,
    pub(super) files: Files,
    pub(super) stats: Arc<Stats>,
    salt: Box<dyn FnMut() -> u64 + Send>,
}

impl Engine {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        limits: Limits,
        stats: Arc<Stats>,
        salt: Box<dyn FnMut() -> u64 + Send>,
    ) -> Self {
        Self {
            disk,
            limits,
            segments: BTreeMap::new(),
            active: None,
            next_sequence: 1,
            bytes: 0,
            live: 0,
            dirty: BTreeSet::new(),
            names_are_synced: false,
            unsettled: BTreeSet::new(),
            files: Files::default(),
            stats,
            salt,
        }
    }

    /// Appends `records` in order, as few writes as possible; the answers are durable as the level
    /// says.
    pub(super) fn append(&mut self, records: &[Incoming]) -> Vec<Result<Position, Error>> {
        let mut answers: Vec<Result<Position, Error>> = Vec::with_capacity(records.len());
        let mut touched: Vec<(u64, Range<usize>)> = Vec::new();
        let mut rest = records;
        while let Some(first) = rest.first() {
            let base = match self.make_room(first) {
                Ok(base) => base,
                Err(error) => {
                    answers.push(Err(error));
                    rest = rest.get(1..).unwrap_or_default();
                    continue;
                }
            };
            let count = self.fitting(rest);
            let (batch, after) = rest.split_at(count.min(rest.len()));
            let from = answers.len();
            match self.write(base, batch) {
                Ok(first) => {
                    let position = |index| Position { sequence: first + index, segment: base };
                    answers.extend((0..batch.len() as u64).map(|index| Ok(position(index))));
                    touched.push((base, from..answers.len()));
                    self.stats.succeeded();
                }
                Err(error) => {
                    let error = Error::from_io(&self.limits.directory, &error);
                    self.stats.failed(&error);
                    answers.extend(batch.iter().map(|_| Err(error.clone())));
                }
            }
            rest = after;
        }
        if self.limits.fsync == Fsync::Always {
            self.sync_touched(&touched, &mut answers);
        }
        self.publish();
        answers
    }

    /// The segment that `record` goes to, if the limits allow it.
    fn make_room(&mut self, record: &Incoming) -> Result<u64, Error> {
        let limit = self.limits.max_bytes;
        let most = MAX_RECORD.min(limit.saturating_sub((FILE_HEADER + RECORD_HEADER) as u64));
        if record.length > most {
            return Err(Error::TooLarge { bytes: record.length, limit: most });
        }
        if let Some(segment) = self.active_segment()
            && segment.count > 0
            && segment.end + record.total() > self.limits.segment_bytes
        {
            self.seal();
        }
        let header = |engine: &Self| if engine.active.is_some() { 0 } else { FILE_HEADER as u64 };
        if self.bytes + record.total() + header(self) > limit {
            // Perhaps only what could not be deleted before, or the open segment with nothing left
            // in it, is in the way.
            self.sweep();
            if self.active_segment().is_some_and(|segment| segment.live == 0) {
                self.seal();
            }
            if self.bytes + record.total() + header(self) > limit {
                return Err(Error::Full { used: self.bytes, limit });
            }
        }
        match self.active {
            Some(base) => Ok(base),
            None => self.begin_segment().map_err(|error| {
                let error = Error::from_io(&self.limits.directory, &error);
                self.stats.failed(&error);
                error
            }),
        }
    }

    /// How many of `records`, at least one, fit into the open segment and under the limit.
    fn fitting(&self, records: &[Incoming]) -> usize {
        let end = self.active_segment().map_or(0, |segment| segment.end);
        let room = self.limits.segment_bytes.saturating_sub(end).min(self.limits.max_bytes - self.bytes);
        let mut total = 0;
        let fits = |record: &&Incoming| {
            total += record.total();
            total <= room
        };
        records.iter().take(MAX_BATCH).take_while(fits).count().max(1)
    }

    /// Writes `batch` to the end of the open segment; returns the first sequence number.
    fn write(&mut self, base: u64, batch: &[Incoming]) -> io::Result<u64> {
        let Some(segment) = self.segments.get_mut(&base) else { return Err(io::ErrorKind::NotFound.into()) };
        let first = self.next_sequence;
        let headers: Vec<_> = (first..)
            .zip(batch)
            .map(|(sequence, record)| {
                let Incoming { kind, weight, arrival, crc, .. } = *record;
                let length = u32::try_from(record.length).unwrap_or(u32::MAX);
                RecordHeader { kind, length, payload_crc: crc, sequence, arrival, weight }.encode(segment.salt)
            })
            .collect();
        let mut pieces = Vec::with_capacity(batch.len() * 3);
        for (header, record) in headers.iter().zip(batch) {
            pieces.push(IoSlice::new(header));
            pieces.extend(record.pieces.iter().map(|piece| IoSlice::new(piece)));
        }
        let file = self.files.get(&self.disk, FileKind::Segment, base)?;
        let written = append_all(file, &mut pieces);
        self.dirty.insert(base);
        let Err(error) = written else {
            let bytes: u64 = batch.iter().map(Incoming::total).sum();
            let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            segment.grow(count, bytes);
            self.bytes += bytes;
            self.live += u64::from(count);
            self.next_sequence += u64::from(count);
            return Ok(first);
        };
        let is_clean = file.truncate(segment.end).is_ok() && file.length().is_ok_and(|length| length == segment.end);
        if !is_clean {
            // The sequence numbers may be in the file: they are not used again.
            let most = segment.end + batch.iter().map(Incoming::total).sum::<u64>();
            let length = file.length().unwrap_or(most);
            self.bytes += length.saturating_sub(segment.length);
            segment.length = length;
            self.next_sequence += batch.len() as u64;
            self.seal();
        }
        Err(error)
    }

    /// Syncs what a group has written; what cannot be synced is refused after all.
    fn sync_touched(&mut self, touched: &[(u64, Range<usize>)], answers: &mut [Result<Position, Error>]) {
        let segments: BTreeSet<u64> = touched.iter().map(|(base, _)| *base).collect();
        for base in segments {
            let Err(error) = self.sync_segment(base) else { continue };
            let error = Error::from_io(&self.limits.directory, &error);
            for (_, group) in touched.iter().filter(|(other, _)| *other == base) {
                for answer in answers.get_mut(group.clone()).unwrap_or_default() {
                    if let Ok(position) = *answer {
                        self.release(position.sequence..position.sequence + 1);
                        *answer = Err(error.clone());
                    }
                }
            }
        }
        self.settle();
    }

    fn sync_segment(&mut self, base: u64) -> io::Result<()> {
        let synced = self.files.get(&self.disk, FileKind::Segment, base).and_then(|file| file.sync());
        self.dirty.remove(&base);
        if synced.is_err() {
            self.stats.failed_syncs.fetch_add(1, Ordering::Relaxed);
            if self.active == Some(base) {
                self.seal();
            }
        }
        synced
    }

    /// Is there something that [`Engine::sync`] would do?
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Makes everything so far survive a power cut.
    ///
    /// # Errors
    /// The first of the operating system; each is counted.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
        if !self.names_are_synced {
            let synced = self.disk.sync_directory();
            self.names_are_synced = synced.is_ok();
            outcome = synced.map_err(|error| Error::from_io(&self.limits.directory, &error));
        }
        for base in self.dirty.clone() {
            if let Err(error) = self.sync_segment(base) {
                outcome = outcome.and(Err(Error::from_io(&self.limits.directory, &error)));
            }
        }
        self.publish();
        outcome
    }

    fn active_segment(&self) -> Option<&Segment> {
        self.segments.get(&self.active?)
    }

    fn begin_segment(&mut self) -> io::Result<u64> {
        let base = self.next_sequence;
        let salt = (self.salt)();
        let header = FileHeader { base, salt }.encode(FileKind::Segment);
        let name = FileKind::Segment.name(base);
        let made = self.disk.create(&name).and_then(|mut file| {
            append_all(file.as_mut(), &mut [IoSlice::new(&header)])?;
            if self.limits.fsync != Fsync::None {
                self.disk.sync_directory()?;
            }
            Ok(file)
        });
        match made {
            Ok(file) => _ = self.files.put(FileKind::Segment, base, file),
            Err(error) => {
                // Half a header is set aside at the next start; better there is nothing.
                let _ = self.disk.remove(&name);
                return Err(error);
            }
        }
        self.names_are_synced &= self.limits.fsync != Fsync::None;
        self.bytes += FILE_HEADER as u64;
        self.segments.insert(base, Segment::new(base, salt, FILE_HEADER as u64));
        self.dirty.insert(base);
        self.active = Some(base);
        Ok(base)
    }

    /// Nothing more goes into the open segment.
    fn seal(&mut self) {
        let Some(base) = self.active.take() else { return };
        if self.segments.get(&base).is_some_and(|segment| segment.live == 0) {
            self.delete(base);
        }
    }

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

    /// Everything in the segment `base` is not needed any more.
    pub(super) fn release_segment(&mut self, base: u64) {
        let Some(range) = self.segments.get(&base).map(Segment::sequences) else { return };
        self.release(range);
        if self.active == Some(base) {
            self.seal();
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
        self.publish();
    }

    fn write_acks(&mut self, base: u64, entries: &[u8]) -> io::Result<u64> {
        let Some(segment) = self.segments.get(&base) else { return Err(io::ErrorKind::NotFound.into()) };
        let before = segment.acks_length;
        if before == 0 {
            let header = FileHeader { base, salt: segment.salt }.encode(FileKind::Acks);
            let file = self.disk.create(&FileKind::Acks.name(base))?;
            let file = self.files.put(FileKind::Acks, base, file);
            return match append_all(file, &mut [IoSlice::new(&header), IoSlice::new(entries)]) {
                Ok(()) => Ok((FILE_HEADER + entries.len()) as u64),
                Err(error) => {
                    self.files.forget(FileKind::Acks, base);
                    let _ = self.disk.remove(&FileKind::Acks.name(base));
                    Err(error)
                }
            };
        }
        let file = self.files.get(&self.disk, FileKind::Acks, base)?;
        // Cuts off what a write that failed may have left.
        if file.length()? != before {
            file.truncate(before)?;
        }
        append_all(file, &mut [IoSlice::new(entries)])?;
        Ok(before + entries.len() as u64)
    }

    /// Deletes segments of which nothing is left.
    pub(super) fn sweep(&mut self) {
        let active = self.active;
        let is_done =
            |base: &u64| self.segments.get(base).is_none_or(|segment| segment.live == 0) && active != Some(*base);
        let done: Vec<u64> = self.unsettled.iter().copied().filter(is_done).collect();
        done.into_iter().for_each(|base| self.delete(base));
    }

    /// Deletes a segment; if that fails, it is tried again.
    fn delete(&mut self, base: u64) {
        self.files.forget(FileKind::Segment, base);
        self.files.forget(FileKind::Acks, base);
        let is_gone = match self.disk.remove(&FileKind::Segment.name(base)) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if !is_gone {
            self.unsettled.insert(base);
            return;
        }
        // One that stays is deleted at the next start.
        let _ = self.disk.remove(&FileKind::Acks.name(base));
        self.drop_segment(base);
    }

    fn drop_segment(&mut self, base: u64) -> u32 {
        self.dirty.remove(&base);
        self.unsettled.remove(&base);
        let Some(segment) = self.segments.remove(&base) else { return 0 };
        self.bytes -= segment.bytes();
        self.live -= u64::from(segment.live);
        segment.live
    }

    /// The segment cannot be read: keeps its file for people to look at, and goes on without it.
    pub(super) fn set_aside(&mut self, base: u64) {
        let name = FileKind::Segment.name(base);
        let aside = format!("{base:020}.corrupt");
        self.files.forget(FileKind::Segment, base);
        self.files.forget(FileKind::Acks, base);
        // If the file cannot be renamed either, the next start will find it.
        let _ = self.disk.rename(&name, &aside);
        let _ = self.disk.remove(&FileKind::Acks.name(base));
        if self.active == Some(base) {
            self.active = None;
        }
        let lost = self.drop_segment(base);
        self.stats.corrupt_records.fetch_add(u64::from(lost), Ordering::Relaxed);
        self.stats.set_aside.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            directory = %self.limits.directory.display(),
            file = aside,
            "a storage segment cannot be read; it is set aside and what it held is lost"
        );
    }

    /// The segment's file, open.
    pub(super) fn file(&mut self, kind: FileKind, base: u64) -> io::Result<&mut dyn DiskFile> {
        self.files.get(&self.disk, kind, base)
    }

    pub(super) fn publish(&self) {
        self.stats.bytes.store(self.bytes, Ordering::Relaxed);
        self.stats.records.store(self.live, Ordering::Relaxed);
        self.stats.segments.store(self.segments.len() as u64, Ordering::Relaxed);
        self.stats.publish();
    }
}
