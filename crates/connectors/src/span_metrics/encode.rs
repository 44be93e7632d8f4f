//! Writing OTLP metrics.

use nyquist_core::wire::{AnyValue, Fields, Value, put_len_field, put_tag, put_varint};

use super::catalog::{Catalog, Series};
use super::plan::Plan;
use super::recorder::{Durations, Exemplar, Shape};

/// A report, or a part of one.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// An `ExportMetricsServiceRequest`.
    pub(super) bytes: Vec<u8>,
    pub(super) points: usize,
}

/// Which values a point has.
#[derive(Clone, Copy)]
enum Point {
    /// Those of the report.
    Counted,
    /// Zero, at the start of a series: what it counted first is an increase then, for a backend that
    /// knows no start times.
    Zero,
}

/// How one metric is written.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Sum,
    Explicit,
    Exponential,
}

/// A metric with its points; its series are those of a family.
struct Metric<'a> {
    name: &'a str,
    unit: &'a str,
    kind: Kind,
}

impl Report {
    /// Appends a `ResourceMetrics` with the series at `places`, a list for each family, as they are at
    /// `time`. Nothing if no series has anything to report.
    pub(super) fn append(&mut self, plan: &Plan, catalog: &Catalog, group: &[u8], places: &[&[u32]], time: u64) {
        let families = plan.families.iter().zip(places);
        let has_points =
            |places: &[u32]| places.iter().filter_map(|&place| catalog.series(place)).any(|one| one.is_due(plan));
        if !places.iter().any(|places| has_points(places)) {
            return;
        }
        let mut points = 0;
        nested(&mut self.bytes, 1, |out| {
            out.extend_from_slice(group);
            nested(out, 2, |out| {
                nested(out, 1, |out| put_len_field(out, 1, b"spanmetricsconnector"));
                for (family, places) in families.filter(|(_, places)| has_points(places)) {
                    let names = &plan.names;
                    let sum = |name| Metric { name, unit: "", kind: Kind::Sum };
                    let mut metrics = Vec::new();
                    if family.has_calls {
                        metrics.push(sum(&names.calls));
                    }
                    if family.is_events {
                        metrics.push(sum(&names.events));
                    }
                    if family.has_durations {
                        let kind = match plan.shape {
                            Shape::Explicit(_) => Kind::Explicit,
                            Shape::Exponential(_) => Kind::Exponential,
                        };
                        metrics.push(Metric { name: &names.duration, unit: plan.unit, kind });
                    }
                    for metric in metrics {
                        let series = places.iter().filter_map(|&place| catalog.series(place));
                        points += put_metric(out, plan, &metric, series, time);
                    }
                }
            });
        });
        self.points += points;
    }
}

/// Writes a metric; returns how many points it has.
fn put_metric<'a>(
    out: &mut Vec<u8>,
    plan: &Plan,
    metric: &Metric<'_>,
    series: impl Iterator<Item = &'a Series>,
    time: u64,
) -> usize {
    let mut points = 0;
    nested(out, 2, |out| {
        put_len_field(out, 1, metric.name.as_bytes());
        if !metric.unit.is_empty() {
            put_len_field(out, 3, metric.unit.as_bytes());
        }
        let data = match metric.kind {
            Kind::Sum => 7,
            Kind::Explicit => 9,
            Kind::Exponential => 10,
        };
        nested(out, data, |out| {
            for series in series.filter(|series| series.is_due(plan)) {
                // Prometheus counts time in milliseconds: a point at the time of the next would replace it.
                let begins = !plan.is_delta && series.reported == 0 && series.start / 1_000_000 < time / 1_000_000;
                if begins {
                    nested(out, 1, |out| put_point(out, plan, metric.kind, series, series.start, Point::Zero));
                    points += 1;
                }
                nested(out, 1, |out| put_point(out, plan, metric.kind, series, time, Point::Counted));
                points += 1;
            }
            put_tag(out, 2, 0);
            put_varint(out, if plan.is_delta { 1 } else { 2 });
            if metric.kind == Kind::Sum {
                put_tag(out, 3, 0);
                put_varint(out, 1);
            }
        });
    });
    points
}

fn put_point(out: &mut Vec<u8>, plan: &Plan, kind: Kind, series: &Series, time: u64, point: Point) {
    let attributes = match kind {
        Kind::Sum => 7,
        Kind::Explicit => 9,
        Kind::Exponential => 1,
    };
    for field in Fields::new(&series.attributes) {
        if let Value::Len(attribute) = field.value {
            put_len_field(out, attributes, attribute);
        }
    }
    let start = if plan.is_delta && series.reported > 0 { series.reported } else { series.start };
    put_fixed(out, 2, start.min(time));
    put_fixed(out, 3, time);
    let recorder = &series.recorder;
    let is_zero = matches!(point, Point::Zero);
    let count = if is_zero { 0 } else { recorder.count };
    match (kind, &recorder.durations) {
        (Kind::Sum, _) => put_fixed(out, 6, count),
        (_, Durations::Explicit(buckets)) => {
            put_fixed(out, 4, count);
            put_double(out, 5, if is_zero { 0.0 } else { recorder.sum });
            nested(out, 6, |out| {
                for bucket in buckets {
                    out.extend_from_slice(&if is_zero { 0 } else { *bucket }.to_le_bytes());
                }
            });
            if let Shape::Explicit(bounds) = &plan.shape
                && !bounds.values().is_empty()
            {
                nested(out, 7, |out| {
                    bounds.values().iter().for_each(|bound| out.extend_from_slice(&bound.to_le_bytes()))
                });
            }
        }
        (_, Durations::Exponential(own)) => {
            put_fixed(out, 4, count);
            put_double(out, 5, if is_zero { 0.0 } else { recorder.sum });
            put_tag(out, 6, 0);
            put_varint(out, zigzag(own.scale));
            put_fixed(out, 7, if is_zero { 0 } else { own.zero_count });
            if !is_zero {
                let first = own.counts.iter().position(|&count| count > 0).unwrap_or_default();
                let last = own.counts.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
                nested(out, 8, |out| {
                    put_tag(out, 1, 0);
                    put_varint(out, zigzag(own.offset + first as i32));
                    let counts = own.counts.get(first..last).unwrap_or_default();
                    nested(out, 2, |out| counts.iter().for_each(|&count| put_varint(out, count)));
                });
                put_double(out, 12, own.min);
                put_double(out, 13, own.max);
            }
        }
        (_, Durations::None) => {}
    }
    if !is_zero {
        let number = match kind {
            Kind::Sum => 5,
            Kind::Explicit => 8,
            Kind::Exponential => 11,
        };
        for exemplar in &recorder.exemplars {
            nested(out, number, |out| put_exemplar(out, exemplar, time));
        }
    }
}

fn put_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar, time: u64) {
    put_fixed(out, 2, time);
    put_double(out, 3, exemplar.duration);
    put_len_field(out, 4, &exemplar.span_id);
    put_len_field(out, 5, &exemplar.trace_id);
}

/// Appends the attribute `key` with a text as field `number`.
pub(super) fn put_text_attribute(out: &mut Vec<u8>, number: u32, key: &[u8], text: &[u8]) {
    put_attribute(out, number, key, AnyValue::String(text));
}

/// Appends the attribute `key` as field `number`.
pub(super) fn put_attribute(out: &mut Vec<u8>, number: u32, key: &[u8], value: AnyValue<'_>) {
    nested(out, number, |out| {
        put_len_field(out, 1, key);
        nested(out, 2, |out| match value {
            AnyValue::Empty => {}
            AnyValue::String(text) => put_len_field(out, 1, text),
            AnyValue::Bool(flag) => {
                put_tag(out, 2, 0);
                put_varint(out, u64::from(flag));
            }
            AnyValue::Int(number) => {
                put_tag(out, 3, 0);
                put_varint(out, number as u64);
            }
            AnyValue::Double(number) => put_double(out, 4, number),
            AnyValue::Array(bytes) => put_len_field(out, 5, bytes),
            AnyValue::KvList(bytes) => put_len_field(out, 6, bytes),
            AnyValue::Bytes(bytes) => put_len_field(out, 7, bytes),
        });
    });
}

/// Appends what `write` appends as a message in field `number`.
fn nested(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    put_tag(out, number, 2);
    let begin = out.len();
    write(out);
    let len = out.len() - begin;
    let end = out.len();
    put_varint(out, len as u64);
    // The length, which is known last, goes in front.
    let prefix = out.len() - end;
    if let Some(written) = out.get_mut(begin..) {
        written.rotate_right(prefix);
    }
}

fn put_fixed(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_fixed(out, number, value.to_bits());
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}
