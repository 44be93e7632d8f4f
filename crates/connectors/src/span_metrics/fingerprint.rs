//! Fingerprints: keyed hashes of what tells series apart.
//!
//! The parts of a fingerprint are folded in one after the other, each by a multiplication whose halves are
//! combined, as in foldhash (<https://github.com/orlp/foldhash>); unlike it, texts of some twenty bytes, as
//! names and routes of spans are, go the short way too. The seeds are random for each process, so that no
//! sender can look for collisions; by chance, among n series, one happens with n^2 / 2^65.

use nyquist_core::wire::{AnyValue, KeyValue};

/// The hash functions of one connector: three random numbers.
#[derive(Debug)]
pub(super) struct Hashes {
    start: u64,
    first: u64,
    second: u64,
}

impl Default for Hashes {
    fn default() -> Self {
        Self { start: rand::random(), first: rand::random(), second: rand::random() }
    }
}

/// A fingerprint on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fingerprint<'a> {
    hashes: &'a Hashes,
    state: u64,
}

impl Hashes {
    /// A fingerprint of nothing so far.
    #[inline]
    pub(super) fn begin(&self) -> Fingerprint<'_> {
        Fingerprint { hashes: self, state: self.start }
    }

    /// The hash of `text`.
    pub(super) fn text(&self, text: &[u8]) -> u64 {
        let mut hash = self.begin();
        hash.text(text);
        hash.finish()
    }

    /// The hash of a key and its value, however they are encoded.
    pub(super) fn attribute(&self, attribute: &KeyValue<'_>) -> u64 {
        let mut hash = self.begin();
        hash.text(attribute.key);
        let kind = hash.value(attribute.value);
        hash.words(kind, 0);
        hash.finish()
    }
}

impl Fingerprint<'_> {
    /// Adds two numbers.
    #[inline(always)]
    pub(super) fn words(&mut self, first: u64, second: u64) {
        self.state = folded(self.state ^ first ^ self.hashes.first, second ^ self.hashes.second);
    }

    /// Adds a text.
    #[inline(always)]
    pub(super) fn text(&mut self, text: &[u8]) {
        let seed = self.hashes.second;
        // Words of short texts overlap: the rotation tells lengths apart.
        let mut state = self.state.rotate_right(text.len() as u32);
        if let (Some(head), Some(tail)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
            let mut rest = text;
            while rest.len() > 16
                && let Some((block, after)) = rest.split_first_chunk::<16>()
            {
                let (low, high) = halves(*block);
                state = folded(state ^ low, high ^ seed);
                rest = after;
            }
            // The last sixteen bytes, of which some may have been seen; or all there are.
            let head = text.last_chunk::<16>().map_or_else(|| u64::from_le_bytes(*head), |last| halves(*last).0);
            state = folded(state ^ head, u64::from_le_bytes(*tail) ^ seed);
        } else {
            let (first, second) = short(text);
            state = folded(state ^ first, second ^ seed);
        }
        self.state = state;
    }

    /// Adds a value; returns what kind it is, which is to be added too: below 8, and not 0.
    #[inline(always)]
    pub(super) fn value(&mut self, value: AnyValue<'_>) -> u64 {
        if let AnyValue::String(text) = value {
            self.text(text);
            return 1;
        }
        self.other_value(value)
    }

    fn other_value(&mut self, value: AnyValue<'_>) -> u64 {
        let (kind, word, bytes): (u64, u64, &[u8]) = match value {
            AnyValue::Empty => (2, 0, &[]),
            AnyValue::Bool(flag) => (3, u64::from(flag), &[]),
            AnyValue::Int(number) => (4, number as u64, &[]),
            AnyValue::Double(number) => (5, number.to_bits(), &[]),
            AnyValue::String(text) => (1, 0, text),
            AnyValue::Bytes(bytes) => (6, 0, bytes),
            AnyValue::Array(bytes) => (7, 0, bytes),
            AnyValue::KvList(bytes) => (7, 1, bytes),
        };
        self.words(word, kind);
        self.text(bytes);
        kind
    }

    /// The fingerprint.
    #[inline(always)]
    pub(super) fn finish(self) -> u64 {
        self.finish_with(0)
    }

    /// The fingerprint of all that was added and a `last` number.
    #[inline(always)]
    pub(super) fn finish_with(self, last: u64) -> u64 {
        folded(self.state ^ self.hashes.first, last ^ self.hashes.start)
    }
}

/// The two halves of the product of `a` and `b`, combined.
#[inline(always)]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline(always)]
fn halves(block: [u8; 16]) -> (u64, u64) {
    let block = u128::from_le_bytes(block);
    (block as u64, (block >> 64) as u64)
}

/// All bytes of a text shorter than eight.
#[inline(always)]
fn short(text: &[u8]) -> (u64, u64) {
    if let (Some(head), Some(tail)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        return (u32::from_le_bytes(*head).into(), u32::from_le_bytes(*tail).into());
    }
    match *text {
        [] => (0, 0),
        [one] => (one.into(), 0),
        [one, two] => (one.into(), two.into()),
        [one, two, three, ..] => (one.into(), u64::from(two) << 8 | u64::from(three)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// All texts of one repeated letter, of the lengths around every branch, and what differs from them in
    /// any one byte: all different. Where a text ends and the next one begins matters.
    #[test]
    fn texts_differ() {
        let hashes = Hashes::default();
        let mut texts: HashSet<Vec<u8>> = HashSet::new();
        for len in 0..70 {
            texts.insert(vec![b'a'; len]);
            for place in 0..len {
                for letter in [b'b', b'`', 0] {
                    let mut text = vec![b'a'; len];
                    text[place] = letter;
                    texts.insert(text);
                }
            }
        }
        let distinct: HashSet<u64> = texts.iter().map(|text| hashes.text(text)).collect();
        assert_eq!(distinct.len(), texts.len());
        let of = |parts: [&[u8]; 3]| {
            let mut hash = hashes.begin();
            parts.iter().for_each(|part| hash.text(part));
            hash.finish()
        };
        let apart = [["ab", "c", ""], ["a", "bc", ""], ["abc", "", ""], ["", "abc", ""], ["", "ab", "c"]];
        let distinct: HashSet<u64> = apart.iter().map(|parts| of(parts.map(str::as_bytes))).collect();
        assert_eq!(distinct.len(), apart.len());
    }

    /// Values of different kinds with the same bytes are different attributes.
    #[test]
    fn kinds_differ() {
        let hashes = Hashes::default();
        let values = [
            AnyValue::Empty,
            AnyValue::String(b""),
            AnyValue::String(b"1"),
            AnyValue::Bytes(b"1"),
            AnyValue::Array(b"1"),
            AnyValue::KvList(b"1"),
            AnyValue::Bool(true),
            AnyValue::Bool(false),
            AnyValue::Int(1),
            AnyValue::Int(0),
            AnyValue::Double(f64::from_bits(1)),
        ];
        let distinct: HashSet<u64> =
            values.iter().map(|&value| hashes.attribute(&KeyValue { key: b"k", value })).collect();
        assert_eq!(distinct.len(), values.len());
    }

    /// Tables use the lowest bits and the uppermost: those of a thousand numbers are spread over both.
    #[test]
    fn bits_are_spread() {
        let hashes = Hashes::default();
        let of = |number: u32| hashes.text(format!("GET /{number}").as_bytes());
        let low: HashSet<u64> = (0..1000).map(|number| of(number) & 0xfff).collect();
        let high: HashSet<u64> = (0..1000).map(|number| of(number) >> 52).collect();
        // 1000 balls into 4096 boxes hit 887 of them, give or take 10.
        assert!(low.len() > 800 && high.len() > 800, "{} {}", low.len(), high.len());
    }
}
