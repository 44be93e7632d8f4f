//! The exporter's metrics, and its words about what it could not translate.

use nyquist_core::delivery::LogGate;
use nyquist_core::telemetry::{Counter, Telemetry};

use crate::prometheus_mapping::{Losses, LostLabels, Untranslatable};

/// `otelcol_exporter_prometheusremotewrite_*`, and a log line for the first drop of each metric.
pub(super) struct Stats {
    exporter: String,
    failed_translations: Counter,
    series: Counter,
    batches: Counter,
    duplicates: Counter,
    losses: Losses,
    rejected_log: LogGate,
}

impl Stats {
    pub(super) fn new(telemetry: &Telemetry, exporter: &str, shards: usize) -> Self {
        let name = |what: &str| format!("otelcol_exporter_prometheusremotewrite_{what}");
        let counter = |what: &str, help: &str| telemetry.counter(&name(what), help, &[("exporter", exporter)]);
        let consumers = telemetry.gauge(
            &name("consumers"),
            "Requests that may be on their way at once.",
            &[("exporter", exporter)],
        );
        consumers.set(i64::try_from(shards).unwrap_or(i64::MAX));
        Self {
            exporter: exporter.to_owned(),
            failed_translations: counter("failed_translations", "Metrics that could not be translated."),
            series: counter("translated_time_series", "Time series that were made from metrics."),
            batches: counter("sent_batches", "Remote write requests that were sent."),
            duplicates: counter("duplicate_points", "Points that another one of the same series and time replaced."),
            losses: Losses::new(telemetry, exporter, &name("")),
            rejected_log: LogGate::default(),
        }
    }

    /// `points` of `metric` could not be translated.
    pub(super) fn dropped(&self, reason: Untranslatable, metric: &[u8], points: usize) {
        if points == 0 {
            return;
        }
        self.failed_translations.inc();
        self.losses.add(reason, metric, points);
    }

    pub(super) fn labels_lost(&self, metric: &[u8], lost: LostLabels) {
        self.losses.labels(metric, lost);
    }

    pub(super) fn translated(&self, series: u64) {
        self.series.inc_by(series);
    }

    pub(super) fn sent(&self) {
        self.batches.inc();
    }

    pub(super) fn duplicates(&self, points: usize) {
        self.duplicates.inc_by(points as u64);
    }

    /// The backend refused a request of `points` for good.
    pub(super) fn rejected(&self, message: &str, points: usize) {
        if let Some(since) = self.rejected_log.event(points) {
            tracing::error!(
                exporter = self.exporter,
                requests = since.requests,
                points = since.items,
                "the backend refused a request for good, dropping it: {message}"
            );
        }
    }
}
