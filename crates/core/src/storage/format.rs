//! The bytes of `docs/storage-format.md`.

/// What the log can read: 1, 2 of segments that were packed, and 3 of those whose payloads ask for it.
pub(super) const VERSION: u32 = 3;
/// The first version that is about payloads.
const PAYLOADS: u32 = 3;
const RECORD_MAGIC: [u8; 4] = *b"NQR\x01";

/// More records than any log will see; keeps arithmetic on sequence numbers away from the edge.
const MAX_BASE: u64 = 1 << 62;

/// Segments are closed rather than getting longer, unless one record is.
pub(super) const LONGEST_SEGMENT: u64 = 16 << 20;
/// Length of the header of a file.
pub(super) const FILE_HEADER: usize = 36;
/// Length of the header of a record.
pub(super) const RECORD_HEADER: usize = 40;
/// Length of an entry of an ack file.
pub(super) const ACK_ENTRY: usize = 12;

/// The first four bytes of every record, to search for.
pub(super) fn record_magic() -> &'static [u8] {
    &RECORD_MAGIC
}

/// The two kinds of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Segment,
    Acks,
}

impl FileKind {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Segment => *b"NYQSEGMT",
            Self::Acks => *b"NYQACKED",
        }
    }

    pub(super) fn name(self, base: u64) -> String {
        match self {
            Self::Segment => format!("{base:020}.seg"),
            Self::Acks => format!("{base:020}.ack"),
        }
    }

    /// The base in the name of a file of this kind.
    pub(super) fn base(self, name: &str) -> Option<u64> {
        let base = name.split('.').next()?.parse().ok()?;
        (self.name(base) == name).then_some(base)
    }
}

/// The name of the file that a packed segment is written to before it takes the segment's place.
pub(super) fn packing_name(base: u64) -> String {
    format!("{base:020}.packing")
}

/// The name of a file that was a segment and is kept to become one again.
pub(super) fn spare_name(base: u64) -> String {
    format!("{base:020}.spare")
}

/// The base in such a name.
pub(super) fn spare_base(name: &str) -> Option<u64> {
    let base = name.split('.').next()?.parse().ok()?;
    (spare_name(base) == name).then_some(base)
}

/// The header of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct FileHeader {
    pub(super) base: u64,
    pub(super) salt: u64,
    /// The file was another segment before: bytes after the last record may be that one's.
    pub(super) reused: bool,
    /// What was released has been left out: sequence numbers have gaps.
    pub(super) packed: bool,
    /// The version whose builds can read the payloads, if that tells more than the rest of the header; 0 otherwise.
    pub(super) format: u32,
}

impl FileHeader {
    pub(super) fn encode(&self, kind: FileKind) -> [u8; FILE_HEADER] {
        let mut out = [0; FILE_HEADER];
        put(&mut out, 0, &kind.magic());
        // The first version with what is used, so that older ones read what they can.
        let version = self.format.max(if self.packed { 2 } else { 1 });
        put(&mut out, 8, &version.to_le_bytes());
        put(&mut out, 12, &(u32::from(self.reused) | u32::from(self.packed) << 1).to_le_bytes());
        put(&mut out, 16, &self.base.to_le_bytes());
        put(&mut out, 24, &self.salt.to_le_bytes());
        let crc = crc32c::crc32c(&out[..32]);
        put(&mut out, 32, &crc.to_le_bytes());
        out
    }

    /// # Errors
    /// What is wrong with it.
    pub(super) fn decode(kind: FileKind, bytes: &[u8; FILE_HEADER]) -> Result<Self, &'static str> {
        if bytes[..8] != kind.magic() {
            return Err("it does not begin as one");
        }
        if u32_at(bytes, 32) != crc32c::crc32c(&bytes[..32]) {
            return Err("its header is damaged");
        }
        let (version, flags) = (u32_at(bytes, 8), u32_at(bytes, 12));
        if !(1..=VERSION).contains(&version) {
            return Err("it has another version of the format");
        }
        let packed = version > 1 && flags & 2 == 2;
        let format = if version < PAYLOADS { 0 } else { version };
        let header = Self { base: u64_at(bytes, 16), salt: u64_at(bytes, 24), reused: flags & 1 == 1, packed, format };
        if header.base > MAX_BASE { Err("its header is damaged") } else { Ok(header) }
    }

    /// The version, if the header is whole and the version came after this one. All versions have magic, version and checksum
    /// in the same places, so that damage is not taken for a version.
    pub(super) fn newer(kind: FileKind, bytes: &[u8; FILE_HEADER]) -> Option<u32> {
        let version = u32_at(bytes, 8);
        let is_whole = bytes[..8] == kind.magic() && u32_at(bytes, 32) == crc32c::crc32c(&bytes[..32]);
        (is_whole && version > VERSION).then_some(version)
    }
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: u8,
    pub(super) length: u32,
    pub(super) payload_crc: u32,
    pub(super) sequence: u64,
    pub(super) arrival: u64,
    pub(super) weight: u32,
}

impl RecordHeader {
    pub(super) fn encode(&self, salt: u64) -> [u8; RECORD_HEADER] {
        let mut out = [0; RECORD_HEADER];
        put(&mut out, 0, &RECORD_MAGIC);
        put(&mut out, 4, &[self.kind]);
        put(&mut out, 8, &self.length.to_le_bytes());
        put(&mut out, 12, &self.payload_crc.to_le_bytes());
        put(&mut out, 16, &self.sequence.to_le_bytes());
        put(&mut out, 24, &self.arrival.to_le_bytes());
        put(&mut out, 32, &self.weight.to_le_bytes());
        let crc = salted(salt, &out[..36]);
        put(&mut out, 36, &crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; RECORD_HEADER], salt: u64) -> Option<Self> {
        if bytes[..4] != RECORD_MAGIC || u32_at(bytes, 36) != salted(salt, &bytes[..36]) {
            return None;
        }
        Some(Self {
            kind: bytes[4],
            length: u32_at(bytes, 8),
            payload_crc: u32_at(bytes, 12),
            sequence: u64_at(bytes, 16),
            arrival: u64_at(bytes, 24),
            weight: u32_at(bytes, 32),
        })
    }

    /// Header and payload.
    pub(super) fn total(&self) -> u64 {
        RECORD_HEADER as u64 + u64::from(self.length)
    }
}

/// Consecutive released records, counted from the segment's base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AckEntry {
    pub(super) first: u32,
    pub(super) count: u32,
}

impl AckEntry {
    pub(super) fn encode(&self, salt: u64) -> [u8; ACK_ENTRY] {
        let mut out = [0; ACK_ENTRY];
        put(&mut out, 0, &self.first.to_le_bytes());
        put(&mut out, 4, &self.count.to_le_bytes());
        let crc = salted(salt, &out[..8]);
        put(&mut out, 8, &crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; ACK_ENTRY], salt: u64) -> Option<Self> {
        let is_whole = u32_at(bytes, 8) == salted(salt, &bytes[..8]);
        is_whole.then(|| Self { first: u32_at(bytes, 0), count: u32_at(bytes, 4) })
    }
}

fn salted(salt: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), bytes)
}

// Offsets below are constants inside arrays of fixed length.

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}
