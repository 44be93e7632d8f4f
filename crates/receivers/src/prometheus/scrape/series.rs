//! What is remembered of a target's series from one scrape to the next: when they began, and that they
//! were there.
//!
//! Bounded by what the target exposes: a series that is not in a scrape is forgotten after it, once the
//! pipeline has been told that it ended.

use std::collections::HashMap;
use std::sync::Arc;

use crate::prometheus::model::{SeriesKey, Shape};

/// One series.
#[derive(Debug)]
pub(super) struct Known {
    /// The last scrape that had it.
    round: u32,
    /// Which of that scrape's points it is.
    pub(super) point: usize,
    /// The sections of its key.
    ends: [usize; 3],
    pub(super) shape: Shape,
    /// It brings timestamps of its own, and is not missed when it is gone.
    pub(super) is_untracked: bool,
    /// It was handed to the pipeline.
    is_out: bool,
    /// When it began, in nanoseconds since 1970; 0 before its first point.
    start: u64,
    /// The counter, or the histogram's or summary's count.
    value: f64,
    sum: f64,
    /// The bounds of a histogram, or the quantiles of a summary: they end with it.
    inner: Arc<[f64]>,
}

/// The series of one target.
#[derive(Debug, Default)]
pub(super) struct Series {
    known: HashMap<Box<[u8]>, Known>,
    round: u32,
    /// The bounds that were last new: those of one family are equal, and are shared.
    inner: Arc<[f64]>,
}

/// What a point of a series said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed<'p> {
    pub(super) time: u64,
    pub(super) created: Option<u64>,
    /// The counter, or the count.
    pub(super) value: f64,
    /// A sum that cannot fall; 0 if there is none.
    pub(super) sum: f64,
    /// Bounds or quantiles, with what is there.
    pub(super) parts: &'p [(f64, f64)],
}

impl Series {
    /// Begins a scrape.
    pub(super) fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// Takes back what a scrape that failed has brought, and begins anew: nothing was there.
    pub(super) fn begin_again(&mut self) {
        self.known.retain(|_, known| known.is_out);
        self.begin();
    }

    /// How many series are remembered.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// The point of this scrape that `key` belongs to, if it was met before in this scrape.
    pub(super) fn point(&self, key: &SeriesKey) -> Option<usize> {
        self.known.get(key.bytes()).filter(|known| known.round == self.round).map(|known| known.point)
    }

    /// Notes that `key` is in this scrape as `point`; whether it is new.
    pub(super) fn meet(&mut self, key: &SeriesKey, shape: Shape, point: usize, is_untracked: bool) -> bool {
        if let Some(known) = self.known.get_mut(key.bytes()) {
            known.round = self.round;
            known.point = point;
            known.is_untracked = is_untracked;
            return false;
        }
        let known = Known {
            round: self.round,
            point,
            ends: key.ends(),
            shape,
            is_untracked,
            is_out: false,
            start: 0,
            value: 0.0,
            sum: 0.0,
            inner: Arc::default(),
        };
        self.known.insert(key.bytes().into(), known);
        true
    }

    /// Calls `observe` for the point of every series of this scrape, and `start` with the time at which the
    /// series began, according to what was observed.
    pub(super) fn each_met<'p>(
        &mut self,
        observe: impl Fn(usize) -> Option<Observed<'p>>,
        mut start: impl FnMut(usize, u64),
    ) {
        let round = self.round;
        for known in self.known.values_mut().filter(|known| known.round == round) {
            if let Some(observed) = observe(known.point) {
                known.observe(observed, &mut self.inner);
                start(known.point, known.start);
            }
        }
    }

    /// Calls `ended` for every series that was there and is not in this scrape.
    pub(super) fn each_ended(&self, mut ended: impl FnMut(&SeriesKey, Shape, u64, &[f64])) {
        let mut key = SeriesKey::default();
        for (bytes, known) in &self.known {
            if known.round != self.round && !known.is_untracked && known.is_out {
                key.restore(bytes, known.ends);
                ended(&key, known.shape, known.start, &known.inner);
            }
        }
    }

    /// The pipeline has taken this scrape: what ended is forgotten.
    pub(super) fn delivered(&mut self) {
        let round = self.round;
        self.known.retain(|_, known| {
            known.is_out = true;
            known.round == round
        });
        if self.known.capacity() > 4 * self.known.len() + 64 {
            self.known.shrink_to_fit();
        }
    }
}

impl Known {
    fn observe(&mut self, observed: Observed<'_>, latest: &mut Arc<[f64]>) {
        let has_reset = observed.value < self.value || observed.sum < self.sum;
        match observed.created {
            Some(created) => self.start = created,
            None if self.start == 0 || has_reset => self.start = observed.time,
            None => {}
        }
        self.value = observed.value;
        self.sum = observed.sum;
        let is_same = |own: &[f64]| own.iter().eq(observed.parts.iter().map(|(bound, _)| bound));
        if !is_same(&self.inner) {
            if !is_same(latest) {
                *latest = observed.parts.iter().map(|(bound, _)| *bound).collect();
            }
            self.inner = Arc::clone(latest);
        }
    }
}
