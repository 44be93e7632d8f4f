//! Which metrics are converted.

use nyquist_core::wire::{MetricFields, MetricKind, Temporality};
use regex::bytes::{Regex, RegexBuilder};

use super::config::{CumulativeToDeltaConfig, MatchConfig, MatchType, MetricType};

/// `include` and `exclude`.
#[derive(Debug)]
pub(super) struct Selection {
    include: Names,
    exclude: Names,
    included_types: Vec<MetricType>,
    excluded_types: Vec<MetricType>,
}

#[derive(Debug)]
enum Names {
    /// Nothing is said of names.
    Any,
    Equal(Vec<Box<[u8]>>),
    Like(Vec<Regex>),
}

impl Selection {
    /// # Errors
    /// The key, and what is wrong with its patterns.
    pub(super) fn new(config: &CumulativeToDeltaConfig) -> Result<Self, (&'static str, String)> {
        Ok(Self {
            include: Names::new(&config.include).map_err(|error| ("include", error))?,
            exclude: Names::new(&config.exclude).map_err(|error| ("exclude", error))?,
            included_types: config.include.metric_types.clone(),
            excluded_types: config.exclude.metric_types.clone(),
        })
    }

    /// Whether `metric` is cumulative, can be converted, and is to be.
    pub(super) fn has(&self, metric: &MetricFields<'_>) -> bool {
        let Some((kind, temporality)) = metric.kind.and_then(convertible) else { return false };
        temporality == Temporality::Cumulative
            && (self.included_types.is_empty() || self.included_types.contains(&kind))
            && !self.excluded_types.contains(&kind)
            && self.include.matches(metric.name).unwrap_or(true)
            && !self.exclude.matches(metric.name).unwrap_or(false)
    }
}

/// Its type, if it only ever grows.
fn convertible(kind: MetricKind) -> Option<(MetricType, Temporality)> {
    match kind {
        MetricKind::Sum { temporality, monotonic: true } => Some((MetricType::Sum, temporality)),
        MetricKind::Histogram { temporality } => Some((MetricType::Histogram, temporality)),
        MetricKind::ExponentialHistogram { temporality } => Some((MetricType::ExponentialHistogram, temporality)),
        MetricKind::Sum { .. } | MetricKind::Gauge | MetricKind::Summary => None,
    }
}

impl Names {
    fn new(config: &MatchConfig) -> Result<Self, String> {
        if config.metrics.is_empty() {
            return Ok(Self::Any);
        }
        if config.match_type != Some(MatchType::Regexp) {
            return Ok(Self::Equal(config.metrics.iter().map(|name| name.as_bytes().into()).collect()));
        }
        let compile = |pattern: &String| RegexBuilder::new(pattern).size_limit(1 << 20).build();
        let patterns: Result<Vec<Regex>, _> = config.metrics.iter().map(compile).collect();
        patterns.map(Self::Like).map_err(|error| error.to_string())
    }

    /// `None` if nothing is said of names.
    fn matches(&self, name: &[u8]) -> Option<bool> {
        match self {
            Self::Any => None,
            Self::Equal(names) => Some(names.iter().any(|wanted| **wanted == *name)),
            Self::Like(patterns) => Some(patterns.iter().any(|pattern| pattern.is_match(name))),
        }
    }
}
