//! The exporter's metrics, and its words about what it could not translate.

use nyquist_core::batch::DropReason;
use nyquist_core::delivery::LogGate;
use nyquist_core::telemetry::{Counter, Telemetry};

use super::answer::Written;
use super::rows::Described;
use super::v2::Totals;
use crate::prometheus_mapping::{Losses, LostExemplars, LostLabels, Untranslatable};

const DROPPED: &str = "Points that were not sent, by reason.";

/// Why translated points are lost.
const LOST: [DropReason; 4] =
    [DropReason::Rejected, DropReason::PartlyRejected, DropReason::RetriesExhausted, DropReason::Shutdown];

/// `otelcol_exporter_prometheusremotewrite_*`, and a log line for the first drop of each metric.
pub(super) struct Stats {
    exporter: String,
    failed_translations: Counter,
    series: Counter,
    batches: Counter,
    duplicates: Counter,
    untracked: Counter,
    losses: Losses,
    lost: [Counter; LOST.len()],
    too_large: Counter,
    split: Counter,
    fallbacks: Counter,
    written: [Counter; 3],
    lost_exemplars: Counter,
    lost_log: LogGate,
    too_large_log: LogGate,
}

impl Stats {
    pub(super) fn new(telemetry: &Telemetry, exporter: &str, shards: usize) -> Self {
        let name = |what: &str| format!("otelcol_exporter_prometheusremotewrite_{what}");
        let counter = |what: &str, help: &str| telemetry.counter(&name(what), help, &[("exporter", exporter)]);
        let dropped = |reason: &str| {
            telemetry.counter(&name("dropped_points"), DROPPED, &[("exporter", exporter), ("reason", reason)])
        };
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
            untracked: counter("untracked_points", "Points of series that will not end when they fall silent."),
            losses: Losses::new(telemetry, exporter, &name("")),
            lost: LOST.map(|reason| dropped(reason.name())),
            too_large: dropped("too_large"),
            split: counter("split_requests", "Refused requests that were sent again in halves."),
            fallbacks: counter("fallbacks", "How often the backend turned remote write 2.0 down."),
            written: ["samples", "histograms", "exemplars"].map(|what| {
                counter(&format!("written_{what}"), &format!("What remote write 2.0 backends say they wrote: {what}."))
            }),
            lost_exemplars: counter("dropped_exemplars", "Exemplars that remote write 2.0 backends did not write."),
            lost_log: LogGate::default(),
            too_large_log: LogGate::default(),
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

    pub(super) fn exemplars_lost(&self, metric: &[u8], lost: LostExemplars) {
        self.losses.exemplars(metric, lost);
    }

    pub(super) fn targets_forgotten(&self, targets: usize) {
        self.losses.targets(targets);
    }

    pub(super) fn translated(&self, series: u64) {
        self.series.inc_by(series);
    }

    pub(super) fn sent(&self) {
        self.batches.inc();
    }

    /// `points` of `metric` gave way to one of `other` with the same series and time.
    pub(super) fn replaced(&self, metric: &Described, other: &Described, points: usize) {
        let name = metric.family.name.as_bytes();
        if metric.family.metric_type != other.family.metric_type {
            return self.losses.add(Untranslatable::TypeConflict, name, points);
        }
        self.duplicates.inc_by(points as u64);
        self.losses.say("duplicate", name, points, "another point has its labels and its time, and came later");
    }

    /// `points` of `metric` are of series that another metric writes.
    pub(super) fn clashing(&self, metric: &Described, points: usize) {
        self.losses.add(Untranslatable::TypeConflict, metric.family.name.as_bytes(), points);
    }

    /// The series of `points`, the last one of `metric`, cannot be tracked, and will not end.
    pub(super) fn untracked(&self, metric: &[u8], points: usize) {
        self.untracked.inc_by(points as u64);
        self.losses.note("untracked", metric, points, |metric, points| {
            tracing::warn!(
                exporter = self.exporter,
                metric,
                points,
                "new series will not end when they fall silent, which stale_after asks for: max_stream_state is used up"
            );
        });
    }

    /// `points` of `metric` are not later than what was delivered.
    pub(super) fn out_of_order(&self, metric: &[u8], points: usize) {
        self.losses.add(Untranslatable::OutOfOrder, metric, points);
    }

    /// A point would take more than a request may.
    pub(super) fn too_large(&self, metric: &[u8], points: usize) {
        self.too_large.inc_by(points as u64);
        if let Some(since) = self.too_large_log.event(points) {
            tracing::warn!(
                exporter = self.exporter,
                metric = %String::from_utf8_lossy(metric),
                points = since.items,
                "dropping points that are too large: fewer buckets or shorter labels are needed"
            );
        }
    }

    /// The backend turned 2.0 down.
    pub(super) fn fell_back(&self, message: &str) {
        self.fallbacks.inc();
        tracing::warn!(
            exporter = self.exporter,
            error = message,
            "the backend does not take remote write 2.0: sending 1.0, and asking again in an hour"
        );
    }

    /// The backend has written this much of a request.
    pub(super) fn written(&self, written: Written, sent: Totals) {
        let Written { samples, histograms, exemplars } = written;
        for (counter, count) in self.written.iter().zip([samples, histograms, exemplars]) {
            counter.inc_by(count);
        }
        self.lost_exemplars.inc_by(sent.exemplars.saturating_sub(exemplars));
    }

    /// A refused request is sent again in halves.
    pub(super) fn split(&self) {
        self.split.inc();
    }

    /// `points` of `metrics` (names, made only if they are wanted) are lost.
    pub(super) fn lost(&self, reason: DropReason, points: usize, message: &str, metrics: impl FnOnce() -> String) {
        let counter = LOST.iter().position(|known| *known == reason).and_then(|index| self.lost.get(index));
        if let Some(counter) = counter {
            counter.inc_by(points as u64);
        }
        if let Some(since) = self.lost_log.event(points) {
            tracing::error!(
                exporter = self.exporter,
                requests = since.requests,
                points = since.items,
                reason = reason.name(),
                metrics = metrics(),
                "dropping points that could not be delivered: {message}"
            );
        }
    }
}
