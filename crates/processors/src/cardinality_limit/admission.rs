//! Which points pass, and what becomes of the others.

use nyquist_core::batch::DropReason;

use super::config::OnExceed;
use super::metric::{Attribute, EMPTY, Found, INDIVIDUAL, Link, Metric, Series};
use super::report::sample;
use super::shared::Shared;

/// What becomes of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It goes on as it is.
    Pass,
    /// It goes on, marked.
    Tag,
    /// It is added to a collapsed series.
    Collapse(Route),
    /// It is dropped.
    Drop(DropReason),
}

/// Where a collapsed point goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// The fingerprint of the collapsed series.
    pub(super) output: u64,
    /// The labels whose values are replaced, as bits.
    pub(super) mask: u64,
    /// All attributes give way to `otel.metric.overflow`.
    pub(super) is_overflow: bool,
    /// Until now its series had a slot of its own: whoever reads it should learn that it ends.
    pub(super) was_individual: bool,
}

/// What a lock hold produces beside decisions.
#[derive(Default)]
pub(super) struct Scratch {
    found: Vec<Found>,
    /// Outputs that are to be emitted.
    pub(super) dirty: Vec<u32>,
    /// The metric's state has changed its size.
    pub(super) grown: bool,
}

impl Metric {
    /// Decides on the point with `fingerprint` and `attributes`; `context` is the hash of all but
    /// the attributes. The usual case is one probe of one table.
    #[inline]
    pub(super) fn decide(
        &mut self,
        shared: &Shared,
        context: u64,
        fingerprint: u64,
        attributes: &[Attribute<'_>],
        scratch: &mut Scratch,
    ) -> Decision {
        if let Some(series) = self.series.get_mut(&fingerprint) {
            let is_fresh = series.epoch == self.seen;
            series.epoch = self.seen;
            if series.output != INDIVIDUAL {
                // A sender's own series is what others are collapsed to: it joins them.
                let route =
                    Route { output: fingerprint, mask: 0, is_overflow: series.is_overflow, was_individual: false };
                return Decision::Collapse(route);
            }
            if !is_fresh {
                self.refresh_values(shared, attributes);
            }
            return Decision::Pass;
        }
        if let Some(route) = self.known_route(shared, fingerprint, attributes) {
            return Decision::Collapse(route);
        }
        self.decide_on_stranger(shared, context, fingerprint, attributes, scratch)
    }

    /// A collapsed stream stays where it is counted as long as it lives.
    fn known_route(&mut self, shared: &Shared, fingerprint: u64, attributes: &[Attribute<'_>]) -> Option<Route> {
        let link = match self.inputs.get(&fingerprint) {
            Some(input) => input.link,
            None => self.distributions.get(&fingerprint)?.link,
        };
        let Link { index, generation } = link;
        let output = self.outputs.get_mut(index as usize)?;
        if !output.is_active() || output.generation != generation {
            return None;
        }
        let (mask, is_overflow) = (output.mask, output.is_overflow);
        let route = Route { output: output.fingerprint, mask, is_overflow, was_individual: false };
        if output.epoch != self.seen {
            output.epoch = self.seen;
            if let Some(series) = self.series.get_mut(&route.output) {
                series.epoch = self.seen;
            }
            self.refresh_values(shared, attributes);
        }
        Some(route)
    }

    #[cold]
    fn decide_on_stranger(
        &mut self,
        shared: &Shared,
        context: u64,
        fingerprint: u64,
        attributes: &[Attribute<'_>],
        scratch: &mut Scratch,
    ) -> Decision {
        self.find_labels(shared, attributes, &mut scratch.found);
        let found = std::mem::take(&mut scratch.found);
        let decision = if shared.dry_run || shared.on_exceed != OnExceed::CollapseLabel {
            self.decide_simply(shared, context, fingerprint, attributes, &found)
        } else {
            self.decide_by_label(shared, context, fingerprint, attributes, &found, &mut scratch.dirty)
        };
        scratch.found = found;
        decision
    }

    /// Without collapsing labels: within the limits or not.
    fn decide_simply(
        &mut self,
        shared: &Shared,
        context: u64,
        fingerprint: u64,
        attributes: &[Attribute<'_>],
        found: &[Found],
    ) -> Decision {
        let mask = self.over_limit(found);
        if mask == 0 && self.has_room(shared) {
            self.admit_values(shared, found, attributes, 0);
            self.admit(shared, fingerprint, INDIVIDUAL, bits(found));
            return Decision::Pass;
        }
        if shared.dry_run {
            shared.report.would_collapse.inc();
            self.enter_overflow(shared, "points of this metric are over a limit; this is a dry run, they pass");
            return Decision::Pass;
        }
        match shared.on_exceed {
            OnExceed::TagOnly => {
                self.enter_overflow(shared, "points of this metric are over a limit; they pass, marked");
                Decision::Tag
            }
            OnExceed::DropPoint => {
                self.enter_overflow(shared, "points of this metric are over a limit; they are dropped");
                Decision::Drop(DropReason::OverLimit)
            }
            _ => self.overflow(shared, context, fingerprint),
        }
    }

    /// Replaces the values of as many labels as it takes to fit.
    fn decide_by_label(
        &mut self,
        shared: &Shared,
        context: u64,
        fingerprint: u64,
        attributes: &[Attribute<'_>],
        found: &[Found],
        dirty: &mut Vec<u32>,
    ) -> Decision {
        let mut mask = self.over_limit(found);
        self.note_full_labels(shared, found, mask);
        let was_individual = self.retired.contains_key(&fingerprint);
        let mut is_sketched = false;
        // Each round ends it, frees slots, or adds a label to the mask.
        loop {
            let output = self.rewritten(fingerprint, found, mask);
            let route = Route { output, mask, is_overflow: false, was_individual };
            if mask != 0 && self.joins(shared, output) {
                self.admit_values(shared, found, attributes, mask);
                return Decision::Collapse(route);
            }
            if self.has_room(shared) {
                self.admit_values(shared, found, attributes, mask);
                if mask != 0 {
                    self.admit(shared, output, EMPTY, bits(found) & !mask);
                    return Decision::Collapse(route);
                }
                if !is_sketched {
                    self.sketch(shared, fingerprint, found);
                }
                self.admit(shared, fingerprint, INDIVIDUAL, bits(found));
                return Decision::Pass;
            }
            // Collapsing gives slots back, not memory.
            let slots_are_short = self.used >= self.limits.max_series || !shared.has_slot();
            if !slots_are_short || self.used == 0 {
                return self.overflow(shared, context, fingerprint);
            }
            if !is_sketched {
                self.sketch(shared, fingerprint, found);
                is_sketched = true;
            }
            if self.retire(shared, mask & self.collapsed_labels(), dirty) {
                continue;
            }
            let Some((index, left)) = self.guilty(found, mask) else {
                return self.overflow(shared, context, fingerprint);
            };
            self.collapse(shared, index, left);
            mask |= 1 << index;
        }
    }

    /// Is `output` a series that collapsed points can join? A sender's own series of that
    /// identity becomes one.
    fn joins(&mut self, shared: &Shared, output: u64) -> bool {
        let Some(series) = self.series.get_mut(&output) else { return false };
        series.epoch = self.seen;
        if series.output == INDIVIDUAL {
            series.output = EMPTY;
            series.was_individual = true;
            // What it has reported on its own is not to be counted again.
            shared.forget([(output, 0)].into_iter());
        } else if let Some(output) = self.outputs.get_mut(series.output as usize) {
            output.epoch = self.seen;
        }
        true
    }

    /// The labels that are collapsed for the sake of the series budget, as bits.
    fn collapsed_labels(&self) -> u64 {
        self.labels.iter().enumerate().fold(
            0,
            |mask, (index, label)| {
                if label.collapsed.is_some() { mask | 1 << index } else { mask }
            },
        )
    }

    fn collapse(&mut self, shared: &Shared, index: u8, left: f64) {
        let Some(label) = self.labels.get_mut(usize::from(index)) else { return };
        label.collapsed = Some(self.seen);
        if shared.report.may_log() {
            tracing::warn!(
                metric = sample(&self.name),
                label = self.names.get(usize::from(index)).map(|name| sample(name)),
                series = self.used,
                limit = self.limits.max_series,
                series_without_this_label = left.round(),
                samples = ?label.samples,
                "series budget is used up: the label is collapsed"
            );
        }
    }

    /// Logs once for each label whose own limit is exceeded for the first time.
    fn note_full_labels(&mut self, shared: &Shared, found: &[Found], mask: u64) {
        for found in found.iter().filter(|found| mask & (1 << found.index) != 0) {
            let Some(label) = self.labels.get_mut(usize::from(found.index)) else { continue };
            if label.is_full || label.collapsed.is_some() || label.max_values == 0 {
                continue;
            }
            label.is_full = true;
            if shared.report.may_log() {
                tracing::warn!(
                    metric = sample(&self.name),
                    label = self.names.get(usize::from(found.index)).map(|name| sample(name)),
                    limit = label.max_values,
                    samples = ?label.samples,
                    "label has too many values: further ones are collapsed"
                );
            }
        }
    }

    fn overflow(&mut self, shared: &Shared, context: u64, fingerprint: u64) -> Decision {
        let output = context.wrapping_add(shared.overflow_hash);
        if !self.joins(shared, output) {
            // Outside the budget, but not outside the memory limit.
            if !shared.fits(2 * self.series.allocation_size() + 4096) {
                shared.starve();
                self.enter_overflow(shared, "the limiter's memory is used up: points of this metric are dropped");
                return Decision::Drop(DropReason::MemoryPressure);
            }
            let series =
                Series { carries: 0, output: EMPTY, epoch: self.seen, is_overflow: true, was_individual: false };
            self.series.insert(output, series);
        }
        self.enter_overflow(shared, "limits are used up: the surplus of this metric goes to its overflow series");
        let was_individual = self.retired.contains_key(&fingerprint);
        Decision::Collapse(Route { output, mask: 0, is_overflow: true, was_individual })
    }

    fn enter_overflow(&mut self, shared: &Shared, message: &'static str) {
        if !self.overflowing && shared.report.may_log() {
            tracing::warn!(
                metric = sample(&self.name),
                series = self.used,
                limit = self.limits.max_series,
                all_series = shared.series(),
                state_bytes = shared.bytes(),
                "{message}"
            );
        }
        self.overflowing = true;
    }
}

fn bits(found: &[Found]) -> u64 {
    found.iter().fold(0, |bits, found| bits | 1 << found.index)
}
