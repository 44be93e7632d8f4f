//! The keys of `otlp_json_file`.

use nyquist_core::config::{ByteSize, Check, Duration, Validate};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::glob::Glob;

/// Where reading a file begins that is there when the gateway starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    /// At its beginning.
    Beginning,
    /// Behind what it holds.
    #[default]
    End,
}

/// Which files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// None.
    #[default]
    #[serde(alias = "")]
    None,
    /// All, with gzip.
    Gzip,
    /// Those whose name ends in `.gz`, with gzip.
    Auto,
}

/// `receivers.otlp_json_file`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct OtlpJsonFileConfig {
    /// Patterns of the files to read.
    pub include: Vec<String>,
    /// Patterns of files to leave alone.
    pub exclude: Vec<String>,
    /// Where reading begins: `beginning` or `end`. Files that come later are read from their beginning.
    /// Default `end`.
    pub start_at: StartAt,
    /// How often files are looked at. Default 200ms.
    pub poll_interval: Duration,
    /// The longest line; longer ones are left out and counted. Default 64MiB.
    pub max_log_size: ByteSize,
    /// How many files are followed at once. Default 1024.
    pub max_concurrent_files: usize,
    /// `utf-8`, which JSON is written in.
    pub encoding: String,
    /// Begin again at the beginning when the end has been reached. Default false.
    pub replay_file: bool,
    /// `gzip`, or `auto` for files whose name ends in `.gz`. Default none.
    pub compression: Compression,
    /// Files that were changed longer ago are left alone; 0 for none. Default 0.
    pub exclude_older_than: Duration,
    /// The extension that keeps how far files were read. Default none: it is forgotten at the end.
    pub storage: Option<String>,
    pub(super) multiline: Option<IgnoredAny>,
    pub(super) header: Option<IgnoredAny>,
    pub(super) ordering_criteria: Option<IgnoredAny>,
    pub(super) delete_after_read: bool,
    pub(super) acquire_fs_lock: bool,
    pub(super) fingerprint_size: Option<IgnoredAny>,
    pub(super) initial_buffer_size: Option<IgnoredAny>,
    pub(super) max_batches: Option<IgnoredAny>,
    pub(super) force_flush_period: Option<IgnoredAny>,
    pub(super) polls_to_archive: Option<IgnoredAny>,
    pub(super) preserve_leading_whitespaces: Option<IgnoredAny>,
    pub(super) preserve_trailing_whitespaces: Option<IgnoredAny>,
    pub(super) include_file_name: Option<IgnoredAny>,
    pub(super) include_file_path: Option<IgnoredAny>,
    pub(super) include_file_name_resolved: Option<IgnoredAny>,
    pub(super) include_file_path_resolved: Option<IgnoredAny>,
    pub(super) include_file_owner_name: Option<IgnoredAny>,
    pub(super) include_file_owner_group_name: Option<IgnoredAny>,
    pub(super) include_file_record_number: Option<IgnoredAny>,
    pub(super) include_file_record_offset: Option<IgnoredAny>,
}

impl Default for OtlpJsonFileConfig {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            start_at: StartAt::End,
            poll_interval: Duration::from_millis(200),
            max_log_size: ByteSize::mib(64),
            max_concurrent_files: 1024,
            encoding: "utf-8".to_owned(),
            replay_file: false,
            compression: Compression::None,
            exclude_older_than: Duration::from_secs(0),
            storage: None,
            multiline: None,
            header: None,
            ordering_criteria: None,
            delete_after_read: false,
            acquire_fs_lock: false,
            fingerprint_size: None,
            initial_buffer_size: None,
            max_batches: None,
            force_flush_period: None,
            polls_to_archive: None,
            preserve_leading_whitespaces: None,
            preserve_trailing_whitespaces: None,
            include_file_name: None,
            include_file_path: None,
            include_file_name_resolved: None,
            include_file_path_resolved: None,
            include_file_owner_name: None,
            include_file_owner_group_name: None,
            include_file_record_number: None,
            include_file_record_offset: None,
        }
    }
}

impl OtlpJsonFileConfig {
    /// Is the file with this name compressed?
    pub(super) fn is_compressed(&self, name: &str) -> bool {
        match self.compression {
            Compression::None => false,
            Compression::Gzip => true,
            Compression::Auto => name.ends_with(".gz"),
        }
    }

    /// The Collector's keys that would make a difference, and do not here.
    fn refuse_what_is_not_built(&self, check: &mut Check<'_>) {
        let not_built = [
            (
                "multiline",
                self.multiline.is_some(),
                "is not supported: a request is a line; `jq -c .` makes one line of each",
            ),
            ("header", self.header.is_some(), "is not supported: OTLP/JSON has none"),
            (
                "ordering_criteria",
                self.ordering_criteria.is_some(),
                "is not supported: all files are read, in the order of their inodes; narrow `include` instead",
            ),
            (
                "delete_after_read",
                self.delete_after_read,
                "is not supported: remove files by age, and keep `storage` so that none is read twice",
            ),
            ("acquire_fs_lock", self.acquire_fs_lock, "is not supported: let one receiver read a file"),
        ];
        for (key, is_there, message) in not_built {
            if is_there {
                check.error(&[key], format!("`{key}` {message}"));
            }
        }
    }

    /// The Collector's keys that mean nothing here.
    fn warn_of_what_has_no_effect(&self, check: &mut Check<'_>) {
        const BY_INODE: &str = "has no effect: files are known by their inode";
        const BUFFERS: &str = "has no effect: buffers grow as they need";
        const NO_ATTRIBUTES: &str = "has no effect, as in the Collector: what is read is not changed";
        const JSON: &str = "has no effect: white space around JSON means nothing";
        let without_effect = [
            ("fingerprint_size", &self.fingerprint_size, BY_INODE),
            ("initial_buffer_size", &self.initial_buffer_size, BUFFERS),
            ("max_batches", &self.max_batches, "has no effect: files are read one after the other"),
            (
                "force_flush_period",
                &self.force_flush_period,
                "has no effect: a last line is taken once it is whole and has stopped growing",
            ),
            ("polls_to_archive", &self.polls_to_archive, "has no effect: `storage` keeps all files that are followed"),
            ("preserve_leading_whitespaces", &self.preserve_leading_whitespaces, JSON),
            ("preserve_trailing_whitespaces", &self.preserve_trailing_whitespaces, JSON),
            ("include_file_name", &self.include_file_name, NO_ATTRIBUTES),
            ("include_file_path", &self.include_file_path, NO_ATTRIBUTES),
            ("include_file_name_resolved", &self.include_file_name_resolved, NO_ATTRIBUTES),
            ("include_file_path_resolved", &self.include_file_path_resolved, NO_ATTRIBUTES),
            ("include_file_owner_name", &self.include_file_owner_name, NO_ATTRIBUTES),
            ("include_file_owner_group_name", &self.include_file_owner_group_name, NO_ATTRIBUTES),
            ("include_file_record_number", &self.include_file_record_number, NO_ATTRIBUTES),
            ("include_file_record_offset", &self.include_file_record_offset, NO_ATTRIBUTES),
        ];
        for (key, value, message) in without_effect {
            if value.is_some() {
                check.warning(&[key], message);
            }
        }
    }
}

impl Validate for OtlpJsonFileConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.include.is_empty() {
            check.error(&["include"], "required argument `include` is empty: list the files to read");
        }
        for (key, patterns) in [("include", &self.include), ("exclude", &self.exclude)] {
            for (index, pattern) in patterns.iter().enumerate() {
                if let Err(message) = Glob::new(pattern) {
                    check.error(&[key, &index.to_string()], message);
                }
            }
        }
        if self.poll_interval.0.is_zero() {
            check.error(&["poll_interval"], "must be positive; the usual value is 200ms");
        }
        if self.max_log_size.0 == 0 {
            check.error(&["max_log_size"], "`max_log_size` must be positive");
        }
        if self.max_concurrent_files < 2 {
            check.error(&["max_concurrent_files"], "`max_concurrent_files` must be greater than 1");
        }
        if !matches!(self.encoding.to_ascii_lowercase().as_str(), "utf-8" | "utf8") {
            check.error(&["encoding"], format!("{:?} is not supported: JSON is written in utf-8", self.encoding));
        }
        if self.replay_file && self.start_at == StartAt::End {
            check.error(&["replay_file"], "`replay_file` needs `start_at: beginning`");
        }
        if self.replay_file && self.storage.is_some() {
            check.error(&["storage"], "`replay_file` reads files again and again: remove it, or `storage`");
        }
        self.refuse_what_is_not_built(check);
        self.warn_of_what_has_no_effect(check);
    }
}
