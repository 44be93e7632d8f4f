//! `health_check`: tells over HTTP and gRPC whether the pipelines run, and how components are doing.

mod config;
mod grpc;
mod page;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use nyquist_core::component::{
    Board, BuildError, Component, Extension, ExtensionConfig, ExtensionContext, ExtensionFactory, Host, Info,
    Stability, StartError, extension,
};
use nyquist_core::net::page::{Page, PageServer};
use nyquist_core::net::server::{Server, Settings};
use parking_lot::Mutex;
use tokio::time::Instant;

pub use config::{
    CheckCollectorPipeline, ComponentHealth, ConfigPath, GrpcConfig, HealthCheckConfig, HttpConfig, PathConfig,
    ResponseBody,
};
use grpc::HealthService;
use page::Shared;

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
        Ok(Arc::new(HealthCheck::new(self.clone(), context.clock)))
    }
}

/// The extension.
struct HealthCheck {
    shared: Arc<Shared>,
    page: Mutex<Option<PageServer>>,
    grpc: Mutex<Option<Server>>,
}

impl HealthCheck {
    fn new(config: HealthCheckConfig, clock: Arc<dyn nyquist_core::clock::Clock>) -> Self {
        Self { shared: Shared::new(config, clock), page: Mutex::default(), grpc: Mutex::default() }
    }

    /// Where to answer over HTTP, if anywhere.
    fn http_endpoint(&self) -> Option<&str> {
        let config = &self.shared.config;
        if config.use_v2 { Some(&config.http.as_ref()?.endpoint) } else { Some(&config.endpoint) }
    }

    /// Where to answer over gRPC, if anywhere.
    fn grpc_endpoint(&self) -> Option<&str> {
        let config = &self.shared.config;
        Some(&config.grpc.as_ref().filter(|_| config.use_v2)?.endpoint)
    }
}

#[async_trait]
impl Component for HealthCheck {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        if let Some(endpoint) = self.http_endpoint() {
            let page = Arc::clone(&self.shared) as Arc<dyn Page>;
            let server = PageServer::start(&host.runtimes, endpoint, page).await.map_err(StartError)?;
            tracing::info!(component = "health_check", endpoint = %server.address(), "listening");
            *self.page.lock() = Some(server);
        }
        if let Some(endpoint) = self.grpc_endpoint() {
            let service = HealthService::new(Arc::clone(&self.shared));
            let mut settings = Settings::new(endpoint);
            settings.max_connections = 64;
            let server = Server::start(settings, service, &host.runtimes).await;
            let server = server.map_err(|error| StartError(format!("grpc: {error}")))?;
            tracing::info!(component = "health_check", protocol = "grpc", endpoint = %server.address(), "listening");
            *self.grpc.lock() = Some(server);
        }
        Ok(())
    }

    async fn shutdown(&self, _: Instant) {
        self.page.lock().take();
        self.grpc.lock().take();
    }
}

impl Extension for HealthCheck {
    fn observe(&self, board: Arc<Board>) {
        // Built once, observed once.
        let _ = self.shared.board.set(board);
    }

    fn ready(&self) {
        self.shared.ready_since.store(self.shared.clock.unix_nanos(), Ordering::Release);
        self.shared.ready.store(true, Ordering::Release);
    }

    fn not_ready(&self) {
        self.shared.ready.store(false, Ordering::Release);
    }
}
