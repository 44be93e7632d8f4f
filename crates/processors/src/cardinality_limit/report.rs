//! The limiter's own metrics and log lines.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nyquist_core::telemetry::{Counter, Gauge, Labels, Telemetry, UpDown};
use parking_lot::Mutex;

use super::tenant::TenantUsage;

/// How a metric is doing. Of those that are only counted the name is empty.
#[derive(Debug, Default)]
pub(super) struct Usage {
    pub(super) metric: Vec<u8>,
    pub(super) series: usize,
    /// About how many series there would be without the series budget, where that is known.
    pub(super) wanted: Option<f64>,
    pub(super) labels: Vec<LabelUsage>,
}

/// How a label is doing.
#[derive(Debug, Default)]
pub(super) struct LabelUsage {
    pub(super) label: Vec<u8>,
    pub(super) values: usize,
    /// Values that got a slot since the last time.
    pub(super) new_values: u32,
    /// About how many values there would be without limits, where that is known.
    pub(super) wanted: Option<f64>,
    /// About how many series there would be without the label.
    pub(super) without: Option<f64>,
}

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

/// A metric of ours whose labels are names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Panel {
    Series,
    Wanted,
    Values,
    WantedValues,
    Without,
    Tenant,
    /// A counter, unlike the others.
    NewValues,
}

impl Panel {
    /// Name and help.
    fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Series => ("series", "Series that have a slot."),
            Self::Wanted => ("wanted_series", "About how many series there would be without the series budget."),
            Self::Values => ("label_values", "Values that have a slot."),
            Self::WantedValues => ("wanted_label_values", "About how many values there would be without limits."),
            Self::Without => (
                "wanted_series_without",
                "About how many series there would be without the series budget if the label were collapsed.",
            ),
            Self::Tenant => ("tenant_series", "Series that have a slot, by tenant."),
            Self::NewValues => ("new_label_values", "Values that got a slot."),
        }
    }
}

/// What names a series of ours: the metric or tenant, and its label.
type Shown = (Panel, String, String);

/// What a flush shows by name.
#[derive(Default)]
struct Board(BTreeMap<Shown, i64>);

impl Board {
    fn add(&mut self, panel: Panel, name: &str, label: &str, value: i64) {
        *self.0.entry((panel, name.to_owned(), label.to_owned())).or_default() += value;
    }

    /// Adds how a metric is doing, under `name`.
    fn add_metric(&mut self, name: &str, usage: &Usage) {
        self.add(Panel::Series, name, "", whole(usage.series as f64));
        if let Some(wanted) = usage.wanted {
            self.add(Panel::Wanted, name, "", whole(wanted));
        }
        // Those first that are to blame, or have the most values.
        let mut labels: Vec<&LabelUsage> = usage.labels.iter().collect();
        let without = |label: &LabelUsage| label.without.unwrap_or(f64::INFINITY);
        labels.sort_by(|one, other| without(one).total_cmp(&without(other)).then(other.values.cmp(&one.values)));
        for (index, label) in labels.into_iter().enumerate() {
            let is_named = index < MAX_LABELS;
            let own = if is_named { sample(&label.label) } else { OTHER.to_owned() };
            self.add(Panel::Values, name, &own, whole(label.values as f64));
            self.add(Panel::NewValues, name, &own, label.new_values.into());
            if let Some(wanted) = label.wanted {
                self.add(Panel::WantedValues, name, &own, whole(wanted));
            }
            if let Some(without) = label.without.filter(|_| is_named) {
                self.add(Panel::Without, name, &own, whole(without));
            }
        }
    }
}

fn whole(value: f64) -> i64 {
    value.round() as i64
}

/// What became of snapshots.
pub(super) struct Snapshots {
    pub(super) written: Counter,
    pub(super) failed: Counter,
    pub(super) restored: Counter,
    pub(super) unreadable: Counter,
}

/// Counters whose labels are fixed, and the bounded set of those whose labels are names.
pub(super) struct Report {
    telemetry: Arc<Telemetry>,
    processor: String,
    pub(super) top_n: usize,
    pub(super) sample_values: usize,
    /// The metrics whose collapsed points are counted by name, and which of their labels are.
    named: Mutex<HashMap<String, Vec<String>>>,
    lines: AtomicUsize,
    pub(super) overflow: Counter,
    pub(super) would_collapse: Counter,
    pub(super) tagged: Counter,
    pub(super) rebaselined: Counter,
    pub(super) new_series: Counter,
    pub(super) bounds_conflict: Counter,
    pub(super) dropped_quantiles: Counter,
    pub(super) dropped_exemplars: Counter,
    pub(super) snapshots: Snapshots,
    /// What was shown by name at the last flush.
    shown: Mutex<Vec<Shown>>,
    tenants: UpDown,
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
        let snapshot = |result: &str| {
            let help = "Snapshots of what has slots, by what became of them.";
            telemetry.counter(&format!("{PREFIX}snapshots"), help, &[own[0], ("result", result)])
        };
        Self {
            snapshots: Snapshots {
                written: snapshot("written"),
                failed: snapshot("failed"),
                restored: snapshot("restored"),
                unreadable: snapshot("unreadable"),
            },
            shown: Mutex::default(),
            tenants: telemetry.gauge(&format!("{PREFIX}tenants"), "Tenants that have budgets of their own.", &own),
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
            dropped_exemplars: counter(
                "dropped_exemplars",
                "Exemplars of collapsed points that were dropped: a report has the newest few.",
            ),
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

    /// Publishes how metrics and tenants are doing. What was shown the last time and is not now is taken away, so
    /// that there are never more series of ours than `top_n` allows, and those that matter now have theirs.
    pub(super) fn usage(&self, metrics: &[Usage], tenants: &TenantUsage) {
        let mut board = Board::default();
        for usage in metrics {
            let name = if usage.metric.is_empty() { OTHER.to_owned() } else { sample(&usage.metric) };
            board.add_metric(&name, usage);
        }
        self.tenants.set(i64::try_from(tenants.count).unwrap_or(i64::MAX));
        for (tenant, series) in &tenants.busiest {
            board.add(Panel::Tenant, &sample(tenant), "", whole(*series as f64));
        }
        let mut shown = self.shown.lock();
        for (panel, name, label) in shown.iter().filter(|shown| !board.0.contains_key(*shown)) {
            self.with_labels(*panel, name, label, |name, _, labels| self.telemetry.remove(name, labels));
        }
        for ((panel, name, label), value) in &board.0 {
            self.with_labels(*panel, name, label, |name, help, labels| match panel {
                Panel::NewValues => self.telemetry.counter(name, help, labels).inc_by((*value).unsigned_abs()),
                _ => self.telemetry.gauge(name, help, labels).set(*value),
            });
        }
        *shown = board.0.into_keys().collect();
    }

    /// Hands `work` the name, help and labels of a series of ours.
    fn with_labels(&self, panel: Panel, name: &str, label: &str, work: impl FnOnce(&str, &str, Labels<'_>)) {
        let (metric, help) = panel.describe();
        let own = ("processor", self.processor.as_str());
        let labels: &[_] = match panel {
            Panel::Tenant => &[own, ("tenant", name)],
            Panel::Series | Panel::Wanted => &[own, ("metric", name)],
            Panel::Values | Panel::WantedValues | Panel::Without | Panel::NewValues => {
                &[own, ("metric", name), ("label", label)]
            }
        };
        work(&format!("{PREFIX}{metric}"), help, labels);
    }

    pub(super) fn budgets(&self, bytes: usize, memory_limit: usize, series: usize, max_series: usize) {
        self.state_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.memory_used.set(bytes as f64 / memory_limit as f64);
        self.series_used.set(series as f64 / max_series as f64);
    }

    /// The names under which collapsed points of `metric` and its `label` are counted: their own, or `other`. Counters
    /// stay, so the first to ask get theirs.
    fn names(&self, metric: &[u8], label: &[u8]) -> (String, String) {
        let other = || OTHER.to_owned();
        let metric = sample(metric);
        let mut named = self.named.lock();
        if named.len() >= self.top_n && !named.contains_key(&metric) {
            return (other(), other());
        }
        let labels = named.entry(metric.clone()).or_default();
        if label.is_empty() {
            return (metric, "*".to_owned());
        }
        let label = sample(label);
        if !labels.contains(&label) {
            if labels.len() >= MAX_LABELS {
                return (metric, other());
            }
            labels.push(label.clone());
        }
        (metric, label)
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
