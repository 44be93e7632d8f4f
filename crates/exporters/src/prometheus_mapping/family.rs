//! A metric's translated name, remembered so that it is made once.

use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lru::LruCache;

use super::kinds::{Kind, MetricType};
use super::labels::put_label;
use super::names::{NoName, Strategy, metric_name, unit_name};
use super::seed::HashSeed;

/// How many translated names are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(8192).unwrap();

/// Longer names and units are translated anew each time, so that memory stays bounded.
const LONGEST_REMEMBERED: usize = 512;

/// A metric as Prometheus knows it.
#[derive(Debug)]
pub struct Family {
    /// Its name, without the suffixes of histogram and summary series.
    pub name: String,
    /// Its unit in Prometheus' words: `seconds`, `bytes_per_second`; may be empty.
    pub unit: String,
    /// What it is in OTLP.
    pub kind: Kind,
    /// What it is in Prometheus.
    pub metric_type: MetricType,
    hash: u64,
    /// May another metric have series of the same names?
    has_neighbour: Arc<AtomicBool>,
    plain: Box<[u8]>,
    bucket: Box<[u8]>,
    sum: Box<[u8]>,
    count: Box<[u8]>,
}

/// One of the series that a family consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suffix {
    /// The name itself.
    None,
    /// `_bucket`.
    Bucket,
    /// `_sum`.
    Sum,
    /// `_count`.
    Count,
}

impl Family {
    pub(super) fn new(name: String, unit: String, kind: Kind, metric_type: MetricType, seed: &HashSeed) -> Self {
        let label = |suffix: &str| {
            let mut label = Vec::new();
            put_label(&mut label, b"__name__", [name.as_bytes(), suffix.as_bytes()].concat().as_slice());
            label.into_boxed_slice()
        };
        Self {
            hash: seed.name(&name),
            has_neighbour: seed.neighbours.meet(&name, kind, |name| seed.name(name)),
            plain: label(""),
            bucket: label("_bucket"),
            sum: label("_sum"),
            count: label("_count"),
            name,
            unit,
            kind,
            metric_type,
        }
    }

    /// The encoded `__name__` label of a series.
    #[must_use]
    pub fn name_label(&self, suffix: Suffix) -> &[u8] {
        match suffix {
            Suffix::None => &self.plain,
            Suffix::Bucket => &self.bucket,
            Suffix::Sum => &self.sum,
            Suffix::Count => &self.count,
        }
    }

    /// The name that its metadata has: that of the histogram or summary it is a part of, or its own.
    #[must_use]
    pub fn described_name(&self) -> &str {
        let suffixes = ["_bucket", "_sum", "_count"].iter().filter(|_| self.kind == Kind::Part);
        suffixes.filter_map(|suffix| self.name.strip_suffix(suffix)).next().unwrap_or(&self.name)
    }

    /// The type of its samples where they stand alone, under their own name.
    #[must_use]
    pub fn sample_type(&self) -> MetricType {
        if self.kind == Kind::Part { MetricType::Unknown } else { self.metric_type }
    }

    /// Is there a metric with another name, or type, whose series may have the same names as this one's? Such that
    /// have the same labels, too, are to be sent of one of them only.
    #[must_use]
    pub fn has_neighbour(&self) -> bool {
        self.has_neighbour.load(Ordering::Relaxed)
    }

    /// A hash of the name, seeded for this process.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}

struct Remembered {
    name: Box<str>,
    unit: Box<str>,
    kind: Kind,
    metric_type: MetricType,
    family: Result<Arc<Family>, NoName>,
}

/// Translated names by what they were made of.
pub(super) struct Families {
    strategy: Strategy,
    namespace: String,
    known: LruCache<u64, Remembered>,
}

impl Families {
    pub(super) fn new(strategy: Strategy, namespace: String) -> Self {
        Self { strategy, namespace, known: LruCache::new(REMEMBERED) }
    }

    pub(super) fn get(
        &mut self,
        name: &[u8],
        unit: &[u8],
        (kind, metric_type): (Kind, MetricType),
        seed: &HashSeed,
    ) -> Result<Arc<Family>, NoName> {
        let key = seed.hasher.hash_one((name, unit, kind, metric_type));
        if let Some(known) = self.known.get(&key) {
            let is_same = known.name.as_bytes() == name
                && known.unit.as_bytes() == unit
                && (known.kind, known.metric_type) == (kind, metric_type);
            if is_same {
                return known.family.clone();
            }
        }
        let (name, unit) = (String::from_utf8_lossy(name), String::from_utf8_lossy(unit));
        let family = metric_name(self.strategy, &self.namespace, &name, &unit, kind)
            .map(|translated| Arc::new(Family::new(translated, unit_name(&unit), kind, metric_type, seed)));
        if name.len() + unit.len() <= LONGEST_REMEMBERED {
            let (name, unit) = (name.into(), unit.into());
            self.known.put(key, Remembered { name, unit, kind, metric_type, family: family.clone() });
        }
        family
    }
}
