//! The configuration, ready for use.

use std::time::Duration;

use nyquist_core::config::Enabled;
use nyquist_core::wire::KeySet;
use regex::bytes::Regex;

use super::catalog::OVERFLOW;
use super::config::{AggregationTemporality, BASE_DIMENSIONS, Dimension, ExplicitConfig, SpanMetricsConfig, Unit};
use super::fingerprint::Hashes;
use super::globs::glob_pattern;
use super::recorder::{Bounds, Shape};

/// What is counted, by which attributes, and within which bounds.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) is_delta: bool,
    pub(super) names: Names,
    /// Nanoseconds in one unit of the durations.
    pub(super) nanos_per_unit: f64,
    pub(super) unit: &'static str,
    pub(super) shape: Shape,
    /// The names of all named dimensions; their indices are the slots of values.
    pub(super) keys: KeySet,
    /// Dimensions of all families.
    pub(super) common: List,
    /// What is counted under keys of its own.
    pub(super) families: Vec<Family>,
    pub(super) globs: Vec<Glob>,
    pub(super) base: Base,
    pub(super) scopes: Vec<Box<[u8]>>,
    pub(super) has_sampling_method: bool,
    /// How many exemplars a point has at the most.
    pub(super) exemplars: usize,
    /// Series of one family of one group; `usize::MAX` without a limit.
    pub(super) series_limit: usize,
    pub(super) group_limit: usize,
    /// Bytes of all series.
    pub(super) memory_limit: usize,
    pub(super) group_expiry: Option<Duration>,
    pub(super) series_expiry: Option<Duration>,
    pub(super) remembered_times: usize,
    /// Whether metrics carry their resource's attributes.
    pub(super) has_resource: bool,
    /// The attributes that tell resources apart; all if `None`.
    pub(super) identifying: Option<KeySet>,
    pub(super) flush_interval: Duration,
    pub(super) hashes: Hashes,
}

/// Names of the metrics.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) calls: String,
    pub(super) duration: String,
    pub(super) events: String,
}

/// Which attributes that every series has are not left out.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) service: bool,
    pub(super) name: bool,
    pub(super) kind: bool,
    pub(super) status: bool,
    /// The value of `collector.instance.id`.
    pub(super) instance: Option<String>,
}

/// Metrics whose series have the same attributes.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) extra: List,
    pub(super) has_calls: bool,
    pub(super) has_durations: bool,
    /// It counts events, not spans.
    pub(super) is_events: bool,
}

/// Some dimensions.
#[derive(Debug)]
pub(super) struct List {
    pub(super) named: Vec<Named>,
    /// The bit of the list in [`Glob::lists`]; 0 if no glob is in it.
    pub(super) glob_bit: u8,
}

#[derive(Debug)]
pub(super) struct Named {
    pub(super) slot: usize,
    pub(super) name: String,
    pub(super) default: Option<String>,
}

/// Attributes whose names match are dimensions of some lists.
#[derive(Debug)]
pub(super) struct Glob {
    pub(super) pattern: Regex,
    pub(super) lists: u8,
}

impl Plan {
    /// `config` with `instance` as the id of this connector in this process.
    pub(super) fn new(config: &SpanMetricsConfig, instance: String) -> Result<Self, String> {
        let mut lists = Lists::default();
        let common = lists.list(&config.dimensions)?;
        let has_durations = !config.histogram.disable;
        let calls = lists.list(&config.calls_dimensions)?;
        let mut families = Vec::new();
        let is_shared = has_durations && config.calls_dimensions == config.histogram.dimensions;
        families.push(Family { extra: calls, has_calls: true, has_durations: is_shared, is_events: false });
        if has_durations && !is_shared {
            let extra = lists.list(&config.histogram.dimensions)?;
            families.push(Family { extra, has_calls: false, has_durations: true, is_events: false });
        }
        if config.events.enabled {
            let extra = lists.list(&config.events.dimensions)?;
            families.push(Family { extra, has_calls: false, has_durations: false, is_events: true });
        }
        let (nanos_per_unit, unit) = match config.histogram.unit {
            Unit::Milliseconds => (1e6, "ms"),
            Unit::Seconds => (1e9, "s"),
        };
        let shape = match (&config.histogram.exponential, &config.histogram.explicit) {
            (Enabled::On(exponential), _) => Shape::Exponential(exponential.max_size),
            (_, Enabled::On(explicit)) => explicit_shape(explicit, nanos_per_unit),
            _ => explicit_shape(&ExplicitConfig::default(), nanos_per_unit),
        };
        let has = |name: &str| !config.exclude_dimensions.iter().any(|excluded| excluded == name);
        let [service, name, kind, status, instance_id] = BASE_DIMENSIONS.map(has);
        let named = |name: &str| match config.namespace.as_str() {
            "" => name.to_owned(),
            namespace => format!("{namespace}.{name}"),
        };
        let unless_zero = |duration: Duration| (!duration.is_zero()).then_some(duration);
        let identifying = &config.resource_metrics_key_attributes;
        Ok(Self {
            is_delta: config.aggregation_temporality == AggregationTemporality::Delta,
            names: Names { calls: named("calls"), duration: named("duration"), events: named("events") },
            nanos_per_unit,
            unit,
            shape,
            keys: KeySet::new(&lists.names),
            common,
            families,
            globs: lists.globs,
            base: Base { service, name, kind, status, instance: instance_id.then_some(instance) },
            scopes: config.include_instrumentation_scope.iter().map(|name| name.as_bytes().into()).collect(),
            has_sampling_method: config.enable_metrics_sampling_method,
            exemplars: if config.exemplars.enabled { config.exemplars.max_per_data_point } else { 0 },
            series_limit: match config.aggregation_cardinality_limit {
                0 => usize::MAX,
                limit => limit,
            },
            group_limit: config.resource_metrics_cache_size,
            memory_limit: config.memory_limit_mib << 20,
            group_expiry: unless_zero(config.metrics_expiration.0),
            series_expiry: unless_zero(config.series_expiration.0),
            remembered_times: config.metric_timestamp_cache_size,
            has_resource: config.add_resource_attributes,
            identifying: (!identifying.is_empty()).then(|| KeySet::new(identifying)),
            flush_interval: config.metrics_flush_interval.0,
            hashes: Hashes::default(),
        })
    }
}

impl Plan {
    /// The fingerprint of the overflow series of `family` in `group`.
    pub(super) fn overflow_fingerprint(&self, group: u64, family: usize) -> u64 {
        let mut hash = self.hashes.begin();
        hash.text(OVERFLOW);
        hash.words(group, family as u64);
        hash.finish()
    }
}

fn explicit_shape(config: &ExplicitConfig, nanos_per_unit: f64) -> Shape {
    let bounds = config.buckets.iter().map(|bound| bound.0.as_nanos() as f64 / nanos_per_unit);
    Shape::Explicit(Bounds::new(bounds.collect(), nanos_per_unit))
}

/// The dimensions of all lists, as they are read.
#[derive(Default)]
struct Lists {
    names: Vec<String>,
    globs: Vec<Glob>,
    count: u32,
}

impl Lists {
    fn list(&mut self, dimensions: &[Dimension]) -> Result<List, String> {
        let bit = 1u8 << self.count;
        self.count += 1;
        let mut list = List { named: Vec::new(), glob_bit: 0 };
        for Dimension { name, default, glob } in dimensions {
            if name.is_empty() {
                self.globs.push(Glob { pattern: glob_pattern(glob)?, lists: bit });
                list.glob_bit = bit;
                continue;
            }
            let known = self.names.iter().position(|known| known == name);
            let slot = known.unwrap_or_else(|| {
                self.names.push(name.clone());
                self.names.len() - 1
            });
            list.named.push(Named { slot, name: name.clone(), default: default.clone() });
        }
        Ok(list)
    }
}
