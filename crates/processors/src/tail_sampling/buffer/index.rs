//! From hash to slot: extendible hashing.
//!
//! A directory of small tables, each for a part of all hashes; a full one is split in two. So no call
//! moves more than one small table, however large the whole is. The parts are not equally wide: their
//! loads differ by up to a factor of two, evenly in the logarithm, so that at any size a few are
//! being split all the time, instead of all of them at the same size; and a slot costs the same at
//! any size. An element carries the hash, so that neither growth nor a mismatch touches the slots.

use hashbrown::HashTable;

/// What one table holds at most: just full at the next power of two.
const FULL: usize = 896;
/// Two tables with fewer than this together become one.
const FEW: usize = FULL / 4;
/// More than any budget has room for.
const MAX_DEPTH: u32 = 22;
/// Pieces of the logarithm.
const KNOT_BITS: u32 = 7;

#[derive(Debug, Clone, Copy)]
struct Element {
    tag: u32,
    slot: u32,
}

#[derive(Debug, Default)]
struct Table {
    elements: HashTable<Element>,
    /// All its places begin with the `depth` bits of `prefix`.
    depth: u32,
    prefix: u32,
}

/// Slots by the hash of what is in them.
#[derive(Debug)]
pub(super) struct Index {
    tables: Vec<Table>,
    /// By the first `depth` bits of a place.
    directory: Vec<u32>,
    depth: u32,
    /// Below this, tables are not merged.
    min_depth: u32,
    knots: Box<[u32]>,
    /// Bytes of all tables.
    bytes: usize,
    /// How many elements were moved so far.
    moved: u64,
}

/// The table's hash of `tag`: hashbrown takes the low bits for the place and the high ones for its
/// own tags.
#[inline]
fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    /// Memory for `slots` more slots, at most: each table that a new one could be split from, or one
    /// that grows, and the directory.
    pub(super) const fn growth(slots: usize) -> usize {
        (slots / 64 + 2) * 10 * 1024
    }

    pub(super) fn with_capacity(slots: usize) -> Self {
        let pieces = 1 << KNOT_BITS;
        let knots =
            (0..=pieces).map(|knot| (f64::from(u32::MAX) * (1.0 + f64::from(knot) / f64::from(pieces)).log2()) as u32);
        let mut index = Self {
            tables: vec![Table::default()],
            directory: vec![0],
            depth: 0,
            min_depth: 0,
            knots: knots.collect(),
            bytes: 0,
            moved: 0,
        };
        let depth = (slots / (FULL / 2)).checked_ilog2().unwrap_or(0).min(MAX_DEPTH);
        while index.depth < depth {
            for table in 0..index.tables.len() {
                index.split(table);
            }
        }
        index.min_depth = depth;
        index
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        // Lists are charged as if they had just doubled, so that the charge grows smoothly.
        self.bytes
            + self.tables.capacity().max(2 * self.tables.len()) * size_of::<Table>()
            + (2 * self.directory.len() + self.knots.len()) * size_of::<u32>()
    }

    /// How many elements were moved so far, by growing and shrinking.
    #[cfg(test)]
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// The same since the last call.
    #[cfg(test)]
    pub(super) fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved)
    }

    /// Where `tag` stands among all: its logarithm, by pieces.
    #[inline]
    fn place(&self, tag: u32) -> u32 {
        const REST: u32 = u32::BITS - KNOT_BITS;
        let knot = (tag >> REST) as usize;
        let (Some(&low), Some(&high)) = (self.knots.get(knot), self.knots.get(knot + 1)) else {
            return tag;
        };
        low + ((u64::from(high - low) * u64::from(tag & ((1 << REST) - 1))) >> REST) as u32
    }

    #[inline]
    fn table(&self, tag: u32) -> usize {
        let entry = (u64::from(self.place(tag)) << self.depth) >> u32::BITS;
        self.directory.get(entry as usize).map_or(0, |&table| table as usize)
    }

    /// The slot whose tag is `tag` and that `is_it`.
    #[inline]
    pub(super) fn find(&self, tag: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let table = self.tables.get(self.table(tag))?;
        let found = table.elements.find(spread(tag), |element| element.tag == tag && is_it(element.slot))?;
        Some(found.slot)
    }

    /// Adds a slot that is not there.
    pub(super) fn insert(&mut self, tag: u32, slot: u32) {
        let mut index = self.table(tag);
        if self.tables.get(index).is_some_and(|table| table.elements.len() >= FULL && table.depth < MAX_DEPTH) {
            self.split(index);
            index = self.table(tag);
        }
        let Some(table) = self.tables.get_mut(index) else {
            return;
        };
        let (before, len) = (table.elements.allocation_size(), table.elements.len());
        if len == table.elements.capacity() && len > FULL / 2 && len < FULL {
            // What was removed has left marks that take its places: hashbrown would double the table.
            let old = std::mem::replace(&mut table.elements, HashTable::with_capacity(FULL));
            for element in &old {
                table.elements.insert_unique(spread(element.tag), *element, |element| spread(element.tag));
            }
            self.moved += len as u64;
        }
        table.elements.insert_unique(spread(tag), Element { tag, slot }, |element| spread(element.tag));
        let after = table.elements.allocation_size();
        if after != before {
            self.bytes = self.bytes + after - before;
            self.moved += len as u64;
        }
    }

    pub(super) fn remove(&mut self, tag: u32, slot: u32) {
        let index = self.table(tag);
        let Some(table) = self.tables.get_mut(index) else {
            return;
        };
        if let Ok(entry) = table.elements.find_entry(spread(tag), |element| element.slot == slot) {
            entry.remove();
            let mut small = (table.elements.len() < FEW / 2).then_some(index);
            while let Some(index) = small {
                small = self.merge(index);
            }
        }
    }

    /// Splits a table by the next bit of the places.
    fn split(&mut self, index: usize) {
        let depth = match self.tables.get(index) {
            Some(table) => table.depth,
            None => return,
        };
        if depth == self.depth {
            self.directory = self.directory.iter().flat_map(|&table| [table, table]).collect();
            self.depth += 1;
        }
        let Some(table) = self.tables.get_mut(index) else {
            return;
        };
        let old = std::mem::take(&mut table.elements);
        let (depth, left, right) = (depth + 1, table.prefix << 1, table.prefix << 1 | 1);
        (table.depth, table.prefix) = (depth, left);
        self.bytes -= old.allocation_size();
        let mut halves = [HashTable::with_capacity(old.len() * 5 / 8), HashTable::with_capacity(old.len() * 5 / 8)];
        for element in &old {
            let bit = self.place(element.tag) >> (u32::BITS - depth) & 1;
            if let Some(half) = halves.get_mut(bit as usize) {
                half.insert_unique(spread(element.tag), *element, |element| spread(element.tag));
            }
        }
        self.moved += old.len() as u64;
        self.bytes += halves.iter().map(HashTable::allocation_size).sum::<usize>();
        let [elements, others] = halves;
        if let Some(table) = self.tables.get_mut(index) {
            table.elements = elements;
        }
        let new = self.tables.len();
        self.tables.push(Table { elements: others, depth, prefix: right });
        self.point(depth, right, new);
    }

    /// Lets the places that begin with `prefix` lead to a table.
    fn point(&mut self, depth: u32, prefix: u32, table: usize) {
        let width = 1usize << (self.depth - depth);
        let begin = prefix as usize * width;
        if let Some(entries) = self.directory.get_mut(begin..begin + width) {
            entries.fill(table as u32);
        }
    }

    /// Makes one of a table and the one that it was split from, if both hold little: which.
    fn merge(&mut self, index: usize) -> Option<usize> {
        let &Table { depth, prefix, ref elements } = self.tables.get(index)?;
        if depth <= self.min_depth {
            return None;
        }
        let entry = ((prefix ^ 1) as usize) << (self.depth - depth);
        let buddy = *self.directory.get(entry)? as usize;
        let other = self.tables.get(buddy)?;
        if other.depth != depth || other.elements.len() + elements.len() >= FEW {
            return None;
        }
        let (keep, gone) = (index.min(buddy), index.max(buddy));
        // The last table takes the place of the one that goes.
        let other = self.tables.swap_remove(gone);
        if let Some(&Table { depth, prefix, .. }) = self.tables.get(gone) {
            self.point(depth, prefix, gone);
        }
        self.bytes -= other.elements.allocation_size();
        let table = self.tables.get_mut(keep)?;
        let before = table.elements.allocation_size();
        for element in &other.elements {
            table.elements.insert_unique(spread(element.tag), *element, |element| spread(element.tag));
        }
        table.elements.shrink_to(FEW, |element| spread(element.tag));
        self.bytes = self.bytes + table.elements.allocation_size() - before;
        (table.depth, table.prefix) = (depth - 1, prefix >> 1);
        self.moved += table.elements.len() as u64;
        self.point(depth - 1, prefix >> 1, keep);
        Some(keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(number: u32) -> u32 {
        (spread(number) >> 32) as u32
    }

    /// However large it is: one call moves one small table at most, many calls together few, and a
    /// slot costs about the same at any size.
    #[test]
    fn growth_is_spread_over_many_calls() {
        const SLOTS: u32 = 400_000;
        let mut index = Index::with_capacity(0);
        let mut at_thousands = vec![0];
        for slot in 0..SLOTS {
            let before = index.moved();
            index.insert(tag(slot), slot);
            assert!(index.moved() - before <= 2 * FULL as u64);
            if (slot + 1) % 1000 == 0 {
                let moved = index.moved() - at_thousands.last().unwrap();
                assert!(moved < 16 * 1000, "{moved} elements were moved for a thousand new ones");
                at_thousands.push(index.moved());
            }
            if slot > 20_000 && slot % 997 == 0 {
                let each = index.bytes() as f64 / f64::from(slot);
                assert!(each < 18.0, "{each} bytes a slot at {slot}");
            }
        }
        for slot in 0..SLOTS {
            assert_eq!(index.find(tag(slot), |found| found == slot), Some(slot));
        }
        let full = index.bytes();
        for slot in 0..SLOTS {
            let before = index.moved();
            index.remove(tag(slot), slot);
            assert!(index.moved() - before <= 2 * FULL as u64);
        }
        assert!(index.bytes() < full / 8, "memory is given back: {} of {full}", index.bytes());
        assert_eq!(index.find(tag(7), |_| true), None);
    }

    /// Slots that come and go cost no more than slots that come.
    #[test]
    fn coming_and_going_takes_no_room() {
        const HELD: u32 = 30_000;
        const TURNS: u32 = 400_000;
        let mut index = Index::with_capacity(0);
        for slot in 0..TURNS {
            index.insert(tag(slot), slot);
            if slot >= HELD {
                index.remove(tag(slot - HELD), slot - HELD);
            }
        }
        let each = index.bytes() as f64 / f64::from(HELD);
        assert!(each < 18.0, "{each} bytes a slot");
        let moved = index.moved() / u64::from(TURNS);
        assert!(moved < 4, "{moved} elements were moved for each new one");
    }

    /// Beside a map.
    #[test]
    fn it_finds_what_is_in_and_nothing_else() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(3);
        for hint in [0, 10_000] {
            let mut index = Index::with_capacity(hint);
            let mut model = std::collections::BTreeMap::new();
            for round in 0..80_000u32 {
                let growing = (round / 20_000).is_multiple_of(2);
                let slot = rng.random_range(0..30_000u32);
                // Few tags, so that some slots share one.
                let tag = tag(slot % 20_000);
                assert_eq!(index.find(tag, |found| found == slot).is_some(), model.contains_key(&slot));
                if model.contains_key(&slot) && rng.random_bool(if growing { 0.1 } else { 0.9 }) {
                    index.remove(tag, slot);
                    model.remove(&slot);
                } else if !model.contains_key(&slot) && rng.random_bool(if growing { 0.9 } else { 0.1 }) {
                    index.insert(tag, slot);
                    model.insert(slot, tag);
                }
            }
            let held: usize = index.tables.iter().map(|table| table.elements.len()).sum();
            assert_eq!(held, model.len());
            let bytes: usize = index.tables.iter().map(|table| table.elements.allocation_size()).sum();
            assert_eq!(bytes, index.bytes);
        }
    }
}
