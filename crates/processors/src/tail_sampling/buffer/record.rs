//! A record: a run of spans of one trace, the bytes between two points of a `ScopeSpans`, tags and lengths included, so that
//! writing them out again is one copy.
//!
//! Layout, little-endian, aligned to the log's unit: address of the trace's next record, scope header, number of spans (16
//! bits; the top one: it is later than the cut), place of the first root span among them (16 bits), length (the top bit: some
//! span may have a `tracestate`), bytes.

/// Where a record is: the low 15 bits of its block's number, and its offset in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Addr(pub(super) u32);

impl Addr {
    /// Nowhere. (No header fits into the last unit of a block.)
    pub(super) const NONE: Self = Self(u32::MAX);
}

/// The smallest and the largest unit.
pub(super) const UNIT: usize = 4;
pub(super) const LARGE_UNIT: usize = 8;
/// Bytes of a record's header.
pub(super) const HEADER: usize = 16;
/// In a record's length.
const TRACE_STATE: u32 = 1 << 31;
/// In its number of spans, which is below this.
pub(in crate::tail_sampling) const LATER: u16 = 1 << 15;

/// What is known of the spans of a run, so that nobody needs to look for it in their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tail_sampling) struct Contents {
    pub(in crate::tail_sampling) spans: u16,
    /// The place of the first root span among them; [`Contents::NO_ROOT`] if there is none.
    pub(in crate::tail_sampling) root: u16,
    /// May one of them have a `tracestate`?
    pub(in crate::tail_sampling) trace_state: bool,
    /// Is their record on disk later than the cut was when they came (see `anew`)?
    pub(in crate::tail_sampling) later: bool,
}

impl Contents {
    pub(in crate::tail_sampling) const NO_ROOT: u16 = u16::MAX;

    pub(in crate::tail_sampling) fn has_root(self) -> bool {
        self.root != Self::NO_ROOT
    }
}

/// A record's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) next: Addr,
    pub(super) scope: u32,
    pub(super) contents: Contents,
    pub(super) len: usize,
}

/// The header of a record of `len` bytes that is its trace's last. `None` if it is too long to be one.
#[inline]
pub(super) fn header(scope: u32, contents: Contents, len: usize) -> Option<[u8; HEADER]> {
    let len = u32::try_from(len).ok().filter(|&len| len < TRACE_STATE)?;
    let mut header = [0; HEADER];
    let (words, _) = header.as_chunks_mut::<4>();
    debug_assert!(contents.spans < LATER);
    let spans = u32::from(contents.spans) | u32::from(contents.root) << 16;
    let spans = spans | if contents.later { u32::from(LATER) } else { 0 };
    let len = len | if contents.trace_state { TRACE_STATE } else { 0 };
    let values = [Addr::NONE.0, scope, spans, len];
    for (word, value) in words.iter_mut().zip(values) {
        *word = value.to_le_bytes();
    }
    Some(header)
}

/// The bytes that a record of `len` bytes takes.
#[inline]
pub(super) fn footprint(len: usize, unit: usize) -> usize {
    (HEADER + len + unit - 1) & !(unit - 1)
}

/// Sets the next record of the one at `offset` of a block's bytes.
#[inline]
pub(super) fn link(data: &mut [u8], offset: usize, next: Addr) {
    if let Some(word) = data.get_mut(offset..offset + 4) {
        word.copy_from_slice(&next.0.to_le_bytes());
    }
}

/// The record at `offset` of a block's bytes, and its own bytes.
#[inline]
pub(super) fn read(data: &[u8], offset: usize) -> Option<(Record, &[u8])> {
    let (header, rest) = data.get(offset..)?.split_first_chunk::<HEADER>()?;
    let (words, _) = header.as_chunks::<4>();
    let word = |index: usize| words.get(index).map_or(0, |word| u32::from_le_bytes(*word));
    let len = (word(3) & !TRACE_STATE) as usize;
    let spans = word(2) as u16;
    let contents = Contents {
        spans: spans & !LATER,
        root: (word(2) >> 16) as u16,
        trace_state: word(3) & TRACE_STATE != 0,
        later: spans & LATER != 0,
    };
    let record = Record { next: Addr(word(0)), scope: word(1), contents, len };
    Some((record, rest.get(..len)?))
}
