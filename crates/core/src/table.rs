//! Tables keyed by fingerprints: keyed hashes already, with a seed of the process' own, so that no sender can
//! choose where they go.

use std::hash::{BuildHasherDefault, Hasher};

/// A table keyed by something that is a good hash already.
pub type Table<V> = hashbrown::HashMap<u64, V, BuildHasherDefault<Identity>>;

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
