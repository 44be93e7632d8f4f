//! Points that could not be translated: counted, and named once.

use std::collections::HashSet;

use nyquist_core::telemetry::{Counter, Telemetry};
use parking_lot::Mutex;

use super::Untranslatable;

/// How many metrics are named in the log, each once a reason.
const NAMED: usize = 1000;

/// Counts lost points by reason, with a log line for the first loss of each metric.
pub(crate) struct Losses {
    exporter: String,
    points: [Counter; Untranslatable::ALL.len()],
    named: Mutex<HashSet<(u8, Box<[u8]>)>>,
}

impl Losses {
    /// The losses of `exporter`, counted in the metric `name`.
    pub(crate) fn new(telemetry: &Telemetry, exporter: &str, name: &str, help: &str) -> Self {
        let counter = |reason: Untranslatable| {
            telemetry.counter(name, help, &[("exporter", exporter), ("reason", reason.name())])
        };
        Self { exporter: exporter.to_owned(), points: Untranslatable::ALL.map(counter), named: Mutex::default() }
    }

    /// `points` of `metric` are lost.
    pub(crate) fn add(&self, reason: Untranslatable, metric: &[u8], points: usize) {
        if points == 0 {
            return;
        }
        self.points[reason as usize].inc_by(points as u64);
        let is_new = {
            let mut named = self.named.lock();
            named.len() < NAMED && named.insert((reason as u8, metric.into()))
        };
        if is_new {
            tracing::warn!(
                exporter = self.exporter,
                metric = %String::from_utf8_lossy(metric),
                reason = reason.name(),
                points,
                "dropping points of this metric, now and from here on without a word: {}",
                reason.advice()
            );
        }
    }
}
