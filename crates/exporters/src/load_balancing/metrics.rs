//! The Collector's metrics of load balancing, with the exporter's id as one more label.

use std::time::Duration;

use nyquist_core::telemetry::{Counter, Histogram, Telemetry, UpDown};

/// Upper bounds in milliseconds, as in the Collector.
const LATENCIES: [f64; 10] = [5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];

/// What is counted of the resolver.
pub(super) struct ResolverMetrics {
    pub(super) backends: UpDown,
    pub(super) updates: Counter,
    pub(super) succeeded: Counter,
    pub(super) failed: Counter,
}

impl ResolverMetrics {
    pub(super) fn new(telemetry: &Telemetry, exporter: &str, resolver: &str) -> Self {
        let labels = [("exporter", exporter), ("resolver", resolver)];
        let resolutions = |success: &str| {
            let labels = [("exporter", exporter), ("resolver", resolver), ("success", success)];
            let help = "Number of times the resolver has been asked, by success.";
            telemetry.counter("otelcol_loadbalancer_num_resolutions", help, &labels)
        };
        Self {
            backends: telemetry.gauge(
                "otelcol_loadbalancer_num_backends",
                "Current number of backends in use.",
                &labels,
            ),
            updates: telemetry.counter(
                "otelcol_loadbalancer_num_backend_updates",
                "Number of times the list of backends was updated.",
                &labels,
            ),
            succeeded: resolutions("true"),
            failed: resolutions("false"),
        }
    }
}

/// What is counted of one backend.
pub(super) struct BackendMetrics {
    latency: Histogram,
    succeeded: Counter,
    failed: Counter,
    /// Items that were moved to other backends when this one had left.
    pub(super) moved: Counter,
}

impl BackendMetrics {
    pub(super) fn new(telemetry: &Telemetry, exporter: &str, endpoint: &str) -> Self {
        let labels = [("exporter", exporter), ("endpoint", endpoint)];
        let outcome = |success: &str| {
            let labels = [("exporter", exporter), ("endpoint", endpoint), ("success", success)];
            let help = "Number of attempts to send to a backend, by success.";
            telemetry.counter("otelcol_loadbalancer_backend_outcome", help, &labels)
        };
        Self {
            latency: telemetry.histogram(
                "otelcol_loadbalancer_backend_latency",
                "How long attempts to send to a backend took, in milliseconds.",
                &LATENCIES,
                &labels,
            ),
            succeeded: outcome("true"),
            failed: outcome("false"),
            moved: telemetry.counter(
                "nyquist_loadbalancer_moved_items",
                "Items that were moved from the queue of a backend that had left to the others'.",
                &labels,
            ),
        }
    }

    pub(super) fn attempt(&self, took: Duration, success: bool) {
        self.latency.observe(took.as_secs_f64() * 1e3);
        if success { self.succeeded.inc() } else { self.failed.inc() }
    }
}
