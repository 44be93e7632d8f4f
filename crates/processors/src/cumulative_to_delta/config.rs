//! The keys of `cumulative_to_delta`.

use nyquist_core::config::{Check, Duration, Validate};
use serde::Deserialize;

use super::matching::Selection;

/// Configuration of the `cumulative_to_delta` processor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct CumulativeToDeltaConfig {
    /// Which metrics are converted; all if nothing is said.
    pub include: MatchConfig,
    /// Which are not; comes before `include`.
    pub exclude: MatchConfig,
    /// After how long without a point a stream is given up; 0 (the default) is never.
    pub max_staleness: Duration,
    /// What becomes of the first point of a stream. Default `auto`.
    pub initial_value: InitialValue,
    /// How many streams are tracked at the most; points of further ones are dropped. 0 is any number.
    /// Default 1,000,000.
    pub max_streams: usize,
    /// What all streams may take, in MiB. Default 256.
    pub memory_limit_mib: usize,
}

impl Default for CumulativeToDeltaConfig {
    fn default() -> Self {
        Self {
            include: MatchConfig::default(),
            exclude: MatchConfig::default(),
            max_staleness: Duration::default(),
            initial_value: InitialValue::Auto,
            max_streams: 1_000_000,
            memory_limit_mib: 256,
        }
    }
}

/// Some metrics.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct MatchConfig {
    /// Their names, or patterns.
    pub metrics: Vec<String>,
    /// How names are compared; needed with `metrics`.
    pub match_type: Option<MatchType>,
    /// Their kinds.
    pub metric_types: Vec<MetricType>,
    /// For `match_type: regexp`; accepted, there is nothing to set.
    pub regexp: RegexpConfig,
}

/// How names are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchType {
    /// They are equal.
    Strict,
    /// The pattern, a regular expression, is found in the name.
    Regexp,
}

/// A kind of metric that can be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum MetricType {
    /// Monotonic sums.
    #[serde(rename = "sum", alias = "Sum", alias = "SUM")]
    Sum,
    /// Histograms with explicit bounds.
    #[serde(rename = "histogram", alias = "Histogram", alias = "HISTOGRAM")]
    Histogram,
    /// Exponential histograms.
    #[serde(rename = "exponentialhistogram", alias = "ExponentialHistogram", alias = "EXPONENTIALHISTOGRAM")]
    ExponentialHistogram,
}

/// The Collector's cache of matches.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RegexpConfig {
    /// Has no effect: expressions are matched in linear time.
    pub cacheenabled: bool,
    /// Has no effect.
    pub cachemaxnumentries: usize,
}

/// What becomes of the first point of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitialValue {
    /// It counts if the stream has started since this processor did; else it may have been counted before.
    Auto,
    /// It counts.
    Keep,
    /// It is what the next one is compared with, no more.
    Drop,
}

impl CumulativeToDeltaConfig {
    pub(super) fn max_streams(&self) -> usize {
        if self.max_streams == 0 { usize::MAX } else { self.max_streams }
    }
}

impl Validate for CumulativeToDeltaConfig {
    fn validate(&self, check: &mut Check<'_>) {
        for (key, config) in [("include", &self.include), ("exclude", &self.exclude)] {
            match (config.match_type, config.metrics.as_slice()) {
                (None, [_, ..]) => {
                    check.error_with(
                        &[key],
                        "match_type must be set if metrics are supplied",
                        "write match_type: strict, or regexp",
                    );
                }
                (Some(_), []) => check.error(&[key], "metrics must be supplied if match_type is set"),
                _ => {}
            }
            if config.regexp != RegexpConfig::default() {
                check.warning(&[key, "regexp"], "has no effect: matches need no cache here");
            }
        }
        if let Err((key, error)) = Selection::new(self) {
            check.error(&[key, "metrics"], error);
        }
        if self.memory_limit_mib == 0 {
            check.error(&["memory_limit_mib"], "must be greater than zero: a million counters take about 100");
        }
    }
}
