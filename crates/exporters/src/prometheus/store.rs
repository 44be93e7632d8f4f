//! The latest value of every series.
//!
//! Split by the hash of the series into parts, each behind its own short lock. Series without new
//! points leave after `metric_expiration`; there are never more than `max_series`, in no more than
//! `max_size`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::Mutex;

use super::escape::Renamed;
use crate::prometheus_mapping::{
    Added, Family, MetricType, OwnedValue, Point, PointValue, Untranslatable, decoded_labels,
};

const PARTS: usize = 64;

/// How often a part is searched for expired series, at the most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// How many different descriptions and types are remembered.
const MAX_FAMILIES: usize = 100_000;

/// Longer descriptions are cut off, in bytes.
const MAX_HELP: usize = 1024;

/// How many exemplars of a point are kept: the newest.
const MAX_EXEMPLARS: usize = 64;

/// What a series takes besides its labels, buckets and exemplars, roughly, in bytes.
const SERIES_BYTES: usize = 200;

/// What stands above the series of a name.
#[derive(Debug, Clone)]
pub(super) struct FamilyInfo {
    pub(super) metric_type: MetricType,
    pub(super) help: Arc<str>,
    seen: Duration,
}

/// An exemplar that outlives its point.
#[derive(Debug, Clone)]
pub(super) struct StoredExemplar {
    pub(super) value: f64,
    /// In milliseconds since the epoch.
    pub(super) time: i64,
    /// Encoded.
    pub(super) labels: Box<[u8]>,
}

/// A series (or the series of one histogram or summary).
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) hash: u64,
    pub(super) family: Arc<Family>,
    /// Encoded, without the name.
    pub(super) labels: Arc<[u8]>,
    /// Is it a native histogram? There may be a classic one of its name and labels.
    pub(super) is_native: bool,
    /// Of the newest point, in milliseconds since the epoch.
    pub(super) time: i64,
    /// When counting began, in milliseconds since the epoch; 0 if unknown.
    pub(super) start: i64,
    pub(super) value: OwnedValue,
    pub(super) exemplars: Vec<StoredExemplar>,
    seen: Duration,
    /// What it was charged.
    bytes: usize,
}

impl Series {
    /// The exemplar for the values above `below` and up to `bound`: the newest.
    pub(super) fn exemplar(&self, below: f64, bound: f64) -> Option<&StoredExemplar> {
        let is_inside = |exemplar: &&StoredExemplar| {
            exemplar.value <= bound && (exemplar.value > below || below == f64::NEG_INFINITY)
        };
        self.exemplars.iter().rev().find(is_inside)
    }

    fn measure(&self) -> usize {
        let exemplars: usize = self.exemplars.iter().map(|exemplar| 32 + exemplar.labels.len()).sum();
        SERIES_BYTES + self.labels.len() + self.value.heap_bytes() + exemplars
    }
}

/// What a page is made from.
pub(super) struct Snapshot {
    /// Ordered by name and labels, classic histograms before native ones.
    pub(super) series: Vec<Series>,
    /// By the names that they have on the page.
    pub(super) families: HashMap<String, FamilyInfo>,
    pub(super) renamed: Renamed,
}

#[derive(Default)]
struct Part {
    series: HashTable<Series>,
    swept: Duration,
}

/// How much a store holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// A histogram or summary counts once.
    pub(super) series: usize,
    /// Of all series, roughly.
    pub(super) bytes: usize,
    /// A series without a new point for this long is gone.
    pub(super) expiration: Duration,
}

/// All series of an exporter.
pub(super) struct Store {
    parts: Vec<Mutex<Part>>,
    families: Mutex<HashMap<String, FamilyInfo>>,
    count: AtomicUsize,
    bytes: AtomicUsize,
    bounds: Bounds,
}

impl Store {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            families: Mutex::default(),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            bounds,
        }
    }

    /// How many series there are.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// What they take, roughly, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Points of `family` follow. `false`: there is one of this name and another type.
    pub(super) fn admit(&self, family: &Family, description: &[u8], now: Duration) -> bool {
        let mut families = self.families.lock();
        if let Some(known) = families.get_mut(&family.name) {
            let is_same = known.metric_type == family.sample_type();
            if is_same {
                known.seen = now;
                return true;
            }
            if now.saturating_sub(known.seen) < self.bounds.expiration {
                return false;
            }
        }
        if families.len() >= MAX_FAMILIES {
            families.retain(|_, info| now.saturating_sub(info.seen) < self.bounds.expiration);
        }
        if families.len() < MAX_FAMILIES {
            let mut help = String::from_utf8_lossy(description).into_owned();
            help.truncate(help.floor_char_boundary(MAX_HELP));
            let info = FamilyInfo { metric_type: family.sample_type(), help: help.into(), seen: now };
            families.insert(family.name.clone(), info);
        }
        true
    }

    /// Stores a point.
    pub(super) fn put(&self, point: &Point<'_>, now: Duration) -> Result<(), Untranslatable> {
        if point.is_delta && !point.is_stale && !point.value.is_countable() {
            return Err(Untranslatable::Value);
        }
        let is_native = matches!(point.value, PointValue::Native(_));
        let hash = point.series();
        let index = (hash >> 32) as usize % PARTS;
        let Some(part) = self.parts.get(index) else { return Ok(()) };
        let mut part = part.lock();
        if now.saturating_sub(part.swept) >= SWEEP_INTERVAL.min(self.bounds.expiration) {
            self.sweep(&mut part, now);
        }
        let is_this = |series: &Series| {
            series.hash == hash
                && series.is_native == is_native
                && *series.labels == *point.labels.encoded()
                && series.family.name == point.family.name
        };
        match part.series.entry(hash, is_this, |series| series.hash) {
            Entry::Occupied(entry) if point.is_stale => {
                let (gone, _) = entry.remove();
                self.count.fetch_sub(1, Ordering::Relaxed);
                self.bytes.fetch_sub(gone.bytes, Ordering::Relaxed);
                Ok(())
            }
            Entry::Occupied(mut entry) => self.update(entry.get_mut(), point, now),
            Entry::Vacant(_) if point.is_stale => Ok(()),
            Entry::Vacant(entry) => {
                self.reserve()?;
                let mut series = Series {
                    hash,
                    family: Arc::clone(point.family),
                    labels: point.labels.encoded().into(),
                    is_native,
                    time: point.time,
                    start: point.start,
                    value: if point.is_delta {
                        OwnedValue::total_of(&point.value)
                    } else {
                        OwnedValue::of(&point.value)
                    },
                    exemplars: exemplars(point),
                    seen: now,
                    bytes: 0,
                };
                self.charge(&mut series);
                entry.insert(series);
                Ok(())
            }
        }
    }

    /// Takes a place for a new series.
    fn reserve(&self) -> Result<(), Untranslatable> {
        let is_full = self.bytes() >= self.bounds.bytes;
        if is_full || self.count.fetch_add(1, Ordering::Relaxed) >= self.bounds.series {
            if !is_full {
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
            return Err(Untranslatable::OverLimit);
        }
        Ok(())
    }

    /// Charges what `series` takes now instead of what it took before.
    fn charge(&self, series: &mut Series) {
        let bytes = series.measure();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_sub(std::mem::replace(&mut series.bytes, bytes), Ordering::Relaxed);
    }

    fn update(&self, series: &mut Series, point: &Point<'_>, now: Duration) -> Result<(), Untranslatable> {
        let is_older = if point.is_delta { point.time <= series.time } else { point.time < series.time };
        if is_older {
            return Err(Untranslatable::OutOfOrder);
        }
        if !point.is_delta {
            series.value.set(&point.value);
            series.start = point.start;
        } else if series.value.add(&point.value) == Added::StartedOver {
            series.start = if point.start == 0 { series.time } else { point.start };
        }
        series.time = point.time;
        series.seen = now;
        if !point.exemplars.items().is_empty() {
            series.exemplars = exemplars(point);
        }
        self.charge(series);
        Ok(())
    }

    fn sweep(&self, part: &mut Part, now: Duration) {
        let mut freed = 0;
        let before = part.series.len();
        part.series.retain(|series| {
            let is_kept = now.saturating_sub(series.seen) < self.bounds.expiration;
            freed += if is_kept { 0 } else { series.bytes };
            is_kept
        });
        self.count.fetch_sub(before - part.series.len(), Ordering::Relaxed);
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        part.swept = now;
    }

    /// All series that have not expired, with what stands above them.
    pub(super) fn snapshot(&self, now: Duration) -> Snapshot {
        let mut all = Vec::with_capacity(self.len());
        for part in &self.parts {
            let mut part = part.lock();
            self.sweep(&mut part, now);
            all.extend(part.series.iter().cloned());
        }
        all.sort_unstable_by(|left, right| {
            let by_name = left.family.name.cmp(&right.family.name);
            let by_labels = by_name.then_with(|| compare_labels(&left.labels, &right.labels));
            by_labels.then_with(|| left.is_native.cmp(&right.is_native))
        });
        Snapshot { series: all, families: self.families.lock().clone(), renamed: Renamed::default() }
    }
}

fn exemplars(point: &Point<'_>) -> Vec<StoredExemplar> {
    let items = point.exemplars.items();
    let newest = items.get(items.len().saturating_sub(MAX_EXEMPLARS)..).unwrap_or_default().iter();
    let stored = newest.map(|exemplar| StoredExemplar {
        value: exemplar.value,
        time: exemplar.time,
        labels: point.exemplars.labels(exemplar).into(),
    });
    stored.collect()
}

/// Orders by names and values of labels rather than by their encoding.
pub(super) fn compare_labels(left: &[u8], right: &[u8]) -> std::cmp::Ordering {
    decoded_labels(left).cmp(decoded_labels(right))
}
