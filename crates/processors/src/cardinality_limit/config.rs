//! The keys of `cardinality_limit`.

use std::collections::BTreeMap;
use std::fmt;

use nyquist_core::config::{Check, Duration, Validate};
use serde::{Deserialize, Deserializer, de};

/// Configuration of the `cardinality_limit` processor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct CardinalityLimitConfig {
    /// Track and count what would be limited, change nothing. Default false.
    pub dry_run: bool,
    /// Series of all metrics together. Default 1,000,000.
    pub max_series: usize,
    /// What all state may take, in MiB. Default 256.
    pub memory_limit_mib: usize,
    /// Budgets of metrics without a rule.
    pub default: Budgets,
    /// Budgets of some metrics; the first rule that matches a metric's name counts.
    pub rules: Vec<Rule>,
    /// Labels that are never collapsed.
    pub protect_labels: Vec<String>,
    /// What happens to points over a limit. Default `collapse_label`.
    pub on_exceed: OnExceed,
    /// What stands in for a collapsed label's value; empty removes the label. Default `other`.
    pub replacement: String,
    /// After how long without a point a series or value loses its slot. Default 1h.
    pub idle_ttl: Duration,
    /// How often collapsed series are reported. Default 10s.
    pub flush_interval: Duration,
    /// What a collapsed gauge reports. Default `last`.
    pub gauge: GaugeMode,
    /// What a collapsed cumulative sum that can fall reports: `sum`.
    pub up_down_counter: String,
    /// How much the own metrics and logs tell.
    pub report: Report,
    /// Which values keep a slot: `first_seen`.
    pub keep: String,
    /// How often a value is to be seen before it gets a slot: 1.
    pub min_sightings: u32,
    /// Not there yet.
    pub hash_buckets: Option<u32>,
    /// Not there yet.
    pub tenant_from: Option<String>,
    /// Not there yet.
    pub storage: Option<String>,
}

impl Default for CardinalityLimitConfig {
    fn default() -> Self {
        Self {
            dry_run: false,
            max_series: 1_000_000,
            memory_limit_mib: 256,
            default: Budgets::default(),
            rules: Vec::new(),
            protect_labels: ["service.name", "http.response.status_code", "le", "quantile"].map(str::to_owned).into(),
            on_exceed: OnExceed::CollapseLabel,
            replacement: "other".to_owned(),
            idle_ttl: Duration::from_secs(3600),
            flush_interval: Duration::from_secs(10),
            gauge: GaugeMode::Last,
            up_down_counter: "sum".to_owned(),
            report: Report::default(),
            keep: "first_seen".to_owned(),
            min_sightings: 1,
            hash_buckets: None,
            tenant_from: None,
            storage: None,
        }
    }
}

/// Budgets of one metric.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Budgets {
    /// Series of one metric, over all resources. Default 2000.
    pub max_series_per_metric: usize,
    /// Values of one label of one metric. Default 500; 0 collapses every label that is not
    /// protected.
    pub max_values_per_label: usize,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { max_series_per_metric: 2000, max_values_per_label: 500 }
    }
}

/// Budgets of the metrics whose names match.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Names, where `*` stands for any text and `?` for one character.
    pub metrics: Vec<String>,
    /// Series of one metric; that of `default` if absent.
    pub max_series_per_metric: Option<usize>,
    /// Values of other labels than those in `labels`; that of `default` if absent.
    pub max_values_per_label: Option<usize>,
    /// Values of single labels; 0 collapses the label always.
    pub labels: BTreeMap<String, LabelLimit>,
}

/// How many values a label may have: a number, or `{max: number}`.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelLimit {
    /// The number; 0 collapses the label always.
    pub max: usize,
    /// Which values keep a slot: `first_seen`, or empty.
    pub keep: String,
}

/// What happens to points over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExceed {
    /// The value of the offending label is replaced, and what becomes one series is added up.
    CollapseLabel,
    /// All of a metric's surplus goes to one series, with `otel.metric.overflow`.
    OverflowSeries,
    /// The point is dropped, and counted.
    DropPoint,
    /// The point passes, with `otel.metric.overflow`.
    TagOnly,
    /// Not there yet.
    HashLabel,
}

/// What a collapsed gauge reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GaugeMode {
    /// The newest value; of several at one time, the largest.
    Last,
    /// The largest value since the last flush.
    Max,
    /// The smallest value since the last flush.
    Min,
    /// The sum of the last values of all live series.
    Sum,
    /// The mean of the last values of all live series.
    Avg,
}

/// How much the own metrics and logs tell.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Report {
    /// How many metrics have series of their own in the own metrics; the others are `other`.
    /// Default 20.
    pub top_n: usize,
    /// How many values of an offending label a log line quotes; 0 for none. Default 3.
    pub sample_values: usize,
}

impl Default for Report {
    fn default() -> Self {
        Self { top_n: 20, sample_values: 3 }
    }
}

impl Validate for CardinalityLimitConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.max_series == 0 {
            check.error(&["max_series"], "must be greater than zero");
        }
        if self.memory_limit_mib == 0 {
            check.error(&["memory_limit_mib"], "must be greater than zero: a million series take about 60");
        }
        if self.default.max_series_per_metric == 0 {
            check.error(&["default", "max_series_per_metric"], "must be greater than zero");
        }
        if self.idle_ttl.0 < std::time::Duration::from_secs(1) {
            check.error(&["idle_ttl"], "must be at least 1s, and should be several export intervals: 1h is usual");
        }
        if self.flush_interval.0.is_zero() {
            let message = "must be greater than zero: a flush after each batch is not there yet; write 1s";
            check.error(&["flush_interval"], message);
        }
        for (index, rule) in self.rules.iter().enumerate() {
            rule.validate(&["rules", &index.to_string()], check);
        }
        self.refuse_what_is_not_there(check);
    }
}

impl CardinalityLimitConfig {
    fn refuse_what_is_not_there(&self, check: &mut Check<'_>) {
        if self.on_exceed == OnExceed::HashLabel || self.hash_buckets.is_some() {
            let message = "hash_label is not there yet: collapse_label is the nearest";
            let key = if self.hash_buckets.is_some() { "hash_buckets" } else { "on_exceed" };
            check.error(&[key], message);
        }
        if self.keep != "first_seen" {
            check.error(&["keep"], format!("{:?} is not there yet: first_seen is", self.keep));
        }
        if self.min_sightings != 1 {
            check.error(&["min_sightings"], "only 1 is there yet: a value gets its slot at first sight");
        }
        if self.up_down_counter != "sum" {
            check.error(&["up_down_counter"], format!("{:?} is not there yet: sum is", self.up_down_counter));
        }
        if self.tenant_from.is_some() {
            check.error(&["tenant_from"], "budgets per tenant are not there yet: remove the key");
        }
        if self.storage.is_some() {
            let message = "keeping slots over a restart is not there yet: remove the key; after a restart the first \
                           values seen get the slots";
            check.error(&["storage"], message);
        }
    }
}

impl Rule {
    fn validate(&self, place: &[&str], check: &mut Check<'_>) {
        if self.metrics.is_empty() {
            check.error(&[place, &["metrics"]].concat(), "must name at least one metric, like \"http.server.*\"");
        }
        if self.max_series_per_metric == Some(0) {
            check.error(&[place, &["max_series_per_metric"]].concat(), "must be greater than zero");
        }
        for (label, limit) in &self.labels {
            if !matches!(limit.keep.as_str(), "" | "first_seen") {
                let message = format!("keep {:?} is not there yet: first_seen is", limit.keep);
                check.error(&[place, &["labels", label]].concat(), message);
            }
        }
    }
}

impl<'de> Deserialize<'de> for LabelLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = LabelLimit;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a number of values, or {max: number}")
            }

            fn visit_u64<E: de::Error>(self, max: u64) -> Result<LabelLimit, E> {
                let max = usize::try_from(max).map_err(|_| E::custom("too large a number of values"))?;
                Ok(LabelLimit { max, keep: String::new() })
            }

            fn visit_i64<E: de::Error>(self, max: i64) -> Result<LabelLimit, E> {
                u64::try_from(max)
                    .map_err(|_| E::custom("a number of values cannot be negative"))
                    .and_then(|max| self.visit_u64(max))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, entries: A) -> Result<LabelLimit, A::Error> {
                #[derive(Deserialize)]
                struct Fields {
                    max: usize,
                    #[serde(default)]
                    keep: String,
                }
                let Fields { max, keep } = Fields::deserialize(de::value::MapAccessDeserializer::new(entries))?;
                Ok(LabelLimit { max, keep })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
