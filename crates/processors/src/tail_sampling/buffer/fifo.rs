//! A queue that grows without ever copying what it holds.

use std::collections::VecDeque;

const CHUNK: usize = 256;

/// First in, first out, in chunks.
#[derive(Debug)]
pub(super) struct Fifo<T> {
    chunks: VecDeque<VecDeque<T>>,
    spare: Option<VecDeque<T>>,
    len: usize,
    /// The next chunk to purge.
    hand: usize,
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), spare: None, len: 0, hand: 0 }
    }
}

impl<T: Copy> Fifo<T> {
    /// Memory for `items` more items, at most.
    pub(super) const fn growth(items: usize) -> usize {
        (items / CHUNK + 1) * (CHUNK * size_of::<T>() + 4 * size_of::<VecDeque<T>>())
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        let chunks = self.chunks.len() + usize::from(self.spare.is_some());
        // The list is charged as if it had just doubled, so that the charge grows smoothly.
        let list = self.chunks.capacity().max(2 * self.chunks.len()) * size_of::<VecDeque<T>>();
        chunks * CHUNK * size_of::<T>() + list
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds an item at the end. True once in a while: each time a chunk is begun.
    pub(super) fn push(&mut self, item: T) -> bool {
        self.len += 1;
        if let Some(last) = self.chunks.back_mut()
            && last.len() < CHUNK
        {
            last.push_back(item);
            return false;
        }
        let mut chunk = self.spare.take().unwrap_or_else(|| VecDeque::with_capacity(CHUNK));
        chunk.push_back(item);
        self.chunks.push_back(chunk);
        true
    }

    pub(super) fn front(&self) -> Option<T> {
        self.chunks.front()?.front().copied()
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let first = self.chunks.front_mut()?;
        let item = first.pop_front()?;
        self.len -= 1;
        if first.is_empty() {
            self.spare = self.chunks.pop_front();
            self.hand = self.hand.saturating_sub(1);
        }
        Some(item)
    }

    /// Removes what need not be kept from the next `chunks` chunks. Each call goes on where the last one
    /// ended, so all of the queue is gone through in time.
    pub(super) fn purge(&mut self, chunks: usize, mut keep: impl FnMut(T) -> bool) {
        for _ in 0..chunks {
            if self.hand >= self.chunks.len() {
                self.hand = 0;
            }
            let Some(chunk) = self.chunks.get_mut(self.hand) else {
                return;
            };
            let before = chunk.len();
            chunk.retain(|item| keep(*item));
            let left = chunk.len();
            self.len -= before - left;
            let previous = self.hand.checked_sub(1).and_then(|hand| self.chunks.get(hand)).map(VecDeque::len);
            // The queue never has an empty chunk, and never two that could be one where it was purged.
            if left == 0 || previous.is_some_and(|len| len + left <= CHUNK) {
                let mut chunk = self.chunks.remove(self.hand).unwrap_or_default();
                if let Some(previous) = self.hand.checked_sub(1).and_then(|hand| self.chunks.get_mut(hand)) {
                    previous.append(&mut chunk);
                }
            } else {
                self.hand += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    /// Beside a plain queue from which all that is purged is removed in the end.
    #[test]
    fn what_is_purged_is_gone_and_the_rest_is_in_order() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(9);
        let mut fifo = Fifo::default();
        let mut model = VecDeque::new();
        let keep = |item: u32| item.is_multiple_of(7);
        for round in 0..40_000u32 {
            if rng.random_bool(0.7) {
                fifo.push(round);
                model.push_back(round);
            } else if let Some(item) = fifo.pop() {
                while let Some(expected) = model.pop_front() {
                    if expected == item {
                        break;
                    }
                    assert!(!keep(expected), "{expected} was lost");
                }
            }
            if round % 300 == 0 {
                fifo.purge(2, keep);
            }
        }
        for _ in 0..200 {
            fifo.purge(2, keep);
        }
        model.retain(|item| keep(*item));
        assert_eq!(fifo.len(), model.len());
        assert!(fifo.chunks.len() <= model.len() / (CHUNK / 2) + 2, "{}", fifo.chunks.len());
        while let Some(item) = fifo.pop() {
            assert_eq!(Some(item), model.pop_front());
        }
        assert!(model.is_empty() && fifo.front().is_none());
    }
}
