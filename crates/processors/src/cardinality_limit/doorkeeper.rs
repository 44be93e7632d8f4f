//! Has a value been seen often enough to get a slot?
//!
//! A count-min sketch (Cormode, Muthukrishnan 2005) with conservative update and aging, as in
//! TinyLFU (Einziger, Friedman, Manes 2017): after as many sightings as it has counters all counts
//! are halved. It may take a stranger for somebody who was there before, never the other way
//! round but for the aging.

/// See the module.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    counters: Vec<u8>,
    /// Sightings since the counts were last halved.
    sightings: usize,
}

impl Doorkeeper {
    /// One of at most `bytes` bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self { counters: vec![0; 1 << bytes.max(1024).ilog2()], sightings: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.counters.len()
    }

    /// Counts a sighting of `value`, and tells how many there were.
    pub(super) fn see(&mut self, value: u64) -> u8 {
        self.sightings += 1;
        if self.sightings >= self.counters.len() {
            self.sightings = 0;
            self.counters.iter_mut().for_each(|count| *count /= 2);
        }
        let mask = self.counters.len() - 1;
        // Four places from the halves of a good hash (Kirsch, Mitzenmacher 2006).
        let step = value.rotate_left(32) | 1;
        let places = [0u64, 1, 2, 3].map(|index| value.wrapping_add(index.wrapping_mul(step)) as usize & mask);
        let least = places.iter().filter_map(|&place| self.counters.get(place)).min().copied().unwrap_or_default();
        let seen = least.saturating_add(1);
        for place in places {
            if let Some(count) = self.counters.get_mut(place) {
                *count = (*count).max(seen);
            }
        }
        seen
    }
}
