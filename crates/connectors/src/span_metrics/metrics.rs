//! The connector's own metrics.

use nyquist_core::telemetry::{Counter, Telemetry, UpDown};

use super::catalog::Excess;

const PREFIX: &str = "otelcol_connector_span_metrics_";

/// What a connector tells of itself.
pub(super) struct OwnMetrics {
    /// Spans of resources without a service name.
    pub(super) skipped: Counter,
    /// Series that were forgotten.
    pub(super) expired: Counter,
    /// Reports that were refused and offered again.
    pub(super) retries: Counter,
    overflown: [Counter; Excess::ALL.len()],
    series: UpDown,
    resources: UpDown,
    bytes: UpDown,
}

impl OwnMetrics {
    pub(super) fn new(telemetry: &Telemetry, id: &str) -> Self {
        let labels = [("connector", id)];
        let counter = |name: &str, help: &str| telemetry.counter(&format!("{PREFIX}{name}"), help, &labels);
        let gauge = |name: &str, help: &str| telemetry.gauge(&format!("{PREFIX}{name}"), help, &labels);
        let overflown = |excess: Excess| {
            let help = "Spans and events that were counted under otel.metric.overflow, by the limit.";
            telemetry.counter(&format!("{PREFIX}overflow_spans"), help, &[("connector", id), ("limit", excess.name())])
        };
        Self {
            skipped: counter("skipped_spans", "Spans that were not counted: their resource has no service.name."),
            expired: counter("expired_series", "Series that were forgotten because nothing came for them."),
            retries: counter("report_retries", "Parts of reports that were refused and offered again."),
            overflown: Excess::ALL.map(overflown),
            series: gauge("series", "Series that are counted now, overflow series among them."),
            resources: gauge("resources", "Resources that have series now."),
            bytes: gauge("state_bytes", "Bytes that all series take."),
        }
    }

    pub(super) fn overflown(&self, excess: Excess, spans: u64) {
        self.overflown[excess as usize].inc_by(spans);
    }

    pub(super) fn state(&self, series: usize, resources: usize, bytes: usize) {
        for (gauge, value) in [(&self.series, series), (&self.resources, resources), (&self.bytes, bytes)] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}
