//! The scrape page of the gateway's own metrics, and what stands beside it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::{ProcessMetrics, Telemetry};
use crate::clock::Clock;
use crate::net::page::{Page, text};

/// `GET /metrics` in the Prometheus text format, and further pages.
pub struct MetricsPage {
    telemetry: Arc<Telemetry>,
    clock: Arc<dyn Clock>,
    process: ProcessMetrics,
    counter_suffix: &'static str,
    others: Vec<(&'static str, Arc<dyn Page>)>,
}

impl MetricsPage {
    /// The page of `telemetry`. Counters are named as the Collector names them by default, or with
    /// `_total` behind (`without_type_suffix: false`).
    #[must_use]
    pub fn new(telemetry: Arc<Telemetry>, clock: Arc<dyn Clock>, without_type_suffix: bool) -> Self {
        let process = ProcessMetrics::new(&telemetry);
        Self {
            telemetry,
            clock,
            process,
            counter_suffix: if without_type_suffix { "" } else { "_total" },
            others: Vec::new(),
        }
    }

    /// The same with `page` at `path`.
    #[must_use]
    pub fn with(mut self, path: &'static str, page: Arc<dyn Page>) -> Self {
        self.others.push((path, page));
        self
    }
}

impl Page for MetricsPage {
    fn respond(&self, request: &Request<Incoming>) -> Response<Bytes> {
        let path = request.uri().path();
        if let Some((_, page)) = self.others.iter().find(|(other, _)| *other == path) {
            return page.respond(request);
        }
        if path != "/metrics" {
            return text(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
        }
        self.process.update(self.clock.now());
        let mut response = text(StatusCode::OK, self.telemetry.render(self.counter_suffix));
        let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        response
    }
}
