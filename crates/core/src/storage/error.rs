//! What can go wrong.

use std::io;
use std::path::PathBuf;

use crate::batch::{Code, Refusal};

/// The log did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The size limit is reached; room comes when records are released.
    #[error("storage is full: {used} of {limit} bytes are in use (max_size)")]
    Full {
        /// Bytes of files.
        used: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file system has no room, or the quota is used up.
    #[error("no space left on the disk under {directory:?}: {message}")]
    NoSpace {
        /// The log's directory.
        directory: PathBuf,
        /// What the operating system says.
        message: String,
    },
    /// The record can never fit.
    #[error(
        "a record of {bytes} bytes does not fit into a storage of {limit} bytes; raise max_size or send less at once"
    )]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// What fits.
        limit: u64,
    },
    /// The disk failed. Nothing of the record is promised.
    #[error("storage under {directory:?} failed: {message}")]
    Io {
        /// The log's directory.
        directory: PathBuf,
        /// What the operating system says.
        message: String,
    },
    /// Another process has the log open.
    #[error("{directory:?} is in use by another process; give each gateway a storage directory of its own")]
    Locked {
        /// The log's directory.
        directory: PathBuf,
    },
    /// A newer version of the gateway wrote the log. Nothing of it was touched.
    #[error(
        "{directory:?} was written by a newer version of nyquist: {file} has version {version} of the storage format, \
         and this one knows up to {known}; start the newer one again until all is delivered, or name another directory"
    )]
    Newer {
        /// The log's directory.
        directory: PathBuf,
        /// The first such file.
        file: String,
        /// The version of the format that it has.
        version: u32,
        /// The last version that can be read.
        known: u32,
    },
    /// The directory is not there or cannot be used.
    #[error("{message}")]
    Directory {
        /// What, and what to do.
        message: String,
    },
    /// The log has been closed.
    #[error("the storage is closed")]
    Closed,
}

impl Error {
    pub(super) fn from_io(directory: &std::path::Path, error: &io::Error) -> Self {
        let directory = directory.to_owned();
        let message = error.to_string();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { directory, message },
            _ => Self::Io { directory, message },
        }
    }

    /// Will it pass?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::Newer { .. })
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        if error.is_retryable() {
            Self::retryable(None, message)
        } else {
            Self::permanent(message).with_code(Code::InvalidArgument)
        }
    }
}
