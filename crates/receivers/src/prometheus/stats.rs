//! The receiver's own metrics.

use std::time::Instant;

use nyquist_core::batch::Signal;
use nyquist_core::delivery::Status;
use nyquist_core::telemetry::{Counter, Ledger, LossLog, Telemetry, UpDown};
use parking_lot::Mutex;

use super::scrape::BadSample;

/// The metrics of one receiver.
pub(crate) struct Stats {
    pub(crate) id: String,
    pub(crate) ledger: Ledger,
    pub(crate) accepted: Counter,
    pub(crate) refused: Counter,
    pub(crate) scrapes_ok: Counter,
    pub(crate) scrapes_failed: Counter,
    bad_samples: [Counter; BadSample::ALL.len()],
    /// Metrics with bad samples.
    pub(crate) losses: LossLog,
    pub(crate) targets: UpDown,
    pub(crate) outages: Outages,
}

/// Which targets are down. One that is down is a matter for its own `up`; all of them, for the receiver.
#[derive(Debug, Default)]
pub(crate) struct Outages(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    up: usize,
    down: usize,
    /// Since when none is up.
    since: Option<Instant>,
    last_error: String,
}

impl Outages {
    /// A target, which `was_up` or not, was scraped, or not: its instance, and why.
    pub(crate) fn note(&self, was_up: Option<bool>, failure: Option<(&str, &str)>) {
        let mut counts = self.0.lock();
        counts.leave(was_up);
        match failure {
            None => counts.up += 1,
            Some((instance, error)) => {
                counts.down += 1;
                counts.last_error = format!("{instance}: {error}");
            }
        }
        counts.settle();
    }

    /// A target is gone.
    pub(crate) fn forget(&self, was_up: Option<bool>) {
        let mut counts = self.0.lock();
        counts.leave(was_up);
        counts.settle();
    }

    /// An error if there are targets and none can be scraped.
    pub(crate) fn status(&self) -> Status {
        let counts = self.0.lock();
        let error = || format!("none of {} targets can be scraped; the last one: {}", counts.down, counts.last_error);
        Status { failing_since: counts.since, last_error: counts.since.map(|_| error()), is_permanent: false }
    }
}

impl Counts {
    fn leave(&mut self, was_up: Option<bool>) {
        match was_up {
            Some(true) => self.up -= 1,
            Some(false) => self.down -= 1,
            None => {}
        }
    }

    fn settle(&mut self) {
        let all_down = self.up == 0 && self.down > 0;
        self.since = all_down.then(|| self.since.unwrap_or_else(Instant::now));
    }
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
        let bad_samples = BadSample::ALL.map(|reason| {
            let help = "Samples that make no point, by reason.";
            telemetry.counter("nyquist_receiver_bad_samples", help, &[("receiver", id), ("reason", reason.name())])
        });
        Self {
            id: id.to_owned(),
            ledger: Ledger::new(telemetry, &format!("receiver/{id}"), Signal::Metrics),
            accepted: points("accepted", "Items that were taken into a pipeline."),
            refused: points("refused", "Items that a pipeline refused."),
            scrapes_ok: scrapes("success"),
            scrapes_failed: scrapes("failure"),
            bad_samples,
            losses: LossLog::new(format!("receiver/{id}")),
            outages: Outages::default(),
            targets: telemetry.gauge("nyquist_receiver_targets", "Targets that are scraped.", &own),
        }
    }

    /// Counts bad samples.
    pub(crate) fn bad_samples(&self, reason: BadSample) -> &Counter {
        // One for each.
        &self.bad_samples[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receiver_fails_when_no_target_can_be_scraped() {
        let outages = Outages::default();
        let is_failing = || outages.status().last_error;
        assert_eq!(is_failing(), None, "no targets yet");
        outages.note(None, Some(("a:1", "refused")));
        assert_eq!(is_failing().unwrap(), "none of 1 targets can be scraped; the last one: a:1: refused");
        outages.note(None, None);
        assert_eq!(is_failing(), None, "one of two is up");
        let since = {
            outages.note(Some(true), Some(("b:1", "timeout")));
            outages.status().failing_since
        };
        outages.note(Some(false), Some(("b:1", "timeout")));
        assert!(since.is_some() && outages.status().failing_since == since);
        assert_eq!(is_failing().unwrap(), "none of 2 targets can be scraped; the last one: b:1: timeout");
        outages.forget(Some(false));
        outages.forget(Some(false));
        assert_eq!(is_failing(), None, "none is left");
    }
}
