//! The keys of `cardinality_limit`.

mod label_limit;
mod tenant_from;

use std::collections::BTreeMap;

use nyquist_core::config::{Check, Duration, Validate};
use serde::Deserialize;

pub use label_limit::LabelLimit;
pub use tenant_from::TenantFrom;

/// More sightings than this are not told apart.
const MOST_SIGHTINGS: u8 = 15;
const MOST_BUCKETS: u32 = 65_536;

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
    /// What a collapsed cumulative sum that can fall reports. Default `sum`.
    pub up_down_counter: UpDownMode,
    /// How much the own metrics and logs tell.
    pub report: Report,
    /// Which values keep a slot. Default `first_seen`.
    pub keep: Keep,
    /// How often a value is to be seen before it gets a slot. Default 1.
    pub min_sightings: u8,
    /// With `on_exceed: hash_label`: among how many values a label's surplus is spread. Default 64.
    pub hash_buckets: u32,
    /// Whose budgets: `resource["tenant.id"]` or `metadata["x-tenant"]`. Absent: all are one.
    pub tenant_from: Option<TenantFrom>,
    /// Tenants with budgets of their own; the others share one. Default 1000.
    pub max_tenants: usize,
    /// Series of all metrics of one tenant; absent: `max_series` is the only limit.
    pub max_series_per_tenant: Option<usize>,
    /// Each resource has budgets of its own for each metric, as in the SDKs. Default false.
    pub per_resource: bool,
    /// The extension in which the choice of what keeps a slot survives the process.
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
            up_down_counter: UpDownMode::Sum,
            report: Report::default(),
            keep: Keep::FirstSeen,
            min_sightings: 1,
            hash_buckets: 64,
            tenant_from: None,
            max_tenants: 1000,
            max_series_per_tenant: None,
            per_resource: false,
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
    /// The value of the offending label is replaced by one of `hash_buckets`, and what becomes one
    /// series is added up.
    HashLabel,
}

/// Which values of a label keep a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The first ones, until they are idle.
    FirstSeen,
    /// Those with the most points.
    TopK,
}

/// What a collapsed cumulative sum that can fall reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpDownMode {
    /// The sum of the last values of all live series.
    Sum,
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
    /// Nothing: its points are dropped, and counted.
    Drop,
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
            check.error(&["memory_limit_mib"], "must be greater than zero: a million series take 40 to 70");
        }
        if self.default.max_series_per_metric == 0 {
            check.error(&["default", "max_series_per_metric"], "must be greater than zero");
        }
        if self.idle_ttl.0 < std::time::Duration::from_secs(1) {
            check.error(&["idle_ttl"], "must be at least 1s, and should be several export intervals: 1h is usual");
        }
        if self.flush_interval.0.is_zero() {
            let message = "must be greater than zero: an export that comes in several batches is to be one point; 1s is the least that makes sense";
            check.error(&["flush_interval"], message);
        }
        for (index, rule) in self.rules.iter().enumerate() {
            rule.validate(&["rules", &index.to_string()], check);
        }
        if !(1..=MOST_SIGHTINGS).contains(&self.min_sightings) {
            check.error(&["min_sightings"], format!("must be between 1 and {MOST_SIGHTINGS}"));
        }
        if !(1..=MOST_BUCKETS).contains(&self.hash_buckets) {
            check.error(&["hash_buckets"], format!("must be between 1 and {MOST_BUCKETS}"));
        }
        if self.on_exceed == OnExceed::HashLabel && self.replacement.is_empty() {
            let message = "must not be empty with `on_exceed: hash_label`: the values are written `other-17`";
            check.error(&["replacement"], message);
        }
        if self.max_tenants == 0 {
            check.error(&["max_tenants"], "must be greater than zero: those beyond it share one budget");
        }
        if self.max_series_per_tenant == Some(0) {
            check.error(&["max_series_per_tenant"], "must be greater than zero");
        }
        if self.max_series_per_tenant.is_some() && self.tenant_from.is_none() {
            let message = "needs `tenant_from`: without tenants, `max_series` is the limit of all series";
            check.error(&["max_series_per_tenant"], message);
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
    }
}
