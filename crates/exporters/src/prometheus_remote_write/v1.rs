//! Rows as remote write 1.0: `prometheus.WriteRequest`.
//!
//! Messages and fields: `prompb/types.proto` of Prometheus. Exemplars, native histograms and
//! metadata are not in the 1.0 specification, but every receiver knows them.

use nyquist_core::wire::{put_varint, varint_len};

use super::rows::{Chunk, Described, Row, Series, SeriesValue};

/// Appends a chunk: the series of a point, or metadata.
pub(super) fn put_chunk(out: &mut Vec<u8>, chunk: &Chunk, row: &[u8], metric: &Described) {
    if chunk.samples == 0 {
        return put_metadata(out, metric);
    }
    let time = Time::new(chunk.time);
    let row = Row::read(row);
    let labels = row.labels;
    for series in row {
        put_series(out, &time, &labels, &series, metric);
    }
}

/// A `TimeSeries` (field 1 of the request).
#[inline]
fn put_series(out: &mut Vec<u8>, time: &Time, labels: &[&[u8]; 3], series: &Series<'_>, metric: &Described) {
    let Series { suffix, extra, value, exemplars } = *series;
    let name = metric.family.name_label(suffix);
    let labels_len: usize = labels.iter().map(|piece| piece.len()).sum();
    out.push(0x0a);
    put_varint(
        out,
        (labels_len + name.len() + extra.len() + value_len(value, time.bytes().len()) + exemplars.len()) as u64,
    );
    out.extend_from_slice(labels[0]);
    out.extend_from_slice(name);
    out.extend_from_slice(labels[1]);
    out.extend_from_slice(extra);
    out.extend_from_slice(labels[2]);
    match value {
        SeriesValue::Sample(value) => {
            let time = time.bytes();
            out.push(0x12);
            out.push((9 + time.len()) as u8);
            out.push(0x09);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
            out.extend_from_slice(time);
        }
        SeriesValue::Histogram(message) => {
            out.push(0x22);
            put_varint(out, message.len() as u64);
            out.extend_from_slice(message);
        }
    }
    out.extend_from_slice(exemplars);
}

#[inline]
fn value_len(value: SeriesValue<'_>, time_len: usize) -> usize {
    match value {
        SeriesValue::Sample(_) => 2 + 9 + time_len,
        SeriesValue::Histogram(message) => 1 + varint_len(message.len() as u64) + message.len(),
    }
}

/// How many bytes a series takes whose labels are encoded in `labels` bytes.
#[inline]
pub(super) fn series_len(labels: usize, value: SeriesValue<'_>, exemplars: usize, time_len: usize) -> usize {
    let len = labels + value_len(value, time_len) + exemplars;
    1 + varint_len(len as u64) + len
}

/// How many bytes metadata takes.
pub(super) fn metadata_len(metric: &Described) -> usize {
    let text_len = |len: usize| 1 + varint_len(len as u64) + len;
    let Described { family, help } = metric;
    let len = 2 + text_len(family.described_name().len()) + text_len(help.len()) + text_len(family.unit.len());
    text_len(len)
}

/// A `MetricMetadata` (field 3 of the request).
fn put_metadata(out: &mut Vec<u8>, metric: &Described) {
    let Described { family, help } = metric;
    let mut message = vec![0x08];
    put_varint(&mut message, family.metric_type.number());
    for (tag, text) in [(0x12, family.described_name().as_bytes()), (0x22, help), (0x2a, family.unit.as_bytes())] {
        message.push(tag);
        put_varint(&mut message, text.len() as u64);
        message.extend_from_slice(text);
    }
    out.push(0x1a);
    put_varint(out, message.len() as u64);
    out.extend_from_slice(&message);
}

/// The `timestamp` field of a `Sample`, encoded.
pub(super) struct Time {
    bytes: [u8; 11],
    len: usize,
}

impl Time {
    pub(super) fn new(millis: i64) -> Self {
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

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
