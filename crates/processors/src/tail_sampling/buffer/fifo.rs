//! A queue that grows without ever copying what it holds.

use std::collections::VecDeque;

const CHUNK: usize = 256;

/// First in, first out, in chunks.
#[derive(Debug)]
pub(super) struct Fifo<T> {
    chunks: VecDeque<VecDeque<T>>,
    spare: Option<VecDeque<T>>,
    len: usize,
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), spare: None, len: 0 }
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

    pub(super) fn push(&mut self, item: T) {
        self.len += 1;
        if let Some(last) = self.chunks.back_mut()
            && last.len() < CHUNK
        {
            last.push_back(item);
            return;
        }
        let mut chunk = self.spare.take().unwrap_or_else(|| VecDeque::with_capacity(CHUNK));
        chunk.push_back(item);
        self.chunks.push_back(chunk);
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
        }
        Some(item)
    }
}
