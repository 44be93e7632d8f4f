//! The state of one metric.

use std::sync::Arc;

use nyquist_core::wire::{AnyValue, KeyValue, MetricKind, Number, Temporality};

use super::config::GaugeMode;
use super::hash::{Table, put};
use super::label::{Label, Watched};
use super::output::{Group, Output};
use super::report::{Eviction, sample};
use super::retired::Retired;
use super::series::{LabelSets, Role, Series, Stamp};
use super::shared::{Limits, Shared};
use super::sketch::Distinct;
use super::tenant::Tenant;
use crate::accumulate::distribution::Distribution;
use crate::skew::Capped;

/// Labels beyond this many (of one metric) are not tracked: they cannot be collapsed, and what
/// they multiply ends in the overflow series.
pub(super) const MAX_LABELS: usize = 64;
/// What a newly tracked label may take: its tables when they are small, its key, its samples.
const LABEL_BYTES: usize = 2048;

/// The last value of a collapsed cumulative sum, or gauge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    /// 0 if unknown.
    pub(super) start: u64,
    pub(super) time: u64,
    /// An `i64` or `f64`.
    pub(super) bits: u64,
    pub(super) link: Link,
    pub(super) epoch: u16,
    pub(super) is_double: bool,
}

/// The last report of a collapsed cumulative histogram.
#[derive(Debug)]
pub(super) struct DistributionInput {
    /// 0 if unknown.
    pub(super) start: u64,
    pub(super) time: u64,
    pub(super) last: Distribution,
    pub(super) link: Link,
    pub(super) epoch: u16,
}

/// Which output an input counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    /// Tells an output from an earlier one in the same place.
    pub(super) generation: u8,
}

/// The names of a metric's labels, by index. Only ever appended to.
pub(super) type Names = Arc<Vec<Box<[u8]>>>;

/// The state of one metric.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: Box<[u8]>,
    /// Whose series these are.
    pub(super) tenant: Arc<Tenant>,
    pub(super) limits: Arc<Limits>,
    pub(super) names: Names,
    pub(super) labels: Vec<Label>,
    /// From the hash of a label's name to its index; protected labels have none.
    by_key: Table<Option<u8>>,
    /// Slots of some label are contested.
    pub(super) is_contested: bool,
    pub(super) series: Table<Series>,
    pub(super) label_sets: LabelSets,
    /// How many series count towards the budget.
    pub(super) used: usize,
    /// Series that lost their slot to a collapsed one, and have not been seen since.
    pub(super) retired: Table<Retired>,
    /// Until when collapsed series were reported that have ended, and when they did.
    pub(super) ended: Table<(Capped, u16)>,
    /// None of those that are not in that table was reported later than this.
    pub(super) ended_before: Capped,
    /// No collapsed stream that is known no longer was counted later than this: an older point of one comes late.
    pub(super) forgotten_until: Capped,
    /// All series sketched so far; `None` while sketching is off.
    pub(super) sketched: Option<Sketched>,
    pub(super) outputs: Vec<Output>,
    pub(super) free_outputs: Vec<u32>,
    /// The surroundings of outputs, by context.
    pub(super) groups: Table<Arc<Group>>,
    pub(super) inputs: Table<Input>,
    pub(super) distributions: Table<DistributionInput>,
    pub(super) overflowing: bool,
    /// What it is found by.
    pub(super) identity: u64,
    pub(super) seen: u16,
    /// Bytes of names, outputs and distributions.
    pub(super) heap: usize,
    /// What was last booked for it.
    booked: usize,
}

/// How many series there would be if no label were collapsed for the sake of the series budget.
#[derive(Debug, Default)]
pub(super) struct Sketched {
    pub(super) all: Distinct,
    /// Series that had a slot before it began.
    pub(super) before: usize,
    /// When it began.
    pub(super) since: u16,
}

/// A tracked label of a point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) index: u8,
    /// The hash of key and value.
    pub(super) hash: u64,
    /// The same once the label is collapsed; 0 if it is removed.
    pub(super) replacement: u64,
    /// Where in the point's attributes it is.
    pub(super) place: usize,
}

/// A point's attribute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attribute<'a> {
    /// The hash of key and value.
    pub(super) hash: u64,
    pub(super) key: &'a [u8],
    pub(super) value: AnyValue<'a>,
}

impl Metric {
    pub(super) fn new(shared: &Shared, identity: u64, name: &[u8], tenant: Arc<Tenant>, epoch: u16) -> Self {
        Self {
            name: name.into(),
            tenant,
            limits: shared.limits(name),
            names: Names::default(),
            labels: Vec::new(),
            by_key: Table::default(),
            is_contested: false,
            series: Table::default(),
            label_sets: LabelSets::default(),
            used: 0,
            retired: Table::default(),
            ended: Table::default(),
            ended_before: shared.ended_before.get(),
            forgotten_until: shared.forgotten_until.get(),
            sketched: None,
            outputs: Vec::new(),
            free_outputs: Vec::new(),
            groups: Table::default(),
            inputs: Table::default(),
            distributions: Table::default(),
            overflowing: false,
            identity,
            seen: epoch,
            heap: name.len(),
            booked: 0,
        }
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        let labels = self.labels.iter().map(Label::bytes).sum::<usize>() + self.labels.capacity() * size_of::<Label>();
        size_of::<Self>()
            + self.heap
            + labels
            + self.by_key.allocation_size()
            + self.series.allocation_size()
            + self.label_sets.bytes()
            + self.retired.allocation_size()
            + self.ended.allocation_size()
            + self.sketched.as_ref().map_or(0, |sketched| sketched.all.bytes())
            + self.outputs.capacity() * size_of::<Output>()
            + self.free_outputs.capacity() * size_of::<u32>()
            + self.groups.allocation_size()
            + self.inputs.allocation_size()
            + self.distributions.allocation_size()
    }

    /// Books what it takes now.
    pub(super) fn book(&mut self, shared: &Shared) {
        let bytes = self.bytes();
        shared.resized(self.booked, bytes);
        self.booked = bytes;
    }

    /// Books that it is gone.
    pub(super) fn unbook(&self, shared: &Shared) {
        shared.ended_before.raise(self.ended_before);
        shared.forgotten_until.raise(self.forgotten_until);
        shared.resized(self.booked, 0);
        shared.give_slots(&self.tenant, self.used);
    }

    /// Is there nothing in it that matters?
    pub(super) fn is_empty(&self) -> bool {
        self.series.is_empty()
            && self.retired.is_empty()
            && self.ended.is_empty()
            && self.inputs.is_empty()
            && self.distributions.is_empty()
            && self.outputs.iter().all(Output::is_free)
    }

    /// Looks the tracked labels of a point up, tracking new ones.
    pub(super) fn find_labels(&mut self, shared: &Shared, attributes: &[Attribute<'_>], found: &mut Vec<Found>) {
        found.clear();
        for (place, attribute) in attributes.iter().enumerate() {
            let index = self.tracked(shared, attribute.key);
            if let Some(index) = index {
                let usual = self.labels.get(usize::from(index)).map_or(0, |label| label.replacement);
                let replacement = shared.replacement_hash(attribute, usual);
                found.push(Found { index, hash: attribute.hash, replacement, place });
            }
        }
    }

    /// The index of the label `key`, which is tracked from now on unless it is protected, or there are too
    /// many, or there is no memory.
    pub(super) fn tracked(&mut self, shared: &Shared, key: &[u8]) -> Option<u8> {
        let key_hash = shared.hashes.bytes(key);
        if let Some(index) = self.by_key.get(&key_hash) {
            return *index;
        }
        if shared.protected.contains(key) {
            self.by_key.insert(key_hash, None);
            return None;
        }
        if self.labels.len() >= MAX_LABELS || !shared.fits(self.unbooked() + LABEL_BYTES) {
            return None;
        }
        let index = self.labels.len() as u8;
        self.track(shared, key);
        self.by_key.insert(key_hash, Some(index));
        Some(index)
    }

    fn track(&mut self, shared: &Shared, key: &[u8]) {
        let replacement = if shared.replacement.is_empty() {
            0
        } else {
            shared.hashes.attribute(&KeyValue { key, value: AnyValue::String(&shared.replacement) })
        };
        Arc::make_mut(&mut self.names).push(key.into());
        self.heap += key.len() + 16;
        // No series seen so far carries it.
        let without = self.sketched.as_ref().map_or_else(Distinct::default, |sketched| sketched.all.clone());
        let label = Label::new(self.limits.label(key), replacement, without, self.seen);
        self.is_contested |= label.is_contested();
        self.labels.push(label);
    }

    /// The labels of `found` whose value cannot stay, as bits.
    pub(super) fn over_limit(&self, found: &[Found]) -> u64 {
        found.iter().fold(0, |mask, found| match self.labels.get(usize::from(found.index)) {
            Some(label) if label.is_over(found.hash) => mask | 1 << found.index,
            _ => mask,
        })
    }

    /// Gives the overflow series `fingerprint` its slot, which is beside the budget.
    pub(super) fn admit_overflow(&mut self, fingerprint: u64) {
        let series = Series::collapsed(Role::Overflow, self.label_sets.index(0), self.seen);
        put(&mut self.series, fingerprint, series);
    }

    /// The labels of `found` that would take a slot, and have not been seen often enough for it, as bits.
    pub(super) fn unripe(&self, shared: &Shared, found: &[Found]) -> u64 {
        if shared.min_sightings <= 1 {
            return 0;
        }
        let takes_slot = |found: &&Found| {
            let label = self.labels.get(usize::from(found.index));
            label.is_some_and(|label| !label.is_over(found.hash) && !label.values.contains_key(&found.hash))
        };
        let strangers = found.iter().filter(takes_slot).filter(|found| found.hash != found.replacement);
        strangers
            .filter(|found| !shared.is_ripe(self.identity, found.hash))
            .fold(0, |mask, found| mask | 1 << found.index)
    }

    /// The fingerprint once the labels in `mask` are collapsed.
    pub(super) fn rewritten(&self, fingerprint: u64, found: &[Found], mask: u64) -> u64 {
        found
            .iter()
            .filter(|found| mask & (1 << found.index) != 0)
            .fold(fingerprint, |sum, found| sum.wrapping_sub(found.hash).wrapping_add(found.replacement))
    }

    /// Gives the values of the labels outside `mask` their slots, or notes that they were seen.
    pub(super) fn admit_values(&mut self, shared: &Shared, found: &[Found], attributes: &[Attribute<'_>], mask: u64) {
        for found in found.iter().filter(|found| mask & (1 << found.index) == 0) {
            let unbooked = self.unbooked();
            let Some(label) = self.labels.get_mut(usize::from(found.index)) else { continue };
            if let Some(slot) = label.values.get_mut(&found.hash) {
                slot.seen = self.seen;
                continue;
            }
            let grows = label.values.len() == label.values.capacity();
            // A value without a slot of its own passes all the same: its series has one.
            if grows && !shared.fits(unbooked + 2 * label.values.allocation_size() + 256) {
                shared.starve();
                continue;
            }
            label.admit(found.hash, self.seen);
            let wanted = shared.report.sample_values;
            if wanted > 0 && label.values.len() > 8 {
                let Some(Attribute { value: AnyValue::String(text), .. }) = attributes.get(found.place) else {
                    continue;
                };
                if label.samples.len() >= wanted {
                    label.samples.remove(0);
                }
                label.samples.push(sample(text));
            }
        }
    }

    /// Notes that the values of a point with a slot were seen. Once an epoch and series.
    #[cold]
    pub(super) fn refresh_values(&mut self, shared: &Shared, attributes: &[Attribute<'_>]) {
        for attribute in attributes {
            let key_hash = shared.hashes.bytes(attribute.key);
            let Some(Some(index)) = self.by_key.get(&key_hash) else { continue };
            let Some(label) = self.labels.get_mut(usize::from(*index)) else { continue };
            if let Some(slot) = label.values.get_mut(&attribute.hash) {
                slot.seen = self.seen;
            }
        }
    }

    /// Is there room for one more series in the metric's and the global budget, and in memory?
    pub(super) fn has_room(&self, shared: &Shared) -> bool {
        let grows = self.series.len() == self.series.capacity();
        let bytes = if grows { 2 * self.series.allocation_size() + 256 } else { 0 };
        !self.is_out_of_slots(shared) && shared.fits(bytes)
    }

    /// Is the metric's, the tenant's or the global budget used up?
    pub(super) fn is_out_of_slots(&self, shared: &Shared) -> bool {
        self.used >= self.limits.max_series || !shared.has_slot(&self.tenant)
    }

    /// Counts the values of labels whose slots are contested. True if one of the point's has no slot.
    pub(super) fn watch(&mut self, shared: &Shared, attributes: &[Attribute<'_>]) -> bool {
        let mut is_outside = false;
        for attribute in attributes {
            let Some(Some(index)) = self.by_key.get(&shared.hashes.bytes(attribute.key)).copied() else { continue };
            let Some(label) = self.labels.get_mut(usize::from(index)) else { continue };
            match label.watch(attribute.hash, self.seen, |bytes| shared.fits(2 * bytes + 256)) {
                Watched::Inside => {}
                Watched::Outside => is_outside = true,
                Watched::Promoted => shared.report.evicted(Eviction::Replaced, 1),
            }
        }
        is_outside
    }

    /// Gives `fingerprint` a slot of the budget: it passes as it is.
    pub(super) fn admit_individual(&mut self, shared: &Shared, fingerprint: u64, time: u64, carries: u64) {
        let series = Series::individual(Stamp::of(time), self.label_sets.index(carries), self.seen);
        self.admit(shared, fingerprint, series);
    }

    /// Gives `fingerprint` a slot of the budget: others are collapsed to it.
    pub(super) fn admit_collapsed(&mut self, shared: &Shared, fingerprint: u64, carries: u64) {
        let series = Series::collapsed(Role::Collapsed, self.label_sets.index(carries), self.seen);
        self.admit(shared, fingerprint, series);
    }

    fn admit(&mut self, shared: &Shared, fingerprint: u64, series: Series) {
        if put(&mut self.series, fingerprint, series).is_none() {
            self.used += 1;
            shared.take_slot(&self.tenant);
        }
    }

    /// Remembers until when a collapsed series was reported, so that one of the same name begins later.
    pub(super) fn has_ended(&mut self, shared: &Shared, fingerprint: u64, ended: (Capped, u16)) {
        let grows = self.ended.len() == self.ended.capacity();
        let bytes = if grows { 2 * self.ended.allocation_size() + 256 } else { 0 };
        if self.ended.len() < 2 * self.limits.max_series && shared.fits(self.unbooked() + bytes) {
            put(&mut self.ended, fingerprint, ended);
        } else {
            self.ended_before = self.ended_before.max(ended.0);
            shared.forget_ends([fingerprint].into_iter());
        }
    }
}

impl Input {
    pub(super) fn value(&self) -> Number {
        if self.is_double { Number::Double(f64::from_bits(self.bits)) } else { Number::Int(self.bits as i64) }
    }
}

/// Is the value of such a metric kept for each of its collapsed streams, because a removed one
/// must be subtracted?
pub(super) fn is_sum_of_last_values(kind: MetricKind, gauge: GaugeMode) -> bool {
    match kind {
        MetricKind::Gauge => matches!(gauge, GaugeMode::Sum | GaugeMode::Avg),
        MetricKind::Sum { temporality, monotonic } => !monotonic && temporality != Temporality::Delta,
        _ => false,
    }
}

/// Are the streams of such a metric added up by their increments, so that one that was counted with
/// others cannot go on with the value it has?
pub(super) fn is_counted_by_increments(kind: MetricKind) -> bool {
    match kind {
        MetricKind::Gauge => false,
        MetricKind::Sum { temporality, monotonic } => monotonic && temporality != Temporality::Delta,
        MetricKind::Summary => true,
        MetricKind::Histogram { temporality } | MetricKind::ExponentialHistogram { temporality } => {
            temporality != Temporality::Delta
        }
    }
}

impl Metric {
    /// Could the values that labels in `mask` replace have slots by now?
    pub(super) fn may_be_free(&self, shared: &Shared, mask: u64, attributes: &[Attribute<'_>]) -> bool {
        attributes.iter().all(|attribute| {
            let Some(Some(index)) = self.by_key.get(&shared.hashes.bytes(attribute.key)) else { return true };
            let label = self.labels.get(usize::from(*index));
            mask & (1 << index) == 0 || label.is_some_and(|label| !label.is_over(attribute.hash))
        })
    }

    /// Bytes that were added since the state was last booked.
    pub(super) fn unbooked(&self) -> usize {
        self.bytes().saturating_sub(self.booked)
    }
}
