//! The keys of `otlp_json_file`.

use nyquist_core::config::{ByteSize, Check, Duration, Validate};
use serde::Deserialize;

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
    }
}
