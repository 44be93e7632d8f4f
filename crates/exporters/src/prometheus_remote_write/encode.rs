//! Points as the `TimeSeries` of remote write 1.0, one buffer for each shard.
//!
//! Messages and fields: `prompb/types.proto` of Prometheus. Exemplars, native histograms and
//! metadata are not in the 1.0 specification, but every receiver knows them.

use std::sync::Arc;
use std::time::Duration;

use nyquist_core::wire::{put_varint, varint_len};

use super::metadata::MetadataLog;
use super::stats::Stats;
use crate::prometheus_mapping::{
    Exemplars, Family, Histogram, LostLabels, NativeHistogram, Point, PointValue, STALE_NAN_BITS, Sink, Spans, Suffix,
    Summary, Target, TargetInfo, Untranslatable, put_decimal, put_label,
};

/// The encoded series of one data point, or one entry of metadata.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Chunk {
    /// Of the point: equal for all points of its series.
    pub(super) hash: u64,
    /// In milliseconds since the epoch.
    pub(super) time: i64,
    /// Where its bytes end; they begin where those of the chunk before end.
    pub(super) end: usize,
    pub(super) samples: u32,
    /// Data points: 1, or 0 for what we have added.
    pub(super) items: u32,
}

/// Encoded fields of a `WriteRequest`, for one shard.
#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) bytes: Vec<u8>,
    pub(super) chunks: Vec<Chunk>,
}

/// Encodes what a translator finds.
pub(super) struct SeriesSink<'a> {
    pub(super) segments: Vec<Segment>,
    pub(super) scratch: &'a mut EncodeScratch,
    pub(super) stats: &'a Stats,
    /// Where targets are noted, and the time of that.
    pub(super) targets: Vec<OwnedTarget>,
    pub(super) metadata: Option<(&'a MetadataLog, Duration)>,
    /// Data points that could not be translated.
    pub(super) untranslatable: usize,
    pub(super) series: u64,
}

/// A [`Target`] that outlives the walk.
pub(super) struct OwnedTarget {
    id: u64,
    hash: u64,
    newest: i64,
    labels: crate::prometheus_mapping::PointLabels,
}

impl OwnedTarget {
    pub(super) fn note(&self, targets: &mut TargetInfo, now: Duration) {
        let Self { id, hash, newest, ref labels } = *self;
        targets.note(&Target { id, labels, hash, newest }, now);
    }
}

/// Buffers that are used again and again.
#[derive(Default)]
pub(super) struct EncodeScratch {
    bounds: BoundLabels,
    exemplars: Vec<u8>,
    message: Vec<u8>,
    label: Vec<u8>,
    number: Vec<u8>,
}

impl Sink for SeriesSink<'_> {
    fn metric(&mut self, family: &Arc<Family>, description: &[u8]) {
        let Some((log, now)) = self.metadata else { return };
        if let (true, Some(segment)) = (log.is_due(family, description, now), self.segments.first_mut()) {
            put_metadata(&mut segment.bytes, family, description);
            let chunk = Chunk { hash: log.hash(family), time: 0, end: segment.bytes.len(), samples: 0, items: 0 };
            segment.chunks.push(chunk);
        }
    }

    fn point(&mut self, point: &Point<'_>) {
        // The upper bits: the lower ones choose the place in hash tables.
        let shard = ((point.hash >> 32) * self.segments.len() as u64) >> 32;
        let Some(segment) = self.segments.get_mut(shard as usize) else { return };
        let mut out = SeriesWriter {
            out: &mut segment.bytes,
            point,
            pieces: point.labels.pieces(),
            time: Time::new(point.time),
            samples: 0,
        };
        match &point.value {
            PointValue::Number(value) => {
                put_exemplars(&mut self.scratch.exemplars, point.exemplars, f64::NEG_INFINITY, f64::INFINITY);
                out.put(Suffix::None, &[], *value, &self.scratch.exemplars);
            }
            PointValue::Histogram(histogram) => out.put_histogram(histogram, self.scratch),
            PointValue::Native(histogram) => out.put_native(histogram, self.scratch),
            PointValue::Summary(summary) => out.put_summary(summary, self.scratch),
        }
        let samples = out.samples;
        self.series += u64::from(samples);
        let end = segment.bytes.len();
        segment.chunks.push(Chunk { hash: point.hash, time: point.time, end, samples, items: point.items as u32 });
    }

    fn target(&mut self, target: &Target<'_>) {
        let &Target { id, hash, newest, labels } = target;
        self.targets.push(OwnedTarget { id, hash, newest, labels: labels.clone() });
    }

    fn dropped(&mut self, reason: Untranslatable, metric: &[u8], points: usize) {
        self.untranslatable += points;
        self.stats.dropped(reason, metric, points);
    }

    fn labels_lost(&mut self, metric: &[u8], lost: LostLabels) {
        self.stats.labels_lost(metric, lost);
    }
}

/// The `timestamp` field of a `Sample`, encoded.
struct Time {
    bytes: [u8; 11],
    len: usize,
}

impl Time {
    fn new(millis: i64) -> Self {
        let mut time = Self { bytes: [0; 11], len: 1 };
        time.bytes[0] = 0x10;
        let mut rest = millis as u64;
        while let Some(byte) = time.bytes.get_mut(time.len) {
            time.len += 1;
            if rest < 0x80 {
                *byte = rest as u8;
                break;
            }
            *byte = rest as u8 & 0x7f | 0x80;
            rest >>= 7;
        }
        time
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Writes the series of one point.
struct SeriesWriter<'a> {
    out: &'a mut Vec<u8>,
    point: &'a Point<'a>,
    pieces: [&'a [u8]; 3],
    time: Time,
    samples: u32,
}

impl SeriesWriter<'_> {
    /// A `TimeSeries` (field 1 of the request) of one sample. `extra` and `exemplars` are encoded.
    #[inline]
    fn put(&mut self, suffix: Suffix, extra: &[u8], value: f64, exemplars: &[u8]) {
        let time = self.time.bytes();
        let sample_len = 9 + time.len();
        self.samples += 1;
        put_series_head(self.out, self.point, suffix, &self.pieces, extra, 2 + sample_len + exemplars.len());
        self.out.push(0x12);
        self.out.push(sample_len as u8);
        self.out.push(0x09);
        self.out.extend_from_slice(&value.to_bits().to_le_bytes());
        self.out.extend_from_slice(time);
        self.out.extend_from_slice(exemplars);
    }

    /// `value`, or the stale marker if the point ends its series.
    fn or_stale(&self, value: f64) -> f64 {
        if self.point.is_stale { f64::from_bits(STALE_NAN_BITS) } else { value }
    }

    fn put_histogram(&mut self, histogram: &Histogram<'_>, scratch: &mut EncodeScratch) {
        if let Some(sum) = histogram.sum {
            self.put(Suffix::Sum, &[], self.or_stale(sum), &[]);
        }
        let count = self.or_stale(histogram.count as f64);
        self.put(Suffix::Count, &[], count, &[]);
        let EncodeScratch { bounds, exemplars: encoded, .. } = scratch;
        let labels = bounds.labels(histogram.bounds);
        let exemplars = self.point.exemplars;
        let (mut running, mut below) = (0u64, f64::NEG_INFINITY);
        for (index, (&bound, &count)) in histogram.bounds.iter().zip(histogram.counts).enumerate() {
            running = running.saturating_add(count);
            if bound == f64::INFINITY {
                continue;
            }
            put_exemplars(encoded, exemplars, below, bound);
            self.put(Suffix::Bucket, labels.get(index), self.or_stale(running as f64), encoded);
            below = bound;
        }
        put_exemplars(encoded, exemplars, below, f64::INFINITY);
        self.put(Suffix::Bucket, labels.infinity(), count, encoded);
    }

    fn put_summary(&mut self, summary: &Summary<'_>, scratch: &mut EncodeScratch) {
        self.put(Suffix::Sum, &[], self.or_stale(summary.sum), &[]);
        self.put(Suffix::Count, &[], self.or_stale(summary.count as f64), &[]);
        for &(quantile, value) in summary.quantiles {
            scratch.number.clear();
            scratch.label.clear();
            put_decimal(&mut scratch.number, quantile);
            put_label(&mut scratch.label, b"quantile", &scratch.number);
            self.put(Suffix::None, &scratch.label, self.or_stale(value), &[]);
        }
    }

    fn put_native(&mut self, histogram: &NativeHistogram, scratch: &mut EncodeScratch) {
        let EncodeScratch { message, exemplars, .. } = scratch;
        message.clear();
        message.push(0x08);
        put_varint(message, histogram.count);
        put_double(message, 0x19, histogram.sum);
        message.push(0x20);
        put_varint(message, zigzag(i64::from(histogram.schema)));
        put_double(message, 0x29, histogram.zero_threshold);
        message.push(0x30);
        put_varint(message, histogram.zero_count);
        put_spans(message, &histogram.negative, [0x42, 0x4a]);
        put_spans(message, &histogram.positive, [0x5a, 0x62]);
        message.push(0x78);
        put_varint(message, self.point.time as u64);
        put_exemplars(exemplars, self.point.exemplars, f64::NEG_INFINITY, f64::INFINITY);
        let histogram_len = 1 + varint_len(message.len() as u64) + message.len();
        self.samples += 1;
        let rest = histogram_len + exemplars.len();
        put_series_head(self.out, self.point, Suffix::None, &self.pieces, &[], rest);
        self.out.push(0x22);
        put_varint(self.out, message.len() as u64);
        self.out.extend_from_slice(message);
        self.out.extend_from_slice(exemplars);
    }
}

/// Begins a `TimeSeries`: its labels, with `rest` bytes to follow.
#[inline]
fn put_series_head(
    out: &mut Vec<u8>,
    point: &Point<'_>,
    suffix: Suffix,
    pieces: &[&[u8]; 3],
    extra: &[u8],
    rest: usize,
) {
    let name = point.family.name_label(suffix);
    let len = point.labels.encoded().len() + name.len() + extra.len() + rest;
    out.reserve(len + 11);
    out.push(0x0a);
    put_varint(out, len as u64);
    out.extend_from_slice(pieces[0]);
    out.extend_from_slice(name);
    out.extend_from_slice(pieces[1]);
    out.extend_from_slice(extra);
    out.extend_from_slice(pieces[2]);
}

/// The exemplars above `below` and up to `bound`, as fields of a `TimeSeries`.
fn put_exemplars(out: &mut Vec<u8>, exemplars: &Exemplars, below: f64, bound: f64) {
    out.clear();
    for exemplar in exemplars.items() {
        let is_inside = exemplar.value <= bound && (exemplar.value > below || below == f64::NEG_INFINITY);
        if !is_inside {
            continue;
        }
        let labels = exemplars.labels(exemplar);
        out.push(0x1a);
        put_varint(out, (labels.len() + 9 + 1 + varint_len(exemplar.time as u64)) as u64);
        out.extend_from_slice(labels);
        put_double(out, 0x11, exemplar.value);
        out.push(0x18);
        put_varint(out, exemplar.time as u64);
    }
}

fn put_double(out: &mut Vec<u8>, tag: u8, value: f64) {
    out.push(tag);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Spans, and deltas (packed), under their tags.
fn put_spans(out: &mut Vec<u8>, buckets: &Spans, [span_tag, delta_tag]: [u8; 2]) {
    for &(offset, length) in &buckets.spans {
        let offset = zigzag(i64::from(offset));
        out.push(span_tag);
        put_varint(out, (2 + varint_len(offset) + varint_len(u64::from(length))) as u64);
        out.push(0x08);
        put_varint(out, offset);
        out.push(0x10);
        put_varint(out, u64::from(length));
    }
    if !buckets.deltas.is_empty() {
        let len: usize = buckets.deltas.iter().map(|&delta| varint_len(zigzag(delta))).sum();
        out.push(delta_tag);
        put_varint(out, len as u64);
        for &delta in &buckets.deltas {
            put_varint(out, zigzag(delta));
        }
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// A `MetricMetadata` (field 3 of the request).
fn put_metadata(out: &mut Vec<u8>, family: &Family, description: &[u8]) {
    let mut message = vec![0x08];
    put_varint(&mut message, family.metric_type.number());
    for (tag, text) in [(0x12, family.name.as_bytes()), (0x22, description), (0x2a, family.unit.as_bytes())] {
        message.push(tag);
        put_varint(&mut message, text.len() as u64);
        message.extend_from_slice(text);
    }
    out.push(0x1a);
    put_varint(out, message.len() as u64);
    out.extend_from_slice(&message);
}

/// `le` labels of the bounds met last, encoded: formatting a float costs more than all the rest.
#[derive(Default)]
struct BoundLabels {
    known: Vec<Encoded>,
    next: usize,
}

/// How many sets of bounds are remembered: an SDK has a handful.
const REMEMBERED_BOUNDS: usize = 16;

#[derive(Default)]
struct Encoded {
    bounds: Vec<f64>,
    bytes: Vec<u8>,
    /// Where each label ends; the last one is `+Inf`.
    ends: Vec<usize>,
}

impl BoundLabels {
    fn labels(&mut self, bounds: &[f64]) -> &Encoded {
        let is_same = |known: &Encoded| {
            known.bounds.len() == bounds.len()
                && known.bounds.iter().zip(bounds).all(|(left, right)| left.to_bits() == right.to_bits())
        };
        let index = match self.known.iter().position(is_same) {
            Some(index) => index,
            None if self.known.len() < REMEMBERED_BOUNDS => {
                self.known.push(Encoded::new(bounds));
                self.known.len() - 1
            }
            None => {
                self.next = (self.next + 1) % REMEMBERED_BOUNDS;
                self.known[self.next] = Encoded::new(bounds);
                self.next
            }
        };
        &self.known[index]
    }
}

impl Encoded {
    fn new(bounds: &[f64]) -> Self {
        let mut encoded = Self { bounds: bounds.to_vec(), ..Self::default() };
        let mut number = Vec::new();
        for &bound in bounds.iter().chain(&[f64::INFINITY]) {
            number.clear();
            put_decimal(&mut number, bound);
            put_label(&mut encoded.bytes, b"le", &number);
            encoded.ends.push(encoded.bytes.len());
        }
        encoded
    }

    fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(index).and_then(|&end| self.bytes.get(start..end)).unwrap_or_default()
    }

    fn infinity(&self) -> &[u8] {
        self.get(self.bounds.len())
    }
}
