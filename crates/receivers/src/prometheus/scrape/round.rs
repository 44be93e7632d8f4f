//! One scrape: from lines to OTLP.

use nyquist_core::proto::common::v1::KeyValue;
use nyquist_core::proto::metrics::v1::summary_data_point::ValueAtQuantile;
use nyquist_core::proto::metrics::v1::{Exemplar, HistogramDataPoint, MetricsData, SummaryDataPoint};

use super::bad::{Bad, BadSample, Unusable};
use super::families::{Families, Membership, Part};
use super::series::{Observed, Series};
use super::settings::Settings;
use crate::prometheus::exposition::protobuf::Natives;
use crate::prometheus::exposition::{Entry, MetricType, Native, Sample};
use crate::prometheus::labels::{Labels, NAME};
use crate::prometheus::model::{Description, Model, Point, SeriesKey, Shape, Slot, exemplar, nanos, number};
use crate::prometheus::native::Histogram;
use crate::prometheus::relabel::relabel;

/// More buckets or quantiles than this are left out.
const MAX_PARTS: usize = 16_384;

/// What a scrape found, for its reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Samples of the page.
    pub(super) scraped: u64,
    /// Those that `metric_relabel_configs` kept.
    pub(super) kept: u64,
    /// Series that the last scrape did not have.
    pub(super) added: u64,
    /// Samples that make no point, as far as that is known before the end.
    pub(super) bad: u64,
}

/// The samples of one series.
#[derive(Debug)]
struct Gathered {
    slot: Slot,
    attributes: Vec<KeyValue>,
    time: u64,
    start: u64,
    created: Option<u64>,
    shape: Shape,
    value: Option<f64>,
    sum: Option<f64>,
    /// Bounds and cumulative counts, or quantiles and values.
    parts: Vec<(f64, f64)>,
    native: Option<Histogram>,
    exemplars: Vec<Exemplar>,
    is_new: bool,
}

/// A scrape that is being read.
pub(super) struct Round<'a, 's> {
    settings: &'s Settings,
    series: &'s mut Series,
    families: Families<'a>,
    model: Model,
    gathered: Vec<Gathered>,
    key: SeriesKey,
    tally: Tally,
    bad: Bad,
    /// In milliseconds since 1970.
    now: i64,
}

impl<'a, 's: 'a> Round<'a, 's> {
    /// Begins a scrape at `now`, in milliseconds since 1970.
    pub(super) fn new(settings: &'s Settings, series: &'s mut Series, now: i64) -> Self {
        series.begin();
        Self {
            settings,
            series,
            families: Families::default(),
            model: Model::new(super::SCOPE),
            gathered: Vec::new(),
            key: SeriesKey::default(),
            tally: Tally::default(),
            bad: Bad::default(),
            now,
        }
    }

    /// What to do with native histograms.
    pub(super) fn natives(&self) -> Natives {
        self.settings.natives
    }

    /// Takes one line; a sample's labels are in `labels`.
    ///
    /// An error means that the scrape failed.
    pub(super) fn take(&mut self, entry: Entry<'a>, labels: &mut Labels<'a>) -> Result<(), String> {
        match entry {
            Entry::Sample(sample) => self.sample(&sample, labels),
            other => {
                self.families.learn(other);
                Ok(())
            }
        }
    }

    fn sample(&mut self, sample: &Sample<'a>, labels: &mut Labels<'a>) -> Result<(), String> {
        let settings = self.settings;
        self.tally.scraped += 1;
        settings.join(labels);
        if !relabel(&settings.metric_relabel, labels) {
            return Ok(());
        }
        self.tally.kept += 1;
        settings.limits.check(labels, self.tally.kept)?;
        settings.add_external(labels);
        let Some(name) = labels.remove(NAME) else {
            self.bad.add("(none)", BadSample::NoName.into());
            return Ok(());
        };
        let membership = match &sample.native {
            Some(native) => self.families.native(&name, native.histogram.is_custom()),
            None => self.families.of(&name),
        };
        let trimmed;
        let membership = if settings.trim_suffixes {
            trimmed = trim(&membership);
            Membership { name: trimmed, ..membership }
        } else {
            membership
        };
        if name == "target_info" {
            self.key.encode(&name, Shape::Gauge, MetricType::Info, labels, "");
            self.model.target_info(&self.key);
            return Ok(());
        }
        let own_time = sample.timestamp.filter(|_| settings.honor_timestamps);
        let time = nanos(own_time.unwrap_or(self.now));
        let is_untracked = own_time.is_some() && !settings.track_timestamps;
        let gathered = gather(
            (settings, self.series, &mut self.model, &mut self.gathered, &mut self.key, &mut self.tally),
            &membership,
            labels,
            (sample, time, is_untracked),
        );
        if let Err(unusable) = gathered {
            self.bad.add(&name, unusable);
        }
        Ok(())
    }

    /// Ends a scrape that could not be read: nothing was there.
    pub(super) fn failed(mut self) -> Self {
        self.series.begin_again();
        self.model = Model::new(super::SCOPE);
        self.gathered.clear();
        self.bad = Bad::default();
        let Tally { scraped, kept, .. } = self.tally;
        self.tally = Tally { scraped, kept, ..Tally::default() };
        self
    }

    /// What it found.
    pub(super) fn tally(&self) -> Tally {
        Tally { bad: self.bad.total(), ..self.tally }
    }

    /// Adds a series about the scrape itself.
    pub(super) fn report(&mut self, name: &str, unit: &str, help: &str, value: f64) {
        let mut labels = self.settings.labels.clone();
        self.settings.add_external(&mut labels);
        let membership = Membership {
            name,
            kind: MetricType::Gauge,
            shape: Shape::Gauge,
            part: Part::Value,
            description: Description { help, unit },
        };
        let sample = Sample::of(value);
        let mut tally = Tally::default();
        // Its names are its own: nothing is there twice.
        let _ = gather(
            (self.settings, self.series, &mut self.model, &mut self.gathered, &mut self.key, &mut tally),
            &membership,
            &labels,
            (&sample, nanos(self.now), false),
        );
    }

    /// The points, with those of series that have ended, how many there are, and what makes none.
    pub(super) fn finish(mut self) -> (MetricsData, usize, Bad) {
        let mut gathered = std::mem::take(&mut self.gathered);
        for series in &mut gathered {
            series.parts.sort_by(|(left, _), (right, _)| left.total_cmp(right));
            let before = series.parts.len();
            series.parts.dedup_by(|(later, _), (earlier, _)| later == earlier);
            for _ in series.parts.len()..before {
                self.bad.add(self.model.name(series.slot), BadSample::Duplicate.into());
            }
        }
        let mut starts = vec![0; gathered.len()];
        self.series.each_met(
            |point| gathered.get(point).and_then(Gathered::observed),
            |point, start| {
                if let Some(slot) = starts.get_mut(point) {
                    *slot = start;
                }
            },
        );
        for (series, start) in gathered.iter_mut().zip(starts) {
            series.start = start;
        }
        for series in gathered {
            let slot = series.slot;
            match series.point() {
                Ok(point) => self.model.push(slot, point),
                Err(unusable) => self.bad.add(self.model.name(slot), unusable),
            }
        }
        let time = nanos(self.now);
        let (model, families, settings) = (&mut self.model, &self.families, self.settings);
        self.series.each_ended(|key, shape, start, inner| {
            let membership = families.of(key.name());
            let resource = |job: &str, instance: &str| settings.resource(job, instance);
            let kind = key.kind();
            let slot = model.slot(key, shape, kind, membership.description, resource);
            model.push(slot, shape.ended(key.key_values(), start, time, inner));
        });
        let points = self.model.points();
        (self.model.finish(), points, self.bad)
    }
}

/// What a sample is added to.
type Target<'t> =
    (&'t Settings, &'t mut Series, &'t mut Model, &'t mut Vec<Gathered>, &'t mut SeriesKey, &'t mut Tally);

/// Adds a sample to its series, unless it cannot be used.
fn gather(
    target: Target<'_>,
    membership: &Membership<'_>,
    labels: &Labels<'_>,
    (sample, time, is_untracked): (&Sample<'_>, u64, bool),
) -> Result<(), Unusable> {
    let (settings, series, model, gathered, key, tally) = target;
    let Membership { name, kind, shape, part, description } = *membership;
    let name_of_series;
    let is_base = part == Part::Created && shape == Shape::Counter && !settings.trim_suffixes;
    let name = if is_base {
        name_of_series = format!("{name}_total");
        &name_of_series
    } else {
        name
    };
    key.encode(name, shape, kind, labels, membership.inner_label());
    let index = match series.point(key) {
        Some(index) => index,
        None => {
            let index = gathered.len();
            let is_new = series.meet(key, shape, index, is_untracked);
            let slot = model.slot(key, shape, kind, description, |job, instance| settings.resource(job, instance));
            gathered.push(Gathered {
                slot,
                attributes: key.key_values(),
                time,
                start: 0,
                created: None,
                shape,
                value: None,
                sum: None,
                parts: Vec::new(),
                native: None,
                exemplars: Vec::new(),
                is_new,
            });
            index
        }
    };
    let Some(own) = gathered.get_mut(index) else { return Ok(()) };
    let inner = labels.get(membership.inner_label());
    match &sample.native {
        Some(native) => own.add_native(native, time)?,
        None => own.add(part, inner, sample.value)?,
    }
    own.created = own.created.or(sample.created);
    if let Some(own_exemplar) = &sample.exemplar {
        let time = own_exemplar.timestamp.map_or(time, nanos);
        own.exemplars.push(exemplar(own_exemplar.labels.iter(), own_exemplar.value, time));
    }
    tally.added += u64::from(own.is_new);
    Ok(())
}

impl Gathered {
    /// Adds one sample, unless it was there before, or has no use.
    fn add(&mut self, part: Part, inner: &str, value: f64) -> Result<(), BadSample> {
        let place = match part {
            Part::Value | Part::Count => &mut self.value,
            Part::Sum => &mut self.sum,
            Part::Created if value.is_finite() && value > 0.0 => {
                self.created = Some((value * 1e9) as u64);
                return Ok(());
            }
            Part::Created => {
                self.created = None;
                return Err(BadSample::Created);
            }
            // Comes as a whole.
            Part::Native => return Err(BadSample::NativeHistogram),
            Part::Bucket | Part::Quantile if self.parts.len() >= MAX_PARTS => return Err(BadSample::TooManyBuckets),
            Part::Bucket | Part::Quantile => {
                let bound = inner.parse::<f64>().ok().filter(|bound| !bound.is_nan());
                self.parts.push((bound.ok_or(BadSample::Bound)?, value));
                return Ok(());
            }
        };
        if place.is_some() {
            return Err(BadSample::Duplicate);
        }
        *place = Some(value);
        Ok(())
    }

    /// Adds a native histogram, unless it was there before, or OTLP has no place for it.
    fn add_native(&mut self, native: &Native<'_>, time: u64) -> Result<(), Unusable> {
        if self.native.is_some() {
            return Err(BadSample::Duplicate.into());
        }
        native.histogram.check().map_err(Unusable::native)?;
        self.value = Some(native.histogram.count() as f64);
        self.native = Some(native.histogram.clone());
        for own in &native.exemplars {
            let time = own.timestamp.map_or(time, nanos);
            self.exemplars.push(exemplar(own.labels.iter(), own.value, time));
        }
        Ok(())
    }

    /// What decides when the series began.
    fn observed(&self) -> Option<Observed<'_>> {
        let (value, sum) = match self.shape {
            Shape::Counter => (self.value?, 0.0),
            Shape::Histogram => (self.value.or_else(|| self.largest_bucket())?, self.rising_sum()),
            Shape::Summary => (self.value.unwrap_or_default(), 0.0),
            Shape::Exponential => (self.value?, 0.0),
            Shape::Gauge | Shape::UpDown => return None,
        };
        Some(Observed { time: self.time, created: self.created, value, sum, parts: &self.parts })
    }

    fn largest_bucket(&self) -> Option<f64> {
        self.parts.iter().map(|(_, count)| *count).reduce(f64::max)
    }

    /// The sum, where no observation can be negative.
    fn rising_sum(&self) -> f64 {
        let lowest = self.parts.iter().map(|(bound, _)| *bound).fold(f64::INFINITY, f64::min);
        if lowest >= 0.0 { self.sum.unwrap_or_default() } else { 0.0 }
    }

    /// The data point, if there is enough for one.
    fn point(mut self) -> Result<Point, Unusable> {
        // A native histogram whose only sample was refused, and said so, is none; nor is one that refuses itself here.
        if let Some(native) = self.native {
            let is_custom = native.is_custom();
            return if is_custom {
                let mut point = native.explicit(self.attributes, self.start, self.time).map_err(Unusable::native)?;
                point.exemplars = self.exemplars;
                Ok(Point::Histogram(point))
            } else {
                let mut point = native.exponential(self.attributes, self.start, self.time).map_err(Unusable::native)?;
                point.exemplars = self.exemplars;
                Ok(Point::Exponential(point))
            };
        }
        match self.shape {
            Shape::Gauge | Shape::UpDown => {
                Ok(Point::Number(number(self.attributes, 0, self.time, self.value.ok_or(BadSample::Incomplete)?)))
            }
            Shape::Counter => {
                let mut point =
                    number(self.attributes, self.start, self.time, self.value.ok_or(BadSample::Incomplete)?);
                point.exemplars = self.exemplars;
                Ok(Point::Number(point))
            }
            Shape::Histogram => {
                let count = self.value.or_else(|| self.largest_bucket()).ok_or(BadSample::Incomplete)?;
                let parts = std::mem::take(&mut self.parts);
                let (explicit_bounds, bucket_counts) = buckets(parts, count);
                Ok(Point::Histogram(HistogramDataPoint {
                    attributes: self.attributes,
                    start_time_unix_nano: self.start,
                    time_unix_nano: self.time,
                    count: whole(count),
                    sum: self.sum,
                    bucket_counts,
                    explicit_bounds,
                    exemplars: self.exemplars,
                    ..HistogramDataPoint::default()
                }))
            }
            Shape::Summary => {
                let values = self.parts.iter().map(|&(quantile, value)| ValueAtQuantile { quantile, value });
                Ok(Point::Summary(SummaryDataPoint {
                    quantile_values: values.collect(),
                    attributes: self.attributes,
                    start_time_unix_nano: self.start,
                    time_unix_nano: self.time,
                    count: whole(self.value.unwrap_or_default()),
                    sum: self.sum.unwrap_or_default(),
                    ..SummaryDataPoint::default()
                }))
            }
            Shape::Exponential => Err(BadSample::Incomplete.into()),
        }
    }
}

/// Bounds, and how many observations are in each bucket, from cumulative counts in the order of their bounds, each of which is there once. A count that falls is
/// taken for the one before it.
fn buckets(parts: Vec<(f64, f64)>, count: f64) -> (Vec<f64>, Vec<u64>) {
    if parts.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let mut bounds = Vec::with_capacity(parts.len());
    let mut counts = Vec::with_capacity(parts.len() + 1);
    let mut below = 0;
    for (bound, cumulative) in parts.into_iter().filter(|(bound, _)| bound.is_finite()) {
        bounds.push(bound);
        let up_to = whole(cumulative).max(below);
        counts.push(up_to - below);
        below = up_to;
    }
    counts.push(whole(count).saturating_sub(below));
    (bounds, counts)
}

/// A count: at least 0; NaN is 0.
fn whole(count: f64) -> u64 {
    count as u64
}

/// The name without `_total` and the unit.
fn trim<'m>(membership: &Membership<'m>) -> &'m str {
    let name = membership.name;
    let name = if membership.kind == MetricType::Counter { name.strip_suffix("_total").unwrap_or(name) } else { name };
    let unit = membership.description.unit;
    let bare = name.strip_suffix(unit).and_then(|name| name.strip_suffix('_'));
    bare.filter(|bare| !unit.is_empty() && !bare.is_empty()).unwrap_or(name)
}
