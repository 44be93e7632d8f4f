//! From trace id to slot.
//!
//! Several small tables instead of one, so that growth re-hashes a sixteenth at a time; an element
//! carries 32 bits of the hash, so that neither growth nor a mismatch touches the traces.

use hashbrown::HashTable;

const TABLES: usize = 16;

#[derive(Debug, Clone, Copy)]
struct Element {
    tag: u32,
    slot: u32,
}

#[derive(Debug)]
pub(super) struct Index {
    tables: Vec<HashTable<Element>>,
}

/// The table's hash of `tag`: hashbrown takes the low bits for the place and the high ones for its
/// own tags.
#[inline]
fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    pub(super) fn with_capacity(traces: usize) -> Self {
        let each = traces.div_ceil(TABLES);
        Self { tables: (0..TABLES).map(|_| HashTable::with_capacity(each)).collect() }
    }

    /// Bytes of memory per trace, with the slack that growth leaves.
    pub(super) const BYTES_PER_TRACE: usize = 16;

    #[inline]
    fn table(tag: u32) -> usize {
        (tag >> 28) as usize % TABLES
    }

    /// The slot whose tag is `tag` and that `is_it`.
    #[inline]
    pub(super) fn find(&self, tag: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let table = self.tables.get(Self::table(tag))?;
        let found = table.find(spread(tag), |element| element.tag == tag && is_it(element.slot))?;
        Some(found.slot)
    }

    /// Adds a slot that is not there.
    pub(super) fn insert(&mut self, tag: u32, slot: u32) {
        if let Some(table) = self.tables.get_mut(Self::table(tag)) {
            table.insert_unique(spread(tag), Element { tag, slot }, |element| spread(element.tag));
        }
    }

    pub(super) fn remove(&mut self, tag: u32, slot: u32) {
        if let Some(table) = self.tables.get_mut(Self::table(tag))
            && let Ok(entry) = table.find_entry(spread(tag), |element| element.slot == slot)
        {
            entry.remove();
        }
    }
}
