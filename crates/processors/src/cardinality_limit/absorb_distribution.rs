//! Adding collapsed histograms and summaries up: as sums, on every bucket.

use std::sync::Arc;

use nyquist_core::wire::{
    AnyValue, ExponentialHistogramDataPointView, HistogramDataPointView, KeyValue, MetricKind, SummaryDataPointView,
    put_len_field,
};

use super::absorb::{Absorbed, hold, skip};
use super::hash::put;
use super::metric::{DistributionInput, Link, Metric};
use super::output::{Accumulator, Output};
use super::scan::Context;
use super::series::Series;
use super::shared::Shared;
use super::times::When;
use crate::accumulate::distribution::{Distribution, Explicit, Growth};
use crate::accumulate::exponential::Exponential;
use crate::accumulate::write::{attributes_field, is_delta};
use crate::attributes::put_nested;
use crate::skew::Capped;

/// Sets of bounds that do not fit together, of one collapsed series, which get outputs of their
/// own. Beyond that only the bounds that they have in common are kept.
const MAX_ALTERNATES: usize = 3;
/// Tells such outputs apart: a text of their bounds.
const BOUNDS: &[u8] = b"otel.metric.bounds";
/// Such a text is cut to this many bytes.
const MAX_BOUNDS_TEXT: usize = 64;

/// What a report of a cumulative stream adds.
enum Part {
    /// Everything in it.
    All,
    /// What has come since the report that was counted for this output.
    Since(Link, Distribution),
    /// It is the baseline for the next one.
    Nothing,
}

impl Metric {
    /// Adds a histogram of any kind, or a summary.
    pub(super) fn absorb_distribution(
        &mut self,
        shared: &Shared,
        context: &Context<'_>,
        fingerprint: u64,
        index: u32,
        point: &[u8],
        dirty: &mut Vec<u32>,
    ) -> Absorbed {
        let (when, mut now) = read(shared, context, point);
        if when.is_end {
            return self.absorb_end(shared, fingerprint, dirty);
        }
        if is_delta(context.kind) {
            let index = self.add_distribution(shared, index, now, when.capped());
            return self.hold_distribution(index, when.since(), when.capped(), dirty);
        }
        let is_known = self.distributions.contains_key(&fingerprint);
        let is_stored = is_known || self.make_room::<DistributionInput>(shared, now.bytes(), dirty);
        let previous = self.distributions.get(&fingerprint);
        let mut counts_from = previous.map_or(when.time, |last| last.time);
        let (part, counted) = match previous {
            Some(last) if when.is_late(last.start, last.time) => return Absorbed::Merged,
            Some(last) if when.has_restarted(last.start) => (Part::All, Some(0.0)),
            Some(last) => match now.since(&last.last) {
                Growth::By(grown) => (Part::Since(last.link, grown), last.last.sum()),
                Growth::Reset if when.time == last.time => return Absorbed::Merged,
                Growth::Reset => (Part::All, Some(0.0)),
                Growth::Unclear => (Part::Nothing, None),
            },
            None if is_stored && self.is_new(shared, fingerprint, when) => {
                counts_from = when.start;
                (Part::All, Some(0.0))
            }
            None if self.may_be_late(shared, when.time) => return skip(shared, fingerprint, when.start),
            None => (Part::Nothing, None),
        };
        let (increment, continues) = match part {
            Part::All => (now.clone(), None),
            Part::Since(link, mut grown) => {
                grown.take_extremes(&now);
                (grown, Some(link))
            }
            Part::Nothing => {
                shared.report.rebaselined.inc();
                (now.zeroed(), None)
            }
        };
        let index = self.add_distribution(shared, index, increment, when.capped());
        if continues.is_some_and(|link| link != self.link(index)) {
            // They are of values, too, that were counted elsewhere.
            self.forget_extremes(index);
        }
        if is_stored {
            now.become_baseline(counted);
            self.store_distribution(shared, fingerprint, index, when, now, dirty);
        } else {
            shared.forget_life(fingerprint, when.start);
        }
        self.hold_distribution(index, when.limit.cap(counts_from), when.capped(), dirty)
    }

    /// Keeps `last` as the last report of the input, and links the input to output `index`.
    fn store_distribution(
        &mut self,
        shared: &Shared,
        fingerprint: u64,
        index: u32,
        when: When,
        last: Distribution,
        dirty: &mut Vec<u32>,
    ) {
        let link = self.link(index);
        self.heap += last.bytes();
        let previous_start = self.distributions.get(&fingerprint).map_or(0, |input| input.start);
        let start = if when.start == 0 { previous_start } else { when.start };
        let input = DistributionInput { start, time: when.time, last, link, epoch: self.seen };
        if let Some(previous) = put(&mut self.distributions, fingerprint, input) {
            self.heap -= previous.last.bytes();
            if previous.link == link {
                return;
            }
            self.unlink(shared, previous.link, None, dirty);
        }
        if let Some(output) = self.outputs.get_mut(index as usize) {
            output.live += 1;
        }
    }

    fn forget_extremes(&mut self, index: u32) {
        if let Some(Output { accumulator: Accumulator::Distribution(Some(own)), .. }) =
            self.outputs.get_mut(index as usize)
        {
            own.forget_extremes();
        }
    }

    /// Adds to output `index` what came at `time`, or to another one where its bounds do not fit. Returns which.
    fn add_distribution(&mut self, shared: &Shared, index: u32, mut more: Distribution, time: Capped) -> u32 {
        let mut candidates = vec![index];
        if let Some(output) = self.outputs.get(index as usize) {
            let alternate = |fingerprint: &u64| self.series.get(fingerprint).and_then(Series::output);
            candidates.extend(output.alternates.iter().filter_map(alternate));
        }
        for candidate in candidates {
            match self.merge_distribution(candidate, more) {
                Ok(()) => return candidate,
                Err(refused) => more = refused,
            }
        }
        shared.report.bounds_conflict.inc();
        if let Some(alternate) = self.make_alternate(shared, index, &more, time) {
            // Nothing is in it yet, so everything fits.
            let _ = self.merge_distribution(alternate, more);
            return alternate;
        }
        if let Some(output) = self.outputs.get_mut(index as usize)
            && let Accumulator::Distribution(Some(own)) = &mut output.accumulator
        {
            let before = own.bytes();
            own.add_coarsely(more);
            self.heap = self.heap + own.bytes() - before;
        }
        index
    }

    /// Adds `more` to output `index`, or hands it back if its bounds do not fit.
    fn merge_distribution(&mut self, index: u32, mut more: Distribution) -> Result<(), Distribution> {
        let Some(output) = self.outputs.get_mut(index as usize) else { return Err(more) };
        let Accumulator::Distribution(slot) = &mut output.accumulator else { return Err(more) };
        let before = slot.as_ref().map_or(0, Distribution::bytes);
        match slot {
            Some(own) => own.add(more)?,
            None => {
                more.begin_total();
                *slot = Some(more);
            }
        }
        self.heap = self.heap + slot.as_ref().map_or(0, Distribution::bytes) - before;
        Ok(())
    }

    /// An output beside output `index` for the bounds of `more`, if there is room for one.
    fn make_alternate(&mut self, shared: &Shared, index: u32, more: &Distribution, time: Capped) -> Option<u32> {
        let Distribution::Explicit(Explicit { bounds, .. }) = more else { return None };
        let has_room = self.has_room(shared);
        let output = self.outputs.get_mut(index as usize)?;
        // Those that have ended make room for others.
        output.alternates.retain(|fingerprint| self.series.contains_key(fingerprint));
        if output.alternates.len() >= MAX_ALTERNATES || !output.is_active() {
            return None;
        }
        let text = bounds_text(bounds);
        let attribute = KeyValue { key: BOUNDS, value: AnyValue::String(text.as_bytes()) };
        let fingerprint = output.fingerprint.wrapping_add(shared.hashes.attribute(&attribute));
        let slot = self.series.get(&fingerprint).copied();
        // One that had a slot before a restart has it still; a sender's own series of that name keeps its.
        let is_free = slot.map_or(has_room, |series| !series.is_individual() && series.output().is_none());
        if !is_free || !shared.fits(4096) {
            return None;
        }
        output.alternates.push(fingerprint);
        let mut attributes = output.attributes.to_vec();
        put_nested(&mut attributes, attributes_field(output.group.kind), |out| {
            put_len_field(out, 1, BOUNDS);
            put_nested(out, 2, |out| put_len_field(out, 1, text.as_bytes()));
        });
        let (group, mask) = (Arc::clone(&output.group), output.mask);
        let original = output.fingerprint;
        let is_overflow = output.is_overflow;
        let attributes = attributes.into_boxed_slice();
        let mut alternate = Output::new(fingerprint, group, attributes, mask, is_overflow, self.seen, shared.gauge);
        self.comes_after_earlier_ones(shared, &mut alternate, time);
        let place = self.place(alternate);
        if slot.is_none() {
            let carries = self.series.get(&original).map_or(0, |series| self.label_sets.labels(series.carries));
            self.admit_collapsed(shared, fingerprint, carries);
        }
        if let Some(series) = self.series.get_mut(&fingerprint) {
            series.has_output(place);
        }
        Some(place)
    }

    fn hold_distribution(&mut self, index: u32, starts: Capped, time: Capped, dirty: &mut Vec<u32>) -> Absorbed {
        let Some(output) = self.outputs.get_mut(index as usize) else { return Absorbed::Merged };
        output.epoch = self.seen;
        if let Some(series) = self.series.get_mut(&output.fingerprint) {
            series.epoch = self.seen;
        }
        output.starts(starts);
        hold(output, index, time, dirty)
    }
}

fn read(shared: &Shared, context: &Context<'_>, point: &[u8]) -> (When, Distribution) {
    let when = |start, time, flags| When::new(context.skew_limit, start, time, flags);
    match context.kind {
        MetricKind::ExponentialHistogram { .. } => {
            let view = ExponentialHistogramDataPointView::new(point);
            let fields = view.fields();
            (when(fields.start_time, fields.time, fields.flags), Distribution::Exponential(Exponential::new(view)))
        }
        MetricKind::Summary => {
            let view = SummaryDataPointView::new(point);
            let fields = view.fields();
            if view.quantile_values().next().is_some() {
                shared.report.dropped_quantiles.inc();
            }
            (when(fields.start_time, fields.time, fields.flags), Distribution::Explicit(Explicit::from_summary(view)))
        }
        _ => {
            let view = HistogramDataPointView::new(point);
            let fields = view.fields();
            (when(fields.start_time, fields.time, fields.flags), Distribution::Explicit(Explicit::new(view)))
        }
    }
}

/// `bounds` for people, as far as they fit.
fn bounds_text(bounds: &[f64]) -> String {
    let mut text = String::new();
    for bound in bounds {
        let one = bound.to_string();
        if text.len() + one.len() + 1 > MAX_BOUNDS_TEXT {
            text.push_str(",...");
            break;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&one);
    }
    text
}
