//! The keys of the `file` exporter.

use nyquist_core::config::{Check, Duration, Enabled, Validate};
use nyquist_core::delivery::{QueueConfig, RetryConfig};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// How requests are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// OTLP/JSON, one request on a line.
    #[default]
    Json,
    /// OTLP protobuf, each request behind its length.
    Proto,
}

/// What the `file` exporter is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct FileConfig {
    /// The file. With `group_by`, it holds one `*`.
    pub path: String,
    /// `json` or `proto`. Default `json`.
    pub format: Format,
    /// Go on behind what the file holds, instead of emptying it. Default false.
    pub append: bool,
    /// When the file is set aside for a new one. Default: never.
    pub rotation: Enabled<Rotation>,
    /// `zstd` compresses each request. Default none.
    pub compression: String,
    /// How often what was written is made to survive a power cut. Default 1s.
    pub flush_interval: Duration,
    /// A file for each value of a resource attribute. Default off.
    pub group_by: GroupBy,
    /// Make the folder of the file if it is missing. Default false.
    pub create_directory: bool,
    /// The permissions of files that are made, in octal. Default `0600`.
    pub file_permissions: String,
    /// The permissions of folders that are made, in octal. Default `0755`.
    pub directory_permissions: String,
    /// The queue. Default: off.
    pub sending_queue: QueueConfig,
    /// What becomes of what cannot be written. Default: off, the sender is refused.
    pub retry_on_failure: RetryConfig,
    /// Not built.
    pub encoding: Option<IgnoredAny>,
}

impl Default for FileConfig {
    fn default() -> Self {
        Self {
            path: String::new(),
            format: Format::Json,
            append: false,
            rotation: Enabled::Off,
            compression: String::new(),
            flush_interval: Duration::from_secs(1),
            group_by: GroupBy::default(),
            create_directory: false,
            file_permissions: String::new(),
            directory_permissions: String::new(),
            sending_queue: QueueConfig::disabled(),
            retry_on_failure: RetryConfig { enabled: false, ..RetryConfig::default() },
            encoding: None,
        }
    }
}

/// `rotation`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Rotation {
    /// The size, in MiB, that a file does not pass. Default 100.
    pub max_megabytes: u64,
    /// How many days old files are kept; 0: for ever. Default 0.
    pub max_days: u64,
    /// How many old files are kept; 0: all. Default 100.
    pub max_backups: usize,
    /// Accepted; old files are always named after the time in UTC.
    pub localtime: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_megabytes: 100, max_days: 0, max_backups: 100, localtime: false }
    }
}

/// `group_by`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GroupBy {
    /// Default false.
    pub enabled: bool,
    /// The resource attribute whose value stands for the `*`. Default `fileexporter.path_segment`.
    pub resource_attribute: String,
    /// How many files are open at once. Default 100.
    pub max_open_files: usize,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self { enabled: false, resource_attribute: "fileexporter.path_segment".to_owned(), max_open_files: 100 }
    }
}

impl FileConfig {
    /// Is each request compressed?
    pub(super) fn is_compressed(&self) -> bool {
        self.compression == "zstd"
    }

    /// Does each request stand behind its length, instead of on a line of its own?
    pub(super) fn is_framed(&self) -> bool {
        self.format == Format::Proto || self.is_compressed()
    }

    /// The permissions of files to make. There may be secrets in telemetry.
    pub(super) fn file_mode(&self) -> u32 {
        mode(&self.file_permissions, "0600").unwrap_or(0o600)
    }

    /// The permissions of folders to make; `None` if none are made.
    pub(super) fn directory_mode(&self) -> Option<u32> {
        let mode = mode(&self.directory_permissions, "0755")?;
        (self.create_directory || self.group_by.enabled).then_some(mode)
    }
}

/// The mode that `text` is in octal digits, or else `default`; `None` if it is none.
fn mode(text: &str, default: &str) -> Option<u32> {
    let text = if text.is_empty() { default } else { text };
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)
}

impl Validate for FileConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.path.is_empty() {
            check.error(&["path"], "path must be non-empty: name the file to write to");
        }
        if !matches!(self.compression.as_str(), "" | "none" | "zstd") {
            check.error(&["compression"], format!("{:?} is not supported; zstd is", self.compression));
        }
        if self.encoding.is_some() {
            let message = "encoding extensions are not supported: use `format: json` or `format: proto`";
            check.error(&["encoding"], message);
        }
        if self.append && self.is_compressed() {
            check.error(&["append"], "append and compression enabled at the same time is not supported");
        }
        if self.append && self.rotation.is_on() {
            check.error(&["append"], "append and rotation enabled at the same time is not supported");
        }
        if let Some(rotation) = self.rotation.as_ref() {
            if rotation.max_megabytes == 0 {
                check.error(&["rotation", "max_megabytes"], "must be positive; the usual value is 100");
            }
            if rotation.localtime {
                check.warning(&["rotation", "localtime"], "has no effect: old files are named after the time in UTC");
            }
            if self.group_by.enabled {
                check.warning(&["rotation"], "has no effect with group_by, as in the Collector");
            }
        }
        if self.group_by.enabled {
            self.validate_groups(check);
        }
        match mode(&self.file_permissions, "0600") {
            None => check.error(&["file_permissions"], "must be an octal number up to 0777, like \"0640\""),
            Some(mode) if mode & 0o600 != 0o600 => {
                check.error(&["file_permissions"], "the owner must be allowed to read and write, like \"0640\"");
            }
            Some(_) => {}
        }
        if !self.directory_permissions.is_empty() {
            if !self.create_directory {
                check.error(&["directory_permissions"], "directory_permissions requires create_directory to be true");
            } else if self.directory_mode().is_none() {
                check.error(&["directory_permissions"], "must be an octal number up to 0777, like \"0755\"");
            }
        }
        check.nested(&["sending_queue"], &self.sending_queue);
        check.nested(&["retry_on_failure"], &self.retry_on_failure.beside(&self.sending_queue));
        if self.sending_queue.enabled && !self.retry_on_failure.enabled {
            check.warning(
                &["sending_queue"],
                "what cannot be written is dropped: write `retry_on_failure: {enabled: true}` to try again",
            );
        }
    }
}

impl FileConfig {
    fn validate_groups(&self, check: &mut Check<'_>) {
        if self.path.matches('*').count() != 1 {
            check.error(&["path"], "path must contain exactly one * when group_by is enabled");
        }
        if self.path.starts_with('*') {
            check.error(&["path"], "path must not start with * when group_by is enabled");
        }
        if self.group_by.resource_attribute.is_empty() {
            let message = "resource_attribute must not be empty when group_by is enabled";
            check.error(&["group_by", "resource_attribute"], message);
        }
        if self.group_by.max_open_files == 0 {
            check.error(&["group_by", "max_open_files"], "must be positive; the usual value is 100");
        }
    }
}
