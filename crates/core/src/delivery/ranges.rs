//! Sets of sequence numbers that are mostly consecutive.

use std::collections::BTreeMap;

/// Disjoint ranges, by their first number; the values are where they end.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, end)| number < *end)
    }

    /// One more than the highest number; 0 if there is none.
    pub(super) fn end(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// Adds `from..to`, of which nothing is in the set yet.
    pub(super) fn insert(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let to = self.0.remove(&to).unwrap_or(to);
        match self.0.range_mut(..from).next_back() {
            Some((_, end)) if *end == from => *end = to,
            _ => _ = self.0.insert(from, to),
        }
    }

    /// Removes everything below `number`.
    pub(super) fn remove_below(&mut self, number: u64) {
        let rest = self.0.split_off(&number);
        let cut = self.0.last_key_value().map(|(_, end)| *end).filter(|end| *end > number);
        self.0 = rest;
        if let Some(end) = cut {
            self.0.insert(number, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::Ranges;

    /// Random additions and removals, beside a plain set.
    #[test]
    fn ranges_are_a_set() {
        let mut random = SmallRng::seed_from_u64(1);
        for _ in 0..300 {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for _ in 0..60 {
                let from = random.random_range(0..50u64);
                if random.random_range(0..6) == 0 {
                    ranges.remove_below(from);
                    set = set.split_off(&from);
                } else {
                    let to = from + random.random_range(0..4);
                    if (from..to).all(|number| !set.contains(&number)) {
                        ranges.insert(from, to);
                        set.extend(from..to);
                    }
                }
                assert!((0..60).all(|number| ranges.contains(number) == set.contains(&number)));
                assert_eq!(ranges.end(), set.last().map_or(0, |last| last + 1));
                assert_eq!(ranges.is_empty(), set.is_empty());
            }
        }
    }
}
