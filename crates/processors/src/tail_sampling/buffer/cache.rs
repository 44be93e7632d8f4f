//! Past decisions, for spans that come late.
//!
//! Sets of eight, the oldest of a set replaced first. Entries are compared by their full id, so a
//! trace never gets another one's decision.

const WAYS: usize = 8;

/// A decision that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Past {
    pub(super) reason: u16,
    /// When, in tenths of a second of the sampler's clock.
    pub(super) at: u32,
}

impl Past {
    /// For times in nanoseconds.
    pub(super) fn new(reason: u16, now: u64) -> Self {
        Self { reason, at: (now / TENTH) as u32 }
    }

    /// How long ago, in seconds.
    pub(super) fn age(self, now: u64) -> f64 {
        f64::from(((now / TENTH) as u32).saturating_sub(self.at)) / 10.0
    }
}

const TENTH: u64 = 100_000_000;

#[derive(Debug)]
pub(super) struct DecisionCache {
    /// 0 for an empty place. One cache line holds four sets.
    tags: Vec<[u16; WAYS]>,
    ids: Vec<[[u8; 16]; WAYS]>,
    pasts: Vec<[Past; WAYS]>,
    next: Vec<u8>,
}

impl DecisionCache {
    /// Room for at least `entries` (in sets of eight); 0 for none.
    pub(super) fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS);
        Self {
            tags: vec![[0; WAYS]; sets],
            ids: vec![[[0; 16]; WAYS]; sets],
            pasts: vec![[Past { reason: 0, at: 0 }; WAYS]; sets],
            next: vec![0; sets],
        }
    }

    /// Bytes of memory, in use or not.
    pub(super) fn bytes(&self) -> usize {
        self.tags.len() * Self::SET
    }

    const SET: usize = WAYS * (size_of::<u16>() + size_of::<[u8; 16]>() + size_of::<Past>()) + 1;

    /// Bytes of memory of a cache for `entries`.
    pub(super) const fn bytes_for(entries: u64) -> u64 {
        entries.div_ceil(WAYS as u64).saturating_mul(Self::SET as u64)
    }

    /// The set of a hash, and what tells entries of the set from each other.
    #[inline]
    fn set(&self, tag: u32) -> (usize, u16) {
        let product = tag.wrapping_mul(0x9e37_79b1);
        (((u64::from(product) * self.tags.len() as u64) >> 32) as usize, tag as u16 | 1)
    }

    #[inline]
    fn way(&self, set: usize, tag: u16, id: &[u8; 16]) -> Option<usize> {
        let tags = self.tags.get(set)?;
        let is_it = |way: usize| self.ids.get(set).is_some_and(|ids| ids[way] == *id);
        tags.iter().enumerate().position(|(way, &other)| other == tag && is_it(way))
    }

    /// The decision on `id`.
    #[inline]
    pub(super) fn get(&self, tag: u32, id: &[u8; 16]) -> Option<Past> {
        if self.tags.is_empty() {
            return None;
        }
        let (set, tag) = self.set(tag);
        let way = self.way(set, tag, id)?;
        Some(self.pasts.get(set)?[way])
    }

    /// Remembers a decision. True if an older one was forgotten for it.
    pub(super) fn insert(&mut self, tag: u32, id: &[u8; 16], past: Past) -> bool {
        if self.tags.is_empty() {
            return false;
        }
        let (set, tag) = self.set(tag);
        let known = self.way(set, tag, id);
        let (Some(tags), Some(ids), Some(pasts), Some(next)) =
            (self.tags.get_mut(set), self.ids.get_mut(set), self.pasts.get_mut(set), self.next.get_mut(set))
        else {
            return false;
        };
        let way = known.unwrap_or_else(|| {
            let way = usize::from(*next) % WAYS;
            *next = next.wrapping_add(1);
            way
        });
        let forgotten = known.is_none() && tags[way] != 0;
        tags[way] = tag;
        ids[way] = *id;
        pasts[way] = past;
        forgotten
    }

    /// Forgets the decision on `id`.
    pub(super) fn remove(&mut self, tag: u32, id: &[u8; 16]) {
        let (set, tag) = self.set(tag);
        if let Some(way) = self.way(set, tag, id)
            && let Some(tags) = self.tags.get_mut(set)
        {
            tags[way] = 0;
        }
    }
}
