//! Slots that never move, in chunks that are given back when they are empty.
//!
//! The lowest chunk with room is filled first, so that the higher ones run empty when there is less to
//! hold. Growing copies the list of chunks at most, never what is in them.

/// What can be in a slot.
pub(super) trait Slot {
    /// What an unused slot holds.
    fn empty() -> Self;

    /// A place for a number that nothing else needs while the slot is not in use.
    fn link(&mut self) -> &mut u32;
}

const CHUNK_BITS: u32 = 8;
const CHUNK: usize = 1 << CHUNK_BITS;
const NONE: u32 = u32::MAX;
const WORD: usize = u64::BITS as usize;

#[derive(Debug)]
struct Chunk<T> {
    /// Empty if the chunk has no memory.
    slots: Box<[T]>,
    /// The first of its free slots, which are linked.
    free: u32,
    used: u32,
}

/// Numbered slots.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// A bit for each chunk: it has a free slot, or no memory.
    room: Vec<u64>,
    /// No word of `room` before this has a bit set.
    lowest: usize,
    /// Chunks with memory.
    allocated: usize,
    /// An empty chunk that keeps its memory, so that nothing goes back and forth.
    idle: Option<usize>,
    used: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), room: Vec::new(), lowest: 0, allocated: 0, idle: None, used: 0 }
    }
}

impl<T: Slot> Slab<T> {
    /// Memory of `slots` slots that come one after the other, at most.
    pub(super) const fn growth(slots: usize) -> usize {
        (slots / CHUNK + 1) * (CHUNK * size_of::<T>() + 4 * size_of::<Chunk<T>>())
    }

    /// How many slots are in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        // Lists are charged as if they had just doubled, so that the charge grows smoothly.
        let list = self.chunks.capacity().max(2 * self.chunks.len()) * (size_of::<Chunk<T>>() + 1);
        self.allocated * CHUNK * size_of::<T>() + list
    }

    #[inline]
    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.chunks.get((slot >> CHUNK_BITS) as usize)?.slots.get(slot as usize % CHUNK)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.chunks.get_mut((slot >> CHUNK_BITS) as usize)?.slots.get_mut(slot as usize % CHUNK)
    }

    /// Puts `value` into a free slot.
    pub(super) fn take(&mut self, value: T) -> u32 {
        let index = self.chunk_with_room();
        let Some(chunk) = self.chunks.get_mut(index) else {
            return NONE;
        };
        if chunk.slots.is_empty() {
            chunk.slots = (1..=CHUNK as u32)
                .map(|next| {
                    let mut slot = T::empty();
                    *slot.link() = next;
                    slot
                })
                .collect();
            chunk.free = 0;
            self.allocated += 1;
        }
        if self.idle == Some(index) {
            self.idle = None;
        }
        let place = chunk.free;
        if let Some(slot) = chunk.slots.get_mut(place as usize) {
            chunk.free = *slot.link();
            *slot = value;
        }
        chunk.used += 1;
        self.used += 1;
        if chunk.used as usize == CHUNK
            && let Some(word) = self.room.get_mut(index / WORD)
        {
            *word &= !(1 << (index % WORD));
        }
        (index << CHUNK_BITS) as u32 | place
    }

    fn chunk_with_room(&mut self) -> usize {
        while let Some(&word) = self.room.get(self.lowest) {
            if word != 0 {
                return self.lowest * WORD + word.trailing_zeros() as usize;
            }
            self.lowest += 1;
        }
        let index = self.chunks.len();
        self.chunks.push(Chunk { slots: Box::default(), free: 0, used: 0 });
        // As many bits as there are chunks, so a full last word begins the next.
        if index.is_multiple_of(WORD) {
            self.room.push(0);
        }
        self.lowest = index / WORD;
        if let Some(word) = self.room.get_mut(self.lowest) {
            *word |= 1 << (index % WORD);
        }
        index
    }

    /// Empties a slot that is in use.
    pub(super) fn give_back(&mut self, slot: u32) {
        let index = (slot >> CHUNK_BITS) as usize;
        let Some(chunk) = self.chunks.get_mut(index) else {
            return;
        };
        let place = slot as usize % CHUNK;
        let Some(entry) = chunk.slots.get_mut(place) else {
            return;
        };
        *entry = T::empty();
        *entry.link() = chunk.free;
        chunk.free = place as u32;
        chunk.used -= 1;
        self.used -= 1;
        if chunk.used == 0 {
            match self.idle {
                None => self.idle = Some(index),
                Some(_) => {
                    chunk.slots = Box::default();
                    self.allocated -= 1;
                }
            }
        }
        if let Some(word) = self.room.get_mut(index / WORD) {
            *word |= 1 << (index % WORD);
        }
        self.lowest = self.lowest.min(index / WORD);
    }

    /// All slots, used or not.
    pub(super) fn slots(&self) -> std::ops::Range<u32> {
        0..(self.chunks.len() << CHUNK_BITS) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Slot for u32 {
        fn empty() -> Self {
            NONE
        }

        fn link(&mut self) -> &mut u32 {
            self
        }
    }

    /// Beside a map, through growing and shrinking; and memory goes when slots do.
    #[test]
    fn slots_hold_what_was_put_in_and_memory_is_given_back() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(5);
        let mut slab = Slab::<u32>::default();
        let mut model = std::collections::BTreeMap::new();
        for round in 0..60_000u32 {
            let growing = (round / 20_000).is_multiple_of(2);
            if rng.random_bool(if growing { 0.9 } else { 0.1 }) || model.is_empty() {
                let slot = slab.take(round);
                assert_eq!(model.insert(slot, round), None, "the slot was free");
            } else {
                let nth = rng.random_range(0..model.len());
                let slot = *model.keys().nth(nth).unwrap();
                assert_eq!(slab.get(slot), model.remove(&slot).as_ref());
                slab.give_back(slot);
            }
            assert_eq!(slab.used(), model.len());
        }
        for (&slot, value) in &model {
            assert_eq!(slab.get(slot), Some(value));
            slab.give_back(slot);
        }
        assert_eq!((slab.used(), slab.allocated), (0, 1));
    }
}
