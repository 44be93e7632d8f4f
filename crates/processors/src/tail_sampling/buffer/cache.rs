//! Past decisions, for spans that come late.
//!
//! Sets of eight, the oldest of a set replaced first. Entries are compared by their full id, so a
//! trace never gets another one's decision.

const WAYS: usize = 8;

#[derive(Debug)]
pub(super) struct DecisionCache {
    /// 0 for an empty place. One cache line holds two sets.
    tags: Vec<[u32; WAYS]>,
    ids: Vec<[[u8; 16]; WAYS]>,
    reasons: Vec<[u16; WAYS]>,
    next: Vec<u8>,
}

impl DecisionCache {
    /// Room for at least `entries` (in sets of eight); 0 for none.
    pub(super) fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS);
        Self {
            tags: vec![[0; WAYS]; sets],
            ids: vec![[[0; 16]; WAYS]; sets],
            reasons: vec![[0; WAYS]; sets],
            next: vec![0; sets],
        }
    }

    #[inline]
    fn set(&self, tag: u32) -> usize {
        ((u64::from(tag.wrapping_mul(0x9e37_79b1)) * self.tags.len() as u64) >> 32) as usize
    }

    fn way(&self, set: usize, tag: u32, id: &[u8; 16]) -> Option<usize> {
        let ids = self.ids.get(set);
        let tags = self.tags.get(set)?;
        tags.iter().enumerate().position(|(way, &other)| other == tag && ids.is_some_and(|ids| ids[way] == *id))
    }

    /// The reason of the decision on `id`.
    #[inline]
    pub(super) fn get(&self, tag: u32, id: &[u8; 16]) -> Option<u16> {
        if self.tags.is_empty() {
            return None;
        }
        let set = self.set(tag);
        let way = self.way(set, tag | 1, id)?;
        Some(self.reasons.get(set)?[way])
    }

    pub(super) fn insert(&mut self, tag: u32, id: &[u8; 16], reason: u16) {
        if self.tags.is_empty() {
            return;
        }
        let set = self.set(tag);
        let tag = tag | 1;
        let known = self.way(set, tag, id);
        let (Some(tags), Some(ids), Some(reasons), Some(next)) =
            (self.tags.get_mut(set), self.ids.get_mut(set), self.reasons.get_mut(set), self.next.get_mut(set))
        else {
            return;
        };
        let way = known.unwrap_or_else(|| {
            let way = usize::from(*next) % WAYS;
            *next = next.wrapping_add(1);
            way
        });
        tags[way] = tag;
        ids[way] = *id;
        reasons[way] = reason;
    }
}
