//! Keyed hashes: the identity of labels, series and metrics.
//!
//! A series' fingerprint is the hash of its context (resource, scope, metric) plus the sum of the
//! hashes of its attributes. The sum does not depend on their order, and replacing the value of
//! one label is one subtraction and one addition. The seed is random for each process, so that no
//! sender can look for collisions; by chance, among n series, one happens with n^2 / 2^65.

use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use foldhash::quality::RandomState;
use nyquist_core::wire::{AnyValue, KeyValue};

/// A table keyed by something that is a good hash already.
pub(super) type Table<V> = hashbrown::HashMap<u64, V, BuildHasherDefault<Identity>>;

/// Hands a `u64` through.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Identity(u64);

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

/// The hash functions of one limiter.
#[derive(Debug, Clone, Default)]
pub(super) struct Hashes(RandomState);

impl Hashes {
    pub(super) fn bytes(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }

    /// The hash of a key and its value, however they are encoded.
    pub(super) fn attribute(&self, KeyValue { key, value }: &KeyValue<'_>) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_usize(key.len());
        hasher.write(key);
        match value {
            AnyValue::Empty => hasher.write_u8(0),
            AnyValue::String(text) => {
                hasher.write_u8(1);
                hasher.write(text);
            }
            AnyValue::Bool(flag) => hasher.write_u16(0x200 | u16::from(*flag)),
            AnyValue::Int(number) => {
                hasher.write_u8(3);
                hasher.write_i64(*number);
            }
            AnyValue::Double(number) => {
                hasher.write_u8(4);
                hasher.write_u64(number.to_bits());
            }
            AnyValue::Array(bytes) => {
                hasher.write_u8(5);
                hasher.write(bytes);
            }
            AnyValue::KvList(bytes) => {
                hasher.write_u8(6);
                hasher.write(bytes);
            }
            AnyValue::Bytes(bytes) => {
                hasher.write_u8(7);
                hasher.write(bytes);
            }
        }
        hasher.finish()
    }

    /// One hash of several, in this order.
    pub(super) fn mix(&self, parts: &[u64]) -> u64 {
        let mut hasher = self.0.build_hasher();
        for &part in parts {
            hasher.write_u64(part);
        }
        hasher.finish()
    }
}
