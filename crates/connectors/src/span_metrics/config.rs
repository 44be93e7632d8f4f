//! The keys of `span_metrics`.

use std::collections::BTreeSet;

use nyquist_core::config::{Check, Duration, Enabled, Validate};
use serde::Deserialize;

use super::globs::glob_pattern;

/// Attributes of every series, unless they are excluded; a dimension cannot have their names.
pub const BASE_DIMENSIONS: [&str; 5] =
    ["service.name", "span.name", "span.kind", "status.code", "collector.instance.id"];

/// Configuration of the `span_metrics` connector.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct SpanMetricsConfig {
    /// Further attributes of all metrics.
    pub dimensions: Vec<Dimension>,
    /// Further attributes of the calls alone.
    pub calls_dimensions: Vec<Dimension>,
    /// Which of the attributes that every series has to leave out.
    pub exclude_dimensions: Vec<String>,
    /// The durations.
    pub histogram: HistogramConfig,
    /// Whether totals or changes are reported. Default cumulative.
    pub aggregation_temporality: AggregationTemporality,
    /// What metric names begin with. Default `traces.span.metrics`.
    pub namespace: String,
    /// How often metrics are reported. Default 60s.
    pub metrics_flush_interval: Duration,
    /// After how long without a span a resource is forgotten; 0 is never. Default 1h.
    pub metrics_expiration: Duration,
    /// After how long without a span a series is forgotten; 0 is never. Default 1h.
    pub series_expiration: Duration,
    /// Of how many series that have gone silent the time of the last report is remembered, where changes
    /// are reported. Default 1000.
    pub metric_timestamp_cache_size: usize,
    /// How many resources have series of their own. Default 1000.
    pub resource_metrics_cache_size: usize,
    /// Which resource attributes tell resources apart; all if empty.
    pub resource_metrics_key_attributes: Vec<String>,
    /// Examples of spans in the metrics.
    pub exemplars: ExemplarsConfig,
    /// Counts of span events.
    pub events: EventsConfig,
    /// Scopes whose name and version become attributes.
    pub include_instrumentation_scope: Vec<String>,
    /// Series of one metric of one resource; 0 is any number. Default 2000.
    pub aggregation_cardinality_limit: usize,
    /// Whether metrics carry their resource's attributes. Default true.
    pub add_resource_attributes: bool,
    /// Whether series tell if counts were scaled up by the sampling threshold of the spans.
    pub enable_metrics_sampling_method: bool,
    /// Has no effect: `aggregation_cardinality_limit` took its place.
    pub dimensions_cache_size: Option<usize>,
    /// What all series together may take, in MiB. Default 256.
    pub memory_limit_mib: usize,
}

impl Default for SpanMetricsConfig {
    fn default() -> Self {
        Self {
            dimensions: Vec::new(),
            calls_dimensions: Vec::new(),
            exclude_dimensions: Vec::new(),
            histogram: HistogramConfig::default(),
            aggregation_temporality: AggregationTemporality::Cumulative,
            namespace: "traces.span.metrics".to_owned(),
            metrics_flush_interval: Duration::from_secs(60),
            metrics_expiration: Duration::from_secs(3600),
            series_expiration: Duration::from_secs(3600),
            metric_timestamp_cache_size: 1000,
            resource_metrics_cache_size: 1000,
            resource_metrics_key_attributes: Vec::new(),
            exemplars: ExemplarsConfig::default(),
            events: EventsConfig::default(),
            include_instrumentation_scope: Vec::new(),
            aggregation_cardinality_limit: 2000,
            add_resource_attributes: true,
            enable_metrics_sampling_method: false,
            dimensions_cache_size: None,
            memory_limit_mib: 256,
        }
    }
}

/// An attribute of the spans, or of their resource, that becomes one of the metrics.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Dimension {
    /// Its name.
    pub name: String,
    /// Its value where neither span nor resource has it; left out if there is none.
    pub default: Option<String>,
    /// Instead of a name: all attributes whose names match. `*` and `?` stop at dots, `**` does not.
    pub glob: String,
}

/// `aggregation_temporality`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum AggregationTemporality {
    /// Totals since a start time.
    #[serde(rename = "AGGREGATION_TEMPORALITY_CUMULATIVE")]
    Cumulative,
    /// What has come since the last report.
    #[serde(rename = "AGGREGATION_TEMPORALITY_DELTA")]
    Delta,
}

/// The unit of durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Unit {
    /// Milliseconds.
    #[serde(rename = "ms", alias = "MS", alias = "Ms")]
    Milliseconds,
    /// Seconds.
    #[serde(rename = "s", alias = "S")]
    Seconds,
}

/// The durations.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct HistogramConfig {
    /// Leave the durations out.
    pub disable: bool,
    /// Default `ms`.
    pub unit: Unit,
    /// Further attributes of the durations alone.
    pub dimensions: Vec<Dimension>,
    /// Buckets that grow exponentially, and fit themselves to the durations.
    pub exponential: Enabled<ExponentialConfig>,
    /// Fixed buckets; the default.
    pub explicit: Enabled<ExplicitConfig>,
}

impl Default for HistogramConfig {
    fn default() -> Self {
        Self {
            disable: false,
            unit: Unit::Milliseconds,
            dimensions: Vec::new(),
            exponential: Enabled::Off,
            explicit: Enabled::Off,
        }
    }
}

/// Exponential buckets.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ExponentialConfig {
    /// How many buckets at the most. Default 160.
    pub max_size: usize,
}

impl Default for ExponentialConfig {
    fn default() -> Self {
        Self { max_size: 160 }
    }
}

/// Fixed buckets.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ExplicitConfig {
    /// Their upper bounds. Default 2, 4, 6, 8, 10, 50, 100, 200, 400, 800 ms, 1s, 1.4s, 2s, 5s, 10s, 15s.
    pub buckets: Vec<Duration>,
}

impl Default for ExplicitConfig {
    fn default() -> Self {
        let millis = [2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10_000, 15_000];
        Self { buckets: millis.map(Duration::from_millis).into() }
    }
}

/// Examples of spans in the metrics.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ExemplarsConfig {
    /// Default false.
    pub enabled: bool,
    /// How many in a point of one report. Default 5.
    pub max_per_data_point: usize,
}

impl Default for ExemplarsConfig {
    fn default() -> Self {
        Self { enabled: false, max_per_data_point: 5 }
    }
}

/// Counts of span events.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EventsConfig {
    /// Default false.
    pub enabled: bool,
    /// Attributes of the events, beside those of all metrics.
    pub dimensions: Vec<Dimension>,
}

/// More exemplars than this in a point serve nobody, and cost memory for each series.
const MAX_EXEMPLARS: usize = 100;
/// More buckets than this do so too.
const MAX_BUCKETS: usize = 1000;

impl Validate for SpanMetricsConfig {
    fn validate(&self, check: &mut Check<'_>) {
        dimensions(&self.dimensions, &["dimensions"], check);
        dimensions(&self.calls_dimensions, &["calls_dimensions"], check);
        dimensions(&self.histogram.dimensions, &["histogram", "dimensions"], check);
        self.histogram.validate(check);
        if self.events.enabled {
            if self.events.dimensions.is_empty() {
                check.error(&["events", "dimensions"], "no dimensions configured for events");
            }
            dimensions(&self.events.dimensions, &["events", "dimensions"], check);
        }
        for (index, name) in self.exclude_dimensions.iter().enumerate() {
            if !BASE_DIMENSIONS.contains(&name.as_str()) {
                let message = format!("{name:?} is not in every series: these are {}", BASE_DIMENSIONS.join(", "));
                check.warning(&["exclude_dimensions", &index.to_string()], message);
            }
        }
        if self.metrics_flush_interval.0 < std::time::Duration::from_millis(100) {
            check.error(&["metrics_flush_interval"], "must be at least 100ms: 15s or 60s are usual");
        }
        let positive = [
            (self.resource_metrics_cache_size, "resource_metrics_cache_size"),
            (self.metric_timestamp_cache_size, "metric_timestamp_cache_size"),
            (self.memory_limit_mib, "memory_limit_mib"),
        ];
        for (value, key) in positive {
            if value == 0 {
                check.error(&[key], "must be greater than zero");
            }
        }
        if self.exemplars.enabled && self.exemplars.max_per_data_point > MAX_EXEMPLARS {
            check.error(&["exemplars", "max_per_data_point"], format!("must not be greater than {MAX_EXEMPLARS}"));
        }
        if !self.add_resource_attributes && !self.resource_metrics_key_attributes.is_empty() {
            let message = "has no effect with add_resource_attributes: false, which counts the spans of all resources \
                           of a service together: remove one of the two";
            check.error(&["resource_metrics_key_attributes"], message);
        }
        if self.dimensions_cache_size.is_some() {
            let message = "has no effect, as in the Collector: write aggregation_cardinality_limit";
            check.warning(&["dimensions_cache_size"], message);
        }
    }
}

impl HistogramConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.exponential.is_on() && self.explicit.is_on() {
            check.error(&["histogram"], "use either `explicit` or `exponential` buckets histogram");
        }
        if let Enabled::On(ExponentialConfig { max_size }) = self.exponential
            && !(2..=MAX_BUCKETS).contains(&max_size)
        {
            let message = format!("must be between 2 and {MAX_BUCKETS}: 160 is usual");
            check.error(&["histogram", "exponential", "max_size"], message);
        }
        if let Enabled::On(ExplicitConfig { buckets }) = &self.explicit {
            let path = ["histogram", "explicit", "buckets"];
            if !buckets.is_sorted_by(|low, high| low < high) {
                check.error(&path, "must be in ascending order, each bound once");
            }
            if buckets.len() > MAX_BUCKETS {
                check.error(&path, format!("must not be more than {MAX_BUCKETS}"));
            }
        }
    }
}

/// Checks one list of dimensions, as the Collector does.
fn dimensions(dimensions: &[Dimension], path: &[&str], check: &mut Check<'_>) {
    let mut names: BTreeSet<&str> = BASE_DIMENSIONS.into();
    let mut globs = Vec::new();
    for (index, dimension) in dimensions.iter().enumerate() {
        let index = index.to_string();
        let path = [path, &[&index]].concat();
        match (dimension.name.as_str(), dimension.glob.as_str()) {
            ("", "") => check.error(&path, "dimension entry must set one of `name` or `glob`"),
            ("", glob) => {
                if dimension.default.is_some() {
                    check.error(&path, format!("`default` is not supported on `glob` dimension {glob:?}"));
                }
                match glob_pattern(glob) {
                    Ok(pattern) => {
                        globs.push((path.iter().map(ToString::to_string).collect::<Vec<_>>(), glob, pattern))
                    }
                    Err(error) => check.error(&path, format!("invalid dimension glob {glob:?}: {error}")),
                }
            }
            (name, "") => {
                if !names.insert(name) {
                    check.error(&path, format!("duplicate dimension name {name:?}"));
                }
            }
            (name, glob) => check.error(
                &path,
                format!("dimension entry must set only one of `name` or `glob`, got both: name={name:?} glob={glob:?}"),
            ),
        }
    }
    for (path, glob, pattern) in globs {
        if let Some(name) = names.iter().find(|name| pattern.is_match(name.as_bytes())) {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            check.error(&path, format!("duplicate dimension name {name:?} conflicting with glob {glob:?}"));
        }
    }
}
