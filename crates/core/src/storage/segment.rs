//! What is known of one segment while the log is open.

use std::ops::Range;

use super::format::{ACK_ENTRY, AckEntry};

/// One bit for each record: is it released?
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn get(&self, index: u32) -> bool {
        self.0.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Sets it; was it unset?
    fn set(&mut self, index: u32) -> bool {
        let word = index as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let Some(word) = self.0.get_mut(word) else { return false };
        let bit = 1 << (index % 64);
        let was_unset = *word & bit == 0;
        *word |= bit;
        was_unset
    }
}

/// A segment: records `base..base + count`, of which `live` are not released.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) base: u64,
    pub(super) salt: u64,
    /// Where the good bytes end.
    pub(super) end: u64,
    /// The length of the file: longer if it was another segment before, or by a write that failed.
    pub(super) length: u64,
    pub(super) count: u32,
    pub(super) live: u32,
    released: Bits,
    /// The length of the ack file; 0 if there is none.
    pub(super) acks_length: u64,
    /// What the ack file does not say yet.
    unwritten: Vec<AckEntry>,
    /// Reads that failed, one after the other.
    pub(super) failed_reads: u32,
    /// What was released has been left out of the file: sequence numbers have gaps.
    pub(super) is_packed: bool,
    /// The version of the format whose builds can read the payloads; 0 for any.
    pub(super) format: u32,
    /// How often the file was replaced: a place in the one before means nothing.
    pub(super) edition: u32,
    /// How many records were live when packing was tried last.
    packed_at: Option<u32>,
}

impl Segment {
    /// One whose good bytes end at `end`, in a file of `length` bytes.
    pub(super) fn new(base: u64, salt: u64, end: u64, length: u64) -> Self {
        Self {
            base,
            salt,
            end,
            length,
            count: 0,
            live: 0,
            released: Bits::default(),
            acks_length: 0,
            unwritten: Vec::new(),
            failed_reads: 0,
            is_packed: false,
            format: 0,
            edition: 0,
            packed_at: None,
        }
    }

    /// The sequence numbers it has.
    pub(super) fn sequences(&self) -> Range<u64> {
        self.base..self.base + u64::from(self.count)
    }

    /// What it takes on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.length + self.acks_length
    }

    /// `records` more have been written, `bytes` in all.
    pub(super) fn grow(&mut self, records: u32, bytes: u64) {
        self.count += records;
        self.live += records;
        self.end += bytes;
        self.length = self.length.max(self.end);
    }

    /// The last record, which is not released, is none after all.
    pub(super) fn forget_last(&mut self) {
        self.count -= 1;
        self.live -= 1;
    }

    pub(super) fn is_released(&self, sequence: u64) -> bool {
        u32::try_from(sequence.wrapping_sub(self.base)).is_ok_and(|index| self.released.get(index))
    }

    /// Releases what it has of `range`; returns how many records that were.
    pub(super) fn release(&mut self, range: &Range<u64>) -> u32 {
        let own = self.sequences();
        let (from, to) = (range.start.max(own.start), range.end.min(own.end));
        let mut released = 0;
        for sequence in from..to {
            let Ok(index) = u32::try_from(sequence - self.base) else { break };
            if self.released.set(index) {
                released += 1;
                self.note(index);
            }
        }
        self.live -= released;
        released
    }

    /// Its ack file says that the record is released.
    pub(super) fn forget(&mut self, index: u32) {
        if index < self.count && self.released.set(index) {
            self.live -= 1;
        }
    }

    fn note(&mut self, index: u32) {
        match self.unwritten.last_mut() {
            Some(last) if last.first + last.count == index => last.count += 1,
            _ => self.unwritten.push(AckEntry { first: index, count: 1 }),
        }
    }

    /// Releases that are not written down, in entries.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.len()
    }

    /// Is at least half of it released since it was tried last?
    pub(super) fn may_be_packed(&self) -> bool {
        let before = self.packed_at.unwrap_or(self.count);
        self.live > 0 && u64::from(self.live) * 2 <= u64::from(before)
    }

    /// What packing would give back, if all records were of one size.
    pub(super) fn dead_bytes(&self) -> u64 {
        let in_file = if self.is_packed { self.packed_at.unwrap_or(self.count) } else { self.count };
        let live = self.length * u64::from(self.live) / u64::from(in_file.max(1));
        self.length.saturating_sub(live)
    }

    /// Packing was tried.
    pub(super) fn tried_packing(&mut self) {
        self.packed_at = Some(self.live);
    }

    /// It is in a new file of `length` bytes.
    pub(super) fn packed(&mut self, length: u64) {
        (self.end, self.length) = (length, length);
        self.is_packed = true;
        self.edition += 1;
    }

    /// What to append to the ack file, header not included; empty if there is nothing to say.
    pub(super) fn encode_unwritten(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.unwritten.len() * ACK_ENTRY);
        self.unwritten.iter().for_each(|entry| out.extend_from_slice(&entry.encode(self.salt)));
        out
    }

    /// It has been appended, and made the ack file `length` long.
    pub(super) fn acks_written(&mut self, length: u64) {
        self.acks_length = length;
        self.unwritten.clear();
    }
}
