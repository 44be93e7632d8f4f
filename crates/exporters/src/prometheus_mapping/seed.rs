//! Hashes of names and series: seeded, and apart for those who share nothing.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::SUFFIXED;
use super::neighbours::Neighbours;

/// What the hashes of an exporter's translators are seeded with: drawn once, so that nobody outside
/// can make series collide. With it goes what they know in common of names.
#[derive(Clone, Default)]
pub struct HashSeed {
    pub(super) hasher: RandomState,
    pub(super) neighbours: Arc<Neighbours>,
}

impl HashSeed {
    /// The hash of a metric's name.
    pub(super) fn name(&self, name: &str) -> u64 {
        self.hasher.hash_one(name.as_bytes())
    }

    /// The hash of name and labels.
    #[inline]
    pub(super) fn series(&self, partition: Partition, name: u64, labels: &[u8]) -> u64 {
        let mut state = self.hasher.build_hasher();
        state.write_u64(name);
        state.write(labels);
        partition.turn(state.finish())
    }

    /// [`Point::series`](super::Point::series) of the histograms and summaries that are called `name`, with these labels (encoded).
    #[must_use]
    pub fn grouped_series(&self, partition: Partition, name: &str, labels: &[u8]) -> u64 {
        self.series(partition, self.name(name), labels) ^ SUFFIXED
    }

    /// The partition of those whose headers (or what else tells them apart) are these.
    pub fn partition<'a>(&self, headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Partition {
        let mut headers = headers.peekable();
        if headers.peek().is_none() {
            return Partition::default();
        }
        let mut state = self.hasher.build_hasher();
        headers.for_each(|header| header.hash(&mut state));
        Partition(state.finish())
    }
}

/// Whom series belong to: those of different partitions are different series, whatever their names and labels, because
/// a backend keeps them apart. It is part of the hashes of points and targets, and so of all that is remembered by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Partition(u64);

impl Partition {
    /// `hash`, which is that of everybody, in this partition; and back.
    #[must_use]
    pub fn turn(self, hash: u64) -> u64 {
        hash ^ self.0
    }
}
