//! Reading records back, in order.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::disk::read_exactly;
use super::engine::Engine;
use super::format::{FILE_HEADER, FileKind, RECORD_HEADER};
use super::walk::{Step, Walk};
use super::{Chunk, Cursor, Error, Position, Record};

/// Reads of a segment that fail, one after the other, before it is set aside.
const PATIENCE: u32 = 3;

impl Engine {
    /// The records from `cursor` on that are not released, until their payloads exceed `max_bytes`.
    ///
    /// # Errors
    /// Of the operating system; worth another try.
    pub(super) fn read(&mut self, cursor: Cursor, max_bytes: usize) -> Result<Chunk, Error> {
        let mut chunk = Chunk { records: Vec::new(), next: cursor, is_end: false };
        let mut room = max_bytes;
        loop {
            let Some(base) = self.segments.range(chunk.next.segment..).next().map(|(base, _)| *base) else {
                chunk.is_end = true;
                break;
            };
            let edition = self.segments.get(&base).map_or(0, |segment| segment.edition);
            if chunk.next.segment != base || chunk.next.offset == 0 {
                chunk.next =
                    Cursor { segment: base, offset: FILE_HEADER as u64, sequence: base, edition, ..chunk.next };
            } else if chunk.next.edition != edition {
                // The file has been replaced: the place in it is found again by the number.
                let from = chunk.next.sequence();
                chunk.next = Cursor { offset: FILE_HEADER as u64, sequence: base, from, edition, ..chunk.next };
            }
            match self.read_segment(base, &mut chunk, &mut room) {
                Ok(ControlFlow::Break(())) => break,
                Ok(ControlFlow::Continue(())) if self.active == Some(base) => {
                    chunk.is_end = true;
                    break;
                }
                Ok(ControlFlow::Continue(())) => {
                    chunk.next.segment = base + 1;
                    chunk.next.offset = 0;
                }
                Err(error) => {
                    let failed = self.segments.get_mut(&base).map_or(0, |segment| {
                        segment.failed_reads += 1;
                        segment.failed_reads
                    });
                    if failed >= PATIENCE {
                        self.set_aside(base);
                    } else if chunk.records.is_empty() {
                        return Err(Error::from_io(&self.limits.directory, &error));
                    } else {
                        break;
                    }
                }
            }
        }
        if self.unsettled.is_empty() {
            self.publish();
        } else {
            self.settle();
        }
        Ok(chunk)
    }

    /// Reads on in one segment; `Continue` at its end.
    fn read_segment(&mut self, base: u64, chunk: &mut Chunk, room: &mut usize) -> io::Result<ControlFlow<()>> {
        let Some(segment) = self.segments.get_mut(&base) else { return Ok(ControlFlow::Continue(())) };
        if segment.live == 0 {
            // Its file may be gone already.
            chunk.next.offset = segment.end;
            chunk.next.sequence = segment.sequences().end;
            return Ok(ControlFlow::Continue(()));
        }
        let file: &dyn super::DiskFile = self.files.get(&self.disk, FileKind::Segment, base)?;
        let mut walk = Walk::new(file, segment.salt, segment.end, chunk.next.offset, chunk.next.sequence)
            .packed(segment.is_packed);
        // Written down as released, so that it is counted once.
        let mut lose = |segment: &mut super::segment::Segment, sequences: std::ops::Range<u64>| {
            let lost = u64::from(segment.release(&sequences));
            if lost > 0 {
                self.live -= lost;
                self.stats.corrupt_records.fetch_add(lost, Ordering::Relaxed);
                self.unsettled.insert(base);
            }
        };
        loop {
            let (offset, header) = match walk.step()? {
                Step::Record { offset, header } => (offset, header),
                Step::End { .. } => {
                    let end = segment.sequences().end;
                    lose(segment, chunk.next.sequence..end);
                    chunk.next.offset = segment.end;
                    chunk.next.sequence = end;
                    return Ok(ControlFlow::Continue(()));
                }
            };
            lose(segment, chunk.next.sequence..header.sequence);
            if header.sequence >= chunk.next.from && !segment.is_released(header.sequence) {
                let length = header.length as usize;
                if length > *room && !chunk.records.is_empty() {
                    chunk.next.offset = offset;
                    chunk.next.sequence = header.sequence;
                    return Ok(ControlFlow::Break(()));
                }
                *room = room.saturating_sub(length);
                let mut payload = vec![0; length];
                read_exactly(file, offset + RECORD_HEADER as u64, &mut payload)?;
                if crc32c::crc32c(&payload) == header.payload_crc {
                    chunk.records.push(Record {
                        position: Position { sequence: header.sequence, segment: base },
                        kind: header.kind,
                        weight: header.weight,
                        arrival: header.arrival,
                        payload: Bytes::from(payload),
                    });
                } else {
                    lose(segment, header.sequence..header.sequence + 1);
                }
            }
            segment.failed_reads = 0;
            chunk.next.offset = walk.offset;
            chunk.next.sequence = walk.expected;
            // A step's worth of headers must not hold up the writers for ever.
            if *room == 0 {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
}
