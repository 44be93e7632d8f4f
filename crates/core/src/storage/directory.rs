//! A directory with a log for each user.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Error, Log, Monitor, Options, Owner, Recovered, Storage};
use crate::component::Trouble;
use crate::delivery::Status;
use crate::telemetry::Telemetry;

/// A directory in which each owner has a log in a directory of its own. What it is made of: `file_storage`, and
/// exporters with a place of their own.
pub struct Directory {
    /// The component whose directory this is, as logs and metrics name it.
    component: String,
    /// What the logs have in common; their directories are below this one.
    options: Options,
    telemetry: Arc<Telemetry>,
    /// What has been opened, by the name of its directory.
    logs: Mutex<Vec<(String, Monitor, Trouble)>>,
}

impl Directory {
    /// The directory of `options`, with logs as these say, except for their format, which each owner has. Touches nothing yet.
    #[must_use]
    pub fn new(component: String, options: Options, telemetry: Arc<Telemetry>) -> Self {
        Self { component, options, telemetry, logs: Mutex::default() }
    }

    /// The first of its logs that cannot be written to; nothing before one is open.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        let logs = self.logs.lock();
        let states = logs.iter().map(|(name, monitor, trouble)| {
            trouble.set(monitor.failing().map(|error| format!("{name}: {error}")));
            trouble.status()
        });
        states.reduce(Status::and)
    }
}

#[async_trait]
impl Storage for Directory {
    async fn open(&self, owner: &Owner) -> Result<(Log, Recovered), Error> {
        let name = owner.directory_name();
        let directory = self.options.directory.join(&name);
        let options = Options { directory, format: owner.format, ..self.options.clone() };
        let (log, recovered) = Log::open(&options).await?;
        log.report_to(&self.telemetry, &self.component, &name);
        self.logs.lock().push((name, log.monitor(), Trouble::default()));
        tracing::info!(
            component = self.component,
            directory = %options.directory.display(),
            records = recovered.records,
            items = recovered.weight,
            bytes = recovered.bytes,
            "storage is open"
        );
        Ok((log, recovered))
    }
}
