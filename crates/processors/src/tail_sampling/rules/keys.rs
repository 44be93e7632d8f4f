//! Finding out whether an attribute key is one that a condition asks for.
//!
//! Almost all keys are not, so the answer no has to be quick: a mask of the lengths that occur,
//! then one probe of a sparse table by a hash of length and ends.

#[derive(Debug, Default)]
pub(super) struct KeyTable {
    lengths: u64,
    slots: Box<[u16]>,
    keys: Vec<Box<[u8]>>,
}

const EMPTY: u16 = u16::MAX;

impl KeyTable {
    /// The table of `keys`, which are distinct; each is found as its index.
    pub(super) fn new(keys: Vec<Box<[u8]>>) -> Self {
        let size = (keys.len() * 8).next_power_of_two().max(16);
        let mut table = Self { lengths: 0, slots: vec![EMPTY; size].into(), keys: Vec::new() };
        for (index, key) in keys.iter().enumerate() {
            table.lengths |= 1 << key.len().min(63);
            let mut slot = hash(key) & (size - 1);
            while table.slots[slot] != EMPTY {
                slot = (slot + 1) & (size - 1);
            }
            table.slots[slot] = index as u16;
        }
        table.keys = keys;
        table
    }

    /// The index of `key`.
    #[inline]
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        if self.lengths & (1 << key.len().min(63)) == 0 {
            return None;
        }
        self.probe(key)
    }

    fn probe(&self, key: &[u8]) -> Option<usize> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut slot = hash(key) & mask;
        // The table is at most an eighth full, so an empty slot ends every search.
        while let Some(&index) = self.slots.get(slot) {
            let index = usize::from(index);
            let candidate = self.keys.get(index)?;
            if **candidate == *key {
                return Some(index);
            }
            slot = (slot + 1) & mask;
        }
        None
    }
}

#[inline]
fn hash(key: &[u8]) -> usize {
    let head = key.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let tail = key.last_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let short = key.first().copied().unwrap_or_default();
    let mixed = (u64::from(head) << 32 | u64::from(tail)) ^ (key.len() as u64) << 8 ^ u64::from(short);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_and_others_are_not() {
        let keys: Vec<Box<[u8]>> =
            (0..500).map(|index| format!("key.{index}.x").into_bytes().into_boxed_slice()).collect();
        let table = KeyTable::new(keys.clone());
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(table.find(key), Some(index));
        }
        for other in ["", "k", "key.500.x", "key.1.y", "http.request.method"] {
            assert_eq!(table.find(other.as_bytes()), None);
        }
        assert_eq!(KeyTable::default().find(b"x"), None);
    }
}
