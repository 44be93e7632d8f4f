//! OTLP over gRPC.

mod attempt;
#[cfg(test)]
pub(crate) mod backend;
mod config;
mod reply;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;

use std::sync::Arc;

use nyquist_core::batch::Signal;
use nyquist_core::component::{
    BuildError, Exporter, ExporterConfig, ExporterContext, ExporterFactory, Info, Stability, exporter,
};
use nyquist_core::delivery::{Delivery, Settings};
use nyquist_core::net::client::GrpcEndpoint;

pub use config::{KeepaliveConfig, OtlpConfig};
pub(crate) use reply::partial_success;

pub(crate) use attempt::GrpcAttempt;

/// The `otlp` exporter.
#[must_use]
pub fn factory() -> ExporterFactory {
    exporter::<OtlpConfig>(Info {
        name: "otlp",
        aliases: &["otlp_grpc"],
        signals: &Signal::ALL,
        stability: Stability::Beta,
    })
}

/// What gRPC servers take unless they are told otherwise is 4 MiB; merged requests stay a little
/// under it.
pub(crate) const MAX_MERGED: usize = (4 << 20) - (64 << 10);

impl ExporterConfig for OtlpConfig {
    fn build(&self, context: ExporterContext<'_>) -> Result<Arc<dyn Exporter>, BuildError> {
        let endpoint = GrpcEndpoint::parse(&self.endpoint).map_err(|error| BuildError::new(&["endpoint"], error))?;
        let settings = Settings {
            kind: "otlp",
            queue: self.sending_queue.clone(),
            retry: self.retry_on_failure.clone(),
            timeout: self.timeout.0,
            endpoint: endpoint.to_string(),
            max_request_bytes: MAX_MERGED,
        };
        let attempt = GrpcAttempt::new(self, &endpoint, &context)?;
        Ok(Delivery::new(&context, settings, attempt)?)
    }
}
