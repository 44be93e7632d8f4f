//! Which points pass, and what becomes of the others.

use nyquist_core::batch::DropReason;

use super::config::OnExceed;
use super::metric::{Attribute, Found, Input, Metric, is_counted_by_increments};
use super::report::sample;
use super::scan::Context;
use super::series::Stamp;
use super::shared::Shared;
use super::times::{When, times_of};

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

/// A point that is decided on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) context: &'a Context<'a>,
    /// The hash of all that its series is.
    pub(super) fingerprint: u64,
    pub(super) attributes: &'a [Attribute<'a>],
    pub(super) point: &'a [u8],
    /// Of the point (Unix nanoseconds).
    pub(super) time: u64,
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
    /// Decides on a point. The usual case is one probe of one table.
    #[inline]
    pub(super) fn decide(&mut self, shared: &Shared, incoming: &Incoming<'_>, scratch: &mut Scratch) -> Decision {
        let Incoming { fingerprint, attributes, time, .. } = *incoming;
        let is_outside = self.is_contested && self.watch(shared, attributes);
        if let Some(series) = self.series.get_mut(&fingerprint)
            && (!is_outside || series.is_overflow())
        {
            let is_fresh = series.epoch == self.seen;
            series.epoch = self.seen;
            if !series.is_individual() {
                // A sender's own series is what others are collapsed to: it joins them.
                let route =
                    Route { output: fingerprint, mask: 0, is_overflow: series.is_overflow(), was_individual: false };
                return Decision::Collapse(route);
            }
            series.passes(Stamp::of(time));
            if !is_fresh {
                self.refresh_values(shared, attributes);
            }
            return Decision::Pass;
        }
        if is_outside {
            // One of its values has lost its slot since.
            if let Some(series) = self.series.remove(&fingerprint) {
                self.lose(shared, fingerprint, series, &mut scratch.dirty);
            }
        } else if let Some(route) = self.known_route(shared, fingerprint, attributes) {
            return Decision::Collapse(route);
        }
        self.decide_on_stranger(shared, incoming, scratch)
    }

    /// In a dry run: notes what would have become of a point, and lets it pass.
    pub(super) fn note(&mut self, shared: &Shared, decision: Decision) -> Decision {
        if decision == Decision::Pass {
            return decision;
        }
        shared.report.would_collapse.inc();
        if let Decision::Collapse(route) = decision {
            self.count(shared, route);
        }
        Decision::Pass
    }

    /// A collapsed stream stays where it is counted as long as it lives; where values can earn a slot, as
    /// long as those that were replaced have none.
    fn known_route(&mut self, shared: &Shared, fingerprint: u64, attributes: &[Attribute<'_>]) -> Option<Route> {
        let link = match self.inputs.get(&fingerprint) {
            Some(input) => input.link,
            None => self.distributions.get(&fingerprint)?.link,
        };
        let output = self.outputs.get(link.index as usize)?;
        if !output.is_active() || output.generation != link.generation {
            return None;
        }
        let (mask, is_overflow) = (output.mask, output.is_overflow);
        let may_earn_slots = self.is_contested || shared.min_sightings > 1;
        if may_earn_slots && mask != 0 && self.may_be_free(shared, mask, attributes) {
            return None;
        }
        let output = self.outputs.get_mut(link.index as usize)?;
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
    fn decide_on_stranger(&mut self, shared: &Shared, incoming: &Incoming<'_>, scratch: &mut Scratch) -> Decision {
        self.find_labels(shared, incoming.attributes, &mut scratch.found);
        let found = std::mem::take(&mut scratch.found);
        let decision = match shared.on_exceed {
            OnExceed::CollapseLabel | OnExceed::HashLabel => {
                self.decide_by_label(shared, incoming, &found, &mut scratch.dirty)
            }
            OnExceed::OverflowSeries | OnExceed::DropPoint | OnExceed::TagOnly => {
                self.decide_simply(shared, incoming, &found, &mut scratch.dirty)
            }
        };
        scratch.found = found;
        decision
    }

    /// The labels of a stranger whose values cannot stay, as bits; notes that it was seen.
    fn labels_without_slots(&mut self, shared: &Shared, fingerprint: u64, found: &[Found]) -> u64 {
        let over = self.over_limit(found);
        let mask = over | self.unripe(shared, found);
        self.note_full_labels(shared, found, over);
        self.sketch(shared, fingerprint, found, mask);
        mask
    }

    /// Without collapsing labels: within the limits or not.
    fn decide_simply(
        &mut self,
        shared: &Shared,
        incoming: &Incoming<'_>,
        found: &[Found],
        dirty: &mut Vec<u32>,
    ) -> Decision {
        let mask = self.labels_without_slots(shared, incoming.fingerprint, found);
        if mask == 0 && self.has_room(shared) {
            self.admit_values(shared, found, incoming.attributes, 0);
            return self.admit_own(shared, incoming, found, dirty);
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
            _ => self.overflow(shared, incoming),
        }
    }

    /// Replaces the values of as many labels as it takes to fit.
    fn decide_by_label(
        &mut self,
        shared: &Shared,
        incoming: &Incoming<'_>,
        found: &[Found],
        dirty: &mut Vec<u32>,
    ) -> Decision {
        let Incoming { fingerprint, attributes, .. } = *incoming;
        let mut mask = self.labels_without_slots(shared, fingerprint, found);
        let was_individual = self.ends_now(fingerprint, incoming.time);
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
                if mask == 0 {
                    return self.admit_own(shared, incoming, found, dirty);
                }
                self.admit_collapsed(shared, output, bits(found) & !mask);
                return Decision::Collapse(route);
            }
            // Collapsing gives slots back, not memory.
            if !self.is_out_of_slots(shared) || self.used == 0 {
                return self.overflow(shared, incoming);
            }
            if self.retire(shared, mask & self.collapsed_labels(), dirty) {
                continue;
            }
            let Some((index, left)) = self.guilty(found, mask) else {
                return self.overflow(shared, incoming);
            };
            self.collapse(shared, index, left);
            mask |= 1 << index;
        }
    }

    /// Gives the series of the point a slot of its own. If it may have been counted with others until
    /// now, it begins anew: with what comes from now on. The same if others were collapsed to it until now: what
    /// is left of that must be reported first.
    fn admit_own(
        &mut self,
        shared: &Shared,
        incoming: &Incoming<'_>,
        found: &[Found],
        dirty: &mut Vec<u32>,
    ) -> Decision {
        let Incoming { context, fingerprint, point, time, .. } = *incoming;
        let is_counted_elsewhere = if self.ended.contains_key(&fingerprint) {
            true
        } else if !shared.collapses() {
            false
        } else if is_counted_by_increments(context.kind) {
            let (start, time) = times_of(point);
            let when = When::new(context.skew_limit, start, time, 0);
            let start = when.credible_start();
            self.inputs.contains_key(&fingerprint)
                || self.distributions.contains_key(&fingerprint)
                || shared.may_predate_restart(start)
                || start < self.tenant.horizon
                || shared.may_have_been_collapsed(fingerprint, when)
        } else {
            // Its last value no longer counts for the others.
            let link = self.forget_input::<Input>(shared, fingerprint, dirty);
            if let Some(output) = link.and_then(|link| self.linked(link)) {
                output.has_news(context.skew_limit.cap(time));
            }
            false
        };
        if !is_counted_elsewhere {
            // Whoever reads it need not be told any more that it had ended.
            self.retired.remove(&fingerprint);
            self.admit_individual(shared, fingerprint, time, bits(found));
            return Decision::Pass;
        }
        self.admit_collapsed(shared, fingerprint, bits(found));
        Decision::Collapse(Route { output: fingerprint, mask: 0, is_overflow: false, was_individual: false })
    }

    /// Is `output` a series that collapsed points can join? A sender's own series of that
    /// identity becomes one.
    fn joins(&mut self, shared: &Shared, output: u64) -> bool {
        let Some(series) = self.series.get_mut(&output) else { return false };
        series.epoch = self.seen;
        let index = series.output();
        self.becomes_collapsed(shared, output);
        if let Some(output) = index.and_then(|index| self.outputs.get_mut(index as usize)) {
            output.epoch = self.seen;
        }
        true
    }

    /// The labels that are collapsed for the sake of the series budget, as bits.
    pub(super) fn collapsed_labels(&self) -> u64 {
        self.labels.iter().enumerate().fold(
            0,
            |mask, (index, label)| {
                if label.collapsed.is_some() { mask | 1 << index } else { mask }
            },
        )
    }

    fn collapse(&mut self, shared: &Shared, index: u8, left: f64) {
        let savings = self.savings();
        let Some(label) = self.labels.get_mut(usize::from(index)) else { return };
        label.collapsed = Some(self.seen);
        if shared.report.may_log() {
            tracing::warn!(
                metric = sample(&self.name),
                label = self.names.get(usize::from(index)).map(|name| sample(name)),
                series = self.used,
                limit = self.limits.max_series,
                series_without_this_label = left.round(),
                without = ?savings,
                samples = ?label.samples,
                dry_run = shared.dry_run,
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

    fn overflow(&mut self, shared: &Shared, incoming: &Incoming<'_>) -> Decision {
        let output = incoming.context.hash.wrapping_add(shared.overflow_hash);
        if !self.joins(shared, output) {
            // Outside the budget, but not outside the memory limit.
            if !shared.fits(2 * self.series.allocation_size() + 4096) {
                shared.starve();
                self.enter_overflow(shared, "the limiter's memory is used up: points of this metric are dropped");
                return Decision::Drop(DropReason::MemoryPressure);
            }
            self.admit_overflow(output);
        }
        self.enter_overflow(shared, "limits are used up: the surplus of this metric goes to its overflow series");
        let was_individual = self.ends_now(incoming.fingerprint, incoming.time);
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
                dry_run = shared.dry_run,
                "{message}"
            );
        }
        self.overflowing = true;
    }
}

fn bits(found: &[Found]) -> u64 {
    found.iter().fold(0, |bits, found| bits | 1 << found.index)
}
