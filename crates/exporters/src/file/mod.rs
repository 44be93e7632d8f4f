//! `file`: writes what passes to files, as OTLP/JSON lines or as protobuf.
//!
//! A request is encoded on the worker that brought it; a thread of its own (`writer.rs`) writes it. What
//! is acknowledged has been written: the kernel has it.

mod attempt;
mod config;
mod open;
mod rotation;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, NoRoom, Permits, Refusal, Signal};
use nyquist_core::component::{
    BuildError, Component, Consumer, Exporter, ExporterConfig, ExporterContext, ExporterFactory, Host, Info, Stability,
    StartError,
};
use nyquist_core::config::decode;
use nyquist_core::delivery::{Delivery, Settings, Status};
use tokio::time::Instant;

pub use config::{FileConfig, Format, GroupBy, Rotation};

use attempt::FileAttempt;
use writer::Writer;

/// Merged requests stay under this, so that readers with a bounded line can read them.
const MAX_MERGED: usize = 19 << 20;

/// The `file` exporter.
#[must_use]
pub fn factory() -> ExporterFactory {
    ExporterFactory {
        info: Info { name: "file", aliases: &[], signals: &Signal::ALL, stability: Stability::Beta },
        parse: |node, diagnostics| Some(Box::new(Shared::new(decode::<FileConfig>(node, diagnostics)?))),
    }
}

/// The configuration, and the one writer of all signals: they share the file.
struct Shared {
    config: Arc<FileConfig>,
    writer: Arc<Writer>,
}

impl Shared {
    fn new(config: FileConfig) -> Self {
        Self { config: Arc::new(config), writer: Arc::default() }
    }
}

impl ExporterConfig for Shared {
    fn build(&self, context: ExporterContext<'_>) -> Result<Arc<dyn Exporter>, BuildError> {
        let settings = Settings {
            kind: "file",
            queue: self.config.sending_queue.clone(),
            retry: self.config.retry_on_failure.clone(),
            timeout: Duration::ZERO,
            endpoint: self.config.path.clone(),
            max_request_bytes: MAX_MERGED,
        };
        let attempt = FileAttempt { config: Arc::clone(&self.config), writer: Arc::clone(&self.writer) };
        let delivery = Delivery::new(&context, settings, attempt)?;
        Ok(Arc::new(FileExporter { delivery, writer: Arc::clone(&self.writer) }))
    }
}

/// The exporter for one signal.
struct FileExporter {
    delivery: Arc<Delivery<FileAttempt>>,
    writer: Arc<Writer>,
}

#[async_trait]
impl Consumer for FileExporter {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        self.delivery.consume(batch).await
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        self.delivery.reserve(batch, permits).await
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.delivery.metadata_keys()
    }
}

#[async_trait]
impl Component for FileExporter {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        self.delivery.start(host).await
    }

    async fn shutdown(&self, deadline: Instant) {
        self.delivery.shutdown(deadline).await;
        let synced = tokio::time::timeout_at(deadline.max(Instant::now() + Duration::from_secs(1)), self.writer.sync());
        if synced.await.is_err() {
            tracing::warn!(exporter = "file", "the deadline passed before everything was synced to disk");
        }
    }

    fn status(&self) -> Option<Status> {
        self.delivery.status()
    }
}
