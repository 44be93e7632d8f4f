//! The receiver's own metrics.

use nyquist_core::batch::Signal;
use nyquist_core::telemetry::{Counter, Ledger, Telemetry, UpDown};

/// The metrics of one receiver.
pub(crate) struct Stats {
    pub(crate) id: String,
    pub(crate) ledger: Ledger,
    pub(crate) accepted: Counter,
    pub(crate) refused: Counter,
    pub(crate) scrapes_ok: Counter,
    pub(crate) scrapes_failed: Counter,
    pub(crate) bad_samples: Counter,
    pub(crate) targets: UpDown,
}

impl Stats {
    pub(crate) fn new(telemetry: &Telemetry, id: &str) -> Self {
        let points = |what: &str, help: &str| {
            let name = format!("otelcol_receiver_{what}_metric_points");
            telemetry.counter(&name, help, &[("receiver", id), ("transport", "http")])
        };
        let scrapes = |outcome: &str| {
            let labels = [("receiver", id), ("outcome", outcome)];
            telemetry.counter("nyquist_receiver_scrapes", "Scrapes by what became of them.", &labels)
        };
        let own = [("receiver", id)];
        let bad = "Samples that were there twice, or that make no point.";
        Self {
            id: id.to_owned(),
            ledger: Ledger::new(telemetry, &format!("receiver/{id}"), Signal::Metrics),
            accepted: points("accepted", "Items that were taken into a pipeline."),
            refused: points("refused", "Items that a pipeline refused."),
            scrapes_ok: scrapes("success"),
            scrapes_failed: scrapes("failure"),
            bad_samples: telemetry.counter("nyquist_receiver_bad_samples", bad, &own),
            targets: telemetry.gauge("nyquist_receiver_targets", "Targets that are scraped.", &own),
        }
    }
}
