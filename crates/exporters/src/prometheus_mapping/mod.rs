//! OTLP metrics as Prometheus series, from wire to wire.
//!
//! A [`Translator`] walks an OTLP message once and hands every data point to a [`Sink`], with its
//! translated name and its labels already encoded. Nothing is decoded into a model: labels of a
//! resource and scope are built once, names are remembered, and a point costs no allocation.
//!
//! Rules: <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>, and
//! where they leave room, what the Collector's exporter does. `README.md` of
//! `prometheus_remote_write` lists the deviations.

pub(crate) mod config;
mod exemplars;
mod family;
mod kinds;
mod labels;
mod layout;
mod losses;
mod merge;
mod names;
mod native;
mod neighbours;
mod owned;
mod points;
mod resource;
mod seed;
mod settings;
mod streams;
mod target_info;
mod translate;
mod values;

#[cfg(test)]
mod tests;

pub use exemplars::{Exemplar, Exemplars};
pub use family::{Family, Suffix};
pub use kinds::{Kind, MetricType};
pub use labels::{LabelRules, PointLabels, decoded_labels, label_name, put_label};
pub(crate) use losses::Losses;
pub use names::{NoName, Strategy, escape_namespace, metric_name, unit_name};
pub use native::{CUSTOM_BUCKETS, NativeHistogram, Spans};
pub use owned::{Added, OwnedValue};
pub use points::{Histogram, Summary};
pub use seed::{HashSeed, Partition};
pub use settings::{CustomBuckets, ResourceLabels, Settings, glob};
pub use streams::{Accumulator, StaleTracker, Streams, StreamsSink};
pub use target_info::{OwnedTarget, Owner, TargetInfo};
pub use translate::Translator;
pub use values::put_decimal;
pub(crate) use values::put_value;

use std::sync::Arc;

/// The value that ends a series: a NaN with these very bits.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Why a point has no Prometheus equivalent: the `reason` label of `dropped_points`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Untranslatable {
    /// Delta temporality.
    Delta,
    /// Unspecified temporality.
    Temporality,
    /// Nothing is left of the metric's name.
    Name,
    /// An exponential histogram coarser than Prometheus has.
    Scale,
    /// An exponential histogram without a sum.
    NoSum,
    /// A point without a value, or with one that cannot be represented; a delta that is NaN or infinite.
    Value,
    /// A point without a time.
    Time,
    /// Bounds of a histogram that do not rise.
    Bounds,
    /// A histogram with buckets that do not add up to its count.
    Count,
    /// Another metric has this name, with another type.
    TypeConflict,
    /// Older than what is there already, or a repetition of it.
    OutOfOrder,
    /// Too many series.
    OverLimit,
}

impl Untranslatable {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Delta,
        Self::Temporality,
        Self::Name,
        Self::Scale,
        Self::NoSum,
        Self::Value,
        Self::Time,
        Self::Bounds,
        Self::Count,
        Self::TypeConflict,
        Self::OutOfOrder,
        Self::OverLimit,
    ];

    /// The label value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Temporality => "temporality",
            Self::Name => "name",
            Self::Scale => "scale",
            Self::NoSum => "no_sum",
            Self::Value => "value",
            Self::Time => "time",
            Self::Bounds => "bounds",
            Self::Count => "count",
            Self::TypeConflict => "type_conflict",
            Self::OutOfOrder => "out_of_order",
            Self::OverLimit => "over_limit",
        }
    }

    /// What is wrong and what to do, for the log.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Delta => {
                "delta temporality has no equivalent in Prometheus: let the SDK export cumulative temporality, or set \
                 `delta: accumulate`"
            }
            Self::Temporality => "the aggregation temporality is not set: it must be cumulative",
            Self::Name => "nothing is left of the metric's name once invalid characters are replaced: rename it",
            Self::Scale => "the exponential histogram's scale is below -4, the coarsest that Prometheus has",
            Self::NoSum => "an exponential histogram without a sum cannot be a native histogram",
            Self::Value => "the point has no value, or one that cannot be represented or added up",
            Self::Time => "the point has no time, which backends refuse together with everything sent along",
            Self::Bounds => "the histogram's bounds are not numbers in rising order",
            Self::Count => "the histogram's buckets do not add up to its count, which Prometheus refuses",
            Self::TypeConflict => "another metric has another type, and series of the same names: rename one of them",
            Self::OutOfOrder => "the point is not newer than the one before it in its series",
            Self::OverLimit => "there are too many series: raise max_series or limit cardinality",
        }
    }
}

/// The value of a point.
#[derive(Debug, Clone, Copy)]
pub enum PointValue<'a> {
    /// Of a gauge or sum. The stale marker, if the series ends.
    Number(f64),
    /// A histogram with explicit bounds.
    Histogram(Histogram<'a>),
    /// An exponential histogram, as a native one.
    Native(&'a NativeHistogram),
    /// A summary.
    Summary(Summary<'a>),
}

impl PointValue<'_> {
    /// Can it be added to a total? One NaN or infinity would stay in it for ever.
    #[must_use]
    pub fn is_countable(&self) -> bool {
        match self {
            Self::Number(value) => value.is_finite(),
            Self::Histogram(_) | Self::Native(_) | Self::Summary(_) => true,
        }
    }
}

/// A translated data point.
#[derive(Debug, Clone, Copy)]
pub struct Point<'a> {
    /// What it belongs to.
    pub family: &'a Arc<Family>,
    /// Its labels.
    pub labels: &'a PointLabels,
    /// A hash of name and labels, seeded for this process and its [`Partition`]: one for all series of a point, and
    /// for points of other kinds; see [`Point::series`].
    pub hash: u64,
    /// Its time, in milliseconds since the epoch.
    pub time: i64,
    /// When its stream began, in milliseconds since the epoch; 0 if unknown.
    pub start: i64,
    /// Is the value the change since the last point, rather than since the start?
    pub is_delta: bool,
    /// Does the point end its series?
    pub is_stale: bool,
    /// How many data points of the message it stands for: 1, or 0 for `target_info` and for a
    /// second form of a point that was handed out already.
    pub items: usize,
    /// Its value.
    pub value: PointValue<'a>,
    /// Its exemplars; none for gauges.
    pub exemplars: &'a Exemplars,
}

/// Tells the hash of series whose names have suffixes from that of the series without one.
const SUFFIXED: u64 = 0x9e37_79b9_7f4a_7c15;

impl Point<'_> {
    /// A hash of the series that the point is a sample of: of points with equal ones and one time
    /// Prometheus takes a single one.
    ///
    /// Numbers and native histograms are samples of `x`, classic histograms and summaries of
    /// `x_sum` and `x_count`. So a histogram may come in its classic and its native form under one
    /// name, as it does while a source moves from one to the other, and both are kept.
    #[must_use]
    pub fn series(&self) -> u64 {
        match self.value {
            PointValue::Number(_) | PointValue::Native(_) => self.hash,
            PointValue::Histogram(_) | PointValue::Summary(_) => self.hash ^ SUFFIXED,
        }
    }
}

/// A resource that is worth a `target_info`.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// A hash of `job` and `instance`, in its [`Partition`].
    pub id: u64,
    /// Its labels.
    pub labels: &'a PointLabels,
    /// Their hash, in its [`Partition`].
    pub hash: u64,
    /// Time of its newest point, in milliseconds since the epoch.
    pub newest: i64,
}

/// What became of labels that could not stay as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LostLabels {
    /// Left out: nothing is left of their names.
    pub unnamable: usize,
    /// Overwritten by labels of ours: `job`, `instance`, `le`, ...
    pub overwritten: usize,
    /// Joined with others that have the same name once it is made valid.
    pub joined: usize,
}

/// What did not stay of exemplars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LostExemplars {
    /// Those of metrics that have none in Prometheus: gauges, and sums that can fall.
    pub exemplars: usize,
    /// Their labels of which nothing is left but the name's underscores.
    pub unnamable: usize,
    /// Their labels that, together, are longer than OpenMetrics allows.
    pub too_long: usize,
    /// Their labels called as the ids are, which stay.
    pub overwritten: usize,
    /// Their labels that were joined with others, which have the same name once it is made valid.
    pub joined: usize,
}

/// Takes what a [`Translator`] finds.
pub trait Sink {
    /// The points of a metric follow.
    fn metric(&mut self, family: &Arc<Family>, description: &[u8]) {
        let _ = (family, description);
    }

    /// A point.
    fn point(&mut self, point: &Point<'_>);

    /// `points` of `metric` could not be translated.
    fn dropped(&mut self, reason: Untranslatable, metric: &[u8], points: usize);

    /// A resource whose points have been handed out.
    fn target(&mut self, target: &Target<'_>) {
        let _ = target;
    }

    /// Labels of `metric` (empty: of a resource or scope) are not what they were.
    fn labels_lost(&mut self, metric: &[u8], lost: LostLabels) {
        let _ = (metric, lost);
    }

    /// Exemplars of `metric` are not what they were, or not there.
    fn exemplars_lost(&mut self, metric: &[u8], lost: LostExemplars) {
        let _ = (metric, lost);
    }

    /// So many resources were forgotten because there are too many: their `target_info` ends, and begins again when
    /// they are heard of.
    fn targets_forgotten(&mut self, targets: usize) {
        let _ = targets;
    }
}
