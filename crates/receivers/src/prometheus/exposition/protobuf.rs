//! Pages of `io.prometheus.client.MetricFamily` messages, each with its length in front.
//!
//! Read in place, one sample after the other: nothing is held but the labels of one metric. Metrics are told as the
//! samples that they would be in text, native histograms as a whole.

use std::borrow::Cow;
use std::collections::VecDeque;

use nyquist_core::wire::{Fields, Value};

use super::{Entry, Exemplar, MetricType, Native, Sample};
use crate::prometheus::labels::{Labels, NAME};
use crate::prometheus::native::{Dialect, Histogram};
use crate::prometheus::packed::{malformed, pair, text};

/// More exemplars of one native histogram than this are left out.
const MAX_EXEMPLARS: usize = 1024;

/// What to do with native histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Natives {
    /// Only classic ones are read.
    #[default]
    Ignored,
    /// Where there is a native one, the classic one beside it is left out.
    Instead,
    /// Both are read.
    Beside,
}

/// Reads a page.
#[derive(Debug)]
pub(crate) struct Parser<'a> {
    rest: &'a [u8],
    natives: Natives,
    family: Family<'a>,
    /// What is left of the family.
    metrics: Fields<'a>,
    metric: Option<Metric<'a>>,
    /// What one message said at once: a handful.
    queue: VecDeque<Told<'a>>,
}

#[derive(Debug, Default)]
struct Family<'a> {
    name: &'a str,
    kind: MetricType,
}

/// An entry that is not yet told: a sample with a suffix of its name, and an inner label.
#[derive(Debug)]
enum Told<'a> {
    Entry(Entry<'a>),
    Sample(&'static str, Option<(&'static str, String)>, Sample<'a>),
}

/// The buckets or quantiles of a metric that are still to be told.
#[derive(Debug)]
struct Metric<'a> {
    labels: Labels<'a>,
    timestamp: Option<i64>,
    parts: Fields<'a>,
    /// The field of the parts; 0 if there are none.
    wanted: u32,
    /// Of a histogram: its count, until a bucket `+Inf` was told.
    total: Option<f64>,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(page: &'a [u8], natives: Natives) -> Self {
        let (family, metrics) = (Family::default(), Fields::new(&[]));
        Self { rest: page, natives, family, metrics, metric: None, queue: VecDeque::new() }
    }

    /// What comes next; `None` at the end. The labels of a sample are put into `labels`.
    pub(crate) fn next(&mut self, labels: &mut Labels<'a>) -> Result<Option<Entry<'a>>, String> {
        loop {
            match self.queue.pop_front() {
                Some(Told::Entry(entry)) => return Ok(Some(entry)),
                Some(Told::Sample(suffix, inner, sample)) => {
                    self.label(suffix, inner, labels)?;
                    return Ok(Some(Entry::Sample(sample)));
                }
                None => {}
            }
            if self.next_part()? || self.next_metric()? || self.next_family()? {
                continue;
            }
            return Ok(None);
        }
    }

    fn label(
        &self,
        suffix: &str,
        inner: Option<(&'static str, String)>,
        labels: &mut Labels<'a>,
    ) -> Result<(), String> {
        labels.clear();
        labels.clone_from(self.metric.as_ref().map(|metric| &metric.labels).ok_or("a sample without a metric")?);
        let name = if suffix.is_empty() {
            Cow::Borrowed(self.family.name)
        } else {
            Cow::Owned(format!("{}{suffix}", self.family.name))
        };
        labels.set(NAME, name);
        if let Some((name, value)) = inner {
            labels.set(name, value);
        }
        Ok(())
    }

    /// Begins the next family; `false` at the end of the page.
    fn next_family(&mut self) -> Result<bool, String> {
        if self.rest.is_empty() {
            return Ok(false);
        }
        let message = self.delimited()?;
        // A type that is not written is the first one.
        let mut family = Family { name: "", kind: metric_type(0) };
        let (mut help, mut unit) = ("", "");
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field().map_err(malformed)? {
            match (field.number, field.value) {
                (1, Value::Len(name)) => family.name = text(name)?,
                (2, Value::Len(text_of_help)) => help = text(text_of_help)?,
                (3, Value::Varint(kind)) => family.kind = metric_type(kind),
                (5, Value::Len(text_of_unit)) => unit = text(text_of_unit)?,
                _ => {}
            }
        }
        if family.name.is_empty() {
            return Err("a family without a name".to_owned());
        }
        let name = Cow::Borrowed(family.name);
        self.queue.push_back(Told::Entry(Entry::Type(name.clone(), family.kind)));
        if !help.is_empty() {
            self.queue.push_back(Told::Entry(Entry::Help(name.clone(), Cow::Borrowed(help))));
        }
        if !unit.is_empty() {
            self.queue.push_back(Told::Entry(Entry::Unit(name, Cow::Borrowed(unit))));
        }
        self.family = family;
        self.metrics = Fields::new(message);
        self.metric = None;
        Ok(true)
    }

    /// A message with its length in front.
    fn delimited(&mut self) -> Result<&'a [u8], String> {
        let mut len = 0u64;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            len |= u64::from(byte & 0x7f).checked_shl(7 * index as u32).unwrap_or_default();
            if byte < 0x80 {
                let after = self.rest.get(index + 1..).unwrap_or_default();
                let split = usize::try_from(len).ok().and_then(|len| after.split_at_checked(len));
                let (message, rest) = split.ok_or("the page ends inside of a family")?;
                self.rest = rest;
                return Ok(message);
            }
        }
        Err("a family without its length".to_owned())
    }

    /// Begins the next metric of the family; `false` if there is none.
    fn next_metric(&mut self) -> Result<bool, String> {
        loop {
            let Some(field) = self.metrics.next_field().map_err(malformed)? else { return Ok(false) };
            if let (4, Value::Len(metric)) = (field.number, field.value) {
                self.begin(metric)?;
                return Ok(true);
            }
        }
    }

    fn begin(&mut self, message: &'a [u8]) -> Result<(), String> {
        let mut labels = Labels::default();
        let mut timestamp = None;
        let mut content = None;
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field().map_err(malformed)? {
            match (field.number, field.value) {
                (1, Value::Len(label)) => {
                    let (name, value) = pair(label)?;
                    labels.push(Cow::Borrowed(name), Cow::Borrowed(value));
                }
                (number @ (2..=5 | 7), Value::Len(own)) => content = Some((number, own)),
                (6, Value::Varint(millis)) => timestamp = Some(millis as i64).filter(|millis| *millis != 0),
                _ => {}
            }
        }
        labels.settle()?;
        let mut metric = Metric { labels, timestamp, parts: Fields::new(&[]), wanted: 0, total: None };
        match content {
            Some((2 | 3 | 5, simple)) => {
                let sample = self.simple(simple, timestamp)?;
                self.queue.push_back(Told::Sample("", None, sample));
            }
            Some((4, summary)) => self.summary(summary, &mut metric)?,
            Some((7, histogram)) => self.histogram(histogram, &mut metric)?,
            _ => {}
        }
        self.metric = Some(metric);
        Ok(())
    }

    /// A gauge, counter or untyped metric.
    fn simple(&self, message: &'a [u8], timestamp: Option<i64>) -> Result<Sample<'a>, String> {
        let mut sample = Sample { timestamp, ..Sample::of(0.0) };
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field().map_err(malformed)? {
            match (field.number, field.value) {
                (1, Value::Fixed64(bits)) => sample.value = f64::from_bits(bits),
                (2, Value::Len(own)) => sample.exemplar = Some(Box::new(exemplar(own)?)),
                (3, Value::Len(time)) => sample.created = nanos(time)?,
                _ => {}
            }
        }
        Ok(sample)
    }

    fn summary(&mut self, message: &'a [u8], metric: &mut Metric<'a>) -> Result<(), String> {
        let (mut count, mut sum, mut created) = (0.0, 0.0, None);
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field().map_err(malformed)? {
            match (field.number, field.value) {
                (1, Value::Varint(own)) => count = own as f64,
                (2, Value::Fixed64(bits)) => sum = f64::from_bits(bits),
                (4, Value::Len(time)) => created = nanos(time)?,
                _ => {}
            }
        }
        self.tell("_count", metric, count, created);
        self.tell("_sum", metric, sum, created);
        (metric.parts, metric.wanted) = (Fields::new(message), 3);
        Ok(())
    }

    fn histogram(&mut self, message: &'a [u8], metric: &mut Metric<'a>) -> Result<(), String> {
        let (mut count, mut float_count, mut sum, mut created, mut classic) = (0.0, 0.0, 0.0, None, false);
        let mut exemplars = Vec::new();
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field().map_err(malformed)? {
            match (field.number, field.value) {
                (1, Value::Varint(own)) => count = own as f64,
                (2, Value::Fixed64(bits)) => sum = f64::from_bits(bits),
                (3, Value::Len(_)) => classic = true,
                (4, Value::Fixed64(bits)) => float_count = f64::from_bits(bits),
                (15, Value::Len(time)) => created = nanos(time)?,
                (16, Value::Len(own)) if self.natives != Natives::Ignored && exemplars.len() < MAX_EXEMPLARS => {
                    exemplars.push(exemplar(own)?);
                }
                _ => {}
            }
        }
        if self.natives != Natives::Ignored {
            let mut histogram = Histogram::read(message, Dialect::Page)?;
            let is_gauge = self.family.kind == MetricType::GaugeHistogram;
            if is_gauge {
                histogram.set_gauge();
            }
            // A native gauge histogram is of no use; a classic one beside it is.
            if histogram.is_native() && !(is_gauge && classic) {
                let native = Some(Box::new(Native { histogram, exemplars }));
                let sample = Sample { timestamp: metric.timestamp, created, native, ..Sample::of(0.0) };
                self.queue.push_back(Told::Sample("", None, sample));
                if self.natives == Natives::Instead || !classic {
                    return Ok(());
                }
            }
        }
        let count = if float_count > 0.0 { float_count } else { count };
        self.tell("_count", metric, count, created);
        self.tell("_sum", metric, sum, created);
        (metric.parts, metric.wanted, metric.total) = (Fields::new(message), 3, Some(count));
        Ok(())
    }

    fn tell(&mut self, suffix: &'static str, metric: &Metric<'a>, value: f64, created: Option<u64>) {
        let sample = Sample { timestamp: metric.timestamp, created, ..Sample::of(value) };
        self.queue.push_back(Told::Sample(suffix, None, sample));
    }

    /// Tells the next bucket or quantile of the metric; `false` if there is none.
    fn next_part(&mut self) -> Result<bool, String> {
        let Some(metric) = &mut self.metric else { return Ok(false) };
        while let Some(field) = metric.parts.next_field().map_err(malformed)? {
            let Value::Len(part) = field.value else { continue };
            if field.number != metric.wanted {
                continue;
            }
            let told = if metric.total.is_some() { bucket(part)? } else { quantile(part)? };
            if let Told::Sample(_, Some((_, bound)), _) = &told
                && bound == "+Inf"
            {
                metric.total = Some(f64::NAN);
            }
            self.queue.push_back(with_time(told, metric.timestamp));
            return Ok(true);
        }
        let Some(total) = metric.total.take().filter(|total| !total.is_nan()) else { return Ok(false) };
        let inner = Some(("le", "+Inf".to_owned()));
        let told = Told::Sample("_bucket", inner, Sample::of(total));
        self.queue.push_back(with_time(told, metric.timestamp));
        Ok(true)
    }
}

fn with_time(told: Told<'_>, timestamp: Option<i64>) -> Told<'_> {
    match told {
        Told::Sample(suffix, inner, sample) => Told::Sample(suffix, inner, Sample { timestamp, ..sample }),
        other => other,
    }
}

fn bucket(message: &[u8]) -> Result<Told<'_>, String> {
    let (mut count, mut float_count, mut bound, mut own_exemplar) = (0.0, 0.0, f64::INFINITY, None);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field().map_err(malformed)? {
        match (field.number, field.value) {
            (1, Value::Varint(own)) => count = own as f64,
            (2, Value::Fixed64(bits)) => bound = f64::from_bits(bits),
            (3, Value::Len(own)) => own_exemplar = Some(Box::new(exemplar(own)?)),
            (4, Value::Fixed64(bits)) => float_count = f64::from_bits(bits),
            _ => {}
        }
    }
    let value = if float_count > 0.0 { float_count } else { count };
    let sample = Sample { exemplar: own_exemplar, ..Sample::of(value) };
    Ok(Told::Sample("_bucket", Some(("le", shown(bound))), sample))
}

fn quantile(message: &[u8]) -> Result<Told<'_>, String> {
    let (mut quantile, mut value) = (0.0, 0.0);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field().map_err(malformed)? {
        match (field.number, field.value) {
            (1, Value::Fixed64(bits)) => quantile = f64::from_bits(bits),
            (2, Value::Fixed64(bits)) => value = f64::from_bits(bits),
            _ => {}
        }
    }
    Ok(Told::Sample("", Some(("quantile", shown(quantile))), Sample::of(value)))
}

fn exemplar(message: &[u8]) -> Result<Exemplar<'_>, String> {
    let mut own = Exemplar { labels: Labels::default(), value: 0.0, timestamp: None };
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field().map_err(malformed)? {
        match (field.number, field.value) {
            (1, Value::Len(label)) => {
                let (name, value) = pair(label)?;
                own.labels.push(Cow::Borrowed(name), Cow::Borrowed(value));
            }
            (2, Value::Fixed64(bits)) => own.value = f64::from_bits(bits),
            (3, Value::Len(time)) => {
                own.timestamp = nanos(time)?.and_then(|nanos| i64::try_from(nanos / 1_000_000).ok());
            }
            _ => {}
        }
    }
    own.labels.settle()?;
    Ok(own)
}

/// Nanoseconds of a `google.protobuf.Timestamp`; nothing for 1970 and before.
fn nanos(message: &[u8]) -> Result<Option<u64>, String> {
    let (mut seconds, mut nanos) = (0i64, 0u64);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field().map_err(malformed)? {
        match (field.number, field.value) {
            (1, Value::Varint(own)) => seconds = own as i64,
            (2, Value::Varint(own)) => nanos = own.min(999_999_999),
            _ => {}
        }
    }
    let seconds = u64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1_000_000_000));
    Ok(seconds.and_then(|seconds| seconds.checked_add(nanos)).filter(|time| *time > 0))
}

/// A bound, as OpenMetrics writes it.
fn shown(bound: f64) -> String {
    if bound == f64::INFINITY { "+Inf".to_owned() } else { format!("{bound:?}") }
}

fn metric_type(number: u64) -> MetricType {
    match number {
        0 => MetricType::Counter,
        1 => MetricType::Gauge,
        2 => MetricType::Summary,
        4 => MetricType::Histogram,
        5 => MetricType::GaugeHistogram,
        _ => MetricType::Unknown,
    }
}
