//! What goes into one request: cut by size, without duplicates, in order of time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use http::HeaderMap;
use nyquist_core::batch::DropReason;

use super::last_times::LastTimes;
use super::pending::{Loss, Pending};
use super::rows::{Chunk, Described, Segment};

/// A segment that waits in a shard, as far as it has not been taken yet.
pub(super) struct Waiting {
    source: Arc<Source>,
    chunks: Vec<Chunk>,
    /// The first chunk that has not been taken.
    next: usize,
    /// To be sent with it.
    headers: Arc<HeaderMap>,
}

/// What the chunks of a segment share.
struct Source {
    bytes: Vec<u8>,
    metrics: Vec<Arc<Described>>,
    pending: Arc<Pending>,
}

impl Waiting {
    pub(super) fn new(segment: Segment, headers: Arc<HeaderMap>, pending: Arc<Pending>) -> Self {
        let Segment { bytes, chunks, metrics } = segment;
        Self { source: Arc::new(Source { bytes, metrics, pending }), chunks, next: 0, headers }
    }
}

/// The bounds of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// In bytes before compression.
    pub(super) bytes: usize,
    pub(super) samples: usize,
}

/// A chunk in a request.
#[derive(Clone, Copy)]
struct Place {
    chunk: Chunk,
    /// Where its row begins.
    begin: usize,
    /// Which of the sources it is from.
    source: u32,
}

/// The points of one request.
#[derive(Default)]
pub(super) struct Outgoing {
    sources: Vec<Arc<Source>>,
    places: Vec<Place>,
    headers: Arc<HeaderMap>,
    /// How many bytes it takes as remote write 1.0.
    v1_len: usize,
}

impl Outgoing {
    /// Takes as much from the front of `waiting` as fits into a request; at least one chunk.
    pub(super) fn take(waiting: &mut VecDeque<Waiting>, limits: Limits) -> Self {
        let mut outgoing = Self::default();
        let mut samples = 0usize;
        while let Some(segment) = waiting.front_mut() {
            if outgoing.places.is_empty() {
                outgoing.headers = Arc::clone(&segment.headers);
            } else if outgoing.headers != segment.headers {
                break;
            }
            let source = outgoing.sources.len() as u32;
            let mut begin = segment.next.checked_sub(1).and_then(|before| segment.chunks.get(before)).map_or(0, end_of);
            let first = segment.next;
            for &chunk in segment.chunks.iter().skip(first) {
                let is_too_large = outgoing.v1_len + chunk.v1_len > limits.bytes;
                let are_too_many = samples + chunk.samples as usize > limits.samples;
                if !outgoing.places.is_empty() && (is_too_large || are_too_many) {
                    break;
                }
                samples += chunk.samples as usize;
                outgoing.v1_len += chunk.v1_len;
                outgoing.places.push(Place { chunk, begin, source });
                begin = chunk.end;
                segment.next += 1;
            }
            if segment.next > first {
                outgoing.sources.push(Arc::clone(&segment.source));
            }
            if segment.next < segment.chunks.len() {
                break;
            }
            waiting.pop_front();
        }
        outgoing
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many bytes it takes as remote write 1.0.
    pub(super) fn v1_len(&self) -> usize {
        self.v1_len
    }

    /// How many data points it holds.
    pub(super) fn items(&self) -> usize {
        self.places.iter().map(|place| place.chunk.items as usize).sum()
    }

    /// Its chunks: each with its row and its metric.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (&Chunk, &[u8], &Arc<Described>)> {
        self.places.iter().filter_map(|place| {
            let source = self.sources.get(place.source as usize)?;
            let row = source.bytes.get(place.begin..place.chunk.end)?;
            Some((&place.chunk, row, source.metrics.get(place.chunk.metric as usize)?))
        })
    }

    /// Puts the chunks in the order of time, unless each series rises in time already. Of points of
    /// one series and time the last one stays. Points that others replace which differ are booked, and
    /// `replaced` is told their metric, that of the other one, and their number.
    pub(super) fn put_in_order(&mut self, mut replaced: impl FnMut(&Described, &Described, usize)) {
        if self.is_in_order() {
            return;
        }
        // Stable: equals stay in the order of their arrival.
        self.places.sort_by_key(|place| (place.chunk.time, place.chunk.hash));
        let places = std::mem::take(&mut self.places);
        let is_same =
            |left: &Place, right: &Place| (left.chunk.time, left.chunk.hash) == (right.chunk.time, right.chunk.hash);
        for (index, place) in places.iter().enumerate() {
            let Some(next) = places.get(index + 1).filter(|next| is_same(place, next)) else {
                self.places.push(*place);
                continue;
            };
            self.v1_len -= place.chunk.v1_len;
            let items = place.chunk.items as usize;
            let Some(source) = self.sources.get(place.source as usize) else { continue };
            if self.row(place) != self.row(next) {
                source.pending.lose(DropReason::Untranslatable, items);
                if let (Some(metric), Some(other)) = (self.metric(place), self.metric(next)) {
                    replaced(metric, other, items);
                }
            }
            source.pending.settle(1, 0, None);
        }
    }

    /// Leaves out samples that are not later than what their series were delivered with; they are
    /// booked, and `dropped` is told their metrics and data points.
    pub(super) fn drop_older(&mut self, times: &LastTimes, mut dropped: impl FnMut(&Described, usize)) {
        let Self { sources, places, v1_len, .. } = self;
        places.retain(|&Place { chunk, source, .. }| {
            if chunk.samples == 0 || times.is_news(chunk.hash, chunk.time) {
                return true;
            }
            *v1_len -= chunk.v1_len;
            if let Some(source) = sources.get(source as usize) {
                let items = chunk.items as usize;
                if let Some(metric) = source.metrics.get(chunk.metric as usize) {
                    dropped(metric, items);
                }
                source.pending.lose(DropReason::Untranslatable, items);
                source.pending.settle(1, 0, None);
            }
            false
        });
    }

    /// All of it was delivered.
    pub(super) fn note(&self, times: &mut LastTimes) {
        let samples = self.places.iter().filter(|place| place.chunk.samples > 0);
        samples.for_each(|place| times.note(place.chunk.hash, place.chunk.time));
    }

    fn metric(&self, place: &Place) -> Option<&Described> {
        let source = self.sources.get(place.source as usize)?;
        source.metrics.get(place.chunk.metric as usize).map(|metric| &**metric)
    }

    fn row(&self, place: &Place) -> &[u8] {
        let source = self.sources.get(place.source as usize);
        source.and_then(|source| source.bytes.get(place.begin..place.chunk.end)).unwrap_or_default()
    }

    /// Does each series rise in time?
    fn is_in_order(&self) -> bool {
        let mut last_times: HashTable<(u64, i64)> = HashTable::with_capacity(self.places.len());
        for Place { chunk, .. } in &self.places {
            match last_times.entry(chunk.hash, |known| known.0 == chunk.hash, |known| known.0) {
                Entry::Occupied(mut last) => {
                    if last.get().1 >= chunk.time {
                        return false;
                    }
                    last.get_mut().1 = chunk.time;
                }
                Entry::Vacant(vacant) => {
                    vacant.insert((chunk.hash, chunk.time));
                }
            }
        }
        true
    }

    /// Two requests instead of this one, the first of which has to be sent first; where it can be,
    /// the cut is between two pushes. The request itself if it is a single chunk.
    pub(super) fn halves(mut self) -> Result<(Self, Self), Self> {
        let Some(middle) = self.middle() else { return Err(self) };
        let places = self.places.split_off(middle);
        let v1_len = places.iter().map(|place| place.chunk.v1_len).sum();
        self.v1_len -= v1_len;
        let second = Self { sources: self.sources.clone(), places, headers: Arc::clone(&self.headers), v1_len };
        Ok((self, second))
    }

    /// How many chunks it holds.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Where to cut: the boundary between two pushes that is next to the middle, or the middle.
    fn middle(&self) -> Option<usize> {
        let half = self.places.len() / 2;
        let is_boundary = |&index: &usize| match (self.places.get(index.wrapping_sub(1)), self.places.get(index)) {
            (Some(before), Some(after)) => before.source != after.source,
            _ => false,
        };
        let boundary = (1..self.places.len()).filter(is_boundary).min_by_key(|&index| index.abs_diff(half));
        boundary.or(Some(half)).filter(|&half| half > 0)
    }

    /// The outcome is known: tells the pushes.
    pub(super) fn settle(&self, loss: Option<&Loss>) {
        for (pending, chunks, items) in self.stakes() {
            pending.settle(chunks, items, loss);
        }
    }

    /// The request was taken, all but `lost` data points, nobody knows which: the pushes bear it in
    /// proportion.
    pub(super) fn settle_partly(&self, reason: DropReason, lost: usize) {
        let all = self.items().max(1);
        let (mut seen, mut booked) = (0, 0);
        for (pending, chunks, items) in self.stakes() {
            seen += items;
            let share = (lost.min(all) * seen / all) - booked;
            booked += share;
            if share > 0 {
                pending.lose(reason, share);
            }
            pending.settle(chunks, items, None);
        }
    }

    /// The pushes that have a part in it, with their numbers of chunks and data points.
    fn stakes(&self) -> impl Iterator<Item = (&Pending, usize, usize)> {
        let mut stakes = vec![(0, 0); self.sources.len()];
        for place in &self.places {
            if let Some((chunks, items)) = stakes.get_mut(place.source as usize) {
                *chunks += 1;
                *items += place.chunk.items as usize;
            }
        }
        let pending = self.sources.iter().map(|source| &*source.pending);
        pending
            .zip(stakes)
            .filter(|(_, (chunks, _))| *chunks > 0)
            .map(|(pending, (chunks, items))| (pending, chunks, items))
    }

    /// The names of its metrics, for the log: all if they are few.
    pub(super) fn metric_names(&self) -> String {
        const NAMED: usize = 5;
        let names: BTreeSet<&str> = self.chunks().map(|(_, _, metric)| metric.family.name.as_str()).collect();
        let mut text = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        if names.len() > NAMED {
            text.push_str(&format!(" and {} more", names.len() - NAMED));
        }
        text
    }
}

fn end_of(chunk: &Chunk) -> usize {
    chunk.end
}
