//! Remote write requests, 1.0 and 2.0, read in place.
//!
//! Nothing is decoded as a whole: a request of 20 MiB can claim a hundred times that in structures. Series are
//! walked one by one, and what they come to is charged to a budget by the translation.

use std::borrow::Cow;

use nyquist_core::wire::{Field, Fields, Value};

use crate::prometheus::exposition::MetricType;
use crate::prometheus::labels::Labels;
use crate::prometheus::native::{Dialect, Histogram};
use crate::prometheus::packed::{malformed, pair, text, varints};

/// Which protocol a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// A request.
pub(super) struct Request<'a> {
    version: Version,
    body: &'a [u8],
    /// Of 2.0: what references point at.
    symbols: Vec<&'a str>,
}

/// What a series says beside its labels.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Head<'a> {
    /// `None` if nothing is said.
    pub(super) kind: Option<MetricType>,
    pub(super) help: &'a str,
    pub(super) unit: &'a str,
    /// Milliseconds since 1970; 0 if nothing is said.
    pub(super) created: i64,
    pub(super) samples: usize,
    pub(super) histograms: usize,
    pub(super) exemplars: usize,
}

/// One sample.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) value: f64,
    /// Milliseconds since 1970.
    pub(super) timestamp: i64,
    /// Milliseconds since 1970; 0 if nothing is said.
    pub(super) start: i64,
}

/// One exemplar.
#[derive(Debug, Clone, Default)]
pub(super) struct Exemplar<'a> {
    pub(super) labels: Labels<'a>,
    pub(super) value: f64,
    pub(super) timestamp: i64,
}

/// Metadata of a family: 1.0 sends it apart from series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metadata<'a> {
    pub(super) family: &'a str,
    pub(super) kind: MetricType,
    pub(super) help: &'a str,
    pub(super) unit: &'a str,
}

impl<'a> Request<'a> {
    /// Reads the outline of `body`: every field of the request itself, and its symbols.
    pub(super) fn new(version: Version, body: &'a [u8]) -> Result<Self, String> {
        let mut symbols = Vec::new();
        let mut fields = Fields::new(body);
        while let Some(field) = fields.next_field().map_err(|error| format!("cannot decode the request: {error}"))? {
            if let (Version::V2, Field { number: 4, value: Value::Len(symbol) }) = (version, field) {
                symbols.push(text(symbol)?);
            }
        }
        if version == Version::V2 && !symbols.is_empty() && symbols.first() != Some(&"") {
            return Err("the first symbol must be empty".to_owned());
        }
        Ok(Self { version, body, symbols })
    }

    /// How many bytes the symbol table takes beside the body.
    pub(super) fn overhead(&self) -> usize {
        self.symbols.capacity() * size_of::<&str>()
    }

    /// The series, undecoded.
    pub(super) fn series(&self) -> impl Iterator<Item = &'a [u8]> {
        let wanted = match self.version {
            Version::V1 => 1,
            Version::V2 => 5,
        };
        messages(self.body, wanted)
    }

    /// The metadata of 1.0.
    pub(super) fn metadata(&self) -> impl Iterator<Item = Metadata<'a>> {
        let wanted = match self.version {
            Version::V1 => 3,
            // No such field.
            Version::V2 => 0,
        };
        messages(self.body, wanted).map(|message| {
            let mut metadata = Metadata { family: "", kind: MetricType::Unknown, help: "", unit: "" };
            for field in Fields::new(message) {
                match (field.number, field.value) {
                    (1, Value::Varint(kind)) => metadata.kind = metric_type(kind).unwrap_or_default(),
                    (2, Value::Len(family)) => metadata.family = text(family).unwrap_or_default(),
                    (4, Value::Len(help)) => metadata.help = text(help).unwrap_or_default(),
                    (5, Value::Len(unit)) => metadata.unit = text(unit).unwrap_or_default(),
                    _ => {}
                }
            }
            metadata
        })
    }

    /// Reads the labels and the outline of `series`.
    pub(super) fn head(&self, series: &'a [u8], labels: &mut Labels<'a>) -> Result<Head<'a>, String> {
        labels.clear();
        let mut head = Head::default();
        let mut refs = References::default();
        let mut fields = Fields::new(series);
        while let Some(field) = fields.next_field().map_err(malformed)? {
            match (self.version, field.number, field.value) {
                (Version::V1, 1, Value::Len(label)) => {
                    let (name, value) = pair(label)?;
                    labels.push(Cow::Borrowed(name), Cow::Borrowed(value));
                }
                (Version::V2, 1, value) => refs.take(value, |name, value| self.label(name, value, labels))?,
                (_, 2, Value::Len(_)) => head.samples += 1,
                (Version::V1, 3, Value::Len(_)) | (Version::V2, 4, Value::Len(_)) => head.exemplars += 1,
                (Version::V1, 4, Value::Len(_)) | (Version::V2, 3, Value::Len(_)) => head.histograms += 1,
                (Version::V2, 5, Value::Len(metadata)) => self.describe(metadata, &mut head)?,
                (Version::V2, 6, Value::Varint(created)) => head.created = created as i64,
                _ => {}
            }
        }
        refs.end()?;
        labels.settle()?;
        if labels.iter().any(|(name, _)| name.is_empty()) {
            return Err("a label without a name".to_owned());
        }
        Ok(head)
    }

    /// The samples of `series`.
    pub(super) fn samples(&self, series: &'a [u8]) -> impl Iterator<Item = Result<Sample, String>> {
        messages(series, 2).map(|message| {
            let mut sample = Sample::default();
            let mut fields = Fields::new(message);
            while let Some(field) = fields.next_field().map_err(malformed)? {
                match (field.number, field.value) {
                    (1, Value::Fixed64(bits)) => sample.value = f64::from_bits(bits),
                    (2, Value::Varint(time)) => sample.timestamp = time as i64,
                    (3, Value::Varint(start)) => sample.start = start as i64,
                    _ => {}
                }
            }
            Ok(sample)
        })
    }

    /// The native histograms of `series`.
    pub(super) fn histograms(&self, series: &'a [u8]) -> impl Iterator<Item = Result<Histogram, String>> {
        let wanted = match self.version {
            Version::V1 => 4,
            Version::V2 => 3,
        };
        messages(series, wanted).map(|message| Histogram::read(message, Dialect::RemoteWrite))
    }

    /// The exemplars of `series`.
    pub(super) fn exemplars(&self, series: &'a [u8]) -> impl Iterator<Item = Result<Exemplar<'a>, String>> {
        let wanted = match self.version {
            Version::V1 => 3,
            Version::V2 => 4,
        };
        messages(series, wanted).map(|message| {
            let mut exemplar = Exemplar::default();
            let mut refs = References::default();
            let mut fields = Fields::new(message);
            while let Some(field) = fields.next_field().map_err(malformed)? {
                match (self.version, field.number, field.value) {
                    (Version::V1, 1, Value::Len(label)) => {
                        let (name, value) = pair(label)?;
                        exemplar.labels.push(Cow::Borrowed(name), Cow::Borrowed(value));
                    }
                    (Version::V2, 1, value) => {
                        refs.take(value, |name, value| self.label(name, value, &mut exemplar.labels))?;
                    }
                    (_, 2, Value::Fixed64(bits)) => exemplar.value = f64::from_bits(bits),
                    (_, 3, Value::Varint(time)) => exemplar.timestamp = time as i64,
                    _ => {}
                }
            }
            refs.end()?;
            exemplar.labels.settle()?;
            Ok(exemplar)
        })
    }

    fn label(&self, name: u64, value: u64, labels: &mut Labels<'a>) -> Result<(), String> {
        labels.push(Cow::Borrowed(self.symbol(name)?), Cow::Borrowed(self.symbol(value)?));
        Ok(())
    }

    fn symbol(&self, reference: u64) -> Result<&'a str, String> {
        let symbol = usize::try_from(reference).ok().and_then(|index| self.symbols.get(index));
        let count = self.symbols.len();
        symbol.copied().ok_or_else(|| format!("a reference to symbol {reference}, of which there are {count}"))
    }

    fn describe(&self, metadata: &'a [u8], head: &mut Head<'a>) -> Result<(), String> {
        let mut fields = Fields::new(metadata);
        while let Some(field) = fields.next_field().map_err(malformed)? {
            match (field.number, field.value) {
                (1, Value::Varint(kind)) => head.kind = metric_type(kind),
                (3, Value::Varint(help)) => head.help = self.symbol(help)?,
                (4, Value::Varint(unit)) => head.unit = self.symbol(unit)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// References to names and values of labels, in turn.
#[derive(Default)]
struct References {
    name: Option<u64>,
}

impl References {
    /// Takes one reference, or a packed list of them.
    fn take(&mut self, value: Value<'_>, mut add: impl FnMut(u64, u64) -> Result<(), String>) -> Result<(), String> {
        let mut one = |reference: u64| match self.name.take() {
            None => {
                self.name = Some(reference);
                Ok(())
            }
            Some(name) => add(name, reference),
        };
        match value {
            Value::Varint(reference) => one(reference),
            Value::Len(packed) => varints(packed).try_for_each(|reference| one(reference?)),
            _ => Ok(()),
        }
    }

    fn end(&self) -> Result<(), String> {
        if self.name.is_none() { Ok(()) } else { Err("a label's name without a value".to_owned()) }
    }
}

/// The messages in field `wanted` of `bytes`.
fn messages(bytes: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> {
    Fields::new(bytes).filter_map(move |field| match field.value {
        Value::Len(message) if field.number == wanted => Some(message),
        _ => None,
    })
}

/// `MetricType` of both protocols, which agree; `None` for 0, unknown.
fn metric_type(number: u64) -> Option<MetricType> {
    match number {
        1 => Some(MetricType::Counter),
        2 => Some(MetricType::Gauge),
        3 => Some(MetricType::Histogram),
        4 => Some(MetricType::GaugeHistogram),
        5 => Some(MetricType::Summary),
        6 => Some(MetricType::Info),
        7 => Some(MetricType::StateSet),
        _ => None,
    }
}
