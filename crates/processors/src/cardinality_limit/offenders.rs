//! Which label is to blame, and what its collapse would save.
//!
//! Once a metric is over half its series budget, or over a label's limit, each series without a slot is
//! added to a sketch of all, and to one for each label of what it is without that label. The label whose
//! sketch is smallest is the one that multiplies series.

use super::metric::{Found, Metric, Sketched};
use super::report::{LabelUsage, Usage, sample};
use super::shared::Shared;
use super::sketch::Distinct;

/// Below this budget series are sketched from the first one on, above it from half the budget.
const SMALL_BUDGET: usize = 256;
/// What the sketches of one label may take.
const SKETCH_BYTES: usize = 2200;
/// A label is to blame alone if without it at most this share of the series would be left.
const CLEAR: f64 = 0.8;
/// Labels of which a log line tells what their collapse would save.
const MOST_TOLD: usize = 8;

impl Metric {
    /// Adds a series that has no slot to the sketches, which are begun when it is time. The labels in
    /// `mask` are collapsed.
    pub(super) fn sketch(&mut self, shared: &Shared, fingerprint: u64, found: &[Found], mask: u64) {
        let max = self.limits.max_series;
        if self.sketched.is_none() {
            let all_labels = (self.labels.len() + 1) * SKETCH_BYTES;
            let is_early = max > SMALL_BUDGET && self.used * 2 < max && mask == 0;
            if is_early || !shared.fits(self.unbooked() + all_labels) {
                return;
            }
            self.sketched = Some(Sketched { before: self.used, since: self.seen, ..Sketched::default() });
        }
        // What is collapsed for the sake of the budget counts as if it were not.
        let mask = mask & !self.collapsed_labels();
        let rewritten = self.rewritten(fingerprint, found, mask);
        if let Some(sketched) = &mut self.sketched {
            sketched.all.add(rewritten);
        }
        for (index, label) in self.labels.iter_mut().enumerate() {
            let own = found.iter().find(|found| usize::from(found.index) == index);
            let is_rewritten = mask & (1 << index) != 0;
            let share = own.map_or(0, |found| if is_rewritten { found.replacement } else { found.hash });
            label.without.add(rewritten.wrapping_sub(share));
            if let Some(found) = own {
                label.wanted.add(found.hash);
            }
        }
    }

    /// Frees the sketches.
    pub(super) fn stop_sketching(&mut self) {
        self.sketched = None;
        for label in &mut self.labels {
            label.without = Distinct::default();
            label.wanted = Distinct::default();
        }
    }

    /// Which label of the point to collapse: the one without which the fewest series would be
    /// left; or, where no label alone makes a difference, the one with the most values. With
    /// the number of series that would be left.
    pub(super) fn guilty(&self, found: &[Found], mask: u64) -> Option<(u8, f64)> {
        let all = self.sketched.as_ref().map_or(0.0, |sketched| sketched.all.estimate());
        let candidates = || {
            found.iter().filter(|found| mask & (1 << found.index) == 0).filter_map(|found| {
                let label = self.labels.get(usize::from(found.index))?;
                Some((found.index, label.without.estimate(), label.values.len()))
            })
        };
        let fewest_left = candidates().min_by(|(_, left, values), (_, other_left, other_values)| {
            left.total_cmp(other_left).then(other_values.cmp(values))
        })?;
        if self.sketched.is_some() && fewest_left.1 <= CLEAR * all {
            return Some((fewest_left.0, fewest_left.1));
        }
        candidates().max_by_key(|(_, _, values)| *values).map(|(index, left, _)| (index, left))
    }

    /// How many series it has or, where that is known, would have.
    pub(super) fn weight(&self) -> usize {
        self.wanted().0.map_or(self.used, |wanted| self.used.max(wanted.round() as usize))
    }

    /// How the metric is doing. New values are told once.
    pub(super) fn usage(&mut self) -> Usage {
        let (wanted, share) = self.wanted();
        let labels = self.labels.iter_mut().zip(self.names.iter()).map(|(label, name)| LabelUsage {
            label: name.to_vec(),
            values: label.values.len(),
            new_values: std::mem::take(&mut label.new_values),
            wanted: wanted.map(|_| label.wanted.estimate().max(label.values.len() as f64)),
            without: wanted.map(|_| label.without.estimate() * share),
        });
        Usage { metric: self.name.to_vec(), series: self.used, wanted, labels: labels.collect() }
    }

    /// About how many series there would be without the series budget, if that is sketched; and how many
    /// each one in the sketches stands for.
    fn wanted(&self) -> (Option<f64>, f64) {
        let Some(sketched) = &self.sketched else { return (None, 1.0) };
        let all = sketched.all.estimate();
        let wanted = sketched.before as f64 + all;
        (Some(wanted), wanted / all.max(1.0))
    }

    /// What the collapse of each label would leave, the fewest first: `user.id: 6 of 6000`.
    pub(super) fn savings(&self) -> Vec<String> {
        let (Some(wanted), share) = self.wanted() else { return Vec::new() };
        let labels = self.labels.iter().zip(self.names.iter());
        let mut left: Vec<(f64, String)> =
            labels.map(|(label, name)| (label.without.estimate() * share, sample(name))).collect();
        left.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        left.truncate(MOST_TOLD);
        left.into_iter().map(|(left, name)| format!("{name}: {left:.0} of {wanted:.0}")).collect()
    }
}
