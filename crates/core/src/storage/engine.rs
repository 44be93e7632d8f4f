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

use super::disk::{Disk, DiskFile, write_all_at};
use super::files::Files;
use super::format::{ACK_ENTRY, FILE_HEADER, FileHeader, FileKind, RECORD_HEADER, RecordHeader, packing_name};
use super::segment::Segment;
use super::spares::Spares;
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
    /// The version of the format whose builds can read the payloads.
    pub(super) format: u32,
}

/// What a record of `bytes` of payload takes at the most: itself, what is written when it is released, and the
/// headers of a new segment.
pub(super) fn claim(bytes: u64) -> u64 {
    bytes.saturating_add((2 * FILE_HEADER + RECORD_HEADER + ACK_ENTRY) as u64)
}

/// The open log.
pub(super) struct Engine {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) limits: Limits,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// The segment that is appended to.
    pub(super) active: Option<u64>,
    pub(super) next_sequence: u64,
    /// What all segments and ack files take; spare files do not count.
    pub(super) bytes: u64,
    /// Records that are not released.
    pub(super) live: u64,
    /// Segments with content that is not synced.
    pub(super) dirty: BTreeSet<u64>,
    /// A power cut leaves all segments their names.
    pub(super) names_are_synced: bool,
    /// A power cut leaves the directory, and those that it is in.
    place_is_synced: bool,
    /// Segments with releases that are not written down, or that are to be deleted.
    pub(super) unsettled: BTreeSet<u64>,
    pub(super) files: Files,
    pub(super) spares: Spares,
    /// Files of no use that are not deleted yet, by name, and what they may take.
    pub(super) litter: BTreeMap<String, u64>,
    /// Somebody found no room and may wait for it.
    pub(super) is_wanted: bool,
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
            place_is_synced: false,
            unsettled: BTreeSet::new(),
            files: Files::default(),
            spares: Spares::default(),
            litter: BTreeMap::new(),
            is_wanted: false,
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
                    self.stats.failed_write(&error);
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
        let most = MAX_RECORD.min(limit.saturating_sub(claim(0)));
        if record.length > most {
            return Err(Error::TooLarge { bytes: record.length, limit: most });
        }
        if let Some(segment) = self.active_segment()
            && segment.count > 0
            && segment.end + record.total() > self.limits.segment_bytes
        {
            self.seal();
        }
        if self.active.is_none() {
            self.pack_ahead();
        }
        if self.claimed() + self.growth(record) > limit {
            self.make_way();
            if self.claimed() + self.growth(record) > limit {
                self.is_wanted = true;
                return Err(Error::Full { used: self.claimed(), limit });
            }
        }
        match self.active {
            Some(base) => Ok(base),
            None => self.begin_segment().map_err(|error| {
                let error = Error::from_io(&self.limits.directory, &error);
                self.stats.failed_write(&error);
                error
            }),
        }
    }

    /// What all files take.
    pub(super) fn held(&self) -> u64 {
        self.bytes + self.spares.bytes() + self.litter.values().sum::<u64>()
    }

    /// The same, and what will be written when all is released: letting go must not need room that is not there.
    pub(super) fn claimed(&self) -> u64 {
        let of = |base: &u64| self.segments.get(base).map_or(0, Segment::unwritten) as u64;
        let entries = self.live + self.unsettled.iter().map(of).sum::<u64>();
        self.held() + entries * ACK_ENTRY as u64 + (self.segments.len() * FILE_HEADER) as u64
    }

    /// How much more that will be with `record`.
    fn growth(&self, record: &Incoming) -> u64 {
        let (end, length, header) = match self.active_segment() {
            Some(segment) => (segment.end, segment.length, 0),
            None => (FILE_HEADER as u64, self.spares.next_length(), FILE_HEADER),
        };
        (end + record.total()).saturating_sub(length) + (header + ACK_ENTRY) as u64
    }

    /// How many of `records`, at least one, fit into the open segment and under the limit.
    fn fitting(&self, records: &[Incoming]) -> usize {
        let (end, length) = self.active_segment().map_or((0, 0), |segment| (segment.end, segment.length));
        let free = self.limits.max_bytes.saturating_sub(self.claimed()).saturating_add(length - end);
        let room = self.limits.segment_bytes.saturating_sub(end);
        let (mut total, mut claimed) = (0, 0);
        let fits = |record: &&Incoming| {
            total += record.total();
            claimed += record.total() + ACK_ENTRY as u64;
            total <= room && claimed <= free
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
        let written = write_all_at(file, segment.end, &mut pieces);
        self.dirty.insert(base);
        let Err(error) = written else {
            let bytes: u64 = batch.iter().map(Incoming::total).sum();
            let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            self.bytes -= segment.length;
            segment.grow(count, bytes);
            self.bytes += segment.length;
            self.live += u64::from(count);
            self.next_sequence += u64::from(count);
            return Ok(first);
        };
        let is_clean = file.truncate(segment.end).is_ok() && file.length().is_ok_and(|length| length == segment.end);
        let most = segment.end + batch.iter().map(Incoming::total).sum::<u64>();
        let length = if is_clean { segment.end } else { file.length().unwrap_or(most.max(segment.length)) };
        self.bytes = self.bytes - segment.length + length;
        segment.length = length;
        if !is_clean {
            // The sequence numbers may be in the file: they are not used again.
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
        if let Err(error) = &synced {
            self.stats.failed_sync(&Error::from_io(&self.limits.directory, error));
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
            let synced = self.sync_names();
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

    /// Makes the names of all files survive a power cut, and that of the directory.
    fn sync_names(&mut self) -> io::Result<()> {
        self.names_are_synced = false;
        if !self.place_is_synced {
            self.disk.sync_place()?;
            self.place_is_synced = true;
        }
        self.disk.sync_directory()?;
        self.names_are_synced = true;
        Ok(())
    }

    pub(super) fn active_segment(&self) -> Option<&Segment> {
        self.segments.get(&self.active?)
    }

    fn begin_segment(&mut self) -> io::Result<u64> {
        let base = self.next_sequence;
        let salt = (self.salt)();
        let name = FileKind::Segment.name(base);
        let format = self.limits.format;
        let begin = |file: &mut dyn DiskFile, reused| {
            let header = FileHeader { base, salt, reused, format, ..FileHeader::default() }.encode(FileKind::Segment);
            write_all_at(file, 0, &mut [IoSlice::new(&header)])
        };
        let (file, length) = match self.spares.take(&*self.disk, &name, |file| begin(file, true)) {
            Some(taken) => taken?,
            None => {
                // Half a header is set aside at the next start; better there is nothing.
                self.litter.insert(name.clone(), FILE_HEADER as u64);
                let made = self.disk.create(&name).and_then(|mut file| begin(file.as_mut(), false).map(|()| file));
                (made.inspect_err(|_| self.clear_litter())?, FILE_HEADER as u64)
            }
        };
        self.litter.remove(&name);
        self.files.put(FileKind::Segment, base, file);
        // A power cut may have left less.
        let length = length.max(FILE_HEADER as u64);
        self.bytes += length;
        let mut segment = Segment::new(base, salt, FILE_HEADER as u64, length);
        segment.format = format;
        self.segments.insert(base, segment);
        self.names_are_synced = false;
        let synced = if self.limits.fsync == Fsync::None { Ok(()) } else { self.sync_names() };
        if synced.is_err() {
            // Its name is used up, so that it can be deleted later if not now.
            self.next_sequence += 1;
            self.delete(base);
        }
        synced?;
        self.dirty.insert(base);
        self.active = Some(base);
        Ok(base)
    }

    /// Nothing more goes into the open segment.
    pub(super) fn seal(&mut self) {
        let Some(base) = self.active.take() else { return };
        let Some(segment) = self.segments.get(&base) else { return };
        if segment.live == 0 {
            self.delete(base);
        } else if segment.end < segment.length {
            self.cut_off(base);
        }
    }

    /// Gives back what the file was longer in its life before. If that fails it is just longer.
    fn cut_off(&mut self, base: u64) {
        let Some(segment) = self.segments.get_mut(&base) else { return };
        let Ok(file) = self.files.get(&self.disk, FileKind::Segment, base) else { return };
        if file.truncate(segment.end).is_ok() {
            self.bytes -= segment.length - segment.end;
            segment.length = segment.end;
        }
    }

    /// The last write failed: finds out whether the disk takes bytes again, with some that mean nothing.
    pub(super) fn probe(&mut self) {
        const MOST: u64 = 256 << 10;
        let length = self.limits.max_bytes.saturating_sub(self.claimed()).min(MOST);
        if self.stats.failing().is_none() || length == 0 {
            return;
        }
        let name = packing_name(0);
        self.litter.insert(name.clone(), length);
        let tried = self.disk.create(&name).and_then(|mut file| {
            write_all_at(file.as_mut(), 0, &mut [IoSlice::new(&vec![1; length as usize])])?;
            if self.limits.fsync == Fsync::None { Ok(()) } else { file.sync() }
        });
        self.clear_litter();
        if tried.is_ok() {
            self.stats.succeeded();
        }
    }

    /// Nothing more comes: what could not be written down or deleted before is tried once more, and spare space goes
    /// back.
    pub(super) fn close(&mut self) {
        self.settle();
        self.seal();
        self.spares.clear(&*self.disk);
        self.publish();
    }

    /// The segment cannot be read: keeps its file for people to look at, and goes on without it.
    pub(super) fn set_aside(&mut self, base: u64) {
        let name = FileKind::Segment.name(base);
        let aside = format!("{base:020}.corrupt");
        self.files.forget(FileKind::Segment, base);
        self.files.forget(FileKind::Acks, base);
        // If the file cannot be renamed either, the next start will find it.
        let _ = self.disk.rename(&name, &aside);
        let acks = self.segments.get(&base).map_or(0, |segment| segment.acks_length);
        self.litter.insert(FileKind::Acks.name(base), acks);
        self.clear_litter();
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

    /// Deletes what is of no use. What cannot be deleted still counts.
    pub(super) fn clear_litter(&mut self) {
        let disk = &self.disk;
        let stays = |name: &String| disk.remove(name).is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
        self.litter.retain(|name, _| stays(name));
    }

    /// The segment's file, open.
    pub(super) fn file(&mut self, kind: FileKind, base: u64) -> io::Result<&mut dyn DiskFile> {
        self.files.get(&self.disk, kind, base)
    }

    pub(super) fn publish(&mut self) {
        self.stats.bytes.store(self.bytes, Ordering::Relaxed);
        // Spare files give way.
        let is_less = self.stats.claim(self.claimed() - self.spares.bytes());
        self.is_wanted &= !is_less;
        self.stats.records.store(self.live, Ordering::Relaxed);
        self.stats.segments.store(self.segments.len() as u64, Ordering::Relaxed);
        self.stats.publish();
    }
}
