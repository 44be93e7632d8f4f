//! What is answered over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use nyquist_core::clock::Clock;
use nyquist_core::component::{Board, Condition, Report};
use nyquist_core::net::page::{Page, text};
use serde::Serialize;

use super::HealthCheckConfig;

/// Answers 200 for as long as the process answers at all.
const LIVE: &str = "/live";
/// Answers as `path` does, in a word.
const READY: &str = "/ready";
/// Where the state of the gateway is, unless `http.status.path` says otherwise.
const STATUS: &str = "/status";

/// What all services of the extension share.
pub(super) struct Shared {
    pub(super) config: HealthCheckConfig,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) board: OnceLock<Arc<Board>>,
    pub(super) ready: AtomicBool,
    /// Nanoseconds since the Unix epoch.
    pub(super) ready_since: AtomicU64,
}

impl Shared {
    pub(super) fn new(config: HealthCheckConfig, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            config,
            clock,
            board: OnceLock::new(),
            ready: AtomicBool::new(false),
            ready_since: AtomicU64::new(0),
        })
    }

    /// How the gateway is doing, or a pipeline; `None` if there is no such pipeline.
    pub(super) fn report(&self, pipeline: &str) -> Option<Report> {
        let priority = self.config.component_health.priority();
        let board = self.board.get()?;
        if pipeline.is_empty() { Some(board.report(priority)) } else { board.pipeline(pipeline, priority) }
    }

    /// The status code by which a load balancer sees what the report says.
    fn code(&self, report: &Report) -> StatusCode {
        if !self.config.component_health.is_healthy(&report.state, self.clock.unix_nanos()) {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        match report.state.condition {
            Condition::Starting | Condition::Stopping | Condition::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        }
    }

    /// Does a client find what it needs here? For gRPC, which knows yes and no.
    pub(super) fn serves(&self, report: &Report) -> bool {
        self.code(report) == StatusCode::OK
    }

    fn status_path(&self) -> Option<&str> {
        match self.config.http.as_ref().filter(|_| self.config.use_v2) {
            Some(http) => http.status.enabled.then_some(http.status.path.as_str()),
            None => Some(STATUS),
        }
    }

    fn body(&self, ready: bool) -> (Bytes, &'static str) {
        if let Some(custom) = &self.config.response_body {
            let body = if ready { &custom.healthy } else { &custom.unhealthy };
            return (body.clone().into(), "text/plain; charset=utf-8");
        }
        let document = if ready {
            let since = self.ready_since.load(Ordering::Acquire);
            let uptime = self.clock.unix_nanos().saturating_sub(since);
            serde_json::json!({
                "status": "Server available",
                "upSince": rfc3339(since),
                "uptime": format!("{}s", uptime as f64 / 1e9),
            })
        } else {
            serde_json::json!({"status": "Server not available", "upSince": "0001-01-01T00:00:00Z", "uptime": ""})
        };
        (document.to_string().into(), "application/json")
    }

    /// The Collector's page: available or not.
    fn availability(&self) -> Response<Bytes> {
        let ready = self.ready.load(Ordering::Acquire);
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let (body, kind) = self.body(ready);
        let mut response = text(status, body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    /// Where in its life the gateway is.
    fn phase(&self) -> &'static str {
        if self.ready.load(Ordering::Acquire) {
            "ready"
        } else if self.ready_since.load(Ordering::Acquire) == 0 {
            "starting"
        } else {
            "draining"
        }
    }

    /// Liveness or readiness, for probes that must tell them apart.
    fn probe(&self, is_healthy: bool) -> Response<Bytes> {
        let status = if is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json(status, serde_json::json!({ "status": self.phase() }).to_string())
    }

    /// The state of the gateway or of `?pipeline=`, with its parts if `verbose` is asked for.
    fn status(&self, query: &str) -> Response<Bytes> {
        let value = |key: &str| {
            let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
        };
        let pipeline = value("pipeline").unwrap_or_default().replace("%2F", "/").replace("%2f", "/");
        let is_verbose = value("verbose").is_some_and(|value| value != "false");
        let Some(report) = self.report(&pipeline) else {
            return text(StatusCode::NOT_FOUND, format!("there is no pipeline {pipeline:?}\n"));
        };
        let mut shown = self.shown(&report, is_verbose);
        shown.start_time = self.board.get().map(|board| rfc3339(board.started()));
        match serde_json::to_string(&shown) {
            Ok(body) => json(self.code(&report), body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn shown<'a>(&self, report: &'a Report, with_parts: bool) -> Shown<'a> {
        let parts = report.parts.iter().filter(|_| with_parts);
        Shown {
            start_time: None,
            healthy: self.config.component_health.is_healthy(&report.state, self.clock.unix_nanos()),
            status: report.state.condition.name(),
            error: report.state.error.as_deref(),
            status_time: rfc3339(report.state.since),
            components: parts.map(|(name, part)| (name.as_str(), self.shown(part, true))).collect(),
        }
    }
}

/// A report in the form of the Collector's `healthcheckv2`.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    healthy: bool,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    status_time: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    components: BTreeMap<&'a str, Shown<'a>>,
}

impl Page for Shared {
    fn respond(&self, request: &Request<Incoming>) -> Response<Bytes> {
        let path = request.uri().path();
        if !self.config.use_v2 && path == self.config.path {
            return self.availability();
        }
        if Some(path) == self.status_path() {
            return self.status(request.uri().query().unwrap_or_default());
        }
        match path {
            LIVE => self.probe(true),
            READY => self.probe(self.ready.load(Ordering::Acquire)),
            _ => {
                let first = if self.config.use_v2 { None } else { Some(self.config.path.as_str()) };
                let paths = first.into_iter().chain(self.status_path()).chain([LIVE, READY]);
                let hint = format!("health is at {}\n", paths.collect::<Vec<_>>().join(", "));
                text(StatusCode::NOT_FOUND, hint)
            }
        }
    }
}

fn json(status: StatusCode, body: String) -> Response<Bytes> {
    let mut response = text(status, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn rfc3339(unix_nanos: u64) -> String {
    humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(unix_nanos)).to_string()
}
