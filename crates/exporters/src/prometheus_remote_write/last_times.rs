//! The time of the last sample that each series was delivered with.

use hashbrown::HashTable;

/// Times by the hash of the series, 16 bytes each, of the series that were delivered lately: the
/// older half is forgotten when the younger one is full.
pub(super) struct LastTimes {
    young: HashTable<(u64, i64)>,
    old: HashTable<(u64, i64)>,
    half: usize,
}

impl LastTimes {
    /// Remembers at most `series` series.
    pub(super) fn new(series: usize) -> Self {
        Self { young: HashTable::new(), old: HashTable::new(), half: (series / 2).max(1) }
    }

    /// Is this later than what the series was delivered with?
    pub(super) fn is_news(&self, series: u64, time: i64) -> bool {
        let find = |table: &HashTable<(u64, i64)>| table.find(series, |known| known.0 == series).map(|known| known.1);
        find(&self.young).or_else(|| find(&self.old)).is_none_or(|last| last < time)
    }

    /// The series was delivered with a sample of this time.
    pub(super) fn note(&mut self, series: u64, time: i64) {
        if let Some(known) = self.young.find_mut(series, |known| known.0 == series) {
            known.1 = known.1.max(time);
            return;
        }
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert_unique(series, (series, time), |known| known.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_series_are_remembered() {
        let mut times = LastTimes::new(100);
        for series in 0..1000 {
            assert!(times.is_news(series, 5));
            times.note(series, 5);
            times.note(series, 4);
            assert!(!times.is_news(series, 5) && times.is_news(series, 6));
            assert!(times.young.len() + times.old.len() <= 100);
        }
        assert!((951..1000).all(|series| !times.is_news(series, 5)), "the last fifty at the least");
        assert!(times.is_news(0, 0), "forgotten");
    }
}
