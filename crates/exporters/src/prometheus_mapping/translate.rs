//! The walk over a message.

use std::hash::BuildHasher;
use std::sync::Arc;

use nyquist_core::wire::{AnyValue, Field, Fields, KeyValue, Value};

use super::exemplars::Exemplars;
use super::family::{Families, Family};
use super::kinds::Kind;
use super::labels::{BaseLabels, LabelRules, Labels, PointLabels};
use super::layout::{Collected, Layouts};
use super::native::NativeHistogram;
use super::points::{self, Arrays, Exponential, Head, Histogram, Number};
use super::resource::{len_fields, push_external, push_identity, push_scope, resource_attributes};
use super::seed::{HashSeed, Partition};
use super::settings::{CustomBuckets, Settings};
use super::{LostExemplars, LostLabels, Point, PointValue, STALE_NAN_BITS, Sink, Target, Untranslatable};

/// Numbers of the fields of `Metric`'s `data`.
const GAUGE: u32 = 5;
const SUM: u32 = 7;
const HISTOGRAM: u32 = 9;
const EXPONENTIAL: u32 = 10;
const SUMMARY: u32 = 11;

/// Number of `Metric`'s `metadata`.
const METADATA: u32 = 12;

const DELTA: u64 = 1;
const CUMULATIVE: u64 = 2;

/// Translates messages, one after the other.
pub struct Translator {
    settings: Arc<Settings>,
    rules: LabelRules,
    seed: HashSeed,
    families: Families,
    /// Of the messages that come.
    partition: Partition,
    scratch: Scratch,
}

/// Buffers that are used again and again.
#[derive(Default)]
struct Scratch {
    job: Vec<u8>,
    instance: Vec<u8>,
    base: BaseLabels,
    own: Labels,
    layouts: Layouts,
    labels: PointLabels,
    arrays: Arrays,
    native: NativeHistogram,
    exemplars: Exemplars,
    /// Time of the newest point of the resource, in milliseconds.
    newest: i64,
}

/// The parts of a `Metric` that its points share.
struct Metric<'a> {
    name: &'a [u8],
    family: &'a Arc<Family>,
    is_delta: bool,
    /// The pieces of its `data`.
    data: Data<'a>,
}

/// The `data` of a metric: the last kind that is set, which may come in several pieces.
#[derive(Clone)]
struct Data<'a> {
    fields: Fields<'a>,
    number: u32,
}

impl<'a> Data<'a> {
    fn pieces(&self) -> impl Iterator<Item = &'a [u8]> {
        let number = self.number;
        len_fields(self.fields.clone(), number)
    }

    fn points(&self) -> impl Iterator<Item = &'a [u8]> {
        self.pieces().flat_map(|piece| len_fields(Fields::new(piece), 1))
    }

    /// The last varint field `number` over all pieces.
    fn varint(&self, number: u32) -> u64 {
        let fields = self.pieces().flat_map(Fields::new);
        let values = fields.filter_map(|field| match field.value {
            Value::Varint(value) if field.number == number => Some(value),
            _ => None,
        });
        values.last().unwrap_or_default()
    }
}

impl Translator {
    /// A translator for `settings`. Translators with equal seeds give equal hashes.
    #[must_use]
    pub fn new(settings: Arc<Settings>, seed: HashSeed) -> Self {
        let families = Families::new(settings.strategy, settings.namespace.clone());
        let partition = Partition::default();
        Self { rules: settings.label_rules(), families, partition, scratch: Scratch::default(), settings, seed }
    }

    /// The messages from now on are those of `partition`.
    pub fn enter(&mut self, partition: Partition) {
        self.partition = partition;
    }

    /// Hands all points of the OTLP message in `bytes` to `sink`.
    pub fn translate<S: Sink>(&mut self, bytes: &[u8], sink: &mut S) {
        for resource_metrics in len_fields(Fields::new(bytes), 1) {
            self.resource(resource_metrics, sink);
        }
    }

    fn resource<S: Sink>(&mut self, resource_metrics: &[u8], sink: &mut S) {
        self.scratch.newest = 0;
        self.scratch.read_identity(resource_metrics);
        for scope_metrics in len_fields(Fields::new(resource_metrics), 2) {
            self.begin_scope(resource_metrics, scope_metrics, sink);
            for metric in len_fields(Fields::new(scope_metrics), 2) {
                self.metric(metric, sink);
            }
        }
        if self.settings.target_info && self.scratch.newest != 0 {
            self.target(resource_metrics, sink);
        }
    }

    /// Builds the labels that all points of a scope share.
    fn begin_scope<S: Sink>(&mut self, resource_metrics: &[u8], scope_metrics: &[u8], sink: &mut S) {
        let Scratch { base, layouts, job, instance, .. } = &mut self.scratch;
        let mut unnamable = 0;
        let labels = base.begin();
        push_identity(labels, job, instance, self.rules);
        if !self.settings.resource_labels.is_none() {
            for attribute in resource_attributes(resource_metrics) {
                if self.settings.resource_labels.holds(attribute.key) {
                    let is_named = labels.push_attribute(attribute.key, &attribute.value, self.rules);
                    unnamable += usize::from(!is_named);
                }
            }
        }
        if self.settings.scope_labels {
            unnamable += push_scope(labels, scope_metrics, self.rules);
        }
        push_external(labels, &self.settings, self.rules);
        let lost = LostLabels { unnamable, ..base.seal() };
        layouts.begin_scope(base);
        if lost != LostLabels::default() {
            sink.labels_lost(b"", lost);
        }
    }

    fn metric<S: Sink>(&mut self, bytes: &[u8], sink: &mut S) {
        let (mut name, mut unit, mut description): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let mut data: Option<Data<'_>> = None;
        let mut prometheus_type: &[u8] = &[];
        let mut fields = Fields::new(bytes);
        loop {
            let here = fields.clone();
            let Some(Field { number, value }) = fields.next() else { break };
            match (number, value) {
                (1, Value::Len(text)) => name = text,
                (2, Value::Len(text)) => description = text,
                (3, Value::Len(text)) => unit = text,
                (METADATA, Value::Len(entry)) => {
                    let entry = KeyValue::new(entry);
                    if let (b"prometheus.type", AnyValue::String(text)) = (entry.key, entry.value) {
                        prometheus_type = text;
                    }
                }
                (GAUGE | SUM | HISTOGRAM | EXPONENTIAL | SUMMARY, Value::Len(_))
                    if data.as_ref().is_none_or(|data| data.number != number) =>
                {
                    data = Some(Data { fields: here, number });
                }
                _ => {}
            }
        }
        let Some(data) = data else { return };
        let (kind, temporality) = match data.number {
            GAUGE => (Kind::Gauge, CUMULATIVE),
            SUM if data.varint(3) != 0 => (Kind::Counter, data.varint(2)),
            SUM => (Kind::UpDown, data.varint(2)),
            HISTOGRAM => (Kind::Histogram, data.varint(2)),
            EXPONENTIAL => (Kind::Exponential, data.varint(2)),
            _ => (Kind::Summary, CUMULATIVE),
        };
        let kind = kind.noted(name, prometheus_type);
        let refused = match temporality {
            CUMULATIVE => None,
            DELTA if self.settings.accept_delta => None,
            DELTA => Some(Untranslatable::Delta),
            _ => Some(Untranslatable::Temporality),
        };
        if let Some(reason) = refused {
            return sink.dropped(reason, name, data.points().count());
        }
        let Ok(family) = self.families.get(name, unit, (kind, kind.typed(prometheus_type)), &self.seed) else {
            return sink.dropped(Untranslatable::Name, name, data.points().count());
        };
        sink.metric(&family, description);
        let metric = Metric { name, family: &family, is_delta: temporality == DELTA, data };
        match kind {
            Kind::Gauge | Kind::Counter | Kind::UpDown | Kind::Part => self.numbers(&metric, sink),
            Kind::Histogram => self.histograms(&metric, sink),
            Kind::Exponential => self.exponentials(&metric, sink),
            Kind::Summary => self.summaries(&metric, sink),
        }
    }

    /// The point's hash, once its labels are there; tells the sink which ones were lost.
    fn hash<S: Sink>(&self, metric: &Metric<'_>, collected: &Collected, sink: &mut S) -> u64 {
        let &Collected { unnamable, overwritten, joined } = collected;
        if unnamable + overwritten + joined > 0 {
            sink.labels_lost(metric.name, LostLabels { unnamable, overwritten, joined });
        }
        self.seed.series(self.partition, metric.family.hash(), self.scratch.labels.encoded())
    }

    /// Is there no time to send the point with? Then it is dropped.
    fn lacks_time<S: Sink>(&self, metric: &Metric<'_>, head: &Head, sink: &mut S) -> bool {
        let is_lacking = self.settings.needs_time && millis(head.time) == 0;
        if is_lacking {
            sink.dropped(Untranslatable::Time, metric.name, 1);
        }
        is_lacking
    }

    fn numbers<S: Sink>(&mut self, metric: &Metric<'_>, sink: &mut S) {
        let rules = self.rules;
        for bytes in metric.data.points() {
            let Scratch { layouts, own, base, labels, .. } = &mut self.scratch;
            let mut attributes = layouts.begin_point(own, b"", rules);
            let (head, number) = points::number(bytes, |attribute| attributes.push(&attribute));
            let collected = attributes.finish(base, labels);
            let value = match number {
                _ if head.is_no_recorded_value() => f64::from_bits(STALE_NAN_BITS),
                Number::Double(value) => value,
                Number::Int(value) => value as f64,
                Number::Unset => {
                    sink.dropped(Untranslatable::Value, metric.name, 1);
                    continue;
                }
            };
            if self.lacks_time(metric, &head, sink) {
                continue;
            }
            let hash = self.hash(metric, &collected, sink);
            let may_have = matches!(metric.family.kind, Kind::Counter | Kind::Part);
            if head.has_exemplars && !may_have {
                let exemplars = len_fields(Fields::new(bytes), points::NUMBER_EXEMPLARS).count();
                sink.exemplars_lost(metric.name, LostExemplars { exemplars, ..LostExemplars::default() });
            }
            let own = (bytes, points::NUMBER_EXEMPLARS, head.has_exemplars && may_have);
            self.scratch.read_exemplars(metric, own, rules, sink);
            self.scratch.note_time(&head);
            sink.point(&point(
                metric,
                &self.scratch.labels,
                &self.scratch.exemplars,
                hash,
                &head,
                PointValue::Number(value),
            ));
        }
    }

    fn histograms<S: Sink>(&mut self, metric: &Metric<'_>, sink: &mut S) {
        let rules = self.rules;
        for bytes in metric.data.points() {
            let mut arrays = std::mem::take(&mut self.scratch.arrays);
            let Scratch { layouts, own, base, labels, .. } = &mut self.scratch;
            let mut attributes = layouts.begin_point(own, b"le", rules);
            let (head, histogram) = points::histogram(bytes, &mut arrays, |attribute| attributes.push(&attribute));
            let collected = attributes.finish(base, labels);
            match histogram {
                None => sink.dropped(Untranslatable::Bounds, metric.name, 1),
                Some(_) if self.lacks_time(metric, &head, sink) => {}
                Some(histogram) => {
                    let hash = self.hash(metric, &collected, sink);
                    let own = (bytes, points::HISTOGRAM_EXEMPLARS, head.has_exemplars);
                    self.scratch.read_exemplars(metric, own, rules, sink);
                    self.scratch.note_time(&head);
                    self.histogram(metric, &head, histogram, hash, sink);
                }
            }
            self.scratch.arrays = arrays;
        }
    }

    /// Hands out a histogram with explicit bounds, in one or both of its forms.
    fn histogram<S: Sink>(
        &mut self,
        metric: &Metric<'_>,
        head: &Head,
        histogram: Histogram<'_>,
        hash: u64,
        sink: &mut S,
    ) {
        let Scratch { labels, exemplars, native, .. } = &mut self.scratch;
        let form = self.settings.custom_buckets;
        let is_native = match form {
            CustomBuckets::Off => false,
            _ if head.is_no_recorded_value() => {
                native.fill_stale_custom(f64::from_bits(STALE_NAN_BITS));
                true
            }
            _ => native.fill_custom(&histogram).is_ok(),
        };
        if is_native {
            sink.point(&point(metric, labels, exemplars, hash, head, PointValue::Native(native)));
        }
        if !is_native || form == CustomBuckets::Beside {
            let value = PointValue::Histogram(histogram);
            let items = usize::from(!is_native);
            sink.point(&Point { items, ..point(metric, labels, exemplars, hash, head, value) });
        }
    }

    fn exponentials<S: Sink>(&mut self, metric: &Metric<'_>, sink: &mut S) {
        let rules = self.rules;
        let is_native = self.settings.native_histograms;
        let extra: &[u8] = if is_native { b"" } else { b"le" };
        for bytes in metric.data.points() {
            let Scratch { layouts, own, base, labels, .. } = &mut self.scratch;
            let mut attributes = layouts.begin_point(own, extra, rules);
            let (head, histogram) = points::exponential(bytes, |attribute| attributes.push(&attribute));
            let collected = attributes.finish(base, labels);
            if is_native && head.is_no_recorded_value() {
                self.scratch.native.fill_stale(f64::from_bits(STALE_NAN_BITS));
            } else if is_native && let Err(problem) = self.scratch.native.fill(&histogram) {
                sink.dropped(problem, metric.name, 1);
                continue;
            }
            if self.lacks_time(metric, &head, sink) {
                continue;
            }
            let hash = self.hash(metric, &collected, sink);
            let own = (bytes, points::EXPONENTIAL_EXEMPLARS, head.has_exemplars);
            self.scratch.read_exemplars(metric, own, rules, sink);
            self.scratch.note_time(&head);
            let value = if is_native {
                PointValue::Native(&self.scratch.native)
            } else {
                let Exponential { count, sum, .. } = histogram;
                PointValue::Histogram(Histogram { count, sum, bounds: &[], counts: &[] })
            };
            sink.point(&point(metric, &self.scratch.labels, &self.scratch.exemplars, hash, &head, value));
        }
    }

    fn summaries<S: Sink>(&mut self, metric: &Metric<'_>, sink: &mut S) {
        let rules = self.rules;
        for bytes in metric.data.points() {
            let mut arrays = std::mem::take(&mut self.scratch.arrays);
            let Scratch { layouts, own, base, labels, .. } = &mut self.scratch;
            let mut attributes = layouts.begin_point(own, b"quantile", rules);
            let (head, summary) = points::summary(bytes, &mut arrays, |attribute| attributes.push(&attribute));
            let collected = attributes.finish(base, labels);
            if !self.lacks_time(metric, &head, sink) {
                let hash = self.hash(metric, &collected, sink);
                self.scratch.exemplars.clear();
                self.scratch.note_time(&head);
                let value = PointValue::Summary(summary);
                sink.point(&point(metric, &self.scratch.labels, &self.scratch.exemplars, hash, &head, value));
            }
            self.scratch.arrays = arrays;
        }
    }

    /// Hands out the labels of the resource's `target_info`, if it has any worth one.
    fn target<S: Sink>(&mut self, resource_metrics: &[u8], sink: &mut S) {
        let Scratch { base, own, labels, job, instance, newest, .. } = &mut self.scratch;
        if job.is_empty() && instance.is_empty() {
            return;
        }
        let given = base.begin();
        push_identity(given, job, instance, self.rules);
        push_external(given, &self.settings, self.rules);
        base.seal();
        own.clear();
        let settings = &self.settings;
        let mut unnamable = 0;
        for attribute in resource_attributes(resource_metrics).filter(|one| settings.is_target_label(one.key)) {
            let is_named = own.push_attribute(attribute.key, &attribute.value, self.rules);
            unnamable += usize::from(!is_named);
        }
        let mut lost = LostLabels { unnamable, ..own.sort_and_join() };
        let merged = labels.merge(base, own, b"");
        (lost.overwritten, lost.joined) = (lost.overwritten + merged.overwritten, lost.joined + merged.joined);
        if lost != LostLabels::default() {
            sink.labels_lost(b"target_info", lost);
        }
        if own.is_empty() {
            return;
        }
        let id = self.partition.turn(self.seed.hasher.hash_one((&job, &instance)));
        let hash = self.partition.turn(self.seed.hasher.hash_one(labels.encoded()));
        sink.target(&Target { id, labels, hash, newest: *newest });
    }
}

impl Scratch {
    /// Reads the exemplars in field `number` of `point`, if it has any, and tells the sink what did not stay of them.
    fn read_exemplars<S: Sink>(
        &mut self,
        metric: &Metric<'_>,
        (point, number, has_exemplars): (&[u8], u32, bool),
        rules: LabelRules,
        sink: &mut S,
    ) {
        if !has_exemplars {
            return self.exemplars.clear();
        }
        let lost = self.exemplars.read(point, number, rules);
        if lost != LostExemplars::default() {
            sink.exemplars_lost(metric.name, lost);
        }
    }

    fn note_time(&mut self, head: &Head) {
        self.newest = self.newest.max(millis(head.time));
    }

    /// `job` and `instance` of a resource.
    fn read_identity(&mut self, resource_metrics: &[u8]) {
        self.job.clear();
        self.instance.clear();
        let (mut name, mut namespace, mut instance) = (AnyValue::Empty, AnyValue::Empty, AnyValue::Empty);
        for attribute in resource_attributes(resource_metrics) {
            match attribute.key {
                b"service.name" => name = attribute.value,
                b"service.namespace" => namespace = attribute.value,
                b"service.instance.id" => instance = attribute.value,
                _ => {}
            }
        }
        super::values::put_value(&mut self.instance, &instance);
        if !matches!(name, AnyValue::Empty | AnyValue::String(b"")) {
            super::values::put_value(&mut self.job, &namespace);
            if !self.job.is_empty() {
                self.job.push(b'/');
            }
            super::values::put_value(&mut self.job, &name);
        }
    }
}

fn point<'a>(
    metric: &Metric<'a>,
    labels: &'a PointLabels,
    exemplars: &'a Exemplars,
    hash: u64,
    head: &Head,
    value: PointValue<'a>,
) -> Point<'a> {
    Point {
        family: metric.family,
        labels,
        hash,
        time: millis(head.time),
        start: if metric.family.kind.has_start() { millis(head.start) } else { 0 },
        is_delta: metric.is_delta,
        is_stale: head.is_no_recorded_value(),
        items: 1,
        value,
        exemplars,
    }
}

fn millis(nanos: u64) -> i64 {
    nanos as i64 / 1_000_000
}
