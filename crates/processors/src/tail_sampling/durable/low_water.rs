//! Which records of the log are not needed any more.
//!
//! Two facts are combined. The [`Intake`] knows the *floor*: every record up to it is in the buffer, or
//! needed by nobody. And from time to time the floor of the moment is written down as a *mark*. A trace
//! that entered the buffer at or after the time of a mark cannot have spans in records up to that
//! mark's floor: they had been taken in before. So a trace needs to remember nothing but when it came,
//! which it does anyway.

use std::collections::{BTreeMap, VecDeque};

/// Marks are at least so many milliseconds apart.
const APART: u64 = 100;
/// Beyond this every second mark is forgotten: the low water lags behind, and memory is bounded.
const MOST_MARKS: usize = 1 << 14;

/// Records that are on their way into the buffer.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// The highest number that the log has answered with.
    seen: u64,
    /// What was seen when those that are on their way began, and how many began then.
    open: BTreeMap<u64, u32>,
}

impl Intake {
    /// A record is about to be appended: its number will be higher than what is returned.
    pub(super) fn begin(&mut self) -> u64 {
        *self.open.entry(self.seen).or_default() += 1;
        self.seen
    }

    /// It has the number `sequence`.
    pub(super) fn see(&mut self, sequence: u64) {
        self.seen = self.seen.max(sequence);
    }

    /// The record that began at `floor` is in the buffer, or is not going to be.
    pub(super) fn end(&mut self, floor: u64) {
        if let Some(count) = self.open.get_mut(&floor) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&floor);
            }
        }
    }

    /// One that began at `before` is many, of which those up to `floor` are in the buffer.
    pub(super) fn reopen(&mut self, before: u64, floor: u64) {
        *self.open.entry(floor).or_default() += 1;
        self.end(before);
    }

    /// The highest number that the log has answered with.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Nothing up to this number is on its way.
    pub(super) fn floor(&self) -> u64 {
        self.open.first_key_value().map_or(self.seen, |(floor, _)| *floor)
    }
}

/// Floors of the past.
#[derive(Debug, Default)]
pub(super) struct Marks(VecDeque<(u64, u64)>);

impl Marks {
    /// At `time`, in milliseconds, or shortly before, the floor was `floor`.
    pub(super) fn add(&mut self, time: u64, floor: u64) {
        if self.0.back().is_some_and(|(last, _)| *last + APART > time) {
            return;
        }
        if self.0.len() >= MOST_MARKS {
            let mut index = 0;
            self.0.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
        self.0.push_back((time, floor));
    }

    /// No trace that entered at `time` or later needs a record up to this number. Marks that are older
    /// are forgotten: times that are asked for go forward.
    pub(super) fn below(&mut self, time: u64) -> u64 {
        while let Some(&(next, _)) = self.0.get(1)
            && next <= time
        {
            self.0.pop_front();
        }
        self.0.front().filter(|(mark, _)| *mark <= time).map_or(0, |(_, floor)| *floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_waits_for_the_slowest() {
        let mut intake = Intake::default();
        assert_eq!(intake.floor(), 0);
        let slow = intake.begin();
        let fast = intake.begin();
        intake.see(2);
        intake.end(fast);
        assert_eq!(intake.floor(), 0, "number 1 may be the slow one's");
        let third = intake.begin();
        assert_eq!(third, 2);
        intake.see(1);
        intake.end(slow);
        assert_eq!(intake.floor(), 2);
        intake.see(3);
        assert_eq!(intake.floor(), 2);
        intake.end(third);
        assert_eq!(intake.floor(), 3);
    }

    #[test]
    fn a_mark_counts_for_what_came_after_it() {
        let mut marks = Marks::default();
        assert_eq!(marks.below(1000), 0);
        marks.add(1000, 10);
        marks.add(1050, 15);
        marks.add(1200, 20);
        marks.add(1400, 30);
        assert_eq!(marks.below(999), 0);
        assert_eq!(marks.below(1000), 10);
        assert_eq!(marks.below(1199), 10, "the mark at 1050 was too close to the one before");
        assert_eq!(marks.below(1399), 20);
        assert_eq!(marks.below(u64::MAX), 30);
        assert_eq!(marks.0.len(), 1);
    }

    #[test]
    fn marks_are_bounded() {
        let mut marks = Marks::default();
        for index in 0..3 * MOST_MARKS as u64 {
            marks.add(index * APART, index);
        }
        assert!(marks.0.len() <= MOST_MARKS);
        assert_eq!(marks.below(0), 0);
        let middle = MOST_MARKS as u64;
        let floor = marks.below(middle * APART);
        assert!(floor <= middle && floor > middle / 2, "{floor}");
    }

    /// A model of the whole argument: records begin and arrive in any order, traces enter, leave and grow.
    /// Guarantee: what is released is needed by nobody.
    #[test]
    fn nothing_that_is_needed_is_released() {
        use rand::rngs::SmallRng;
        use rand::{RngExt, SeedableRng};

        for seed in 0..200 {
            let mut random = SmallRng::seed_from_u64(seed);
            let (mut intake, mut marks) = (Intake::default(), Marks::default());
            let mut now = 10_000;
            let mut next = 1;
            // On their way: floor, number, time of arrival.
            let mut open: Vec<(u64, u64, u64)> = Vec::new();
            // In the buffer: when they came, and their records.
            let mut traces: Vec<(u64, Vec<u64>)> = Vec::new();
            let mut released = 0;
            for _ in 0..400 {
                now += random.random_range(0..80);
                match random.random_range(0..10) {
                    0..4 => {
                        let floor = intake.begin();
                        open.push((floor, next, now));
                        next += 1;
                    }
                    4..7 if !open.is_empty() => {
                        let (floor, number, arrival) = open.swap_remove(random.random_range(0..open.len()));
                        intake.see(number);
                        if random.random() && !traces.is_empty() {
                            let trace = random.random_range(0..traces.len());
                            traces[trace].1.push(number);
                        } else {
                            traces.push((arrival, vec![number]));
                        }
                        intake.end(floor);
                    }
                    7 if !traces.is_empty() => {
                        traces.swap_remove(random.random_range(0..traces.len()));
                    }
                    _ => {
                        let floor = intake.floor();
                        marks.add(now + 1, floor);
                        let oldest = traces.iter().map(|(arrival, _)| *arrival).min();
                        let low = oldest.map_or(floor, |oldest| marks.below(oldest).min(floor));
                        released = low.max(released);
                    }
                }
                let needed = traces.iter().flat_map(|(_, records)| records).chain(open.iter().map(|(_, it, _)| it));
                assert!(needed.copied().min().is_none_or(|least| least > released), "seed {seed}");
            }
        }
    }
}
