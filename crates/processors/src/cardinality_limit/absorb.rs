//! Adding collapsed points up.
//!
//! Cumulative streams are added by their increments, which takes the last value of every input
//! stream. A stream that may have been counted before the limiter knew it only sets a baseline at
//! first sight: a collapsed series may fall short once, but never counts anything twice and never
//! falls.

use std::sync::Arc;

use nyquist_core::batch::DropReason;
use nyquist_core::wire::{MetricKind, Number, NumberDataPointView, Temporality};

use super::admission::Route;
use super::config::GaugeMode;
use super::hash::put;
use super::metric::{DistributionInput, Input, Link, Metric, Names, is_counted_by_increments, is_sum_of_last_values};
use super::output::{Accumulator, Output, collapsed_attributes};
use super::scan::Context;
use super::series::{Role, Series};
use super::shard::QUEUED_BYTES;
use super::shared::Shared;
use super::sweep::{Baseline, Remembered};
use super::times::{When, times_of};
use crate::accumulate::total::{Total, as_double, growth, is_finite, not_negative};
use crate::skew::Capped;

/// What became of a collapsed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absorbed {
    /// It waits in an output for the next flush.
    Held,
    /// It was late, or said nothing: there is nothing to wait for.
    Merged,
    /// It could not be added.
    Dropped(DropReason),
}

/// A number that has come for a collapsed series.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    /// The input's.
    fingerprint: u64,
    /// Of its output.
    index: u32,
    when: When,
    number: Number,
}

impl Metric {
    /// Adds the point with `fingerprint` to the collapsed series to which `route` leads.
    #[expect(clippy::too_many_arguments, reason = "one caller; a struct of these would only be taken apart again")]
    pub(super) fn absorb(
        &mut self,
        shared: &Shared,
        context: &Context<'_>,
        fingerprint: u64,
        route: Route,
        names: &Names,
        point: &[u8],
        dirty: &mut Vec<u32>,
    ) -> Absorbed {
        if self.is_reported_alone(shared, context.kind, fingerprint, point) {
            return Absorbed::Merged;
        }
        let Some(index) = self.output(shared, context, route, names, point) else {
            return Absorbed::Dropped(DropReason::MemoryPressure);
        };
        self.count(shared, route);
        self.retired.remove(&fingerprint);
        if let Some(output) = self.outputs.get_mut(index as usize) {
            output.epoch = self.seen;
        }
        let absorbed = match context.kind {
            MetricKind::Gauge if shared.gauge == GaugeMode::Drop => Absorbed::Dropped(DropReason::OverLimit),
            MetricKind::Gauge | MetricKind::Sum { .. } => {
                let view = NumberDataPointView::new(point);
                let fields = view.fields();
                let when = When::new(context.skew_limit, fields.start_time, fields.time, fields.flags);
                match fields.value {
                    Some(number) if !when.is_end => {
                        self.absorb_number(shared, context.kind, Arrival { fingerprint, index, when, number }, dirty)
                    }
                    _ => self.absorb_end(shared, fingerprint, dirty),
                }
            }
            _ => self.absorb_distribution(shared, context, fingerprint, index, point, dirty),
        };
        self.keep_exemplars(shared, (context.kind, point), (index, route), names, absorbed);
        absorbed
    }

    /// Is what the point says in what its series says on its own? It may have got a slot between the decision and
    /// now; or it had one, and the point is an older one that comes late.
    fn is_reported_alone(&self, shared: &Shared, kind: MetricKind, fingerprint: u64, point: &[u8]) -> bool {
        (is_counted_by_increments(kind) || is_sum_of_last_values(kind, shared.gauge))
            && (self.series.get(&fingerprint).is_some_and(Series::is_individual)
                || self.has_reported(fingerprint, times_of(point).1))
    }

    /// The index of the output of `route`, which is made if it is not there. `None` if there is no
    /// memory for it.
    fn output(
        &mut self,
        shared: &Shared,
        context: &Context<'_>,
        route: Route,
        names: &Names,
        point: &[u8],
    ) -> Option<u32> {
        let slot = self.series.get(&route.output).copied();
        // It may have lost its slot between the decision and now.
        if slot.is_none() && !route.is_overflow && !self.has_room(shared) {
            let output = context.hash.wrapping_add(shared.overflow_hash);
            let route = Route { output, mask: 0, is_overflow: true, was_individual: false };
            return self.output(shared, context, route, names, point);
        }
        if let Some(index) = slot.and_then(|series| series.output()) {
            return Some(index);
        }
        let attributes =
            collapsed_attributes(shared, context.kind, point, names, route.mask, route.is_overflow).into_boxed_slice();
        let known_group = self.groups.get(&context.hash).map(Arc::clone);
        let is_new_group = known_group.is_none();
        let group = known_group.unwrap_or_else(|| Arc::new(context.group()));
        let group_bytes = if is_new_group { group.bytes() } else { 0 };
        let grows = if self.outputs.len() == self.outputs.capacity() { 2 * self.outputs.len() + 4 } else { 1 };
        if !shared.fits(attributes.len() + group_bytes + grows * size_of::<Output>() + QUEUED_BYTES) {
            return None;
        }
        if is_new_group {
            self.heap += group_bytes;
            self.groups.insert(context.hash, Arc::clone(&group));
        }
        let (mask, is_overflow) = (route.mask, route.is_overflow);
        let mut output = Output::new(route.output, group, attributes, mask, is_overflow, self.seen, shared.gauge);
        let time = context.skew_limit.cap(times_of(point).1);
        let became_collapsed = self.becomes_collapsed(shared, route.output);
        if became_collapsed || slot.is_some_and(|series| series.role == Role::WasIndividual) {
            output.comes_after(time);
        }
        self.comes_after_earlier_ones(shared, &mut output, time);
        // If a sender's series of this name has ended, this one goes on.
        if let Some(retired) = self.retired.get_mut(&route.output) {
            retired.ends = false;
        }
        let index = self.place(output);
        match slot {
            Some(_) => {}
            None if route.is_overflow => self.admit_overflow(route.output),
            None => self.admit_collapsed(shared, route.output, 0),
        }
        if let Some(series) = self.series.get_mut(&route.output) {
            series.has_output(index);
        }
        self.book(shared);
        Some(index)
    }

    /// What was reported under the name of `output` before, by a sender or by an output, is not to be mixed up with
    /// what it reports from `time` on.
    pub(super) fn comes_after_earlier_ones(&self, shared: &Shared, output: &mut Output, time: Capped) {
        output.comes_after(shared.counted_until);
        if let Some((ended, _)) = self.ended.get(&output.fingerprint) {
            return output.comes_after(*ended);
        }
        output.comes_after(self.ended_before);
        if shared.forgotten.lock().holds(output.fingerprint) {
            output.comes_after(time);
        }
    }

    pub(super) fn place(&mut self, mut output: Output) -> u32 {
        self.heap += output.heap();
        if let Some(index) = self.free_outputs.pop()
            && let Some(free) = self.outputs.get_mut(index as usize)
        {
            output.generation = free.generation + 1;
            *free = output;
            return index;
        }
        self.outputs.push(output);
        self.outputs.len() as u32 - 1
    }

    pub(super) fn count(&mut self, shared: &Shared, route: Route) {
        if route.is_overflow {
            return shared.report.overflow.inc();
        }
        let mut mask = route.mask;
        while mask != 0 {
            let index = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            let Some(label) = self.labels.get_mut(index) else { continue };
            if label.counter.is_none() {
                let name = self.names.get(index).map(|name| &**name).unwrap_or_default();
                label.counter = Some(shared.report.collapsed(&self.name, name, shared.action()));
            }
            if let Some(counter) = &label.counter {
                counter.inc();
            }
        }
    }

    /// A flag that the input has ended.
    pub(super) fn absorb_end(&mut self, shared: &Shared, fingerprint: u64, dirty: &mut Vec<u32>) -> Absorbed {
        let number = self.forget_input::<Input>(shared, fingerprint, dirty);
        let Some(link) = number.or_else(|| self.forget_input::<DistributionInput>(shared, fingerprint, dirty)) else {
            return Absorbed::Merged;
        };
        let is_alone = self.linked(link).is_some_and(|output| output.live == 0 && output.is_active());
        if is_alone {
            self.end_output(shared, link.index, dirty);
        }
        Absorbed::Merged
    }

    /// Forgets the last report of the input, and tells for which output it counted.
    pub(super) fn forget_input<I: Remembered>(
        &mut self,
        shared: &Shared,
        fingerprint: u64,
        dirty: &mut Vec<u32>,
    ) -> Option<Link> {
        let input = I::table(self).remove(&fingerprint)?;
        self.heap -= input.heap();
        let Baseline { start, time, link, .. } = input.baseline();
        shared.forget_life(fingerprint, start);
        self.forgot(shared, time);
        self.unlink(shared, link, input.number(), dirty);
        Some(link)
    }

    /// No contributor is left: the output gives its slot back, reports what it has and ends.
    pub(super) fn end_output(&mut self, shared: &Shared, index: u32, dirty: &mut Vec<u32>) {
        let Some(output) = self.outputs.get(index as usize) else { return };
        if let Some(series) = self.series.get(&output.fingerprint).copied()
            && series.output() == Some(index)
        {
            self.series.remove(&output.fingerprint);
            if !series.is_overflow() {
                self.used -= 1;
                shared.give_slots(&self.tenant, 1);
            }
        }
        self.close_output(shared, index, dirty);
    }

    /// The output has lost its slot.
    pub(super) fn close_output(&mut self, shared: &Shared, index: u32, dirty: &mut Vec<u32>) {
        if let Some(output) = self.outputs.get_mut(index as usize)
            && output.is_active()
        {
            output.close();
            mark(output, index, dirty);
            let (fingerprint, ended) = (output.fingerprint, (output.ends_by(), self.seen));
            self.has_ended(shared, fingerprint, ended);
        }
    }

    /// The output of `link`, if it is still the same.
    pub(super) fn linked(&mut self, link: Link) -> Option<&mut Output> {
        self.outputs.get_mut(link.index as usize).filter(|output| output.generation == link.generation)
    }

    pub(super) fn link(&self, index: u32) -> Link {
        Link { index, generation: self.outputs.get(index as usize).map_or(0, |output| output.generation) }
    }

    /// The input with the value `last` no longer counts for its output.
    pub(super) fn unlink(&mut self, shared: &Shared, link: Link, last: Option<Number>, dirty: &mut Vec<u32>) {
        let gauge = shared.gauge;
        let Some(output) = self.linked(link) else { return };
        output.live = output.live.saturating_sub(1);
        let is_sum_of_last = is_sum_of_last_values(output.group.kind, gauge);
        let is_active = output.is_active();
        if let Accumulator::Distribution(Some(own)) = &mut output.accumulator {
            own.forget_extremes();
        }
        if let (Accumulator::Total(total), Some(last), true) = (&mut output.accumulator, last, is_sum_of_last) {
            if output.live > 0 {
                total.subtract(last);
                mark(output, link.index, dirty);
            } else if is_active {
                // Nobody's value is the sum of nothing, not of what rounding has left.
                *total = Total::default();
                self.end_output(shared, link.index, dirty);
            }
        }
    }

    fn absorb_number(&mut self, shared: &Shared, kind: MetricKind, arrival: Arrival, dirty: &mut Vec<u32>) -> Absorbed {
        let Arrival { index, when, number, .. } = arrival;
        if is_sum_of_last_values(kind, shared.gauge) {
            return self.absorb_last_value(shared, arrival, dirty);
        }
        match kind {
            // Nothing can be added to a sum, nor the next value compared with it: the last one stays the baseline.
            MetricKind::Sum { .. } if !is_finite(number) => Absorbed::Merged,
            MetricKind::Gauge => {
                let Some(output) = self.outputs.get_mut(index as usize) else { return Absorbed::Merged };
                if !merge_gauge(&mut output.accumulator, shared.gauge, when.capped(), number) {
                    return Absorbed::Merged;
                }
                hold(output, index, when.capped(), dirty)
            }
            MetricKind::Sum { temporality: Temporality::Delta, .. } => {
                let Some(output) = self.outputs.get_mut(index as usize) else { return Absorbed::Merged };
                if let Accumulator::Total(total) = &mut output.accumulator {
                    total.add(number);
                }
                output.starts(when.since());
                hold(output, index, when.capped(), dirty)
            }
            _ => self.absorb_increment(shared, arrival, dirty),
        }
    }

    /// A cumulative monotonic sum.
    fn absorb_increment(&mut self, shared: &Shared, arrival: Arrival, dirty: &mut Vec<u32>) -> Absorbed {
        let Arrival { fingerprint, index, when, number } = arrival;
        let previous = self.inputs.get(&fingerprint).copied();
        let mut counts_from = previous.map_or(when.time, |last| last.time);
        let increment = match previous {
            Some(last) if when.is_late(last.start, last.time) => return Absorbed::Merged,
            Some(last) if when.has_restarted(last.start) => Some(number),
            Some(last) => match growth(number, last.value()) {
                // The same time twice, with different values: one of them is not true.
                None if when.time == last.time => return Absorbed::Merged,
                grown => Some(grown.unwrap_or(number)),
            },
            None if self.is_new(shared, fingerprint, when) => {
                counts_from = when.start;
                Some(number)
            }
            None if self.may_be_late(shared, when.time) => return skip(shared, fingerprint, when.start),
            None => None,
        };
        let is_stored = self.store(shared, arrival, previous, dirty);
        if !is_stored {
            shared.forget_life(fingerprint, when.start);
        }
        let increment = increment.filter(|_| is_stored);
        if increment.is_none() {
            shared.report.rebaselined.inc();
        }
        let Some(output) = self.outputs.get_mut(index as usize) else { return Absorbed::Merged };
        if let (Accumulator::Total(total), Some(increment)) = (&mut output.accumulator, increment) {
            total.add(not_negative(increment));
        }
        output.starts(when.limit.cap(counts_from));
        hold(output, index, when.capped(), dirty)
    }

    /// A value that counts until the next one of the same stream: a cumulative sum that can fall,
    /// or a gauge that is summed.
    fn absorb_last_value(&mut self, shared: &Shared, arrival: Arrival, dirty: &mut Vec<u32>) -> Absorbed {
        let Arrival { fingerprint, index, when, number } = arrival;
        let previous = self.inputs.get(&fingerprint).copied();
        if previous.is_some_and(|last| when.is_late(last.start, last.time)) {
            return Absorbed::Merged;
        }
        let here = self.link(index);
        if !self.store(shared, arrival, previous, dirty) {
            shared.report.rebaselined.inc();
            return Absorbed::Merged;
        }
        let Some(output) = self.outputs.get_mut(index as usize) else { return Absorbed::Merged };
        if let Accumulator::Total(total) = &mut output.accumulator {
            if let Some(last) = previous.filter(|last| last.link == here) {
                total.subtract(last.value());
            }
            total.add(number);
        }
        output.starts(when.since());
        hold(output, index, when.capped(), dirty)
    }

    /// Keeps `number` as the last value of the input, and links the input to output `index`.
    /// False if there is no memory for it.
    fn store(&mut self, shared: &Shared, arrival: Arrival, previous: Option<Input>, dirty: &mut Vec<u32>) -> bool {
        let Arrival { fingerprint, index, when, number } = arrival;
        if previous.is_none() && !self.make_room::<Input>(shared, 0, dirty) {
            return false;
        }
        let link = self.link(index);
        let (bits, is_double) = match number {
            Number::Int(number) => (number as u64, false),
            Number::Double(number) => (number.to_bits(), true),
        };
        // A point without a start does not make the stream's start unknown again.
        let start = if when.start == 0 { previous.map_or(0, |last| last.start) } else { when.start };
        let input = Input { start, time: when.time, bits, link, epoch: self.seen, is_double };
        put(&mut self.inputs, fingerprint, input);
        match previous {
            Some(last) if last.link == link => return true,
            Some(last) => self.unlink(shared, last.link, Some(last.value()), dirty),
            None => {}
        }
        if let Some(output) = self.outputs.get_mut(index as usize) {
            output.live += 1;
        }
        true
    }

    /// May a point of `time`, of a stream that is not known, be older than one that was counted?
    pub(super) fn may_be_late(&self, shared: &Shared, time: u64) -> bool {
        time <= self.forgotten_until.nanos() || shared.may_be_late(time)
    }

    /// May the stream be counted in full at first sight?
    pub(super) fn is_new(&self, shared: &Shared, fingerprint: u64, when: When) -> bool {
        let start = when.credible_start();
        if start == 0 {
            return false;
        }
        let forgotten = shared.forgotten.lock();
        start >= self.tenant.horizon
            && !forgotten.may_know(fingerprint, start)
            && !forgotten.may_know(shared.life(fingerprint, start), start)
    }
}

/// A point that may be older than one that was counted is not even a baseline. Its stream counts as one that was counted with
/// others: on its own it begins anew, as if the point had never been there.
pub(super) fn skip(shared: &Shared, fingerprint: u64, start: u64) -> Absorbed {
    shared.report.rebaselined.inc();
    shared.forget_life(fingerprint, start);
    Absorbed::Merged
}

/// Puts the output on the list of what is to be emitted.
pub(super) fn mark(output: &mut Output, index: u32, dirty: &mut Vec<u32>) {
    if !output.is_dirty {
        output.is_dirty = true;
        dirty.push(index);
    }
}

/// A point of `time` has been added to the output: it is held until the next report.
pub(super) fn hold(output: &mut Output, index: u32, time: Capped, dirty: &mut Vec<u32>) -> Absorbed {
    output.has_news(time);
    output.pending += 1;
    mark(output, index, dirty);
    Absorbed::Held
}

/// False if the value makes no difference.
fn merge_gauge(accumulator: &mut Accumulator, mode: GaugeMode, time: Capped, number: Number) -> bool {
    let Accumulator::Gauge(value) = accumulator else { return false };
    let Some((newest, own)) = *value else {
        *value = Some((time, number));
        return true;
    };
    let is_larger = as_double(number) > as_double(own);
    let wins = match mode {
        GaugeMode::Max => is_larger,
        GaugeMode::Min => as_double(number) < as_double(own),
        _ => time > newest || (time == newest && is_larger),
    };
    if wins {
        *value = Some((time, number));
    }
    // A newer time is news even if the value is not.
    wins || time > newest
}
