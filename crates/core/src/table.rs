//! Tables keyed by fingerprints: keyed hashes already, with a seed of the process' own, so that no sender can
//! choose where they go.

use std::hash::{BuildHasherDefault, Hasher};

/// A table keyed by something that is a good hash already.
pub type Table<V> = hashbrown::HashMap<u64, V, BuildHasherDefault<Identity>>;

/// Puts `value` in, and gives back what was there. A table that is full grows for a new key alone: `HashMap::insert` makes room
/// for one more before it knows.
pub fn put<V>(table: &mut Table<V>, key: u64, value: V) -> Option<V> {
    match table.get_mut(&key) {
        Some(place) => Some(std::mem::replace(place, value)),
        None => table.insert(key, value),
    }
}

/// Hands a `u64` through.
#[derive(Debug, Default, Clone, Copy)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: what is put where something is already takes no memory.
    #[test]
    fn a_full_table_does_not_grow_for_a_known_key() {
        let mut table = Table::default();
        for key in 0.. {
            assert_eq!(put(&mut table, key, 1), None);
            if key > 100 && table.len() == table.capacity() {
                break;
            }
        }
        let bytes = table.allocation_size();
        assert_eq!(put(&mut table, 7, 2), Some(1));
        assert_eq!((table.allocation_size(), table[&7]), (bytes, 2));
    }
}
