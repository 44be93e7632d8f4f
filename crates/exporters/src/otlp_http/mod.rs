//! OTLP over HTTP.

mod attempt;
mod config;
mod json;
mod reply;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use nyquist_core::batch::Signal;
use nyquist_core::component::{
    BuildError, Exporter, ExporterConfig, ExporterContext, ExporterFactory, Info, Stability, exporter,
};
use nyquist_core::delivery::{Delivery, Settings};

pub use config::{Encoding, OtlpHttpConfig};

use attempt::HttpAttempt;

/// The `otlp_http` exporter.
#[must_use]
pub fn factory() -> ExporterFactory {
    exporter::<OtlpHttpConfig>(Info {
        name: "otlp_http",
        aliases: &["otlphttp"],
        signals: &Signal::ALL,
        stability: Stability::Beta,
    })
}

/// What the Collector's HTTP receiver takes is 20 MiB decoded; merged requests stay a little under
/// it.
const MAX_MERGED: usize = 19 << 20;

impl ExporterConfig for OtlpHttpConfig {
    fn build(&self, context: ExporterContext<'_>) -> Result<Arc<dyn Exporter>, BuildError> {
        let key = config::endpoint_key(context.signal);
        let endpoint = self
            .endpoint_for(context.signal)
            .ok_or_else(|| {
                BuildError::new(&[key], format!("set endpoint or {key}: it is used for {}", context.signal.name()))
            })?
            .map_err(|error| BuildError::new(&[key], error))?;
        let settings = Settings {
            kind: "otlp_http",
            queue: self.sending_queue.clone(),
            retry: self.retry_on_failure.clone(),
            timeout: self.timeout(),
            endpoint: endpoint.uri.to_string(),
            max_request_bytes: MAX_MERGED,
        };
        let attempt = HttpAttempt::new(self, endpoint, &context)?;
        Ok(Delivery::new(&context, settings, attempt)?)
    }
}
