//! Series that two metrics write: `x_count` is one of those of a histogram `x`, and may be a gauge of its own. Of such
//! points the histogram's or summary's are sent, which are of no use without any of their series; the others are
//! dropped.
//!
//! Only where names allow it (see [`Family::has_neighbour`]) labels are looked at: for all others this costs nothing. A
//! metric whose neighbour nobody knew yet, because it comes later, is sent until then.
//!
//! [`Family::has_neighbour`]: crate::prometheus_mapping::Family::has_neighbour

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;

use super::rows::{Described, Row, Segment};
use crate::prometheus_mapping::{HashSeed, Kind, Partition, Suffix, decoded_labels, put_label};

/// How many histograms and summaries with neighbours are remembered (of one metric, as many as it has label sets).
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// Without points for this long a histogram no longer has its series for itself: Prometheus takes it for gone, too.
const GONE: Duration = Duration::from_secs(300);

struct Claim {
    seen: Duration,
    is_summary: bool,
}

/// The histograms and summaries that have neighbours.
pub(super) struct Clashes {
    seed: HashSeed,
    /// By the hash of their series.
    claims: Mutex<LruCache<u64, Claim>>,
}

impl Clashes {
    pub(super) fn new(seed: HashSeed) -> Self {
        Self { seed, claims: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// Takes points out of a push of `partition` whose series are those of a histogram or summary, in this push or one
    /// before it; `dropped` is told their metrics and data points.
    pub(super) fn settle(
        &self,
        segments: &mut [Segment],
        partition: Partition,
        now: Duration,
        mut dropped: impl FnMut(&Described, usize),
    ) {
        let (mut claims, mut ended) = (self.claims.lock(), Vec::new());
        for segment in &*segments {
            for (chunk, row, metric) in segment.rows().filter(|(.., metric)| metric.family.has_neighbour()) {
                match Row::read(row).next() {
                    Some(first) if first.suffix != Suffix::None => {
                        let is_summary = metric.family.kind == Kind::Summary;
                        claims.put(chunk.hash, Claim { seen: now, is_summary });
                        ended.extend(first.is_stale().then_some(chunk.hash));
                    }
                    _ => {}
                }
            }
        }
        if claims.is_empty() {
            return;
        }
        let mut lookup = Lookup { seed: &self.seed, partition, now, labels: Vec::new() };
        for segment in segments {
            segment.retain(|chunk, row, metric| {
                let is_taken = chunk.samples > 0
                    && metric.family.has_neighbour()
                    && !is_grouped(row)
                    && lookup.is_taken(&mut claims, row, metric);
                if is_taken {
                    dropped(metric, chunk.items as usize);
                }
                !is_taken
            });
        }
        for series in ended {
            claims.pop(&series);
        }
    }
}

/// Are these the series of a classic histogram or a summary?
fn is_grouped(row: &[u8]) -> bool {
    Row::read(row).next().is_some_and(|first| first.suffix != Suffix::None)
}

struct Lookup<'a> {
    seed: &'a HashSeed,
    partition: Partition,
    now: Duration,
    labels: Vec<u8>,
}

impl Lookup<'_> {
    /// Is the one series in `row` one of a histogram or summary?
    fn is_taken(&mut self, claims: &mut LruCache<u64, Claim>, row: &[u8], metric: &Described) -> bool {
        let name = metric.family.name.as_str();
        let is = |suffix: &str| name.strip_suffix(suffix);
        is("_sum").or_else(|| is("_count")).is_some_and(|stem| self.claim(claims, row, stem, b"").is_some())
            || is("_bucket").is_some_and(|stem| self.claim(claims, row, stem, b"le") == Some(false))
            || self.claim(claims, row, name, b"quantile") == Some(true)
    }

    /// Is there a histogram (false) or summary (true) called `name` that has the labels of `row`, which have an `extra`
    /// one besides?
    fn claim(&mut self, claims: &mut LruCache<u64, Claim>, row: &[u8], name: &str, extra: &[u8]) -> Option<bool> {
        self.labels.clear();
        let mut has_extra = extra.is_empty();
        for (label, value) in Row::read(row).labels.into_iter().flat_map(decoded_labels) {
            if !extra.is_empty() && label == extra {
                has_extra = true;
            } else {
                put_label(&mut self.labels, label, value);
            }
        }
        if !has_extra {
            return None;
        }
        let claim = claims.peek(&self.seed.grouped_series(self.partition, name, &self.labels))?;
        (self.now.saturating_sub(claim.seen) < GONE).then_some(claim.is_summary)
    }
}
