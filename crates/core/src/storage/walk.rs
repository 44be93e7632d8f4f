//! Reading the records of one segment in order, whatever became of its bytes.

use std::io;

use memchr::memmem;

use super::disk::DiskFile;
use super::format::{LONGEST_SEGMENT, RECORD_HEADER, RecordHeader, record_magic};

/// How much is read at once while looking at headers.
const WINDOW: usize = 64 << 10;

/// The next thing in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A record with a valid header. Records from the expected sequence number up to its own, if
    /// any, are lost.
    Record { offset: u64, header: RecordHeader },
    /// No more records; what is left from `offset` on are `torn` bytes of nothing.
    End { offset: u64, torn: u64 },
}

/// Goes from record to record.
pub(super) struct Walk<'a> {
    file: &'a dyn DiskFile,
    salt: u64,
    /// Where the segment's bytes end.
    end: u64,
    /// Where the next record should begin.
    pub(super) offset: u64,
    /// Its sequence number.
    pub(super) expected: u64,
    /// Numbers have gaps, as what was released has been left out.
    is_packed: bool,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(file: &'a dyn DiskFile, salt: u64, end: u64, offset: u64, expected: u64) -> Self {
        Self { file, salt, end, offset, expected, is_packed: false, window: Vec::new(), window_at: 0 }
    }

    /// The same in a segment that `is_packed` or not.
    pub(super) fn packed(self, is_packed: bool) -> Self {
        Self { is_packed, ..self }
    }

    /// The next record.
    ///
    /// # Errors
    /// Of the operating system. Damage is no error.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        let begin = self.offset;
        let mut at = begin;
        loop {
            if let Some(header) = self.header_at(at, at - begin)? {
                self.offset = at + header.total();
                self.expected = header.sequence.saturating_add(1);
                return Ok(Step::Record { offset: at, header });
            }
            match self.search(at + 1)? {
                Some(found) => at = found,
                None => {
                    self.offset = self.end;
                    return Ok(Step::End { offset: begin, torn: self.end.saturating_sub(begin) });
                }
            }
        }
    }

    /// The header at `offset` if it is valid, `skipped` bytes after where it should have been.
    fn header_at(&mut self, offset: u64, skipped: u64) -> io::Result<Option<RecordHeader>> {
        if offset + RECORD_HEADER as u64 > self.end {
            return Ok(None);
        }
        let (salt, expected, end, is_packed) = (self.salt, self.expected, self.end, self.is_packed);
        let bytes = self.bytes_at(offset, RECORD_HEADER)?;
        let header = bytes.first_chunk().and_then(|bytes| RecordHeader::decode(bytes, salt));
        Ok(header.filter(|header| {
            let room = if is_packed { LONGEST_SEGMENT } else { skipped };
            let most = expected.saturating_add(room / RECORD_HEADER as u64);
            (expected..=most).contains(&header.sequence) && offset + header.total() <= end
        }))
    }

    /// Where the next record may begin, from `offset` on.
    fn search(&mut self, offset: u64) -> io::Result<Option<u64>> {
        let magic = record_magic();
        let mut at = offset;
        while at + RECORD_HEADER as u64 <= self.end {
            let bytes = self.bytes_at(at, RECORD_HEADER)?;
            if let Some(found) = memmem::find(bytes, magic) {
                return Ok(Some(at + found as u64));
            }
            // A window may end in the middle of the magic.
            let step = bytes.len().saturating_sub(magic.len() - 1).max(1);
            at += step as u64;
        }
        Ok(None)
    }

    /// What is known of the bytes from `offset` on: `least` of them, unless the segment ends.
    fn bytes_at(&mut self, offset: u64, least: usize) -> io::Result<&[u8]> {
        let have = offset.checked_sub(self.window_at).and_then(|from| self.window.get(usize::try_from(from).ok()?..));
        if have.is_none_or(|have| have.len() < least) {
            let wanted = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX).min(WINDOW);
            self.window.resize(wanted, 0);
            let read = self.file.read_at(offset, &mut self.window);
            self.window_at = offset;
            self.window.truncate(*read.as_ref().unwrap_or(&0));
            read?;
        }
        let from = usize::try_from(offset - self.window_at).unwrap_or(usize::MAX);
        Ok(self.window.get(from..).unwrap_or_default())
    }
}
