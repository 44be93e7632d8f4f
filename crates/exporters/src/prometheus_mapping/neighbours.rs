//! Metrics whose series may have equal names although their own names differ: a histogram `x` writes `x_count`, and so
//! does a gauge `x.count`. (And a summary `x` writes `x{quantile="0.5"}`, which a gauge `x` may.)
//!
//! Whether series really are equal depends on their labels, and is for those to find out who write them; here it is
//! told, once for each name, whether they have to look at all.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use super::kinds::Kind;

/// How many names are remembered, those used last; of what was forgotten nobody is told.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// What the series of histograms and summaries have behind the name.
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// What is known of a name.
#[derive(Debug, Default)]
struct Known {
    /// It has series of just this name.
    is_plain: bool,
    /// It has series with suffixes.
    is_grouped: bool,
    is_summary: bool,
    /// Shared by all metrics of this name.
    is_shared: Arc<AtomicBool>,
}

/// The names of an exporter's metrics, by their hashes: they may be long.
#[derive(Debug)]
pub(super) struct Neighbours(Mutex<LruCache<u64, Known>>);

impl Default for Neighbours {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Neighbours {
    /// There is a metric of this name. What is returned is true from the moment on at which another one is known that
    /// may have series of equal names.
    pub(super) fn meet(&self, name: &str, kind: Kind, hash: impl Fn(&str) -> u64) -> Arc<AtomicBool> {
        let mut known = self.0.lock();
        let own = known.get_or_insert_mut(hash(name), Known::default);
        // Histograms of both kinds have both forms, as it is configured.
        let is_plain = kind != Kind::Summary;
        let is_grouped = matches!(kind, Kind::Histogram | Kind::Exponential | Kind::Summary);
        own.is_plain |= is_plain;
        own.is_grouped |= is_grouped;
        own.is_summary |= kind == Kind::Summary;
        let is_shared = Arc::clone(&own.is_shared);
        if own.is_plain && own.is_summary {
            is_shared.store(true, Ordering::Relaxed);
        }
        let tell = |other: &Known| {
            is_shared.store(true, Ordering::Relaxed);
            other.is_shared.store(true, Ordering::Relaxed);
        };
        for suffix in SUFFIXES {
            if let Some(stem) = name.strip_suffix(suffix).filter(|_| is_plain) {
                known.peek(&hash(stem)).filter(|stem| stem.is_grouped).inspect(|stem| tell(stem));
            }
            if is_grouped {
                let series = [name, suffix].concat();
                known.peek(&hash(&series)).filter(|series| series.is_plain).inspect(|series| tell(series));
            }
        }
        is_shared
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn only_those_are_told_who_may_meet() {
        let all = [
            ("x", Kind::Histogram, true),
            ("x_count", Kind::Gauge, true),
            ("y_bucket", Kind::Part, true),
            ("y", Kind::Histogram, true),
            ("z", Kind::Gauge, true),
            ("z", Kind::Summary, true),
            ("u", Kind::Gauge, false),
            ("u_count", Kind::Gauge, false),
            ("v", Kind::Gauge, false),
            ("v", Kind::Histogram, false),
            ("w", Kind::Summary, false),
            ("w_total", Kind::Counter, false),
        ];
        let neighbours = Neighbours::default();
        let hasher = foldhash::fast::RandomState::default();
        let told: Vec<_> =
            all.iter().map(|&(name, kind, _)| neighbours.meet(name, kind, |name| hasher.hash_one(name))).collect();
        for ((name, kind, expected), told) in all.iter().zip(told) {
            assert_eq!(told.load(Ordering::Relaxed), *expected, "{name} {kind:?}");
        }
    }
}
