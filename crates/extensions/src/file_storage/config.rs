//! The keys of `file_storage`.

use std::fmt;
use std::path::PathBuf;

use nyquist_core::config::{ByteSize, Check, Duration, Validate};
use nyquist_core::storage::Fsync;
use serde::{Deserialize, Deserializer, de};

/// The extension's section.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct FileStorageConfig {
    /// Where. Default `/var/lib/otelcol/file_storage`.
    pub directory: PathBuf,
    /// Make the directory if it is missing. Default false.
    pub create_directory: bool,
    /// The mode of a directory that is made, octal. Default `0750`.
    pub directory_permissions: Permissions,
    /// How long to wait for another process to let go of a user's directory. Default 1s.
    pub timeout: Duration,
    /// `false`, `true`, or the time within which fsync follows. Default false.
    pub fsync: FsyncLevel,
    /// The most that the files of one user may take; 0 for no limit. Default 0.
    pub max_size: ByteSize,
    /// The Collector's: start anew if the file is corrupt. Nothing to choose here.
    pub recreate: bool,
    /// The Collector's. Nothing to compact here.
    pub compaction: Option<Compaction>,
}

impl Default for FileStorageConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/lib/otelcol/file_storage"),
            create_directory: false,
            directory_permissions: Permissions(0o750),
            timeout: Duration::from_secs(1),
            fsync: FsyncLevel(Fsync::None),
            max_size: ByteSize::default(),
            recreate: false,
            compaction: None,
        }
    }
}

/// `compaction`: accepted, without effect.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Compaction {
    /// Ignored.
    pub on_start: bool,
    /// Ignored.
    pub on_rebound: bool,
    /// Ignored.
    pub directory: String,
    /// Ignored.
    pub rebound_needed_threshold_mib: u64,
    /// Ignored.
    pub rebound_trigger_threshold_mib: u64,
    /// Ignored.
    pub max_transaction_size: u64,
    /// Ignored.
    pub check_interval: Duration,
    /// Ignored.
    pub cleanup_on_start: bool,
}

/// `directory_permissions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions(pub u32);

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.trim_start_matches("0o");
        let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777);
        mode.map(Self).ok_or_else(|| {
            de::Error::custom(format!("invalid permissions {text:?}: write three octal digits, like \"0750\""))
        })
    }
}

/// `fsync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsyncLevel(pub Fsync);

impl<'de> Deserialize<'de> for FsyncLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = FsyncLevel;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("true, false, or a duration like 1s")
            }

            fn visit_bool<E: de::Error>(self, always: bool) -> Result<FsyncLevel, E> {
                Ok(FsyncLevel(if always { Fsync::Always } else { Fsync::None }))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<FsyncLevel, E> {
                let interval: Duration = text.parse().map_err(|error| {
                    E::custom(format!("{error}; fsync is true (always), false (never), or a duration like 1s"))
                })?;
                Ok(FsyncLevel(if interval.0.is_zero() { Fsync::Always } else { Fsync::Interval(interval.0) }))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The smallest limit: less would not hold a request worth the name.
const LEAST: u64 = 64 << 10;

impl Validate for FileStorageConfig {
    fn validate(&self, check: &mut Check<'_>) {
        let directory = self.directory.display();
        if self.directory.as_os_str().is_empty() {
            check.error(&["directory"], "must not be empty: it is where the data goes");
        } else {
            match std::fs::metadata(&self.directory) {
                Ok(found) if !found.is_dir() => {
                    check.error(&["directory"], format!("{directory} is not a directory"));
                }
                Err(error) if !self.create_directory => check.error_with(
                    &["directory"],
                    format!("directory must exist: {directory}: {error}"),
                    "make it, or write create_directory: true",
                ),
                Ok(_) | Err(_) => {}
            }
        }
        if self.create_directory && self.directory_permissions.0 & 0o700 != 0o700 {
            check
                .error(&["directory_permissions"], "the owner must be allowed to read, write and enter: like \"0750\"");
        }
        if (1..LEAST).contains(&self.max_size.0) {
            let message =
                format!("`max_size` must be at least {LEAST} bytes, or 0 for no limit; {} is not", self.max_size.0);
            check.error(&["max_size"], message);
        }
        if self.recreate {
            check.warning(
                &["recreate"],
                "has no effect: what cannot be read is always set aside (*.corrupt), counted and logged, and the rest is used",
            );
        }
        if self.compaction.is_some() {
            check.warning(
                &["compaction"],
                "has no effect: the log gives disk space back by whole segments, there is nothing to compact",
            );
        }
    }
}
