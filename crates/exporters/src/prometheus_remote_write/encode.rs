//! Points as rows, one buffer for each shard.

use std::sync::Arc;
use std::time::Duration;

use nyquist_core::wire::{put_varint, varint_len};

use super::config::LeFormat;
use super::metadata::MetadataLog;
use super::rows::{Chunk, Described, RowWriter, Segment, SeriesValue};
use super::stats::Stats;
use super::v1;
use crate::prometheus_mapping::{
    Exemplar, Exemplars, Family, Histogram, LostExemplars, LostLabels, NativeHistogram, OwnedTarget, Partition, Point,
    PointValue, STALE_NAN_BITS, Sink, Spans, Suffix, Summary, Target, Untranslatable, put_label,
};

/// A point that takes more as remote write 1.0, in bytes, is dropped: labels are repeated in every
/// bucket, so a small message can ask for gigabytes.
const MAX_POINT: usize = 16 << 20;

/// The tag of a histogram's `custom_values`.
const CUSTOM_VALUES: [u8; 2] = [0x82, 0x01];

/// Writes down what a translator finds.
pub(super) struct SeriesSink<'a> {
    pub(super) segments: Vec<Segment>,
    pub(super) scratch: &'a mut EncodeScratch,
    pub(super) stats: &'a Stats,
    /// Where targets are noted, and the time of that.
    pub(super) targets: Vec<OwnedTarget>,
    pub(super) metadata: Option<(&'a MetadataLog, Duration)>,
    /// Of all that is written.
    pub(super) partition: Partition,
    /// The metric whose points come.
    pub(super) metric: Option<Arc<Described>>,
    /// Does one of the metrics have neighbours, so that series may clash?
    pub(super) has_neighbours: bool,
    /// Data points that could not be translated.
    pub(super) untranslatable: usize,
    pub(super) series: u64,
}

/// Buffers that are used again and again.
#[derive(Default)]
pub(super) struct EncodeScratch {
    le_format: LeFormat,
    bounds: BoundLabels,
    exemplars: Vec<u8>,
    by_value: Vec<Exemplar>,
    message: Vec<u8>,
    label: Vec<u8>,
    number: Vec<u8>,
}

impl EncodeScratch {
    /// Buffers for bounds and quantiles in this format.
    pub(super) fn new(le_format: LeFormat) -> Self {
        Self { le_format, ..Self::default() }
    }
}

impl<'a> SeriesSink<'a> {
    /// For as many shards, without metadata.
    pub(super) fn new(shards: usize, scratch: &'a mut EncodeScratch, stats: &'a Stats) -> Self {
        Self {
            segments: empty_segments(shards),
            scratch,
            stats,
            targets: Vec::new(),
            metadata: None,
            partition: Partition::default(),
            metric: None,
            has_neighbours: false,
            untranslatable: 0,
            series: 0,
        }
    }
}

/// One for each shard.
pub(super) fn empty_segments(shards: usize) -> Vec<Segment> {
    (0..shards).map(|_| Segment::default()).collect()
}

impl Sink for SeriesSink<'_> {
    fn metric(&mut self, family: &Arc<Family>, description: &[u8]) {
        let metric = Arc::new(Described { family: Arc::clone(family), help: description.into() });
        if let (Some((log, now)), Some(segment)) = (self.metadata, self.segments.first_mut())
            && let Some(hash) = log.due(family, self.partition, description, now)
        {
            let chunk = Chunk {
                hash,
                time: 0,
                start: 0,
                end: segment.bytes.len(),
                v1_len: v1::metadata_len(&metric),
                metric: segment.metric(&metric),
                samples: 0,
                items: 0,
            };
            segment.chunks.push(chunk);
        }
        self.has_neighbours |= family.has_neighbour();
        self.metric = Some(metric);
    }

    fn point(&mut self, point: &Point<'_>) {
        let Some(metric) = &self.metric else { return };
        // Without the partition: a client whose headers change, as tokens do, still has its series in order. The upper
        // bits: the lower ones choose the place in hash tables.
        let shard = ((self.partition.turn(point.hash) >> 32) * self.segments.len() as u64) >> 32;
        let Some(segment) = self.segments.get_mut(shard as usize) else { return };
        let metric = segment.metric(metric);
        let begin = segment.bytes.len();
        let labels = point.labels.pieces();
        let mut out = SeriesWriter {
            out: RowWriter::begin(&mut segment.bytes, &labels),
            point,
            labels_len: point.labels.encoded().len(),
            time_len: v1::Time::new(point.time).bytes().len(),
            samples: 0,
            v1_len: 0,
        };
        match &point.value {
            PointValue::Number(value) => {
                put_all_exemplars(&mut self.scratch.exemplars, point.exemplars);
                out.put(Suffix::None, &[], SeriesValue::Sample(*value), &self.scratch.exemplars);
            }
            PointValue::Histogram(histogram) => out.put_histogram(histogram, self.scratch),
            PointValue::Native(histogram) => out.put_native(histogram, self.scratch),
            PointValue::Summary(summary) => out.put_summary(summary, self.scratch),
        }
        let (samples, v1_len) = (out.samples, out.v1_len);
        if v1_len > MAX_POINT {
            segment.bytes.truncate(begin);
            self.untranslatable += point.items;
            self.stats.too_large(point.family.name.as_bytes(), point.items);
            return;
        }
        self.series += u64::from(samples);
        segment.chunks.push(Chunk {
            hash: point.series(),
            time: point.time,
            // Not one in the future.
            start: if (1..=point.time).contains(&point.start) { point.start } else { 0 },
            end: segment.bytes.len(),
            v1_len,
            metric,
            samples,
            items: point.items as u32,
        });
    }

    fn target(&mut self, target: &Target<'_>) {
        self.targets.push(target.into());
    }

    fn dropped(&mut self, reason: Untranslatable, metric: &[u8], points: usize) {
        self.untranslatable += points;
        self.stats.dropped(reason, metric, points);
    }

    fn labels_lost(&mut self, metric: &[u8], lost: LostLabels) {
        self.stats.labels_lost(metric, lost);
    }

    fn exemplars_lost(&mut self, metric: &[u8], lost: LostExemplars) {
        self.stats.exemplars_lost(metric, lost);
    }

    fn targets_forgotten(&mut self, targets: usize) {
        self.stats.targets_forgotten(targets);
    }
}

/// Writes the series of one point.
struct SeriesWriter<'a> {
    out: RowWriter<'a>,
    point: &'a Point<'a>,
    labels_len: usize,
    time_len: usize,
    samples: u32,
    v1_len: usize,
}

impl SeriesWriter<'_> {
    /// A series. `extra` and `exemplars` are encoded.
    #[inline]
    fn put(&mut self, suffix: Suffix, extra: &[u8], value: SeriesValue<'_>, exemplars: &[u8]) {
        self.samples += 1;
        let labels = self.labels_len + self.point.family.name_label(suffix).len() + extra.len();
        self.v1_len = self.v1_len.saturating_add(v1::series_len(labels, value, exemplars.len(), self.time_len));
        self.out.series(suffix, extra, value, exemplars);
    }

    /// `value`, or the stale marker if the point ends its series.
    fn or_stale(&self, value: f64) -> SeriesValue<'static> {
        SeriesValue::Sample(if self.point.is_stale { f64::from_bits(STALE_NAN_BITS) } else { value })
    }

    fn put_histogram(&mut self, histogram: &Histogram<'_>, scratch: &mut EncodeScratch) {
        if let Some(sum) = histogram.sum {
            self.put(Suffix::Sum, &[], self.or_stale(sum), &[]);
        }
        let count = self.or_stale(histogram.count as f64);
        self.put(Suffix::Count, &[], count, &[]);
        let EncodeScratch { bounds, exemplars: encoded, by_value, le_format, .. } = scratch;
        let labels = bounds.labels(histogram.bounds, *le_format);
        let exemplars = self.point.exemplars;
        by_value.clear();
        by_value.extend_from_slice(exemplars.items());
        by_value.sort_by(|left, right| left.value.total_cmp(&right.value));
        let mut left = by_value.as_mut_slice();
        let (mut running, mut below) = (0u64, f64::NEG_INFINITY);
        for (index, (&bound, &count)) in histogram.bounds.iter().zip(histogram.counts).enumerate() {
            running = running.saturating_add(count);
            // Bounds that do not rise would make a series twice.
            let rises = index == 0 || bound > below;
            if bound == f64::INFINITY || bound.is_nan() || !rises {
                continue;
            }
            let inside = left.partition_point(|exemplar| exemplar.value <= bound);
            let (here, above) = std::mem::take(&mut left).split_at_mut(inside);
            put_exemplars(encoded, exemplars, here);
            left = above;
            self.put(Suffix::Bucket, labels.get(index), self.or_stale(running as f64), encoded);
            below = bound;
        }
        put_exemplars(encoded, exemplars, left);
        self.put(Suffix::Bucket, labels.infinity(), count, encoded);
    }

    fn put_summary(&mut self, summary: &Summary<'_>, scratch: &mut EncodeScratch) {
        self.put(Suffix::Sum, &[], self.or_stale(summary.sum), &[]);
        self.put(Suffix::Count, &[], self.or_stale(summary.count as f64), &[]);
        for &(quantile, value) in summary.quantiles {
            scratch.number.clear();
            scratch.label.clear();
            scratch.le_format.put(&mut scratch.number, quantile);
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
        let bounds = &histogram.custom_bounds;
        if !bounds.is_empty() {
            message.extend_from_slice(&CUSTOM_VALUES);
            put_varint(message, (bounds.len() * 8) as u64);
            bounds.iter().for_each(|value| message.extend_from_slice(&value.to_bits().to_le_bytes()));
        }
        put_all_exemplars(exemplars, self.point.exemplars);
        self.put(Suffix::None, &[], SeriesValue::Histogram(message), exemplars);
    }
}

/// These exemplars in the order of time, as fields of a `TimeSeries`.
fn put_exemplars(out: &mut Vec<u8>, exemplars: &Exemplars, chosen: &mut [Exemplar]) {
    out.clear();
    chosen.sort_by_key(|exemplar| exemplar.time);
    for exemplar in chosen {
        put_exemplar(out, exemplars, exemplar);
    }
}

/// All exemplars of a point.
fn put_all_exemplars(out: &mut Vec<u8>, exemplars: &Exemplars) {
    out.clear();
    for exemplar in exemplars.items() {
        put_exemplar(out, exemplars, exemplar);
    }
}

fn put_exemplar(out: &mut Vec<u8>, exemplars: &Exemplars, exemplar: &Exemplar) {
    let labels = exemplars.labels(exemplar);
    out.push(0x1a);
    put_varint(out, (labels.len() + 9 + 1 + varint_len(exemplar.time as u64)) as u64);
    out.extend_from_slice(labels);
    put_double(out, 0x11, exemplar.value);
    out.push(0x18);
    put_varint(out, exemplar.time as u64);
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

/// `le` labels of the bounds met last, encoded: formatting a float costs more than all the rest.
#[derive(Default)]
struct BoundLabels {
    known: Vec<Encoded>,
    next: usize,
    /// The last set that was too large to be remembered.
    large: Encoded,
}

/// How many sets of bounds are remembered: an SDK has a handful.
const REMEMBERED_BOUNDS: usize = 16;

/// Sets of more bounds are not remembered.
const MAX_REMEMBERED: usize = 1024;

#[derive(Default)]
struct Encoded {
    bounds: Vec<f64>,
    bytes: Vec<u8>,
    /// Where each label ends; the last one is `+Inf`.
    ends: Vec<usize>,
}

impl BoundLabels {
    fn labels(&mut self, bounds: &[f64], format: LeFormat) -> &Encoded {
        if bounds.len() > MAX_REMEMBERED {
            self.large = Encoded::new(bounds, format);
            return &self.large;
        }
        let is_same = |known: &Encoded| {
            known.bounds.len() == bounds.len()
                && known.bounds.iter().zip(bounds).all(|(left, right)| left.to_bits() == right.to_bits())
        };
        let index = match self.known.iter().position(is_same) {
            Some(index) => index,
            None if self.known.len() < REMEMBERED_BOUNDS => {
                self.known.push(Encoded::new(bounds, format));
                self.known.len() - 1
            }
            None => {
                self.next = (self.next + 1) % REMEMBERED_BOUNDS;
                self.known[self.next] = Encoded::new(bounds, format);
                self.next
            }
        };
        &self.known[index]
    }
}

impl Encoded {
    fn new(bounds: &[f64], format: LeFormat) -> Self {
        let mut encoded = Self { bounds: bounds.to_vec(), ..Self::default() };
        let mut number = Vec::new();
        for &bound in bounds.iter().chain(&[f64::INFINITY]) {
            number.clear();
            format.put(&mut number, bound);
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
