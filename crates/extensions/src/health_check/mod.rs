//! `health_check`: tells over HTTP whether the pipelines run.

mod config;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use nyquist_core::clock::Clock;
use nyquist_core::component::{
    BuildError, Component, Extension, ExtensionConfig, ExtensionContext, ExtensionFactory, Host, Info, Stability,
    StartError, extension,
};
use nyquist_core::net::page::{Page, PageServer, text};
use parking_lot::Mutex;
use tokio::time::Instant;

pub use config::{CheckCollectorPipeline, HealthCheckConfig, ResponseBody};

/// The factory of `health_check`.
#[must_use]
pub fn factory() -> ExtensionFactory {
    extension::<HealthCheckConfig>(Info {
        name: "health_check",
        aliases: &[],
        signals: &[],
        stability: Stability::Stable,
    })
}

impl ExtensionConfig for HealthCheckConfig {
    fn build(&self, context: ExtensionContext) -> Result<Arc<dyn Extension>, BuildError> {
        let page = HealthPage {
            config: self.clone(),
            clock: context.clock,
            ready: AtomicBool::new(false),
            ready_since: AtomicU64::new(0),
        };
        Ok(Arc::new(HealthCheck { page: Arc::new(page), server: Mutex::new(None) }))
    }
}

/// The extension.
struct HealthCheck {
    page: Arc<HealthPage>,
    server: Mutex<Option<PageServer>>,
}

#[async_trait]
impl Component for HealthCheck {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let page = Arc::clone(&self.page) as Arc<dyn Page>;
        let server = PageServer::start(&host.runtimes, &self.page.config.endpoint, page).await.map_err(StartError)?;
        tracing::info!(component = "health_check", endpoint = %server.address(), "listening");
        *self.server.lock() = Some(server);
        Ok(())
    }

    async fn shutdown(&self, _: Instant) {
        self.server.lock().take();
    }
}

impl Extension for HealthCheck {
    fn ready(&self) {
        self.page.ready_since.store(self.page.clock.unix_nanos(), Ordering::Release);
        self.page.ready.store(true, Ordering::Release);
    }

    fn not_ready(&self) {
        self.page.ready.store(false, Ordering::Release);
    }
}

struct HealthPage {
    config: HealthCheckConfig,
    clock: Arc<dyn Clock>,
    ready: AtomicBool,
    /// Nanoseconds since the Unix epoch.
    ready_since: AtomicU64,
}

impl HealthPage {
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
}

/// Answers 200 for as long as the process answers at all.
const LIVE: &str = "/live";
/// Answers as `path` does, in a word.
const READY: &str = "/ready";

impl HealthPage {
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
        let mut response = text(status, serde_json::json!({ "status": self.phase() }).to_string());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl Page for HealthPage {
    fn respond(&self, request: &Request<Incoming>) -> Response<Bytes> {
        match request.uri().path() {
            path if path == self.config.path => {}
            LIVE => return self.probe(true),
            READY => return self.probe(self.ready.load(Ordering::Acquire)),
            _ => {
                let hint = format!("health is at {}, {LIVE} and {READY}\n", self.config.path);
                return text(StatusCode::NOT_FOUND, hint);
            }
        }
        let ready = self.ready.load(Ordering::Acquire);
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let (body, kind) = self.body(ready);
        let mut response = text(status, body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

fn rfc3339(unix_nanos: u64) -> String {
    humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(unix_nanos)).to_string()
}
