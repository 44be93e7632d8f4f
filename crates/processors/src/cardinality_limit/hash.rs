//! Keyed hashes: the identity of labels, series and metrics.
//!
//! A series' fingerprint is the hash of its context (resource, scope, metric) plus the sum of the
//! hashes of its attributes. The sum does not depend on their order, and replacing the value of
//! one label is one subtraction and one addition. The seed is random, and as old as the state (a
//! snapshot carries it), so that no sender can look for collisions; by chance, among n series, one
//! happens with n^2 / 2^65.

use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
pub(super) use nyquist_core::table::{Table, put};
use nyquist_core::wire::{AnyValue, KeyValue};

/// What makes the hash functions of one limiter.
pub(super) type Seed = [u64; 2];

/// The hash functions of one limiter.
#[derive(Debug, Clone)]
pub(super) struct Hashes {
    seed: Seed,
    shared: SharedSeed,
}

impl Hashes {
    pub(super) fn new(seed: Seed) -> Self {
        Self { seed, shared: SharedSeed::from_u64(seed[1]) }
    }

    pub(super) fn seed(&self) -> Seed {
        self.seed
    }

    /// Tells whether a snapshot was written with the same functions: another version of the hash
    /// gives another value.
    pub(super) fn check(&self) -> u64 {
        self.mix(&[self.bytes(b"cardinality_limit"), self.bytes(&[7; 100])])
    }

    fn hasher(&self) -> FoldHasher<'_> {
        FoldHasher::with_seed(self.seed[0], &self.shared)
    }

    pub(super) fn bytes(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.hasher();
        hasher.write(bytes);
        hasher.finish()
    }

    /// The hash of a key and its value, however they are encoded.
    pub(super) fn attribute(&self, KeyValue { key, value }: &KeyValue<'_>) -> u64 {
        let mut hasher = self.hasher();
        hasher.write_usize(key.len());
        hasher.write(key);
        feed(&mut hasher, value);
        hasher.finish()
    }

    /// One hash of several, in this order.
    pub(super) fn mix(&self, parts: &[u64]) -> u64 {
        let mut hasher = self.hasher();
        for &part in parts {
            hasher.write_u64(part);
        }
        hasher.finish()
    }
}

fn feed(hasher: &mut impl Hasher, value: &AnyValue<'_>) {
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
}

/// Which of `buckets` buckets `value` goes to: the same in all processes of all gateways, for ever.
/// Who looks for values of one bucket gains nothing by it, so there is no key.
pub(super) fn bucket(value: &AnyValue<'_>, buckets: u32) -> u32 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    feed(&mut hasher, value);
    // The upper bits of FNV-1a are the good ones; one more multiplication spreads the last bytes.
    let hash = hasher.finish();
    let spread = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32;
    ((spread * u64::from(buckets)) >> 32) as u32
}

/// FNV-1a.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u16(&mut self, value: u16) {
        self.write(&value.to_le_bytes());
    }

    fn write_u64(&mut self, value: u64) {
        self.write(&value.to_le_bytes());
    }

    fn write_i64(&mut self, value: i64) {
        self.write(&value.to_le_bytes());
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
