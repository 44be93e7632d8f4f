//! The symbol table of a 2.0 request: every text once, in the order in which they are met.

use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use nyquist_core::wire::put_varint;

/// The tag of `symbols` in a request: field 4.
const SYMBOLS: u8 = 0x22;

/// Texts with their numbers; number 0 is the empty text.
pub(super) struct Symbols {
    /// `symbols` fields.
    encoded: Vec<u8>,
    texts: Vec<Range<usize>>,
    /// Hashes and numbers.
    known: HashTable<(u64, u32)>,
    hasher: RandomState,
}

impl Symbols {
    pub(super) fn new() -> Self {
        let mut symbols =
            Self { encoded: Vec::new(), texts: Vec::new(), known: HashTable::new(), hasher: RandomState::default() };
        symbols.clear();
        symbols
    }

    /// Forgets all but the empty text.
    pub(super) fn clear(&mut self) {
        self.encoded.clear();
        self.texts.clear();
        self.known.clear();
        self.push(b"");
    }

    /// The number of `text`.
    #[inline]
    pub(super) fn number(&mut self, text: &[u8]) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let hash = self.hasher.hash_one(text);
        let Self { encoded, texts, known, .. } = self;
        let is_it = |&(known, number): &(u64, u32)| {
            known == hash && texts.get(number as usize).and_then(|range| encoded.get(range.clone())) == Some(text)
        };
        match known.entry(hash, is_it, |&(hash, _)| hash) {
            Entry::Occupied(found) => found.get().1,
            Entry::Vacant(vacant) => {
                let number = texts.len() as u32;
                vacant.insert((hash, number));
                self.push(text);
                number
            }
        }
    }

    fn push(&mut self, text: &[u8]) {
        self.encoded.push(SYMBOLS);
        put_varint(&mut self.encoded, text.len() as u64);
        let start = self.encoded.len();
        self.encoded.extend_from_slice(text);
        self.texts.push(start..self.encoded.len());
    }

    /// The table, as fields of a request.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_there_once() {
        let mut symbols = Symbols::new();
        for _ in 0..2 {
            let numbers = ["a", "", "b", "a", "b"].map(|text| symbols.number(text.as_bytes()));
            assert_eq!(numbers, [1, 0, 2, 1, 2]);
            assert_eq!(symbols.encoded(), b"\x22\x00\x22\x01a\x22\x01b");
            symbols.clear();
        }
    }

    #[test]
    fn many_texts_keep_their_numbers() {
        let mut symbols = Symbols::new();
        for _ in 0..2 {
            for n in 0..10_000_u32 {
                assert_eq!(symbols.number(n.to_string().as_bytes()), n + 1);
            }
        }
    }
}
