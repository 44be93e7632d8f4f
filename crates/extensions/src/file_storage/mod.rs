//! `file_storage`: a directory in which components keep what must survive the process.

mod config;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::component::{
    BuildError, Component, Extension, ExtensionConfig, ExtensionContext, ExtensionFactory, Host, Info, Stability,
    StartError, Trouble, extension,
};
use nyquist_core::delivery::Status;
use nyquist_core::storage::{Error, Log, Monitor, Options, Owner, Recovered, Storage};
use nyquist_core::telemetry::Telemetry;
use parking_lot::Mutex;

pub use config::{Compaction, FileStorageConfig, FsyncLevel, Permissions};

/// The factory of `file_storage`.
#[must_use]
pub fn factory() -> ExtensionFactory {
    extension::<FileStorageConfig>(Info {
        name: "file_storage",
        aliases: &[],
        signals: &[],
        stability: Stability::Beta,
    })
}

impl ExtensionConfig for FileStorageConfig {
    fn build(&self, context: ExtensionContext) -> Result<Arc<dyn Extension>, BuildError> {
        let directory = Directory {
            id: context.id.to_string(),
            config: self.clone(),
            telemetry: context.telemetry,
            logs: Mutex::default(),
        };
        Ok(Arc::new(FileStorage { directory: Arc::new(directory) }))
    }
}

/// The extension.
struct FileStorage {
    directory: Arc<Directory>,
}

#[async_trait]
impl Component for FileStorage {
    async fn start(&self, _: &Host) -> Result<(), StartError> {
        let directory = Arc::clone(&self.directory);
        let prepared = tokio::task::spawn_blocking(move || directory.prepare()).await;
        let prepared = prepared.map_err(|error| StartError(error.to_string()))?;
        prepared.map_err(|error| StartError(error.to_string()))
    }

    /// The first of its logs that cannot be written to.
    fn status(&self) -> Option<Status> {
        let logs = self.directory.logs.lock();
        let states = logs.iter().map(|(name, monitor, trouble)| {
            trouble.set(monitor.failing().map(|error| format!("{name}: {error}")));
            trouble.status()
        });
        states.reduce(Status::and)
    }
}

impl Extension for FileStorage {
    fn storage(&self) -> Option<Arc<dyn Storage>> {
        Some(Arc::clone(&self.directory) as Arc<dyn Storage>)
    }
}

/// The place, as components see it.
struct Directory {
    id: String,
    config: FileStorageConfig,
    telemetry: Arc<Telemetry>,
    /// What has been opened, by the name of its directory.
    logs: Mutex<Vec<(String, Monitor, Trouble)>>,
}

impl Directory {
    /// Makes the directory if it may, and says what is in it that nobody will read.
    fn prepare(&self) -> Result<(), Error> {
        let FileStorageConfig { directory, create_directory, directory_permissions, .. } = &self.config;
        if *create_directory {
            let made = fs::DirBuilder::new().recursive(true).mode(directory_permissions.0).create(directory);
            made.map_err(|error| self.unusable(&error))?;
        }
        let mut foreign = Vec::new();
        for entry in fs::read_dir(directory).map_err(|error| self.unusable(&error))? {
            let entry = entry.map_err(|error| self.unusable(&error))?;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                foreign.push(format!("{} ({} bytes)", entry.file_name().display(), metadata.len()));
            }
        }
        if !foreign.is_empty() {
            foreign.sort();
            foreign.truncate(20);
            tracing::warn!(
                component = self.id,
                directory = %directory.display(),
                files = foreign.join(", "),
                "files of another format are here (the Collector's queues?): they are left alone, and what they hold is \
                 not sent; let the program that wrote them deliver it first"
            );
        }
        Ok(())
    }

    fn unusable(&self, error: &io::Error) -> Error {
        let directory = self.config.directory.display();
        let message = match error.kind() {
            io::ErrorKind::NotFound => {
                format!("directory must exist: {directory}: {error}; make it, or write create_directory: true")
            }
            _ => format!("cannot use the directory {directory}: {error}"),
        };
        Error::Directory { message }
    }

    fn options(&self, owner: &Owner) -> Options {
        Options {
            directory: Path::new(&self.config.directory).join(owner.directory_name()),
            fsync: self.config.fsync.0,
            max_bytes: self.config.max_size.0,
            lock_timeout: self.config.timeout.0,
            format: owner.format,
        }
    }
}

#[async_trait]
impl Storage for Directory {
    async fn open(&self, owner: &Owner) -> Result<(Log, Recovered), Error> {
        let options = self.options(owner);
        let (log, recovered) = Log::open(&options).await?;
        log.report_to(&self.telemetry, &self.id, &owner.directory_name());
        self.logs.lock().push((owner.directory_name(), log.monitor(), Trouble::default()));
        tracing::info!(
            component = self.id,
            directory = %options.directory.display(),
            records = recovered.records,
            items = recovered.weight,
            bytes = recovered.bytes,
            "storage is open"
        );
        Ok((log, recovered))
    }
}
