//! The `prometheus` receiver: scrapes pages in Prometheus' text and protobuf formats.
//!
//! `manager` knows the targets and gives each a task of its own (`scrape`): it gets the page (`fetch`), reads it
//! (`exposition`), relabels and limits samples, and puts them together as OTLP (`model`), with start times and the
//! ends of series from what `scrape::series` remembers.

mod config;
mod discovery;
pub(crate) mod exposition;
mod fetch;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub(crate) mod labels;
mod manager;
pub(crate) mod model;
pub(crate) mod native;
pub(crate) mod packed;
mod relabel;
mod scrape;
mod stats;
mod target;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use nyquist_core::batch::Signal;
use nyquist_core::clock::Clock;
use nyquist_core::component::{
    BuildError, Component, Consumer, Host, Info, Receiver, ReceiverConfig, ReceiverContext, ReceiverFactory, Stability,
    StartError, receiver,
};
use nyquist_core::delivery::Status;
use nyquist_core::net::admission::{Admission, Gate};
use nyquist_core::telemetry::Telemetry;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use config::{
    Action, Anchored, Authorization, BasicAuth, FileSd, Global, PromBytes, PromConfig, PromDuration, PrometheusConfig,
    Protocol, RelabelConfig, ScrapeConfig, StaticConfig, TlsConfig,
};
use manager::{Job, Manager};
use scrape::Shared;
use stats::Stats;

/// Bytes of pages that may be in the process at once for each core.
const IN_FLIGHT_PER_CORE: usize = 256 << 20;

/// The `prometheus` receiver's factory.
#[must_use]
pub fn factory() -> ReceiverFactory {
    receiver::<PrometheusConfig>(Info {
        name: "prometheus",
        aliases: &[],
        signals: &[Signal::Metrics],
        stability: Stability::Beta,
    })
}

impl ReceiverConfig for PrometheusConfig {
    fn build(&self, context: ReceiverContext<'_>) -> Result<Arc<dyn Receiver>, BuildError> {
        Ok(Arc::new(PrometheusReceiver::new(self, &context)?))
    }
}

/// The `prometheus` receiver.
pub struct PrometheusReceiver {
    id: String,
    jobs: Arc<[Job]>,
    next: Option<Arc<dyn Consumer>>,
    gates: Vec<Arc<Gate>>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    /// Once started.
    shared: OnceLock<Arc<Shared>>,
    stop: watch::Sender<bool>,
    manager: Mutex<Option<JoinHandle<()>>>,
}

impl PrometheusReceiver {
    /// A receiver as `config` describes it.
    ///
    /// # Errors
    /// If a request cannot be made from it.
    pub fn new(config: &PrometheusConfig, context: &ReceiverContext<'_>) -> Result<Self, BuildError> {
        let mut jobs = Vec::new();
        for (index, scrape) in config.config.scrape_configs.iter().enumerate() {
            let extra = config.report_extra_scrape_metrics;
            let job = Job::new(scrape, &config.config.global, config.trim_metric_suffixes, extra);
            jobs.push(job.map_err(|error| BuildError::new(&["config", "scrape_configs", &index.to_string()], error))?);
        }
        Ok(Self {
            id: context.id.to_string(),
            jobs: jobs.into(),
            next: context.outputs.get(Signal::Metrics).cloned(),
            gates: context.outputs.gates(Signal::Metrics).to_vec(),
            clock: Arc::clone(&context.clock),
            telemetry: Arc::clone(&context.telemetry),
            shared: OnceLock::new(),
            stop: watch::Sender::new(false),
            manager: Mutex::new(None),
        })
    }
}

#[async_trait]
impl Component for PrometheusReceiver {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let Some(next) = &self.next else { return Ok(()) };
        for (index, job) in self.jobs.iter().enumerate() {
            let name = &job.config.job_name;
            job.load_tls().map_err(|error| StartError(format!("config.scrape_configs[{index}] ({name}): {error}")))?;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            next: Arc::clone(next),
            clock: Arc::clone(&self.clock),
            admission: Admission::new(IN_FLIGHT_PER_CORE.saturating_mul(cores)),
            gates: self.gates.clone(),
            stats: Stats::new(&self.telemetry, &self.id),
        });
        let _ = self.shared.set(Arc::clone(&shared));
        let manager = Manager {
            jobs: Arc::clone(&self.jobs),
            shared,
            runtimes: Arc::clone(&host.runtimes),
            stop: self.stop.subscribe(),
        };
        *self.manager.lock() = Some(host.runtimes.spawn(manager.run()));
        Ok(())
    }

    fn status(&self) -> Option<Status> {
        Some(self.shared.get()?.stats.outages.status())
    }

    async fn shutdown(&self, deadline: Instant) {
        let _ = self.stop.send(true);
        let manager = self.manager.lock().take();
        let Some(manager) = manager else { return };
        if tokio::time::timeout_at(deadline, manager).await.is_err() {
            tracing::warn!(receiver = self.id, "scrapes were still being processed at the deadline");
        }
    }
}

impl Receiver for PrometheusReceiver {}
