//! The state of one metric.

use std::sync::Arc;

use nyquist_core::telemetry::Counter;
use nyquist_core::wire::{AnyValue, KeyValue, MetricKind, Number, Temporality};

use super::config::GaugeMode;
use super::hash::Table;
use super::output::{Group, Output};
use super::report::{Eviction, sample};
use super::shared::{Limits, Shared};
use super::sketch::Distinct;
use crate::accumulate::distribution::Distribution;

/// Labels beyond this many (of one metric) are not tracked: they cannot be collapsed, and what
/// they multiply ends in the overflow series.
pub(super) const MAX_LABELS: usize = 64;
/// Below this budget series are sketched from the first one on, above it from half the budget.
const SMALL_BUDGET: usize = 256;
/// What a newly tracked label may take: its tables when they are small, its key, its samples.
const LABEL_BYTES: usize = 2048;
/// What the sketch of one label may take.
const SKETCH_BYTES: usize = 1100;

/// In [`Series::output`]: the series passes as it is.
pub(super) const INDIVIDUAL: u32 = u32::MAX;
/// In [`Series::output`]: a collapsed series that has its slot, but nothing in it yet.
pub(super) const EMPTY: u32 = u32::MAX - 1;

/// A series that has a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Series {
    /// The labels of which it carries a value of its own, as bits.
    pub(super) carries: u64,
    /// The index of its output, [`INDIVIDUAL`] or [`EMPTY`].
    pub(super) output: u32,
    /// When it was last seen.
    pub(super) epoch: u16,
    /// Overflow series have slots beside the budget.
    pub(super) is_overflow: bool,
    /// A sender reported it on its own before others were collapsed to it.
    pub(super) was_individual: bool,
}

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

/// A label of the metric.
#[derive(Debug)]
pub(super) struct Label {
    pub(super) max_values: usize,
    /// The values that have a slot, and when they were last seen.
    pub(super) values: Table<u16>,
    /// Collapsed for the sake of the series budget, and since when.
    pub(super) collapsed: Option<u16>,
    /// Its own limit has been exceeded.
    pub(super) is_full: bool,
    /// The hash of the label with the replacement; 0 if it is removed.
    pub(super) replacement: u64,
    /// How many series there would be without this label.
    pub(super) without: Distinct,
    /// The counter of its collapsed points, once there are any.
    pub(super) counter: Option<Counter>,
    /// Some of its values, for the log.
    pub(super) samples: Vec<String>,
}

/// The names of a metric's labels, by index. Only ever appended to.
pub(super) type Names = Arc<Vec<Box<[u8]>>>;

/// The state of one metric.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: Box<[u8]>,
    pub(super) limits: Limits,
    pub(super) names: Names,
    pub(super) labels: Vec<Label>,
    /// From the hash of a label's name to its index; protected labels have none.
    by_key: Table<Option<u8>>,
    pub(super) series: Table<Series>,
    /// How many series count towards the budget.
    pub(super) used: usize,
    /// Series that lost their slot to a collapsed one, and have not been seen since.
    pub(super) retired: Table<u16>,
    /// All series sketched so far; `None` while sketching is off.
    pub(super) sketched: Option<Distinct>,
    pub(super) outputs: Vec<Output>,
    pub(super) free_outputs: Vec<u32>,
    /// The surroundings of outputs, by context.
    pub(super) groups: Table<Arc<Group>>,
    pub(super) inputs: Table<Input>,
    pub(super) distributions: Table<DistributionInput>,
    pub(super) overflowing: bool,
    pub(super) seen: u16,
    /// Bytes of names, outputs and distributions.
    pub(super) heap: usize,
    /// What was last booked for it.
    booked: usize,
}

/// A tracked label of a point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) index: u8,
    /// The hash of key and value.
    pub(super) hash: u64,
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
    pub(super) fn new(shared: &Shared, name: &[u8], epoch: u16) -> Self {
        Self {
            name: name.into(),
            limits: shared.limits(name),
            names: Names::default(),
            labels: Vec::new(),
            by_key: Table::default(),
            series: Table::default(),
            used: 0,
            retired: Table::default(),
            sketched: None,
            outputs: Vec::new(),
            free_outputs: Vec::new(),
            groups: Table::default(),
            inputs: Table::default(),
            distributions: Table::default(),
            overflowing: false,
            seen: epoch,
            heap: name.len(),
            booked: 0,
        }
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        let labels: usize = (self.labels.iter())
            .map(|label| {
                let samples = label.samples.iter().map(|sample| sample.capacity() + 24).sum::<usize>();
                label.values.allocation_size() + label.without.bytes() + samples + size_of::<Label>()
            })
            .sum();
        size_of::<Self>()
            + self.heap
            + labels
            + self.by_key.allocation_size()
            + self.series.allocation_size()
            + self.retired.allocation_size()
            + self.sketched.as_ref().map_or(0, Distinct::bytes)
            + self.outputs.capacity() * size_of::<Output>()
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
        shared.resized(self.booked, 0);
        shared.give_slots(self.used);
    }

    /// Is there nothing in it that matters?
    pub(super) fn is_empty(&self) -> bool {
        self.series.is_empty()
            && self.retired.is_empty()
            && self.inputs.is_empty()
            && self.distributions.is_empty()
            && self.outputs.iter().all(Output::is_free)
    }

    /// Looks the tracked labels of a point up, tracking new ones.
    pub(super) fn find_labels(&mut self, shared: &Shared, attributes: &[Attribute<'_>], found: &mut Vec<Found>) {
        found.clear();
        for (place, attribute) in attributes.iter().enumerate() {
            let key_hash = shared.hashes.bytes(attribute.key);
            let index = match self.by_key.get(&key_hash) {
                Some(index) => *index,
                None if shared.protected.contains(attribute.key) => {
                    self.by_key.insert(key_hash, None);
                    None
                }
                None if self.labels.len() >= MAX_LABELS => None,
                None if !shared.fits(self.unbooked() + LABEL_BYTES) => None,
                None => {
                    let index = self.labels.len() as u8;
                    self.track(shared, attribute.key);
                    self.by_key.insert(key_hash, Some(index));
                    Some(index)
                }
            };
            if let Some(index) = index {
                found.push(Found { index, hash: attribute.hash, place });
            }
        }
    }

    fn track(&mut self, shared: &Shared, key: &[u8]) {
        let replacement = if shared.replacement.is_empty() {
            0
        } else {
            shared.hashes.attribute(&KeyValue { key, value: AnyValue::String(&shared.replacement) })
        };
        Arc::make_mut(&mut self.names).push(key.into());
        self.heap += key.len() + 16;
        self.labels.push(Label {
            max_values: self.limits.max_values(key),
            values: Table::default(),
            collapsed: None,
            is_full: false,
            replacement,
            // No series seen so far carries it.
            without: self.sketched.clone().unwrap_or_default(),
            counter: None,
            samples: Vec::new(),
        });
    }

    /// The labels of `found` whose value cannot stay, as bits.
    pub(super) fn over_limit(&self, found: &[Found]) -> u64 {
        let is_over = |label: &Label, hash: u64| {
            label.max_values == 0
                || label.collapsed.is_some()
                || (label.values.len() >= label.max_values && !label.values.contains_key(&hash))
        };
        found.iter().fold(0, |mask, found| match self.labels.get(usize::from(found.index)) {
            Some(label) if is_over(label, found.hash) => mask | 1 << found.index,
            _ => mask,
        })
    }

    /// The fingerprint once the labels in `mask` are collapsed.
    pub(super) fn rewritten(&self, fingerprint: u64, found: &[Found], mask: u64) -> u64 {
        found.iter().filter(|found| mask & (1 << found.index) != 0).fold(fingerprint, |sum, found| {
            let replacement = self.labels.get(usize::from(found.index)).map_or(0, |label| label.replacement);
            sum.wrapping_sub(found.hash).wrapping_add(replacement)
        })
    }

    /// Gives the values of the labels outside `mask` their slots, or notes that they were seen.
    pub(super) fn admit_values(&mut self, shared: &Shared, found: &[Found], attributes: &[Attribute<'_>], mask: u64) {
        for found in found.iter().filter(|found| mask & (1 << found.index) == 0) {
            let unbooked = self.unbooked();
            let Some(label) = self.labels.get_mut(usize::from(found.index)) else { continue };
            if let Some(seen) = label.values.get_mut(&found.hash) {
                *seen = self.seen;
                continue;
            }
            let grows = label.values.len() == label.values.capacity();
            // A value without a slot of its own passes all the same: its series has one.
            if grows && !shared.fits(unbooked + 2 * label.values.allocation_size() + 256) {
                shared.starve();
                continue;
            }
            label.values.insert(found.hash, self.seen);
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
            if let Some(seen) = label.values.get_mut(&attribute.hash) {
                *seen = self.seen;
            }
        }
    }

    /// Is there room for one more series in the metric's and the global budget, and in memory?
    pub(super) fn has_room(&self, shared: &Shared) -> bool {
        let grows = self.series.len() == self.series.capacity();
        let bytes = if grows { 2 * self.series.allocation_size() + 256 } else { 0 };
        self.used < self.limits.max_series && shared.has_slot() && shared.fits(bytes)
    }

    /// Gives `fingerprint` a slot of the budget.
    pub(super) fn admit(&mut self, shared: &Shared, fingerprint: u64, output: u32, carries: u64) {
        let series = Series { carries, output, epoch: self.seen, is_overflow: false, was_individual: false };
        if self.series.insert(fingerprint, series).is_none() {
            self.used += 1;
            shared.take_slot();
        }
    }

    /// Adds a series that has no slot to the sketches, which are begun when it is time.
    pub(super) fn sketch(&mut self, shared: &Shared, fingerprint: u64, found: &[Found]) {
        let max = self.limits.max_series;
        if self.sketched.is_none() {
            let all_labels = (self.labels.len() + 1) * SKETCH_BYTES;
            if (max > SMALL_BUDGET && self.used * 2 < max) || !shared.fits(self.unbooked() + all_labels) {
                return;
            }
            self.sketched = Some(Distinct::default());
        }
        if let Some(all) = &mut self.sketched {
            all.add(fingerprint);
        }
        for (index, label) in self.labels.iter_mut().enumerate() {
            let own = found.iter().find(|found| usize::from(found.index) == index);
            label.without.add(fingerprint.wrapping_sub(own.map_or(0, |found| found.hash)));
        }
    }

    /// Frees the sketches.
    pub(super) fn stop_sketching(&mut self) {
        self.sketched = None;
        for label in &mut self.labels {
            label.without = Distinct::default();
        }
    }

    /// Which label of the point to collapse: the one without which the fewest series would be
    /// left; or, where no label alone makes a difference, the one with the most values. With
    /// the number of series that would be left.
    pub(super) fn guilty(&self, found: &[Found], mask: u64) -> Option<(u8, f64)> {
        let all = self.sketched.as_ref().map_or(0.0, Distinct::estimate);
        let candidates = || {
            found.iter().filter(|found| mask & (1 << found.index) == 0).filter_map(|found| {
                let label = self.labels.get(usize::from(found.index))?;
                Some((found.index, label.without.estimate(), label.values.len()))
            })
        };
        let fewest_left = candidates().min_by(|(_, left, values), (_, other_left, other_values)| {
            left.total_cmp(other_left).then(other_values.cmp(values))
        })?;
        if self.sketched.is_some() && fewest_left.1 <= 0.8 * all {
            return Some((fewest_left.0, fewest_left.1));
        }
        candidates().max_by_key(|(_, _, values)| *values).map(|(index, left, _)| (index, left))
    }

    /// Takes the slots of the series that were least recently seen and carry a value of a label
    /// in `collapsed`, a twentieth of the budget at once. False if there are none.
    pub(super) fn retire(&mut self, shared: &Shared, collapsed: u64, dirty: &mut Vec<u32>) -> bool {
        let now = self.seen;
        let is_candidate = |series: &Series| series.carries & collapsed != 0 && !series.is_overflow;
        let mut candidates: Vec<(u16, u64)> = (self.series.iter())
            .filter(|(_, series)| is_candidate(series))
            .map(|(fingerprint, series)| (now.wrapping_sub(series.epoch), *fingerprint))
            .collect();
        let quota = (self.used.min(self.limits.max_series) / 20).max(1).min(candidates.len());
        if quota == 0 {
            return false;
        }
        candidates.select_nth_unstable_by(quota - 1, |(age, _), (other, _)| other.cmp(age));
        candidates.truncate(quota);
        for (_, fingerprint) in &candidates {
            let Some(series) = self.series.remove(fingerprint) else { continue };
            match series.output {
                // Those that never come again stay until they are idle, so there is a bound.
                INDIVIDUAL if self.retired.len() < 2 * self.limits.max_series => {
                    self.retired.insert(*fingerprint, now);
                }
                INDIVIDUAL => {}
                EMPTY => {}
                index => self.close_output(index, dirty),
            }
        }
        self.used -= quota;
        shared.give_slots(quota);
        shared.forget(candidates.iter().map(|(_, fingerprint)| (*fingerprint, 0)));
        shared.report.evicted(Eviction::Retired, quota);
        true
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

impl Metric {
    /// Bytes that were added since the state was last booked.
    pub(super) fn unbooked(&self) -> usize {
        self.bytes().saturating_sub(self.booked)
    }
}
