//! What could not be translated: counted, and named in the log now and then.

use nyquist_core::telemetry::{Counter, LossLog, Telemetry};

use super::{LostExemplars, LostLabels, Untranslatable};

/// Counts lost points and labels by reason, with a log line for each metric.
pub(crate) struct Losses {
    exporter: String,
    points: [Counter; Untranslatable::ALL.len()],
    unnamable: Counter,
    overwritten: Counter,
    joined: Counter,
    exemplars: Counter,
    exemplar_labels: [Counter; 3],
    forgotten_targets: Counter,
    log: LossLog,
}

impl Losses {
    /// The losses of `exporter`; the names of its metrics begin with `prefix`.
    pub(crate) fn new(telemetry: &Telemetry, exporter: &str, prefix: &str) -> Self {
        let labels = [("exporter", exporter)];
        let counter = |what: &str, help: &str| telemetry.counter(&format!("{prefix}{what}"), help, &labels);
        let points = Untranslatable::ALL.map(|reason| {
            let labels = [("exporter", exporter), ("reason", reason.name())];
            let help = "Points that could not be translated, by reason.";
            telemetry.counter(&format!("{prefix}dropped_points"), help, &labels)
        });
        let exemplar_labels = ["name", "too_long", "overwritten"].map(|reason| {
            let labels = [("exporter", exporter), ("reason", reason)];
            let help = "Labels of exemplars that were left out, by reason.";
            telemetry.counter(&format!("{prefix}dropped_exemplar_labels"), help, &labels)
        });
        Self {
            exporter: exporter.to_owned(),
            points,
            exemplars: counter("unsupported_exemplars", "Exemplars of metrics that have none in Prometheus."),
            exemplar_labels,
            forgotten_targets: counter(
                "forgotten_targets",
                "Resources whose target_info was ended because there are too many.",
            ),
            unnamable: counter("dropped_labels", "Labels that were left out: nothing is left of their names."),
            overwritten: counter("overwritten_labels", "Labels that labels of the same name overwrote."),
            joined: counter("joined_labels", "Labels whose names became those of others, and were joined with them."),
            log: LossLog::new(format!("exporter/{exporter}")),
        }
    }

    /// `points` of `metric` are lost.
    pub(crate) fn add(&self, reason: Untranslatable, metric: &[u8], points: usize) {
        if points == 0 {
            return;
        }
        if let Some(counter) = self.points.get(reason as usize) {
            counter.inc_by(points as u64);
        }
        self.say(reason.name(), metric, points, reason.advice());
    }

    /// Something about `points` of `metric` that are not lost, and counted elsewhere: `say` it now and then.
    pub(crate) fn note(&self, what: &'static str, metric: &[u8], points: usize, say: impl FnOnce(&str, usize)) {
        if let Some(points) = self.log.is_due(what, metric, points) {
            say(&String::from_utf8_lossy(metric), points);
        }
    }

    /// A line about lost `points` of `metric` that are counted elsewhere.
    pub(crate) fn say(&self, reason: &'static str, metric: &[u8], points: usize, advice: &str) {
        if points == 0 {
            return;
        }
        if let Some(points) = self.log.is_due(reason, metric, points) {
            let metric = String::from_utf8_lossy(metric);
            tracing::warn!(exporter = self.exporter, %metric, reason, points, "dropping points of this metric: {advice}");
        }
    }

    /// Labels of `metric` (empty: of a resource or scope) are not what they were.
    pub(crate) fn labels(&self, metric: &[u8], lost: LostLabels) {
        let LostLabels { unnamable, overwritten, joined } = lost;
        let each = [
            ("label_dropped", &self.unnamable, unnamable, "nothing is left of its name: rename the attribute"),
            ("label_overwritten", &self.overwritten, overwritten, "a label of ours has its name: rename the attribute"),
            ("label_joined", &self.joined, joined, "two attributes get the same name, and share a label: rename one"),
        ];
        for (reason, counter, labels, advice) in each {
            if labels == 0 {
                continue;
            }
            counter.inc_by(labels as u64);
            if let Some(labels) = self.log.is_due(reason, metric, labels) {
                let metric = if metric.is_empty() { b"(its resource or scope)" } else { metric };
                let metric = String::from_utf8_lossy(metric);
                tracing::warn!(exporter = self.exporter, %metric, reason, labels, "a label is not as it was: {advice}");
            }
        }
    }

    /// Exemplars of `metric` are not what they were, or not there.
    pub(crate) fn exemplars(&self, metric: &[u8], lost: LostExemplars) {
        let LostExemplars { exemplars, unnamable, too_long, overwritten, joined } = lost;
        let [by_name, by_length, by_id] = &self.exemplar_labels;
        self.labels(metric, LostLabels { joined, ..LostLabels::default() });
        let each = [
            (
                "exemplar_dropped",
                &self.exemplars,
                exemplars,
                "only counters and histograms have exemplars in Prometheus",
            ),
            ("exemplar_label_dropped", by_name, unnamable, "nothing is left of its name: rename the attribute"),
            (
                "exemplar_label_too_long",
                by_length,
                too_long,
                "names and values of an exemplar's labels come to more than 128 characters: filter fewer attributes",
            ),
            ("exemplar_label_overwritten", by_id, overwritten, "trace_id and span_id stay: rename the attribute"),
        ];
        for (reason, counter, count, advice) in each {
            if count == 0 {
                continue;
            }
            counter.inc_by(count as u64);
            if let Some(count) = self.log.is_due(reason, metric, count) {
                let metric = String::from_utf8_lossy(metric);
                tracing::warn!(exporter = self.exporter, %metric, reason, count, "exemplars are not as they were: {advice}");
            }
        }
    }

    /// So many resources were forgotten, and their `target_info` ended.
    pub(crate) fn targets(&self, targets: usize) {
        self.forgotten_targets.inc_by(targets as u64);
        if let Some(targets) = self.log.is_due("target_forgotten", b"target_info", targets) {
            tracing::warn!(
                exporter = self.exporter,
                targets,
                "ending the target_info of resources that were not heard of for longest: there are too many resources, \
                 or their attributes are too large"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses() -> (Losses, std::sync::Arc<Telemetry>) {
        let telemetry = Telemetry::new();
        (Losses::new(&telemetry, "rw", "test_"), telemetry)
    }

    #[test]
    fn points_are_counted_and_their_metrics_named() {
        let (losses, telemetry) = losses();
        for number in 0..10_000 {
            losses.add(Untranslatable::Delta, format!("metric {number}").as_bytes(), 1);
        }
        assert_eq!(telemetry.sum("test_dropped_points", &[("reason", "delta")]), 10_000);
        assert!(losses.log.has_named("delta", b"metric 0") && !losses.log.has_named("delta", b"metric 9999"));
    }

    #[test]
    fn exemplars_are_counted_by_what_became_of_them() {
        let (losses, telemetry) = losses();
        losses.exemplars(b"a", LostExemplars { exemplars: 1, unnamable: 2, too_long: 3, overwritten: 5, joined: 6 });
        losses.targets(4);
        let labels = |reason| telemetry.sum("test_dropped_exemplar_labels", &[("reason", reason)]);
        assert_eq!((labels("name"), labels("too_long"), labels("overwritten")), (2, 3, 5));
        let plain = ["test_unsupported_exemplars", "test_forgotten_targets", "test_joined_labels"];
        assert_eq!(plain.map(|name| telemetry.sum(name, &[])), [1, 4, 6]);
    }

    #[test]
    fn labels_are_counted_by_what_became_of_them() {
        let (losses, telemetry) = losses();
        losses.labels(b"a", LostLabels { unnamable: 1, overwritten: 2, joined: 3 });
        for (name, expected) in [("test_dropped_labels", 1), ("test_overwritten_labels", 2), ("test_joined_labels", 3)]
        {
            assert_eq!(telemetry.sum(name, &[]), expected);
        }
    }
}
