//! A backend, as far as it matters: what the series it is sent have grown by, and whether they behave.

use std::collections::BTreeMap;

use super::super::Point;
use super::kinds::Kind;

/// The numbers of a point that add up: its value, or count, sum and buckets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parts(pub(super) Vec<f64>);

impl Parts {
    pub(super) fn add(&mut self, more: &Self) {
        assert_eq!(self.0.len(), more.0.len());
        self.0.iter_mut().zip(&more.0).for_each(|(own, more)| *own += more);
    }

    /// Is none of them more than that of `other`? Some fall.
    pub(super) fn is_at_most(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(own, other)| own.abs() <= other.abs())
    }

    fn minus(&self, before: &Self) -> Self {
        Self(self.0.iter().zip(&before.0).map(|(own, before)| own - before).collect())
    }
}

struct Last {
    start: u64,
    time: u64,
    parts: Parts,
}

/// Follows series.
pub(super) struct Reader {
    kind: Kind,
    is_delta: bool,
    /// Senders send points late.
    has_late: bool,
    last: BTreeMap<String, Last>,
    /// What all series have grown by.
    pub(super) grown: Parts,
}

impl Reader {
    pub(super) fn new(kind: Kind, is_delta: bool, has_late: bool) -> Self {
        Self { kind, is_delta, has_late, last: BTreeMap::new(), grown: kind.parts(0) }
    }

    pub(super) fn read(&mut self, points: &[Point], context: &str) {
        for point in points {
            assert!(point.start <= point.time, "{context}: {point:?}");
            // A mark does not make another series of it.
            let series = point.series();
            let series = series.replace(",otel.metric.overflow=true", "").replace("otel.metric.overflow=true,", "");
            let before = self.last.get_mut(&series);
            if let Some(before) = &before {
                // One report of a time, and none later than the flag that the series has ended.
                let time = before.time;
                if self.has_late && point.time <= time {
                    if self.is_delta && !point.is_end {
                        self.grown.add(&self.kind.parts_of(point));
                    }
                    // Of a cumulative one a backend says that it is out of order.
                    continue;
                }
                assert!(point.time > time, "{context}: {series}: time {} after {time}", point.time);
            }
            if point.is_end {
                if let Some(before) = before {
                    before.time = point.time;
                }
                continue;
            }
            let parts = self.kind.parts_of(point);
            let growth = match before {
                Some(before) if !self.is_delta && before.start == point.start => {
                    let growth = parts.minus(&before.parts);
                    let has_fallen = growth.0.iter().any(|part| *part < 0.0);
                    // Senders that do not tell when they began may begin anew; the limiter tells.
                    assert!(!has_fallen || point.start == 0, "{context}: {series}: fell by {growth:?}");
                    if has_fallen { parts.clone() } else { growth }
                }
                _ => parts.clone(),
            };
            self.grown.add(&growth);
            self.last.insert(series, Last { start: point.start, time: point.time, parts });
        }
    }
}
