//! Looking up many attribute keys in one scan.

/// A compiled set of attribute keys.
///
/// Whoever needs several attributes of an item scans them once and asks this set for each key
/// that it meets. Most keys are not in the set, and are told so by their length, or by the first and
/// last eight bytes, which select a slot of a table that is mostly empty.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: Vec<Box<[u8]>>,
    /// A bit for each length that a key has, modulo 64.
    lengths: u64,
    /// The first key of each slot, as index + 1; 0 for none.
    slots: Box<[u32]>,
    /// For each key the next one of the same slot, as index + 1.
    next: Box<[u32]>,
    /// The slot is the product's upper bits.
    shift: u32,
}

impl KeySet {
    /// Compiles `keys`. Their order gives their indices; of equal keys the first one counts.
    pub fn new<K: AsRef<[u8]>>(keys: impl IntoIterator<Item = K>) -> Self {
        let keys: Vec<Box<[u8]>> = keys.into_iter().map(|key| key.as_ref().into()).collect();
        let slots = (keys.len() * 8).next_power_of_two().max(16);
        let mut set = Self {
            lengths: keys.iter().fold(0, |lengths, key| lengths | length_bit(key)),
            shift: u64::BITS - slots.trailing_zeros(),
            slots: vec![0; slots].into(),
            next: vec![0; keys.len()].into(),
            keys,
        };
        // Backwards, because the last one put into a slot is found first.
        for index in (0..set.keys.len()).rev() {
            let slot = set.slot(&set.keys[index]);
            set.next[index] = std::mem::replace(&mut set.slots[slot], index as u32 + 1);
        }
        set
    }

    /// How many keys it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Does it hold no key?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key with this index.
    #[must_use]
    pub fn key(&self, index: usize) -> Option<&[u8]> {
        self.keys.get(index).map(AsRef::as_ref)
    }

    /// The index of `key`, if the set holds it.
    #[must_use]
    #[inline]
    pub fn index_of(&self, key: &[u8]) -> Option<usize> {
        if self.lengths & length_bit(key) == 0 {
            return None;
        }
        let mut candidate = *self.slots.get(self.slot(key))?;
        while candidate > 0 {
            let index = candidate as usize - 1;
            if **self.keys.get(index)? == *key {
                return Some(index);
            }
            candidate = *self.next.get(index)?;
        }
        None
    }

    #[inline]
    fn slot(&self, key: &[u8]) -> usize {
        let (first, last) = if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
            (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
        } else if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
            (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last)))
        } else {
            key.iter().fold((0, 0), |(low, high), byte| (low << 8 | u64::from(*byte), high))
        };
        // Multiplying by 2^64 / golden ratio spreads every bit into the upper ones.
        let mixed = (first ^ last.rotate_left(23) ^ key.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> self.shift) as usize
    }
}

#[inline]
fn length_bit(key: &[u8]) -> u64 {
    1 << (key.len() % 64)
}
