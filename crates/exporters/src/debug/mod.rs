//! Writes what passes to the log, for people who look at a pipeline.

mod config;
mod sampler;
#[cfg(test)]
mod tests;
mod text;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nyquist_core::batch::{Code, Signal};
use nyquist_core::component::{
    BuildError, Exporter, ExporterConfig, ExporterContext, ExporterFactory, Info, Stability, exporter,
};
use nyquist_core::delivery::{Attempt, Delivery, Outcome, Request, RetryConfig, Settings};

pub use config::{DebugConfig, Verbosity};

use sampler::Sampler;

/// The `debug` exporter.
#[must_use]
pub fn factory() -> ExporterFactory {
    exporter::<DebugConfig>(Info { name: "debug", aliases: &[], signals: &Signal::ALL, stability: Stability::Beta })
}

impl ExporterConfig for DebugConfig {
    fn build(&self, context: ExporterContext<'_>) -> Result<Arc<dyn Exporter>, BuildError> {
        let settings = Settings {
            kind: "debug",
            queue: self.sending_queue.clone(),
            retry: RetryConfig { enabled: false, ..RetryConfig::default() },
            timeout: Duration::ZERO,
            endpoint: "the log".to_owned(),
            max_request_bytes: usize::MAX,
        };
        let attempt = DebugAttempt {
            exporter: context.id.to_string(),
            verbosity: self.verbosity,
            uses_log: self.use_internal_logger,
            to_stderr: self.output_paths.iter().any(|path| path == "stderr"),
            sampler: Sampler::new(self.sampling_initial, self.sampling_thereafter),
        };
        Ok(Delivery::new(&context, settings, attempt)?)
    }
}

struct DebugAttempt {
    exporter: String,
    verbosity: Verbosity,
    uses_log: bool,
    to_stderr: bool,
    sampler: Sampler,
}

#[async_trait]
impl Attempt for DebugAttempt {
    /// What to write; `None` for what is not sampled.
    type Encoded = Option<Written>;

    fn encode(&self, request: &Request) -> Result<Option<Written>, Outcome> {
        if !self.sampler.takes() {
            return Ok(None);
        }
        let written = text::write(request, self.verbosity)
            .map_err(|message| Outcome::Refused { code: Code::Internal, message })?;
        Ok(Some(written))
    }

    async fn attempt(&self, written: &Option<Written>) -> Outcome {
        let Some(written) = written else { return Outcome::Delivered };
        let Written { title, summary, details } = written;
        if self.uses_log {
            tracing::info!(exporter = self.exporter, "{title} {summary}{}{details}", gap(details));
            return Outcome::Delivered;
        }
        let line = format!("{title} {summary}{}{details}\n", gap(details));
        let result = if self.to_stderr {
            std::io::stderr().lock().write_all(line.as_bytes())
        } else {
            std::io::stdout().lock().write_all(line.as_bytes())
        };
        match result {
            Ok(()) => Outcome::Delivered,
            Err(error) => Outcome::Refused { code: Code::Internal, message: format!("cannot write: {error}") },
        }
    }
}

fn gap(details: &str) -> &'static str {
    if details.is_empty() { "" } else { "\n" }
}

/// What one request reads like.
struct Written {
    /// `Traces`, `Metrics` or `Logs`.
    title: &'static str,
    /// The counts.
    summary: String,
    /// Lines about what is in it; empty when basic.
    details: String,
}
