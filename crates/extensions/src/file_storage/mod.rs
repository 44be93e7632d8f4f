//! `file_storage`: a directory in which components keep what must survive the process.

mod config;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::component::{
    BuildError, Component, Extension, ExtensionConfig, ExtensionContext, ExtensionFactory, Host, Info, Stability,
    StartError, extension,
};
use nyquist_core::delivery::Status;
use nyquist_core::storage::{Directory, Error, Options, Storage};

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
        let id = context.id.to_string();
        let options = Options {
            fsync: self.fsync.0,
            max_bytes: self.max_size.0,
            lock_timeout: self.timeout.0,
            ..Options::new(self.directory.clone())
        };
        let directory = Arc::new(Directory::new(id.clone(), options, context.telemetry));
        Ok(Arc::new(FileStorage { place: Place { id, config: self.clone() }, directory }))
    }
}

/// The extension.
struct FileStorage {
    place: Place,
    directory: Arc<Directory>,
}

#[async_trait]
impl Component for FileStorage {
    async fn start(&self, _: &Host) -> Result<(), StartError> {
        let place = self.place.clone();
        let prepared = tokio::task::spawn_blocking(move || place.prepare()).await;
        let prepared = prepared.map_err(|error| StartError(error.to_string()))?;
        prepared.map_err(|error| StartError(error.to_string()))
    }

    fn status(&self) -> Option<Status> {
        self.directory.status()
    }
}

impl Extension for FileStorage {
    fn storage(&self) -> Option<Arc<dyn Storage>> {
        Some(Arc::clone(&self.directory) as Arc<dyn Storage>)
    }
}

/// Where the directory is.
#[derive(Clone)]
struct Place {
    id: String,
    config: FileStorageConfig,
}

impl Place {
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
}
