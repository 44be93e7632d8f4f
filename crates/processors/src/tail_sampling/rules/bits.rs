//! What is known of a span, or of all spans of a trace so far.

/// How many conditions a configuration may have.
pub(crate) const CAPACITY: usize = WORDS * 64;
const WORDS: usize = 4;

/// A set of conditions that hold. Sets of several spans are merged by union.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bits([u64; WORDS]);

impl Bits {
    pub(crate) const NONE: Self = Self([0; WORDS]);

    #[inline]
    pub(crate) fn set(&mut self, index: u16) {
        let index = usize::from(index) % CAPACITY;
        self.0[index / 64] |= 1 << (index % 64);
    }

    #[inline]
    pub(crate) fn get(&self, index: u16) -> bool {
        let index = usize::from(index) % CAPACITY;
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    #[inline]
    pub(crate) fn merge(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }
}
