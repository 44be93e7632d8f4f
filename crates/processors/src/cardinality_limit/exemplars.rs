//! Exemplars of collapsed points: the newest few of each report, with the labels that were taken from their series.

use nyquist_core::wire::{Field, Fields, KeyValue, MetricKind, Value, put_len_field};

use super::absorb::Absorbed;
use super::admission::Route;
use super::metric::{Metric, Names};
use super::shared::Shared;
use crate::accumulate::write::attributes_field;

/// How many one report has.
const MOST: usize = 4;
/// Larger ones are dropped.
const MOST_BYTES: usize = 1024;

/// Those of one output, since its last report: their times, and the messages.
#[derive(Debug, Default)]
pub(super) struct Exemplars(Vec<(u64, Box<[u8]>)>);

impl Exemplars {
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<(u64, Box<[u8]>)>()
            + self.0.iter().map(|(_, message)| message.len()).sum::<usize>()
    }

    /// Keeps `message` if it is among the newest. How many were dropped.
    fn add(&mut self, time: u64, message: Vec<u8>) -> u64 {
        if message.len() > MOST_BYTES {
            return 1;
        }
        let message = message.into_boxed_slice();
        if self.0.len() < MOST {
            self.0.push((time, message));
            return 0;
        }
        if let Some(oldest) = self.0.iter_mut().min_by_key(|(time, _)| *time).filter(|(oldest, _)| *oldest < time) {
            *oldest = (time, message);
        }
        1
    }

    /// Appends them as fields of a point of `kind`, and forgets them.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, kind: MetricKind) {
        for (_, message) in std::mem::take(&mut self.0) {
            if let Some(number) = field(kind) {
                put_len_field(out, number, &message);
            }
        }
    }
}

/// The field in which points of `kind` have their exemplars.
fn field(kind: MetricKind) -> Option<u32> {
    match kind {
        MetricKind::Gauge | MetricKind::Sum { .. } => Some(5),
        MetricKind::Histogram { .. } => Some(8),
        MetricKind::ExponentialHistogram { .. } => Some(11),
        MetricKind::Summary => None,
    }
}

impl Metric {
    /// Keeps the exemplars of `point`, which was added to output `index` by `route`; or counts that they are dropped.
    pub(super) fn keep_exemplars(
        &mut self,
        shared: &Shared,
        (kind, point): (MetricKind, &[u8]),
        (index, route): (u32, Route),
        names: &Names,
        absorbed: Absorbed,
    ) {
        let Some(number) = field(kind) else { return };
        let mut removed = Vec::new();
        for exemplar in messages(point, number) {
            if removed.is_empty() {
                removed = removed_labels(kind, point, route, names);
            }
            let room = shared.fits(self.unbooked() + MOST_BYTES);
            let output = self.outputs.get_mut(index as usize).filter(|_| room && absorbed == Absorbed::Held);
            let Some(output) = output else {
                shared.report.dropped_exemplars.inc();
                continue;
            };
            let mut message = exemplar.to_vec();
            removed.iter().for_each(|attribute| put_len_field(&mut message, 7, attribute));
            let before = output.exemplars.bytes();
            let dropped = output.exemplars.add(time_of(exemplar), message);
            shared.report.dropped_exemplars.inc_by(dropped);
            self.heap = self.heap + output.exemplars.bytes() - before;
        }
    }
}

/// The attributes of `point` that its collapsed series does not have.
fn removed_labels<'a>(kind: MetricKind, point: &'a [u8], route: Route, names: &Names) -> Vec<&'a [u8]> {
    let is_removed = |attribute: &&[u8]| {
        let index = names.iter().position(|name| **name == *KeyValue::new(attribute).key);
        route.is_overflow || index.is_some_and(|index| route.mask & (1 << index) != 0)
    };
    messages(point, attributes_field(kind)).filter(is_removed).collect()
}

fn messages(message: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> {
    Fields::new(message).filter_map(move |field| match field {
        Field { number, value: Value::Len(message) } if number == wanted => Some(message),
        _ => None,
    })
}

fn time_of(exemplar: &[u8]) -> u64 {
    let time = |field| match field {
        Field { number: 2, value: Value::Fixed64(time) } => Some(time),
        _ => None,
    };
    Fields::new(exemplar).filter_map(time).last().unwrap_or_default()
}
