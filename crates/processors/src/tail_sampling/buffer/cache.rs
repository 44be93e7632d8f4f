//! Past decisions, for spans that come late.
//!
//! Sets of seven, of which the one that was asked for longest ago is replaced first. Entries are compared by their full id, so a
//! trace never gets another one's decision.

use std::hint::black_box;

use super::trace::{Trace, Why};

const WAYS: usize = 7;

/// A decision that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) why: Why,
    /// When, in tenths of a second of the sampler's clock.
    pub(super) at: u32,
}

impl Past {
    /// For times in nanoseconds.
    pub(super) fn new(why: Why, now: u64) -> Self {
        Self { why, at: (now / TENTH) as u32 }
    }

    /// How long ago, in seconds.
    pub(super) fn age(self, now: u64) -> f64 {
        f64::from(((now / TENTH) as u32).saturating_sub(self.at)) / 10.0
    }
}

const TENTH: u64 = 100_000_000;

/// What a look-up reads first, on its own: one cache line holds four.
#[derive(Debug, Clone, Copy)]
struct Set {
    /// 0 for an empty place.
    tags: [u16; WAYS],
    /// The place that the next entry gets.
    next: u16,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    id: [u8; 16],
    past: Past,
}

#[derive(Debug)]
pub(super) struct DecisionCache {
    sets: Vec<Set>,
    entries: Vec<[Entry; WAYS]>,
}

impl DecisionCache {
    /// Room for at least `entries` (in sets of seven); 0 for none.
    pub(super) fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS);
        let empty = Entry { id: [0; 16], past: Past { why: Why { reason: 0, trigger: None }, at: 0 } };
        Self { sets: vec![Set { tags: [0; WAYS], next: 0 }; sets], entries: vec![[empty; WAYS]; sets] }
    }

    /// Bytes of memory, in use or not.
    pub(super) fn bytes(&self) -> usize {
        self.sets.len() * Self::SET
    }

    const SET: usize = size_of::<Set>() + size_of::<[Entry; WAYS]>();

    /// Bytes of memory of a cache for `entries`.
    pub(super) const fn bytes_for(entries: u64) -> u64 {
        entries.div_ceil(WAYS as u64).saturating_mul(Self::SET as u64)
    }

    /// The set of a hash, and what tells entries of the set from each other.
    #[inline]
    fn set(&self, tag: u32) -> (usize, u16) {
        let product = tag.wrapping_mul(0x9e37_79b1);
        (((u64::from(product) * self.sets.len() as u64) >> 32) as usize, tag as u16 | 1)
    }

    #[inline]
    fn way(&self, set: usize, tag: u16, id: &[u8; 16]) -> Option<usize> {
        let tags = self.sets.get(set)?.tags;
        let is_it = |way: usize| self.entries.get(set).is_some_and(|entries| entries[way].id == *id);
        tags.iter().enumerate().position(|(way, &other)| other == tag && is_it(way))
    }

    /// Has the processor read what [`get`](Self::get) reads first.
    #[inline]
    pub(super) fn touch(&self, tag: u32) {
        let (set, _) = self.set(tag);
        black_box(self.sets.get(set).map(|set| set.next));
    }

    /// The same for [`insert`](Self::insert).
    #[inline]
    pub(super) fn touch_to_insert(&self, tag: u32) {
        self.touch(tag);
        let (set, _) = self.set(tag);
        black_box(self.entries.get(set).map(|[entry, ..]| entry.past.at));
    }

    /// The decision on `id`.
    #[inline]
    pub(super) fn get(&self, tag: u32, id: &[u8; 16]) -> Option<Past> {
        if self.sets.is_empty() {
            return None;
        }
        let (set, tag) = self.set(tag);
        let way = self.way(set, tag, id)?;
        Some(self.entries.get(set)?[way].past)
    }

    /// Why a kept trace is kept: of late spans, the trigger is that of the decision, if it is known.
    pub(super) fn why(&self, tag: u32, trace: &Trace) -> Why {
        let known = || self.get(tag, &trace.id)?.why.trigger;
        Why { reason: trace.reason, trigger: trace.marks.trigger().or_else(known) }
    }

    /// Remembers a decision. True if an older one was forgotten for it.
    pub(super) fn insert(&mut self, tag: u32, id: &[u8; 16], past: Past) -> bool {
        if self.sets.is_empty() {
            return false;
        }
        let (place, tag) = self.set(tag);
        let known = self.way(place, tag, id);
        let (Some(set), Some(entries)) = (self.sets.get_mut(place), self.entries.get_mut(place)) else {
            return false;
        };
        let way = known.unwrap_or_else(|| {
            let way = usize::from(set.next) % WAYS;
            set.next = (way + 1) as u16;
            way
        });
        let forgotten = known.is_none() && set.tags[way] != 0;
        set.tags[way] = tag;
        entries[way] = Entry { id: *id, past };
        forgotten
    }

    /// The decision on `id` was followed: of its set it is the last to be replaced now.
    #[cold]
    pub(super) fn refresh(&mut self, tag: u32, id: &[u8; 16]) {
        let (place, tag) = self.set(tag);
        let way = self.way(place, tag, id);
        let (Some(mut way), Some(set), Some(entries)) = (way, self.sets.get_mut(place), self.entries.get_mut(place))
        else {
            return;
        };
        // Places are replaced in turn: what came after it moves up.
        let newest = (usize::from(set.next) + WAYS - 1) % WAYS;
        while way != newest {
            let after = (way + 1) % WAYS;
            set.tags.swap(way, after);
            entries.swap(way, after);
            way = after;
        }
    }

    /// Forgets the decision on `id`.
    pub(super) fn remove(&mut self, tag: u32, id: &[u8; 16]) {
        let (set, tag) = self.set(tag);
        if let Some(way) = self.way(set, tag, id)
            && let Some(set) = self.sets.get_mut(set)
        {
            set.tags[way] = 0;
        }
    }
}
