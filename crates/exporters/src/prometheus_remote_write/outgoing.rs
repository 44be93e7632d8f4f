//! What goes into one request: cut by size, without duplicates, in order of time, compressed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashTable;
use http::HeaderMap;

use super::encode::{Chunk, Segment};
use super::pending::Pending;

/// A segment that waits in a shard, as far as it has not been taken yet.
pub(super) struct Waiting {
    bytes: Bytes,
    chunks: Vec<Chunk>,
    /// The first chunk that has not been taken.
    next: usize,
    /// To be sent with it.
    headers: Arc<HeaderMap>,
    pending: Arc<Pending>,
}

impl Waiting {
    pub(super) fn new(segment: Segment, headers: Arc<HeaderMap>, pending: Arc<Pending>) -> Self {
        Self { bytes: segment.bytes.into(), chunks: segment.chunks, next: 0, headers, pending }
    }

    fn start_of(&self, chunk: usize) -> usize {
        chunk.checked_sub(1).and_then(|before| self.chunks.get(before)).map_or(0, |before| before.end)
    }
}

/// The bounds of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// In bytes before compression.
    pub(super) bytes: usize,
    pub(super) samples: usize,
}

/// A run of chunks of one segment.
struct Part {
    bytes: Bytes,
    chunks: Vec<Chunk>,
    pending: Arc<Pending>,
}

/// What was taken for one request.
#[derive(Default)]
pub(super) struct Outgoing {
    parts: Vec<Part>,
    bytes: usize,
    headers: Arc<HeaderMap>,
}

impl Outgoing {
    /// Takes as much from the front of `waiting` as fits into a request; at least one chunk.
    pub(super) fn take(waiting: &mut VecDeque<Waiting>, limits: Limits) -> Self {
        let mut outgoing = Self::default();
        let mut samples = 0usize;
        while let Some(segment) = waiting.front_mut() {
            if outgoing.is_empty() {
                outgoing.headers = Arc::clone(&segment.headers);
            } else if outgoing.headers != segment.headers {
                break;
            }
            let begin = segment.next;
            let start = segment.start_of(begin);
            let mut end = start;
            for chunk in segment.chunks.iter().skip(begin) {
                let is_first = outgoing.bytes + end == start;
                let is_too_large = outgoing.bytes + chunk.end - start > limits.bytes;
                let are_too_many = samples + chunk.samples as usize > limits.samples;
                if !is_first && (is_too_large || are_too_many) {
                    break;
                }
                samples += chunk.samples as usize;
                end = chunk.end;
                segment.next += 1;
            }
            let is_cut = segment.next < segment.chunks.len();
            if segment.next > begin {
                outgoing.push(segment, begin, start..end);
            }
            if is_cut {
                break;
            }
            waiting.pop_front();
        }
        outgoing
    }

    fn push(&mut self, segment: &Waiting, begin: usize, bytes: Range<usize>) {
        self.bytes += bytes.len();
        let chunks = segment.chunks.get(begin..segment.next).unwrap_or_default().iter();
        self.parts.push(Part {
            chunks: chunks.map(|chunk| Chunk { end: chunk.end - bytes.start, ..*chunk }).collect(),
            bytes: segment.bytes.slice(bytes),
            pending: Arc::clone(&segment.pending),
        });
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many data points it holds.
    pub(super) fn items(&self) -> usize {
        self.chunks().map(|chunk| chunk.items as usize).sum()
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.parts.iter().flat_map(|part| &part.chunks)
    }

    /// The pushes that have a part in it, with their numbers of chunks and data points.
    pub(super) fn stakes(&self) -> impl Iterator<Item = (&Pending, usize, usize)> {
        self.parts.iter().map(|part| {
            let items = part.chunks.iter().map(|chunk| chunk.items as usize).sum();
            (&*part.pending, part.chunks.len(), items)
        })
    }

    /// The request's body: the message, compressed. The second value is how many points another
    /// one of the same series and time has replaced, by part.
    pub(super) fn body(&self, encoder: &mut snap::raw::Encoder) -> Result<(Bytes, Vec<usize>), snap::Error> {
        if self.is_in_order() {
            if let [only] = self.parts.as_slice() {
                return Ok((encoder.compress_vec(&only.bytes)?.into(), Vec::new()));
            }
            let mut message = Vec::with_capacity(self.bytes);
            self.parts.iter().for_each(|part| message.extend_from_slice(&part.bytes));
            return Ok((encoder.compress_vec(&message)?.into(), Vec::new()));
        }
        let (message, replaced) = self.ordered_message();
        Ok((encoder.compress_vec(&message)?.into(), replaced))
    }

    /// Does each series rise in time?
    fn is_in_order(&self) -> bool {
        let chunks = self.parts.iter().map(|part| part.chunks.len()).sum();
        let mut last_times: HashTable<(u64, i64)> = HashTable::with_capacity(chunks);
        for chunk in self.chunks() {
            let entry = last_times.entry(chunk.hash, |known| known.0 == chunk.hash, |known| known.0);
            match entry {
                hashbrown::hash_table::Entry::Occupied(mut last) => {
                    if last.get().1 >= chunk.time {
                        return false;
                    }
                    last.get_mut().1 = chunk.time;
                }
                hashbrown::hash_table::Entry::Vacant(vacant) => {
                    vacant.insert((chunk.hash, chunk.time));
                }
            }
        }
        true
    }

    /// The message in order of time. Of points of one series and time the last one stays; those
    /// that differed from it are counted.
    #[cold]
    fn ordered_message(&self) -> (Vec<u8>, Vec<usize>) {
        let mut all: Vec<(Chunk, &[u8], usize)> = Vec::new();
        for (index, part) in self.parts.iter().enumerate() {
            let mut start = 0;
            for chunk in &part.chunks {
                all.push((*chunk, part.bytes.get(start..chunk.end).unwrap_or_default(), index));
                start = chunk.end;
            }
        }
        // Stable: equals stay in the order of their arrival.
        all.sort_by_key(|(chunk, ..)| (chunk.time, chunk.hash));
        let mut message = Vec::with_capacity(self.bytes);
        let mut replaced = vec![0; self.parts.len()];
        for (index, (chunk, bytes, part)) in all.iter().enumerate() {
            match all.get(index + 1) {
                Some((next, other, _)) if next.hash == chunk.hash && next.time == chunk.time => {
                    if let (true, Some(replaced)) = (other != bytes, replaced.get_mut(*part)) {
                        *replaced += chunk.items as usize;
                    }
                }
                _ => message.extend_from_slice(bytes),
            }
        }
        (message, replaced)
    }
}
