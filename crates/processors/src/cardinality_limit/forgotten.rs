//! Streams that were seen before and have been forgotten since.
//!
//! A cumulative stream may be counted in full at first sight only if it has not been counted
//! before. What is evicted is therefore remembered in a Bloom filter (16 bits an entry, four
//! probes: 0.24 % of strangers are taken for acquaintances, and lose one increment). It has two
//! generations; when the older one is given up, everything that did not start after all that it
//! held counts as an acquaintance, so that forgetting never counts anything twice.

/// See the module.
#[derive(Debug)]
pub(super) struct Forgotten {
    young: Vec<u64>,
    old: Vec<u64>,
    /// Entries in the young generation.
    entries: usize,
    /// Bits of a generation; a power of two.
    bits: usize,
    /// The latest start of a stream in either generation (Unix nanoseconds).
    young_start: u64,
    old_start: u64,
    /// Streams that started before this may have been counted before.
    horizon: u64,
}

impl Forgotten {
    /// A filter whose two generations take `bytes` at the most. Streams that started before
    /// `horizon` (Unix nanoseconds) may have been there before the limiter was.
    pub(super) fn new(bytes: usize, horizon: u64) -> Self {
        let words = (bytes / 16).max(128);
        // The largest power of two that fits.
        let words = 1 << words.ilog2();
        Self { young: Vec::new(), old: Vec::new(), entries: 0, bits: words * 64, young_start: 0, old_start: 0, horizon }
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        (self.young.capacity() + self.old.capacity()) * 8
    }

    /// Remembers `stream`, which did not start after `start` (Unix nanoseconds).
    pub(super) fn add(&mut self, stream: u64, start: u64) {
        if self.young.is_empty() {
            self.young = vec![0; self.bits / 64];
        } else if self.entries >= self.bits / 16 {
            // What the old generation knew is lost.
            if !self.old.is_empty() {
                self.horizon = self.horizon.max(self.old_start.saturating_add(1));
            }
            self.old_start = std::mem::take(&mut self.young_start);
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.young.resize(self.bits / 64, 0);
            self.entries = 0;
        }
        self.entries += 1;
        self.young_start = self.young_start.max(start);
        for bit in probes(stream, self.bits) {
            if let Some(word) = self.young.get_mut(bit / 64) {
                *word |= 1 << (bit % 64);
            }
        }
    }

    /// Has `stream`, which started at `start` (Unix nanoseconds), perhaps been there before?
    pub(super) fn may_know(&self, stream: u64, start: u64) -> bool {
        start < self.horizon || self.holds(stream)
    }

    /// Is `stream` (or one like it) remembered?
    pub(super) fn holds(&self, stream: u64) -> bool {
        let holds = |generation: &[u64]| {
            let is_set = |bit: usize| generation.get(bit / 64).is_some_and(|word| word & (1 << (bit % 64)) != 0);
            !generation.is_empty() && probes(stream, self.bits).into_iter().all(is_set)
        };
        holds(&self.young) || holds(&self.old)
    }
}

/// Four bits from the halves of a good hash (Kirsch, Mitzenmacher 2006).
fn probes(hash: u64, bits: usize) -> [usize; 4] {
    let (first, second) = (hash, hash.rotate_left(32) | 1);
    [0u64, 1, 2, 3].map(|index| first.wrapping_add(index.wrapping_mul(second)) as usize & (bits - 1))
}
