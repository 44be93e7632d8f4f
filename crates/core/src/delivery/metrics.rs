//! The Collector's metrics of an exporter.

use crate::batch::Signal;
use crate::telemetry::{Counter, Telemetry, UpDown};

/// `otelcol_exporter_*` of one exporter and signal.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) sent: Counter,
    pub(super) send_failed: Counter,
    pub(super) enqueue_failed: Counter,
    pub(super) queue_size: UpDown,
    pub(super) in_flight: UpDown,
}

impl Metrics {
    /// `capacity` is the queue's, `None` without a queue.
    pub(super) fn new(telemetry: &Telemetry, exporter: &str, signal: Signal, capacity: Option<usize>) -> Self {
        let items = signal.items_name();
        let counter = |what: &str, help: &str| {
            telemetry.counter(&format!("otelcol_exporter_{what}_{items}"), help, &[("exporter", exporter)])
        };
        let gauge = |what: &str, help: &str| {
            let labels = [("exporter", exporter), ("data_type", signal.name())];
            telemetry.gauge(&format!("otelcol_exporter_{what}"), help, &labels)
        };
        let queue_size = match capacity {
            Some(capacity) => {
                let limit = gauge("queue_capacity", "Fixed capacity of the sending queue, in units of its sizer.");
                limit.set(i64::try_from(capacity).unwrap_or(i64::MAX));
                gauge("queue_size", "Current size of the sending queue, in units of its sizer.")
            }
            None => UpDown::new("detached", "detached").unwrap_or_else(|_| unreachable!("a valid name")),
        };
        Self {
            sent: counter("sent", "Items successfully sent to the destination."),
            send_failed: counter("send_failed", "Items in failed attempts to send to the destination."),
            enqueue_failed: counter("enqueue_failed", "Items that did not get into the sending queue."),
            queue_size,
            in_flight: gauge("in_flight_requests", "Requests on their way, retries included."),
        }
    }
}
