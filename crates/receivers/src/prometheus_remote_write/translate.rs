//! From a request to OTLP.
//!
//! A series is translated on its own: Prometheus cuts requests anywhere, so that the buckets of one histogram may
//! come in several. `_bucket`, `_sum` and `_count` series of classic histograms and summaries stay series of
//! their own, as monotonic cumulative sums that keep their names and `le`, and an exporter gives the same series
//! back. (`_sum` falls with negative observations; like Prometheus' own functions we take that for a reset.) Native histograms come whole, and become exponential or explicit histograms.

use std::collections::HashMap;

use nyquist_core::proto::common::v1::KeyValue;
use nyquist_core::proto::metrics::v1::{Exemplar, MetricsData};

use super::decode::{Head, Request, Sample};
use super::infos::Infos;
use super::metadata::Families;
use crate::prometheus::exposition::MetricType;
use crate::prometheus::labels::{Labels, NAME};
use crate::prometheus::model::{
    Description, Model, Point, STALE, SeriesKey, Shape, Slot, exemplar, nanos, number, text,
};
use crate::prometheus::native::Histogram;

/// The scope of series that name none.
const SCOPE: &str = "github.com/nyquist-telemetry/nyquist/receiver/prometheus_remote_write";

/// What a point takes beside its attributes, in bytes.
const POINT: usize = 320;
/// What an attribute takes beside its texts, in bytes.
const ATTRIBUTE: usize = 112;
/// So many complaints are told to the sender.
const MAX_COMPLAINTS: usize = 10;

/// What became of a request.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) data: MetricsData,
    pub(super) points: usize,
    /// Samples, histograms and exemplars that were understood.
    pub(super) samples: usize,
    pub(super) histograms: usize,
    pub(super) exemplars: usize,
    /// Samples and histograms that were not.
    pub(super) rejected: usize,
    /// Exemplars of series that have no sample in the request.
    pub(super) lost_exemplars: usize,
    /// What is wrong with those that were rejected, for the sender.
    pub(super) complaints: Vec<String>,
    /// What it takes in memory, about.
    pub(super) bytes: usize,
}

/// The request comes to more than it may.
#[derive(Debug)]
pub(super) struct TooLarge;

/// What a series is in OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meaning {
    shape: Shape,
    kind: MetricType,
}

/// Translates `request`, into at most `budget` bytes.
pub(super) fn translate(
    request: &Request<'_>,
    families: &Families,
    infos: &Infos,
    budget: usize,
) -> Result<Outcome, TooLarge> {
    let mut translation = Translation {
        request,
        families,
        budget,
        model: Model::new(SCOPE),
        key: SeriesKey::default(),
        exemplars: HashMap::new(),
        outcome: Outcome { bytes: request.overhead(), ..Outcome::default() },
    };
    let mut labels = Labels::default();
    for series in request.series() {
        translation.gather_exemplars(series, &mut labels)?;
    }
    for series in request.series() {
        translation.series(series, &mut labels)?;
    }
    let Translation { mut model, exemplars, mut outcome, .. } = translation;
    outcome.lost_exemplars += exemplars.values().map(Vec::len).sum::<usize>();
    model.infos().for_each(|(key, attributes)| infos.put(key, attributes));
    let keys: Vec<Box<[u8]>> = model.resource_keys().map(Box::from).collect();
    for key in keys {
        if let Some(attributes) = infos.get(&key) {
            model.remember_info(&key, attributes.to_vec());
        }
    }
    outcome.points = model.points();
    outcome.data = model.finish();
    Ok(outcome)
}

struct Translation<'r, 'a> {
    request: &'r Request<'a>,
    families: &'r Families,
    budget: usize,
    model: Model,
    key: SeriesKey,
    /// Exemplars by the key of their series: Prometheus sends them apart from samples.
    exemplars: HashMap<Box<[u8]>, Vec<Exemplar>>,
    outcome: Outcome,
}

impl<'a> Translation<'_, 'a> {
    /// Charges `bytes` to the budget.
    fn charge(&mut self, bytes: usize) -> Result<(), TooLarge> {
        self.outcome.bytes = self.outcome.bytes.saturating_add(bytes);
        if self.outcome.bytes > self.budget { Err(TooLarge) } else { Ok(()) }
    }

    fn reject(&mut self, count: usize, complaint: impl FnOnce() -> String) {
        self.outcome.rejected += count;
        if self.outcome.complaints.len() < MAX_COMPLAINTS {
            self.outcome.complaints.push(complaint());
        }
    }

    /// Remembers the exemplars of `series`, so that its samples find them wherever they are.
    fn gather_exemplars(&mut self, series: &'a [u8], labels: &mut Labels<'a>) -> Result<(), TooLarge> {
        // What is wrong with the series is said when its samples are looked at.
        let Ok(head) = self.request.head(series, labels) else { return Ok(()) };
        if head.kind.is_none() {
            self.families.learn_from(labels);
        }
        if head.exemplars == 0 || labels.get(NAME).is_empty() {
            return Ok(());
        }
        let custom = self.is_custom(series, &head);
        let (meaning, _) = self.meaning(labels, &head, custom);
        self.encode(labels, meaning);
        self.charge(self.key.bytes().len())?;
        for found in self.request.exemplars(series) {
            match found {
                Ok(own) => {
                    let size =
                        own.labels.iter().map(|(name, value)| name.len() + value.len() + ATTRIBUTE).sum::<usize>();
                    self.charge(size + POINT)?;
                    let own = exemplar(own.labels.iter(), own.value, nanos(own.timestamp));
                    self.exemplars.entry(self.key.bytes().into()).or_default().push(own);
                }
                Err(_) => self.outcome.lost_exemplars += 1,
            }
        }
        Ok(())
    }

    fn series(&mut self, series: &'a [u8], labels: &mut Labels<'a>) -> Result<(), TooLarge> {
        let head = match self.request.head(series, labels) {
            Ok(head) => head,
            Err(error) => {
                self.reject(1, || format!("series {}: {error}", shown(labels)));
                return Ok(());
            }
        };
        let count = head.samples + head.histograms;
        if labels.get(NAME).is_empty() {
            self.reject(count.max(1), || format!("series {}: there is no metric name", shown(labels)));
            return Ok(());
        }
        if count == 0 {
            if head.exemplars == 0 {
                self.reject(1, || format!("series {}: there is neither a sample nor a histogram", shown(labels)));
            }
            return Ok(());
        }
        let custom = self.is_custom(series, &head);
        let (meaning, described) = self.meaning(labels, &head, custom);
        self.encode(labels, meaning);
        let size = labels.iter().map(|(name, value)| name.len() + value.len() + ATTRIBUTE).sum::<usize>();
        self.charge(self.key.bytes().len() + described.help.len() + (size + POINT).saturating_mul(count))?;
        if labels.get(NAME) == "target_info" && head.histograms == 0 {
            self.target_info(series);
            return Ok(());
        }
        let described = Description { help: &described.help, unit: &described.unit };
        let slot = self.model.slot(&self.key, meaning.shape, meaning.kind, described, resource);
        let exemplars = self.exemplars.remove(self.key.bytes()).unwrap_or_default();
        self.points(series, &head, labels, (slot, meaning.shape), exemplars)
    }

    /// What `target_info` says now: its last sample.
    fn target_info(&mut self, series: &'a [u8]) {
        for sample in self.request.samples(series) {
            match sample {
                Ok(sample) => {
                    self.outcome.samples += 1;
                    if sample.value.to_bits() != STALE {
                        self.model.target_info(&self.key);
                    }
                }
                Err(error) => self.reject(1, || format!("target_info: {error}")),
            }
        }
    }

    fn points(
        &mut self,
        series: &'a [u8],
        head: &Head<'_>,
        labels: &Labels<'_>,
        (slot, shape): (Slot, Shape),
        exemplars: Vec<Exemplar>,
    ) -> Result<(), TooLarge> {
        let mut last: Option<Point> = None;
        for sample in self.request.samples(series) {
            match sample {
                Ok(sample) if head.histograms == 0 => {
                    self.outcome.samples += 1;
                    self.push_before(slot, &mut last);
                    last = Some(self.sample(sample, head, shape));
                }
                Ok(_) => self.reject(1, || format!("series {}: both samples and histograms", shown(labels))),
                Err(error) => self.reject(1, || format!("series {}: {error}", shown(labels))),
            }
        }
        for histogram in self.request.histograms(series) {
            let histogram = histogram.and_then(|own| self.histogram(own, head, shape));
            match histogram {
                Ok(point) => {
                    self.charge(size_of_buckets(&point))?;
                    self.outcome.histograms += 1;
                    self.push_before(slot, &mut last);
                    last = Some(point);
                }
                Err(error) => self.reject(1, || format!("series {}: {error}", shown(labels))),
            }
        }
        match &mut last {
            Some(point) => {
                self.outcome.exemplars += exemplars.len();
                point.set_exemplars(exemplars);
            }
            None => self.outcome.lost_exemplars += exemplars.len(),
        }
        self.push_before(slot, &mut last);
        Ok(())
    }

    fn push_before(&mut self, slot: Slot, last: &mut Option<Point>) {
        if let Some(point) = last.take() {
            self.model.push(slot, point);
        }
    }

    fn sample(&self, sample: Sample, head: &Head<'_>, shape: Shape) -> Point {
        let time = nanos(sample.timestamp);
        let start = if shape == Shape::Counter { start(sample.start, head) } else { 0 };
        let attributes = self.key.key_values();
        if sample.value.to_bits() == STALE {
            return shape.ended(attributes, start, time, &[]);
        }
        Point::Number(number(attributes, start, time, sample.value))
    }

    fn histogram(&self, histogram: Histogram, head: &Head<'_>, shape: Shape) -> Result<Point, String> {
        let time = nanos(histogram.timestamp);
        let start = start(histogram.start, head);
        let attributes = self.key.key_values();
        if histogram.sum.to_bits() == STALE {
            return Ok(shape.ended(attributes, start, time, &[]));
        }
        histogram.check()?;
        match (histogram.is_custom(), shape) {
            (true, Shape::Histogram) => histogram.explicit(attributes, start, time).map(Point::Histogram),
            (false, Shape::Exponential) => histogram.exponential(attributes, start, time).map(Point::Exponential),
            _ => Err("native histograms with and without bounds of their own in one series".to_owned()),
        }
    }

    /// Whether the first native histogram of `series` has bounds of its own.
    fn is_custom(&self, series: &'a [u8], head: &Head<'_>) -> bool {
        head.histograms > 0
            && self.request.histograms(series).next().is_some_and(|own| own.is_ok_and(|own| own.is_custom()))
    }

    /// What a series is, and how its family is described: by its own metadata, else by what was sent apart,
    /// else by its name.
    fn meaning(&self, labels: &Labels<'_>, head: &Head<'_>, custom: bool) -> (Meaning, Described) {
        let name = labels.get(NAME);
        let (kind, described) = match head.kind {
            Some(kind) => (kind, Described { help: head.help.to_owned(), unit: head.unit.to_owned() }),
            None => match self.families.of(name) {
                Some(family) => (family.kind, Described { help: family.help, unit: family.unit }),
                None => (guess(name), Described::default()),
            },
        };
        if head.histograms > 0 {
            let shape = if custom { Shape::Histogram } else { Shape::Exponential };
            return (Meaning { shape, kind: MetricType::Histogram }, described);
        }
        let is_part = ["_bucket", "_sum", "_count"].iter().any(|suffix| name.ends_with(suffix));
        let shape = match kind {
            MetricType::Counter => Shape::Counter,
            MetricType::Histogram | MetricType::Summary if is_part => Shape::Counter,
            MetricType::Info | MetricType::StateSet => Shape::UpDown,
            _ => Shape::Gauge,
        };
        (Meaning { shape, kind }, described)
    }

    fn encode(&mut self, labels: &Labels<'_>, meaning: Meaning) {
        self.key.encode(labels.get(NAME), meaning.shape, meaning.kind, labels, "");
    }
}

/// Help and unit of a family.
#[derive(Debug, Default)]
struct Described {
    help: String,
    unit: String,
}

impl Point {
    /// Puts `exemplars` to the point, if its kind has any.
    fn set_exemplars(&mut self, exemplars: Vec<Exemplar>) {
        match self {
            Self::Number(point) => point.exemplars = exemplars,
            Self::Histogram(point) => point.exemplars = exemplars,
            Self::Exponential(point) => point.exemplars = exemplars,
            Self::Summary(_) => {}
        }
    }
}

/// The type that a name suggests.
fn guess(name: &str) -> MetricType {
    if name.ends_with("_total") { MetricType::Counter } else { MetricType::Unknown }
}

/// When a series began, in nanoseconds; 0 if nothing is said.
fn start(own: i64, head: &Head<'_>) -> u64 {
    nanos(if own != 0 { own } else { head.created })
}

/// The attributes of the resource of `job` (`namespace/name`, or a name) and `instance`.
fn resource(job: &str, instance: &str) -> Vec<KeyValue> {
    let (namespace, name) = job.split_once('/').unwrap_or(("", job));
    let all = [("service.namespace", namespace), ("service.name", name), ("service.instance.id", instance)];
    all.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| text(key, value)).collect()
}

fn size_of_buckets(point: &Point) -> usize {
    match point {
        Point::Histogram(point) => 16 * point.bucket_counts.len(),
        Point::Exponential(point) => {
            let sides = [&point.positive, &point.negative].into_iter().flatten();
            sides.map(|side| 8 * side.bucket_counts.len()).sum()
        }
        Point::Number(_) | Point::Summary(_) => 0,
    }
}

/// A little of a series' labels.
fn shown(labels: &Labels<'_>) -> String {
    let mut shown = String::from("{");
    for (name, value) in labels.iter() {
        if shown.len() > 1 {
            shown.push_str(", ");
        }
        shown.push_str(&format!("{name}={value:?}"));
        if shown.len() > 200 {
            let end = shown.floor_char_boundary(200);
            shown.truncate(end);
            shown.push_str("...");
            break;
        }
    }
    shown.push('}');
    shown
}
