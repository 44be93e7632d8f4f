//! Collapsed series: what they have added up, and how they are written.

use std::sync::Arc;

use nyquist_core::batch::Metadata;
use nyquist_core::wire::{Field, Fields, KeyValue, MetricKind, Number, Value, put_len_field};

use super::config::GaugeMode;
use super::exemplars::Exemplars;
use super::metric::{Names, is_sum_of_last_values};
use super::shared::Shared;
use crate::accumulate::distribution::Distribution;
use crate::accumulate::total::Total;
use crate::accumulate::write::{
    attributes_field, is_delta, put_explicit, put_exponential, put_fixed, put_no_recorded_value, put_number, put_times,
};
use crate::attributes::put_nested;
use crate::skew::Capped;

/// Resource, scope and metric of an output, as they were written.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) context: u64,
    /// Whose data it is, and what is sent along with it.
    pub(super) sender: u64,
    pub(super) metadata: Option<Arc<Metadata>>,
    pub(super) resource_hash: u64,
    pub(super) scope_hash: u64,
    pub(super) kind: MetricKind,
    /// A `ResourceMetrics` without scopes.
    pub(super) resource: Box<[u8]>,
    /// A `ScopeMetrics` without metrics.
    pub(super) scope: Box<[u8]>,
    /// A `Metric` without data.
    pub(super) metric: Box<[u8]>,
}

impl Group {
    pub(super) fn bytes(&self) -> usize {
        self.resource.len() + self.scope.len() + self.metric.len() + size_of::<Self>()
    }
}

/// What an output has added up.
#[derive(Debug)]
pub(super) enum Accumulator {
    /// A sum; of a delta sum, that of the window.
    Total(Total),
    /// A gauge's value, and its time.
    Gauge(Option<(Capped, Number)>),
    /// A histogram or summary; of a delta one, that of the window.
    Distribution(Option<Distribution>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    /// It has lost its slot: a last report, then a flag that it has ended.
    Closing,
    Free,
}

/// A collapsed series.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) fingerprint: u64,
    pub(super) group: Arc<Group>,
    /// Its attributes as fields of a point of its kind.
    pub(super) attributes: Box<[u8]>,
    /// The labels that are collapsed, as bits.
    pub(super) mask: u64,
    pub(super) is_overflow: bool,
    pub(super) generation: u8,
    state: State,
    /// The start of what it reports, once it is known.
    start: Capped,
    /// The newest time of a contribution.
    newest: Capped,
    /// The time of its last report, if there was one.
    emitted: Capped,
    /// The same series was reported up to this time: by a sender, or by an output before.
    not_before: Capped,
    /// Flushes for which it has waited for a newer time.
    waits: u8,
    /// It is on the list of what is to be emitted.
    pub(super) is_dirty: bool,
    /// How many inputs are linked to it.
    pub(super) live: u32,
    pub(super) epoch: u16,
    /// Points that were added since the last report.
    pub(super) pending: u32,
    pub(super) accumulator: Accumulator,
    /// Fingerprints of the outputs for other bounds of the same histogram.
    pub(super) alternates: Vec<u64>,
    pub(super) exemplars: Exemplars,
}

/// Flushes after which an output is reported although no newer time has come.
const MAX_WAITS: u8 = 6;

/// What a flush does with an output.
pub(super) enum Turn {
    /// It waits for a newer time.
    Wait,
    /// Report it at this time.
    Report(Capped),
}

impl Output {
    pub(super) fn new(
        fingerprint: u64,
        group: Arc<Group>,
        attributes: Box<[u8]>,
        mask: u64,
        is_overflow: bool,
        epoch: u16,
        gauge: GaugeMode,
    ) -> Self {
        let accumulator = match group.kind {
            MetricKind::Gauge if !is_sum_of_last_values(group.kind, gauge) => Accumulator::Gauge(None),
            MetricKind::Gauge | MetricKind::Sum { .. } => Accumulator::Total(Total::default()),
            _ => Accumulator::Distribution(None),
        };
        Self {
            fingerprint,
            group,
            attributes,
            mask,
            is_overflow,
            generation: 0,
            state: State::Active,
            start: Capped::UNKNOWN,
            newest: Capped::UNKNOWN,
            emitted: Capped::UNKNOWN,
            not_before: Capped::UNKNOWN,
            waits: 0,
            is_dirty: false,
            live: 0,
            epoch,
            pending: 0,
            accumulator,
            alternates: Vec::new(),
            exemplars: Exemplars::default(),
        }
    }

    /// The same series was reported before, up to `time`.
    pub(super) fn comes_after(&mut self, time: Capped) {
        self.not_before = self.not_before.max(time);
    }

    /// A contribution of `time`, which is to be told.
    pub(super) fn has_news(&mut self, time: Capped) {
        self.newest = self.newest.max(time);
    }

    /// When the same series was reported last.
    fn last(&self) -> Capped {
        self.emitted.max(self.not_before)
    }

    /// No report of it, nor the flag that it has ended, is later than this.
    pub(super) fn ends_by(&self) -> Capped {
        self.newest.max(self.last().next()).next()
    }

    pub(super) fn is_active(&self) -> bool {
        self.state == State::Active
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    pub(super) fn is_free(&self) -> bool {
        self.state == State::Free
    }

    pub(super) fn close(&mut self) {
        self.state = State::Closing;
    }

    pub(super) fn free(&mut self) {
        self.state = State::Free;
        self.attributes = Box::default();
        self.accumulator = Accumulator::Gauge(None);
        self.alternates = Vec::new();
        self.exemplars = Exemplars::default();
        self.live = 0;
    }

    /// Bytes on the heap.
    pub(super) fn heap(&self) -> usize {
        let accumulated = match &self.accumulator {
            Accumulator::Distribution(Some(distribution)) => distribution.bytes(),
            _ => 0,
        };
        self.attributes.len() + self.alternates.capacity() * 8 + self.exemplars.bytes() + accumulated
    }

    /// Is what it adds up reported as the change since its last report?
    pub(super) fn is_delta(&self) -> bool {
        is_delta(self.group.kind)
    }

    /// What it reports now begins at the latest at `start`.
    pub(super) fn starts(&mut self, start: Capped) {
        // Who has seen the same series before must see that it begins anew.
        let start = start.max(self.not_before);
        let may_move = self.is_delta() || !self.was_reported();
        if may_move && (!self.start.is_known() || start < self.start) {
            self.start = start;
        }
    }

    /// At which time to report it, if it is time. A report has a time later than the one before,
    /// so that an export that is spread over many batches does not give two values for one time.
    pub(super) fn turn(&mut self, is_last: bool) -> Turn {
        let last = self.last();
        if self.newest.is_apart_from(last) {
            return Turn::Report(self.newest);
        }
        self.waits += 1;
        if self.waits < MAX_WAITS && self.is_active() && !is_last {
            return Turn::Wait;
        }
        Turn::Report(last.next())
    }

    /// Writes its report for `time`, and begins a new window if it is a delta.
    pub(super) fn report(&mut self, time: Capped, gauge: GaugeMode) -> Vec<u8> {
        // A window does not reach back before the one that was reported last.
        let start = if self.is_delta() { self.start.max(self.emitted).min(time) } else { self.start.min(time) };
        let (start, nanos) = (start.nanos(), time.nanos());
        let mut point = Vec::with_capacity(self.attributes.len() + 64);
        point.extend_from_slice(&self.attributes);
        match &self.accumulator {
            Accumulator::Total(total) => {
                let is_gauge = self.group.kind == MetricKind::Gauge;
                put_times(&mut point, if is_gauge { 0 } else { start }, nanos);
                let is_mean = is_gauge && gauge == GaugeMode::Avg;
                put_number(&mut point, if is_mean { total.mean(self.live as usize) } else { total.value() });
            }
            Accumulator::Gauge(value) => {
                put_times(&mut point, 0, nanos);
                if let Some((_, number)) = value {
                    put_number(&mut point, *number);
                }
            }
            Accumulator::Distribution(distribution) => {
                put_times(&mut point, start, nanos);
                match distribution {
                    Some(Distribution::Explicit(own)) if self.group.kind == MetricKind::Summary => {
                        put_fixed(&mut point, 4, own.count);
                        put_fixed(&mut point, 5, own.sum.unwrap_or_default().to_bits());
                    }
                    Some(Distribution::Explicit(own)) => put_explicit(&mut point, own),
                    Some(Distribution::Exponential(own)) => put_exponential(&mut point, own),
                    None => {}
                }
            }
        }
        self.exemplars.put(&mut point, self.group.kind);
        if matches!(gauge, GaugeMode::Max | GaugeMode::Min)
            && let Accumulator::Gauge(value) = &mut self.accumulator
        {
            *value = None;
        }
        self.emitted = time;
        self.waits = 0;
        self.pending = 0;
        if self.is_delta() {
            self.start = Capped::UNKNOWN;
            match &mut self.accumulator {
                Accumulator::Total(total) => *total = Total::default(),
                Accumulator::Distribution(distribution) => *distribution = None,
                Accumulator::Gauge(_) => {}
            }
        }
        point
    }

    /// Is it a gauge of values that nobody has any more? Then there is none to report.
    pub(super) fn is_of_nobody(&self, gauge: GaugeMode) -> bool {
        self.live == 0 && self.group.kind == MetricKind::Gauge && is_sum_of_last_values(self.group.kind, gauge)
    }

    /// Writes the flag that it has ended.
    pub(super) fn end(&mut self) -> Vec<u8> {
        let next = self.last().next();
        let time = if self.was_reported() { next } else { self.newest.max(next) };
        self.emitted = time;
        let mut point = self.attributes.to_vec();
        put_times(&mut point, if is_delta(self.group.kind) { 0 } else { self.start.nanos() }, time.nanos());
        put_no_recorded_value(&mut point, self.group.kind);
        point
    }

    /// Has it ever been reported?
    pub(super) fn was_reported(&self) -> bool {
        self.emitted.is_known()
    }
}

/// Writes the attributes of `point` without the values of the labels in `mask`, or (for an
/// overflow series) the one attribute it has.
pub(super) fn collapsed_attributes(
    shared: &Shared,
    kind: MetricKind,
    point: &[u8],
    names: &Names,
    mask: u64,
    is_overflow: bool,
) -> Vec<u8> {
    let number = attributes_field(kind);
    let mut out = Vec::new();
    if is_overflow {
        put_len_field(&mut out, number, &shared.overflow_attribute);
        return out;
    }
    for field in Fields::new(point) {
        let Field { number: own, value: Value::Len(attribute) } = field else { continue };
        if own != number {
            continue;
        }
        let key = KeyValue::new(attribute).key;
        let index = names.iter().position(|name| **name == *key);
        if index.is_none_or(|index| mask & (1 << index) == 0) {
            put_len_field(&mut out, number, attribute);
        } else if !shared.replacement.is_empty() {
            let value = shared.replacement_of(&KeyValue::new(attribute).value);
            put_nested(&mut out, number, |out| {
                put_len_field(out, 1, key);
                put_nested(out, 2, |out| put_len_field(out, 1, &value));
            });
        }
    }
    out
}
