//! The latest value of every series.
//!
//! Split by the hash of the series into parts, each behind its own short lock. Series without new
//! points leave after `metric_expiration`; there are never more than `max_series`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::Mutex;

use crate::prometheus_mapping::{Family, MetricType, Point, PointValue, Untranslatable, decoded_labels};

const PARTS: usize = 64;

/// How often a part is searched for expired series, at the most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// How many different descriptions and types are remembered.
const MAX_FAMILIES: usize = 100_000;

/// Longer descriptions are cut off, in bytes.
const MAX_HELP: usize = 1024;

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

/// A value that outlives its point.
#[derive(Debug, Clone)]
pub(super) enum StoredValue {
    Number(f64),
    Histogram {
        count: u64,
        sum: Option<f64>,
        bounds: Arc<[f64]>,
        counts: Vec<u64>,
    },
    /// An exponential histogram: the text formats have no buckets for it.
    Native {
        count: u64,
        sum: f64,
    },
    Summary {
        count: u64,
        sum: f64,
        quantiles: Vec<(f64, f64)>,
    },
}

/// A series (or the series of one histogram or summary).
#[derive(Debug, Clone)]
pub(super) struct Series {
    hash: u64,
    pub(super) family: Arc<Family>,
    /// Encoded, without the name.
    pub(super) labels: Arc<[u8]>,
    /// Of the newest point, in milliseconds since the epoch.
    pub(super) time: i64,
    pub(super) value: StoredValue,
    pub(super) exemplars: Vec<StoredExemplar>,
    seen: Duration,
}

#[derive(Default)]
struct Part {
    series: HashTable<Series>,
    swept: Duration,
}

/// All series of an exporter.
pub(super) struct Store {
    parts: Vec<Mutex<Part>>,
    families: Mutex<HashMap<String, FamilyInfo>>,
    count: AtomicUsize,
    max_series: usize,
    expiration: Duration,
    keep_exemplars: bool,
}

impl Store {
    pub(super) fn new(max_series: usize, expiration: Duration, keep_exemplars: bool) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            families: Mutex::default(),
            count: AtomicUsize::new(0),
            max_series,
            expiration,
            keep_exemplars,
        }
    }

    /// How many series there are.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Points of `family` follow. `false`: there is one of this name and another type.
    pub(super) fn admit(&self, family: &Family, description: &[u8], now: Duration) -> bool {
        let mut families = self.families.lock();
        if let Some(known) = families.get_mut(&family.name) {
            let is_same = known.metric_type == family.metric_type;
            if is_same {
                known.seen = now;
                return true;
            }
            if now.saturating_sub(known.seen) < self.expiration {
                return false;
            }
        }
        if families.len() >= MAX_FAMILIES {
            families.retain(|_, info| now.saturating_sub(info.seen) < self.expiration);
        }
        if families.len() < MAX_FAMILIES {
            let mut help = String::from_utf8_lossy(description).into_owned();
            help.truncate(help.floor_char_boundary(MAX_HELP));
            let info = FamilyInfo { metric_type: family.metric_type, help: help.into(), seen: now };
            families.insert(family.name.clone(), info);
        }
        true
    }

    /// Stores a point.
    pub(super) fn put(&self, point: &Point<'_>, now: Duration) -> Result<(), Untranslatable> {
        let index = (point.hash >> 32) as usize % PARTS;
        let Some(part) = self.parts.get(index) else { return Ok(()) };
        let mut part = part.lock();
        if now.saturating_sub(part.swept) >= SWEEP_INTERVAL.min(self.expiration) {
            self.sweep(&mut part, now);
        }
        let is_this = |series: &Series| {
            series.hash == point.hash
                && *series.labels == *point.labels.encoded()
                && series.family.name == point.family.name
        };
        match part.series.entry(point.hash, is_this, |series| series.hash) {
            Entry::Occupied(entry) if point.is_stale => {
                entry.remove();
                self.count.fetch_sub(1, Ordering::Relaxed);
                Ok(())
            }
            Entry::Occupied(mut entry) => self.update(entry.get_mut(), point, now),
            Entry::Vacant(_) if point.is_stale => Ok(()),
            Entry::Vacant(entry) => {
                if self.count.fetch_add(1, Ordering::Relaxed) >= self.max_series {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    return Err(Untranslatable::OverLimit);
                }
                entry.insert(Series {
                    hash: point.hash,
                    family: Arc::clone(point.family),
                    labels: point.labels.encoded().into(),
                    time: point.time,
                    value: StoredValue::of(&point.value),
                    exemplars: self.exemplars(point),
                    seen: now,
                });
                Ok(())
            }
        }
    }

    fn update(&self, series: &mut Series, point: &Point<'_>, now: Duration) -> Result<(), Untranslatable> {
        let is_older = if point.is_delta { point.time <= series.time } else { point.time < series.time };
        if is_older {
            return Err(Untranslatable::OutOfOrder);
        }
        if point.is_delta {
            series.value.add(&point.value);
        } else {
            series.value.set(&point.value);
        }
        series.time = point.time;
        series.seen = now;
        if self.keep_exemplars && !point.exemplars.items().is_empty() {
            series.exemplars = self.exemplars(point);
        }
        Ok(())
    }

    fn exemplars(&self, point: &Point<'_>) -> Vec<StoredExemplar> {
        if !self.keep_exemplars {
            return Vec::new();
        }
        let stored = point.exemplars.items().iter().map(|exemplar| StoredExemplar {
            value: exemplar.value,
            time: exemplar.time,
            labels: point.exemplars.labels(exemplar).into(),
        });
        stored.collect()
    }

    fn sweep(&self, part: &mut Part, now: Duration) {
        let before = part.series.len();
        part.series.retain(|series| now.saturating_sub(series.seen) < self.expiration);
        self.count.fetch_sub(before - part.series.len(), Ordering::Relaxed);
        part.swept = now;
    }

    /// All series that have not expired, ordered by name and labels, with what stands above them.
    pub(super) fn snapshot(&self, now: Duration) -> (Vec<Series>, HashMap<String, FamilyInfo>) {
        let mut all = Vec::with_capacity(self.len());
        for part in &self.parts {
            let mut part = part.lock();
            self.sweep(&mut part, now);
            all.extend(part.series.iter().cloned());
        }
        all.sort_unstable_by(|left, right| {
            left.family.name.cmp(&right.family.name).then_with(|| compare_labels(&left.labels, &right.labels))
        });
        (all, self.families.lock().clone())
    }
}

/// Orders by names and values of labels rather than by their encoding.
fn compare_labels(left: &[u8], right: &[u8]) -> std::cmp::Ordering {
    decoded_labels(left).cmp(decoded_labels(right))
}

impl StoredValue {
    fn of(value: &PointValue<'_>) -> Self {
        match value {
            PointValue::Number(value) => Self::Number(*value),
            PointValue::Histogram(histogram) => Self::Histogram {
                count: histogram.count,
                sum: histogram.sum,
                bounds: histogram.bounds.into(),
                counts: histogram.counts.to_vec(),
            },
            PointValue::Native(histogram) => Self::Native { count: histogram.count, sum: histogram.sum },
            PointValue::Summary(summary) => {
                Self::Summary { count: summary.count, sum: summary.sum, quantiles: summary.quantiles.to_vec() }
            }
        }
    }

    /// Replaces the value, re-using what can be.
    fn set(&mut self, value: &PointValue<'_>) {
        match (&mut *self, value) {
            (Self::Number(old), PointValue::Number(new)) => *old = *new,
            (Self::Histogram { count, sum, bounds, counts }, PointValue::Histogram(new)) if **bounds == *new.bounds => {
                (*count, *sum) = (new.count, new.sum);
                counts.clear();
                counts.extend_from_slice(new.counts);
            }
            (_, new) => *self = Self::of(new),
        }
    }

    /// Adds a delta. A histogram whose bounds have changed starts over.
    fn add(&mut self, value: &PointValue<'_>) {
        match (&mut *self, value) {
            (Self::Number(total), PointValue::Number(change)) => *total += change,
            (Self::Histogram { count, sum, bounds, counts }, PointValue::Histogram(change))
                if **bounds == *change.bounds && counts.len() == change.counts.len() =>
            {
                *count = count.saturating_add(change.count);
                *sum = sum.zip(change.sum).map(|(total, change)| total + change);
                for (total, change) in counts.iter_mut().zip(change.counts) {
                    *total = total.saturating_add(*change);
                }
            }
            (Self::Native { count, sum }, PointValue::Native(change)) => {
                *count = count.saturating_add(change.count);
                *sum += change.sum;
            }
            (_, new) => *self = Self::of(new),
        }
    }
}
