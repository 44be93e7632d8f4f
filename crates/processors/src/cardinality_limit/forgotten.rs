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
    /// The latest start of a stream in either generation.
    young_start: Latest,
    old_start: Latest,
    /// Streams that started before this may have been counted before.
    horizon: Latest,
}

/// The latest starts of streams (Unix nanoseconds).
#[derive(Debug, Clone, Copy, Default)]
struct Latest {
    /// Of all of them.
    all: u64,
    /// Of those that were counted with others.
    lives: u64,
}

impl Latest {
    fn max(self, other: Self) -> Self {
        Self { all: self.all.max(other.all), lives: self.lives.max(other.lives) }
    }

    /// Just after it.
    fn next(self) -> Self {
        Self { all: self.all.saturating_add(1), lives: if self.lives == 0 { 0 } else { self.lives.saturating_add(1) } }
    }
}

impl Forgotten {
    /// A filter whose two generations take `bytes` at the most. Streams that started before
    /// `horizon` (Unix nanoseconds) may have been there before the limiter was.
    pub(super) fn new(bytes: usize, horizon: u64) -> Self {
        let words = (bytes / 16).max(128);
        // The largest power of two that fits.
        let words = 1 << words.ilog2();
        Self {
            young: Vec::new(),
            old: Vec::new(),
            entries: 0,
            bits: words * 64,
            young_start: Latest::default(),
            old_start: Latest::default(),
            // Those that have been there before the limiter were reported by their senders.
            horizon: Latest { all: horizon, lives: 0 },
        }
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        (self.young.capacity() + self.old.capacity()) * 8
    }

    /// Remembers a stream that had a slot of its own, and did not start after `start` (Unix nanoseconds).
    pub(super) fn add_slot(&mut self, stream: u64, start: u64) {
        self.add(stream, Latest { all: start, lives: 0 });
    }

    /// Remembers a stream's life that was counted with others, and did not start after `start` (Unix nanoseconds).
    pub(super) fn add_life(&mut self, life: u64, start: u64) {
        self.add(life, Latest { all: start, lives: start });
    }

    fn add(&mut self, stream: u64, start: Latest) {
        if self.young.is_empty() {
            self.young = vec![0; self.bits / 64];
        } else if self.entries >= self.bits / 16 {
            // What the old generation knew is lost.
            if !self.old.is_empty() {
                self.horizon = self.horizon.max(self.old_start.next());
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
        start < self.horizon.all || self.holds(stream)
    }

    /// Has this life of a stream, which started at `start` (Unix nanoseconds, 0 if that is not known), perhaps been
    /// counted with others?
    pub(super) fn may_know_life(&self, life: u64, start: u64) -> bool {
        start < self.horizon.lives || self.holds(life)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: however many lives are remembered, none is ever taken for one that was not counted; and slots that
    /// were given up do not make strangers of the streams that come then.
    #[test]
    fn what_the_filter_has_forgotten_counts_as_known() {
        let mut forgotten = Forgotten::new(1 << 14, 0);
        (0..10_000u64).for_each(|slot| forgotten.add_slot(slot.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1000));
        assert!(!forgotten.may_know_life(7, 500), "only slots were forgotten");
        for life in 1..100_000u64 {
            forgotten.add_life(life.wrapping_mul(0x9e37_79b9_7f4a_7c15), life);
        }
        assert!(forgotten.bytes() <= 1 << 14);
        for life in 1..100_000u64 {
            assert!(forgotten.may_know_life(life.wrapping_mul(0x9e37_79b9_7f4a_7c15), life), "{life}");
        }
        assert!(forgotten.may_know_life(12345, 0), "it does not tell when it began");
        let strangers = (0..10_000u64).filter(|life| forgotten.may_know_life(life | 1 << 63, 200_000)).count();
        assert!(strangers < 200, "{strangers} of 10000 strangers were taken for acquaintances");
    }
}
