//! Points between translation and the wire, in a form that both versions of the protocol are
//! written from.
//!
//! A point's labels are there once, whatever the number of its series: a histogram of 15 buckets
//! has 17. Which version is written is decided by the shard when it fills a request, so that a
//! backend that turns 2.0 down gets the same points as 1.0.
//!
//! A row is
//!
//! ```text
//! labels in three pieces: behind the first goes `__name__`, behind the second `le` or `quantile`
//! series until the end:   flags, [extra label], value or native histogram, [exemplars]
//! ```
//!
//! where texts are preceded by their lengths (32 bits), and labels, exemplars and native histograms
//! are encoded as the messages of 1.0.

use std::sync::Arc;

use crate::prometheus_mapping::{Family, STALE_NAN_BITS, Suffix};

/// A metric that rows belong to.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) family: Arc<Family>,
    /// Its description.
    pub(super) help: Box<[u8]>,
}

/// The series of one data point, or one entry of metadata.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Chunk {
    /// Of the point's series: equal for all points of which one may be sent for one time.
    pub(super) hash: u64,
    /// In milliseconds since the epoch.
    pub(super) time: i64,
    /// When a counter, histogram or summary began, in milliseconds since the epoch; 0 if unknown.
    pub(super) start: i64,
    /// Where its row ends; it begins where the one before ends.
    pub(super) end: usize,
    /// How many bytes it takes as remote write 1.0.
    pub(super) v1_len: usize,
    /// Which of the segment's metrics it belongs to.
    pub(super) metric: u32,
    /// Samples and native histograms; 0 for metadata.
    pub(super) samples: u32,
    /// Data points: 1, or 0 for what we have added.
    pub(super) items: u32,
}

/// Rows for one shard.
#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) bytes: Vec<u8>,
    pub(super) chunks: Vec<Chunk>,
    pub(super) metrics: Vec<Arc<Described>>,
}

impl Segment {
    /// The number of `metric`, whose points follow.
    #[inline]
    pub(super) fn metric(&mut self, metric: &Arc<Described>) -> u32 {
        if !self.metrics.last().is_some_and(|last| Arc::ptr_eq(last, metric)) {
            self.metrics.push(Arc::clone(metric));
        }
        self.metrics.len() as u32 - 1
    }

    /// Its chunks, each with its row and its metric.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Chunk, &[u8], &Arc<Described>)> {
        let mut begin = 0;
        self.chunks.iter().filter_map(move |chunk| {
            let row = self.bytes.get(std::mem::replace(&mut begin, chunk.end)..chunk.end)?;
            Some((chunk, row, self.metrics.get(chunk.metric as usize)?))
        })
    }

    /// Takes out the chunks that are not to be kept.
    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&Chunk, &[u8], &Described) -> bool) {
        let kept: Vec<bool> = self.rows().map(|(chunk, row, metric)| is_kept(chunk, row, metric)).collect();
        if kept.iter().all(|is_kept| *is_kept) {
            return;
        }
        let mut left = Self::default();
        for ((&chunk, row, _), _) in self.rows().zip(kept).filter(|(_, is_kept)| *is_kept) {
            left.bytes.extend_from_slice(row);
            left.chunks.push(Chunk { end: left.bytes.len(), ..chunk });
        }
        left.metrics = std::mem::take(&mut self.metrics);
        *self = left;
    }
}

const SUFFIX: u8 = 0b11;
const HAS_EXTRA: u8 = 0b100;
const HAS_EXEMPLARS: u8 = 0b1000;
const IS_HISTOGRAM: u8 = 0b1_0000;

/// Writes rows.
pub(super) struct RowWriter<'a>(&'a mut Vec<u8>);

impl<'a> RowWriter<'a> {
    /// A row of series with these labels at the end of `out`.
    #[inline]
    pub(super) fn begin(out: &'a mut Vec<u8>, labels: &[&[u8]; 3]) -> Self {
        let mut writer = Self(out);
        labels.iter().for_each(|piece| writer.text(piece));
        writer
    }

    #[inline]
    pub(super) fn series(&mut self, suffix: Suffix, extra: &[u8], value: SeriesValue<'_>, exemplars: &[u8]) {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let is_histogram = matches!(value, SeriesValue::Histogram(_));
        self.0.push(
            number_of(suffix)
                | flag(!extra.is_empty(), HAS_EXTRA)
                | flag(!exemplars.is_empty(), HAS_EXEMPLARS)
                | flag(is_histogram, IS_HISTOGRAM),
        );
        if !extra.is_empty() {
            self.text(extra);
        }
        match value {
            SeriesValue::Sample(value) => self.0.extend_from_slice(&value.to_bits().to_le_bytes()),
            SeriesValue::Histogram(message) => self.text(message),
        }
        if !exemplars.is_empty() {
            self.text(exemplars);
        }
    }

    #[inline]
    fn text(&mut self, text: &[u8]) {
        self.0.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.0.extend_from_slice(text);
    }
}

fn number_of(suffix: Suffix) -> u8 {
    match suffix {
        Suffix::None => 0,
        Suffix::Bucket => 1,
        Suffix::Sum => 2,
        Suffix::Count => 3,
    }
}

/// One series of a point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Series<'a> {
    pub(super) suffix: Suffix,
    /// `le` or `quantile`, encoded; empty for none.
    pub(super) extra: &'a [u8],
    pub(super) value: SeriesValue<'a>,
    /// Exemplars as fields of the `TimeSeries` of 1.0.
    pub(super) exemplars: &'a [u8],
}

impl Series<'_> {
    /// Is it the marker that ends a series of floats?
    pub(super) fn is_stale(&self) -> bool {
        matches!(self.value, SeriesValue::Sample(value) if value.to_bits() == STALE_NAN_BITS)
    }
}

/// Its value.
#[derive(Debug, Clone, Copy)]
pub(super) enum SeriesValue<'a> {
    Sample(f64),
    /// A `Histogram` message of 1.0.
    Histogram(&'a [u8]),
}

/// Reads a row.
pub(super) struct Row<'a> {
    /// The labels, in three pieces.
    pub(super) labels: [&'a [u8]; 3],
    rest: &'a [u8],
}

impl<'a> Row<'a> {
    #[inline]
    pub(super) fn read(mut bytes: &'a [u8]) -> Self {
        let labels = [(); 3].map(|()| text(&mut bytes));
        Self { labels, rest: bytes }
    }
}

impl<'a> Iterator for Row<'a> {
    type Item = Series<'a>;

    #[inline]
    fn next(&mut self) -> Option<Series<'a>> {
        let (&flags, rest) = self.rest.split_first()?;
        self.rest = rest;
        let suffix = match flags & SUFFIX {
            0 => Suffix::None,
            1 => Suffix::Bucket,
            2 => Suffix::Sum,
            _ => Suffix::Count,
        };
        let extra = if flags & HAS_EXTRA == 0 { &[][..] } else { text(&mut self.rest) };
        let value = if flags & IS_HISTOGRAM == 0 {
            let (bits, rest) = self.rest.split_first_chunk()?;
            self.rest = rest;
            SeriesValue::Sample(f64::from_bits(u64::from_le_bytes(*bits)))
        } else {
            SeriesValue::Histogram(text(&mut self.rest))
        };
        let exemplars = if flags & HAS_EXEMPLARS == 0 { &[][..] } else { text(&mut self.rest) };
        Some(Series { suffix, extra, value, exemplars })
    }
}

/// Takes a text with its length from the front; nothing if the row ends too early, which ours do
/// not.
#[inline]
fn text<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let Some((len, rest)) = bytes.split_first_chunk() else {
        *bytes = &[];
        return &[];
    };
    let Some((text, rest)) = rest.split_at_checked(u32::from_le_bytes(*len) as usize) else {
        *bytes = &[];
        return &[];
    };
    *bytes = rest;
    text
}
