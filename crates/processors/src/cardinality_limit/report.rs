//! The limiter's own metrics and log lines.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nyquist_core::telemetry::{Counter, Gauge, Telemetry, UpDown};
use parking_lot::Mutex;

/// How many series a metric has, and how many values each of its labels.
pub(super) type Usage = (Vec<u8>, usize, Vec<(Vec<u8>, usize)>);

/// Log lines between two flushes; more are only counted.
const MAX_LINES: usize = 20;
/// Labels of one metric that get series of their own.
const MAX_LABELS: usize = 16;
/// A quoted value is cut to this many bytes.
const MAX_SAMPLE: usize = 64;
const PREFIX: &str = "otelcol_processor_cardinality_limit_";
const OTHER: &str = "other";

/// What was given up or expired: the `kind` label of the evictions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Eviction {
    /// The last value of a collapsed stream.
    Input,
    /// A series' slot.
    Series,
    /// A value's slot.
    Value,
    /// A collapsed series.
    Output,
    /// A series that made room for a collapsed one.
    Retired,
    /// A value whose slot another one has earned.
    Replaced,
}

impl Eviction {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Input, "input"),
        (Self::Series, "series"),
        (Self::Value, "value"),
        (Self::Output, "output"),
        (Self::Retired, "retired"),
        (Self::Replaced, "replaced"),
    ];
}

/// Counters whose labels are fixed, and the bounded set of those whose labels are names.
pub(super) struct Report {
    telemetry: Arc<Telemetry>,
    processor: String,
    pub(super) top_n: usize,
    pub(super) sample_values: usize,
    /// The metrics that have series of their own, and which of their labels have.
    named: Mutex<HashMap<Vec<u8>, Vec<Vec<u8>>>>,
    lines: AtomicUsize,
    pub(super) overflow: Counter,
    pub(super) would_collapse: Counter,
    pub(super) tagged: Counter,
    pub(super) rebaselined: Counter,
    pub(super) new_series: Counter,
    pub(super) bounds_conflict: Counter,
    pub(super) dropped_quantiles: Counter,
    pub(super) dropped_exemplars: Counter,
    evictions: [Counter; Eviction::ALL.len()],
    state_bytes: UpDown,
    series_used: Gauge,
    memory_used: Gauge,
}

impl Report {
    pub(super) fn new(telemetry: &Arc<Telemetry>, processor: &str, top_n: usize, sample_values: usize) -> Self {
        let own = [("processor", processor)];
        let counter = |name: &str, help: &str| telemetry.counter(&format!("{PREFIX}{name}"), help, &own);
        let used = |scope: &str| {
            let help = "Share of a global budget that is used.";
            telemetry.float_gauge(&format!("{PREFIX}budget_used_ratio"), help, &[own[0], ("scope", scope)])
        };
        Self {
            overflow: counter("overflow_points", "Points that went to an overflow series."),
            would_collapse: counter("would_collapse_points", "Points that a dry run would have limited."),
            tagged: counter("tagged_points", "Points that were marked with otel.metric.overflow and passed."),
            rebaselined: counter(
                "rebaselined",
                "First points of collapsed cumulative streams that only set a baseline, because they may have been \
                 counted before.",
            ),
            new_series: counter("new_series", "Series that got a slot."),
            bounds_conflict: counter("bounds_conflict", "Collapsed histograms whose bounds do not fit together."),
            dropped_quantiles: counter("dropped_quantiles", "Collapsed summary points whose quantiles were dropped."),
            dropped_exemplars: counter("dropped_exemplars", "Exemplars of collapsed points, which were dropped."),
            evictions: Eviction::ALL.map(|(_, kind)| {
                let help = "State that was given up: idle, retired, or under memory pressure.";
                telemetry.counter(&format!("{PREFIX}evictions"), help, &[own[0], ("kind", kind)])
            }),
            state_bytes: telemetry.gauge(&format!("{PREFIX}state_bytes"), "Bytes that all state takes.", &own),
            series_used: used("series"),
            memory_used: used("memory"),
            telemetry: Arc::clone(telemetry),
            processor: processor.to_owned(),
            top_n,
            sample_values,
            named: Mutex::default(),
            lines: AtomicUsize::new(0),
        }
    }

    pub(super) fn evicted(&self, kind: Eviction, count: usize) {
        if let Some(counter) = self.evictions.get(kind as usize) {
            counter.inc_by(count as u64);
        }
    }

    /// The counter of points whose `label` was collapsed. An empty label stands for all.
    pub(super) fn collapsed(&self, metric: &[u8], label: &[u8], action: &str) -> Counter {
        let (metric, label) = self.names(metric, label);
        let labels =
            [("processor", self.processor.as_str()), ("metric", &metric), ("label", &label), ("action", action)];
        self.telemetry.counter(&format!("{PREFIX}collapsed_points"), "Points over a limit, by what was done.", &labels)
    }

    /// Publishes how many series the metrics have, and how many values their labels.
    pub(super) fn usage(&self, metrics: &[Usage]) {
        let mut series: HashMap<String, i64> = HashMap::new();
        let mut values: HashMap<(String, String), i64> = HashMap::new();
        for (metric, count, labels) in metrics {
            let (name, _) = self.names(metric, &[]);
            *series.entry(name.clone()).or_default() += *count as i64;
            if name == OTHER {
                continue;
            }
            for (label, count) in labels {
                let (_, label) = self.names(metric, label);
                *values.entry((name.clone(), label)).or_default() += *count as i64;
            }
        }
        let own = ("processor", self.processor.as_str());
        for (metric, count) in &series {
            let labels = [own, ("metric", metric.as_str())];
            self.telemetry.gauge(&format!("{PREFIX}series"), "Series that have a slot.", &labels).set(*count);
        }
        for ((metric, label), count) in &values {
            let labels = [own, ("metric", metric.as_str()), ("label", label.as_str())];
            self.telemetry.gauge(&format!("{PREFIX}label_values"), "Values that have a slot.", &labels).set(*count);
        }
    }

    pub(super) fn budgets(&self, bytes: usize, memory_limit: usize, series: usize, max_series: usize) {
        self.state_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.memory_used.set(bytes as f64 / memory_limit as f64);
        self.series_used.set(series as f64 / max_series as f64);
    }

    /// The names under which `metric` and its `label` are reported: their own, or `other`. The
    /// first to ask get theirs, so that the number of own series is bounded.
    fn names(&self, metric: &[u8], label: &[u8]) -> (String, String) {
        let other = || OTHER.to_owned();
        let mut named = self.named.lock();
        let is_full = named.len() >= self.top_n;
        let labels = match named.get_mut(metric) {
            Some(labels) => labels,
            None if is_full => return (other(), other()),
            None => named.entry(metric.to_vec()).or_default(),
        };
        let metric = sample(metric);
        if label.is_empty() {
            return (metric, "*".to_owned());
        }
        if !labels.iter().any(|known| known == label) {
            if labels.len() >= MAX_LABELS {
                return (metric, other());
            }
            labels.push(label.to_vec());
        }
        (metric, sample(label))
    }

    /// May another line be logged before the next flush?
    pub(super) fn may_log(&self) -> bool {
        self.lines.fetch_add(1, Ordering::Relaxed) < MAX_LINES
    }

    /// A flush: log lines may come again.
    pub(super) fn flushed(&self) {
        let lines = self.lines.swap(0, Ordering::Relaxed);
        if lines > MAX_LINES {
            tracing::warn!(suppressed = lines - MAX_LINES, "more labels were collapsed than are logged");
        }
    }
}

/// The beginning of `text`, for people.
pub(super) fn sample(text: &[u8]) -> String {
    String::from_utf8_lossy(text.get(..MAX_SAMPLE).unwrap_or(text)).into_owned()
}
