//! The limiter's own metrics and log lines.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nyquist_core::telemetry::{Counter, Gauge, Telemetry, UpDown};
use parking_lot::Mutex;

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

/// A gauge whose labels are names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Panel {
    Series,
    Wanted,
    Values,
    WantedValues,
    Without,
    Tenant,
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
        }
    }
}

/// The gauges that were shown last. Those that are not shown again fall to 0.
#[derive(Default)]
struct Board(HashMap<(Panel, String, String), (UpDown, Option<i64>)>);

impl Board {
    fn begin(&mut self) {
        self.0.values_mut().for_each(|(_, value)| *value = None);
    }

    fn add(&mut self, key: (Panel, String, String), value: i64, make: impl FnOnce() -> UpDown) {
        let (_, sum) = self.0.entry(key).or_insert_with(|| (make(), None));
        *sum = Some(sum.unwrap_or_default() + value);
    }

    fn end(&mut self) {
        self.0.retain(|_, (gauge, value)| {
            gauge.set(value.unwrap_or_default());
            value.is_some()
        });
    }
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
    pub(super) snapshots: Snapshots,
    board: Mutex<Board>,
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
            board: Mutex::default(),
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

    /// Publishes how metrics and tenants are doing.
    pub(super) fn usage(&self, metrics: &[Usage], tenants: &[(Vec<u8>, usize)]) {
        let mut board = self.board.lock();
        board.begin();
        for Usage { metric, series, wanted, labels } in metrics {
            let (name, _) = if metric.is_empty() { (OTHER.to_owned(), String::new()) } else { self.names(metric, &[]) };
            self.show(&mut board, Panel::Series, &name, "", *series as f64);
            if name == OTHER {
                continue;
            }
            if let Some(wanted) = wanted {
                self.show(&mut board, Panel::Wanted, &name, "", *wanted);
            }
            for label in labels {
                let (_, own) = self.names(metric, &label.label);
                self.show(&mut board, Panel::Values, &name, &own, label.values as f64);
                if let Some(wanted) = label.wanted {
                    self.show(&mut board, Panel::WantedValues, &name, &own, wanted);
                }
                if let Some(without) = label.without {
                    self.show(&mut board, Panel::Without, &name, &own, without);
                }
                if label.new_values > 0 {
                    let labels = [("processor", self.processor.as_str()), ("metric", &name), ("label", &own)];
                    let help = "Values that got a slot.";
                    self.telemetry
                        .counter(&format!("{PREFIX}new_label_values"), help, &labels)
                        .inc_by(label.new_values.into());
                }
            }
        }
        if let Some((_, known)) = tenants.split_last()
            && !(known.is_empty() && tenants.iter().all(|(_, series)| *series == 0))
        {
            self.tenants.set(known.len() as i64);
            for (tenant, series) in tenants {
                self.show(&mut board, Panel::Tenant, &sample(tenant), "", *series as f64);
            }
        }
        board.end();
    }

    fn show(&self, board: &mut Board, panel: Panel, name: &str, label: &str, value: f64) {
        let make = || {
            let (metric, help) = panel.describe();
            let own = ("processor", self.processor.as_str());
            let labels: &[_] = match panel {
                Panel::Tenant => &[own, ("tenant", name)],
                Panel::Series | Panel::Wanted => &[own, ("metric", name)],
                Panel::Values | Panel::WantedValues | Panel::Without => &[own, ("metric", name), ("label", label)],
            };
            self.telemetry.gauge(&format!("{PREFIX}{metric}"), help, labels)
        };
        board.add((panel, name.to_owned(), label.to_owned()), value.round() as i64, make);
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
