//! Rows as remote write 2.0: `io.prometheus.write.v2.Request`
//! (<https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>, 2.0-rc.5).
//!
//! Texts are numbered in a table of the request. Labels that a point shares with the one before it
//! at the same place, as those of its resource and scope are, are not even looked up.

use std::sync::Arc;

use nyquist_core::wire::{Field, Fields, Value, put_varint, varint_len};

use super::rows::{Chunk, Described, Row, Series, SeriesValue};
use super::symbols::Symbols;

/// Tags: `timeseries` in a request.
const TIMESERIES: u8 = 0x2a;
/// `labels_refs`, `samples`, `histograms`, `exemplars`, `metadata` in a series; the first also in an
/// exemplar.
const LABELS: u8 = 0x0a;
const SAMPLES: u8 = 0x12;
const HISTOGRAMS: u8 = 0x1a;
const EXEMPLARS: u8 = 0x22;
const METADATA: u8 = 0x2a;
/// `start_timestamp` in a sample and in a histogram.
const SAMPLE_START: u8 = 0x18;
const HISTOGRAM_START: [u8; 2] = [0x88, 0x01];

/// What a request holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) samples: u64,
    pub(super) histograms: u64,
    pub(super) exemplars: u64,
}

/// Buffers that are used again and again.
pub(super) struct Buffers {
    symbols: Symbols,
    series: Vec<u8>,
    body: Vec<u8>,
    labels: Vec<u8>,
    extra: Vec<u8>,
    metadata: Vec<u8>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            symbols: Symbols::new(),
            series: Vec::new(),
            body: Vec::new(),
            labels: Vec::new(),
            extra: Vec::new(),
            metadata: Vec::new(),
        }
    }
}

/// A label, and the numbers of its name and value.
#[derive(Clone, Copy)]
struct Numbered<'a> {
    label: &'a [u8],
    numbers: [u32; 2],
}

/// A request that is being written.
pub(super) struct Message<'a, 'b> {
    buffers: &'b mut Buffers,
    /// The labels of the point before.
    before: Vec<Numbered<'a>>,
    /// The metric of the point before.
    metric: Option<&'a Arc<Described>>,
    /// The numbers of `__name__` and of the metric's names, by suffix, as far as they are known.
    names: [Option<[u32; 2]>; 4],
    totals: Totals,
}

impl<'a, 'b> Message<'a, 'b> {
    pub(super) fn new(buffers: &'b mut Buffers) -> Self {
        buffers.symbols.clear();
        buffers.series.clear();
        Self { buffers, before: Vec::new(), metric: None, names: [None; 4], totals: Totals::default() }
    }

    /// Adds a chunk. Metadata goes with each series: a chunk of it is left out.
    pub(super) fn put_chunk(&mut self, chunk: &Chunk, row: &'a [u8], metric: &'a Arc<Described>) {
        if chunk.samples == 0 {
            return;
        }
        if !self.metric.is_some_and(|before| Arc::ptr_eq(before, metric)) {
            self.begin_metric(metric);
        }
        let row = Row::read(row);
        let cuts = self.number_labels(&row.labels);
        for series in row {
            self.put_series(chunk, metric, cuts, &series);
        }
    }

    /// The message. Symbols come first: there are receivers that read in one pass.
    pub(super) fn finish(self, out: &mut Vec<u8>) -> Totals {
        out.clear();
        out.reserve(self.buffers.symbols.encoded().len() + self.buffers.series.len());
        out.extend_from_slice(self.buffers.symbols.encoded());
        out.extend_from_slice(&self.buffers.series);
        self.totals
    }

    fn begin_metric(&mut self, metric: &'a Arc<Described>) {
        self.metric = Some(metric);
        self.names = [None; 4];
        let Buffers { symbols, metadata, body, .. } = &mut *self.buffers;
        body.clear();
        body.push(0x08);
        put_varint(body, metric.family.metric_type.number());
        for (tag, text) in [(0x18, &metric.help[..]), (0x20, metric.family.unit.as_bytes())] {
            if !text.is_empty() {
                body.push(tag);
                put_varint(body, u64::from(symbols.number(text)));
            }
        }
        metadata.clear();
        metadata.push(METADATA);
        put_varint(metadata, body.len() as u64);
        metadata.extend_from_slice(body);
    }

    /// Numbers a point's labels. Returns where the pieces end in the encoded numbers.
    fn number_labels(&mut self, pieces: &[&'a [u8]; 3]) -> [usize; 2] {
        let Buffers { symbols, labels, .. } = &mut *self.buffers;
        labels.clear();
        let mut count = 0;
        let cuts = pieces.map(|piece| {
            for label in messages(piece, 1) {
                let known = self.before.get(count).filter(|before| before.label == label);
                let numbers = match known {
                    Some(known) => known.numbers,
                    None => {
                        let numbers = numbers_of(symbols, label);
                        let numbered = Numbered { label, numbers };
                        match self.before.get_mut(count) {
                            Some(before) => *before = numbered,
                            None => self.before.push(numbered),
                        }
                        numbers
                    }
                };
                put_numbers(labels, numbers);
                count += 1;
            }
            labels.len()
        });
        [cuts[0], cuts[1]]
    }

    fn put_series(&mut self, chunk: &Chunk, metric: &Described, cuts: [usize; 2], series: &Series<'_>) {
        let Series { suffix, extra: extra_label, value, exemplars } = *series;
        let Self { buffers, names, totals, .. } = self;
        let Buffers { symbols, series: out, body, labels, extra, metadata } = &mut **buffers;
        let name = match names.get_mut(suffix as usize) {
            Some(Some(known)) => *known,
            unknown => {
                let label = messages(metric.family.name_label(suffix), 1).next().unwrap_or_default();
                let numbers = numbers_of(symbols, label);
                if let Some(unknown) = unknown {
                    *unknown = Some(numbers);
                }
                numbers
            }
        };
        extra.clear();
        if let Some(label) = messages(extra_label, 1).next() {
            put_numbers(extra, numbers_of(symbols, label));
        }
        body.clear();
        body.push(LABELS);
        let name_len: usize = name.iter().map(|&number| varint_len(u64::from(number))).sum();
        put_varint(body, (labels.len() + name_len + extra.len()) as u64);
        let (start, rest) = labels.split_at_checked(cuts[0]).unwrap_or_default();
        let (middle, end) = rest.split_at_checked(cuts[1] - cuts[0]).unwrap_or_default();
        body.extend_from_slice(start);
        put_numbers(body, name);
        body.extend_from_slice(middle);
        body.extend_from_slice(extra);
        body.extend_from_slice(end);
        match value {
            SeriesValue::Sample(value) => {
                totals.samples += 1;
                put_sample(body, value, chunk);
            }
            SeriesValue::Histogram(message) => {
                totals.histograms += 1;
                put_histogram(body, message, chunk);
            }
        }
        for exemplar in messages(exemplars, 3) {
            totals.exemplars += 1;
            put_exemplar(body, extra, symbols, exemplar);
        }
        body.extend_from_slice(metadata);
        out.push(TIMESERIES);
        put_varint(out, body.len() as u64);
        out.extend_from_slice(body);
    }
}

fn put_sample(out: &mut Vec<u8>, value: f64, chunk: &Chunk) {
    let start_len = if chunk.start == 0 { 0 } else { 1 + varint_len(chunk.start as u64) };
    out.push(SAMPLES);
    out.push((9 + 1 + varint_len(chunk.time as u64) + start_len) as u8);
    out.push(0x09);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
    out.push(0x10);
    put_varint(out, chunk.time as u64);
    if chunk.start != 0 {
        out.push(SAMPLE_START);
        put_varint(out, chunk.start as u64);
    }
}

/// Fields 1 to 16 are those of 1.0.
fn put_histogram(out: &mut Vec<u8>, message: &[u8], chunk: &Chunk) {
    let start_len = if chunk.start == 0 { 0 } else { HISTOGRAM_START.len() + varint_len(chunk.start as u64) };
    out.push(HISTOGRAMS);
    put_varint(out, (message.len() + start_len) as u64);
    out.extend_from_slice(message);
    if chunk.start != 0 {
        out.extend_from_slice(&HISTOGRAM_START);
        put_varint(out, chunk.start as u64);
    }
}

/// An exemplar of 1.0; `refs` is a buffer.
fn put_exemplar(out: &mut Vec<u8>, refs: &mut Vec<u8>, symbols: &mut Symbols, exemplar: &[u8]) {
    refs.clear();
    let (mut bits, mut time) = (0, 0);
    for Field { number, value } in Fields::new(exemplar) {
        match (number, value) {
            (1, Value::Len(label)) => put_numbers(refs, numbers_of(symbols, label)),
            (2, Value::Fixed64(value)) => bits = value,
            (3, Value::Varint(value)) => time = value,
            _ => {}
        }
    }
    let refs_len = if refs.is_empty() { 0 } else { 1 + varint_len(refs.len() as u64) + refs.len() };
    out.push(EXEMPLARS);
    put_varint(out, (refs_len + 9 + 1 + varint_len(time)) as u64);
    if !refs.is_empty() {
        out.push(LABELS);
        put_varint(out, refs.len() as u64);
        out.extend_from_slice(refs);
    }
    out.push(0x11);
    out.extend_from_slice(&bits.to_le_bytes());
    out.push(0x18);
    put_varint(out, time);
}

/// The messages in fields `number`.
fn messages(bytes: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    Fields::new(bytes).filter_map(move |field| match field.value {
        Value::Len(message) if field.number == number => Some(message),
        _ => None,
    })
}

/// The numbers of name and value of a `Label` of 1.0.
fn numbers_of(symbols: &mut Symbols, label: &[u8]) -> [u32; 2] {
    let mut numbers = [0; 2];
    for Field { number, value } in Fields::new(label) {
        match (number, value) {
            (1, Value::Len(name)) => numbers[0] = symbols.number(name),
            (2, Value::Len(value)) => numbers[1] = symbols.number(value),
            _ => {}
        }
    }
    numbers
}

#[inline]
fn put_numbers(out: &mut Vec<u8>, numbers: [u32; 2]) {
    for number in numbers {
        put_varint(out, u64::from(number));
    }
}
