//! Where targets come from.

use std::collections::BTreeMap;

use nyquist_core::config::{Check, Validate};
use serde::Deserialize;

use super::PromDuration;

/// One of `static_configs`; the files of `file_sd_configs` hold lists of the same.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StaticConfig {
    /// `host:port`.
    pub targets: Vec<String>,
    /// Labels of all of them.
    pub labels: BTreeMap<String, String>,
}

/// One of `file_sd_configs`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct FileSd {
    /// Paths, each with at most one `*` in its last part, that end with `.json`, `.yml` or `.yaml`.
    pub files: Vec<String>,
    /// How often to read them at the least; they are looked at every 5 s in any case.
    pub refresh_interval: PromDuration,
}

impl Default for FileSd {
    fn default() -> Self {
        Self { files: Vec::new(), refresh_interval: PromDuration::from_secs(300) }
    }
}

impl Validate for StaticConfig {
    fn validate(&self, check: &mut Check<'_>) {
        for (index, target) in self.targets.iter().enumerate() {
            if let Err(message) = check_address(target) {
                check.error(&["targets", &index.to_string()], message);
            }
        }
    }
}

impl Validate for FileSd {
    fn validate(&self, check: &mut Check<'_>) {
        if self.files.is_empty() {
            check.error(&["files"], "name at least one file");
        }
        check.without_effect(&["refresh_interval"], "the files are looked at every 5s");
        if self.refresh_interval.0.is_zero() {
            check.error(&["refresh_interval"], "must be longer than 0");
        }
        for (index, file) in self.files.iter().enumerate() {
            let path = ["files", &index.to_string()];
            let is_known = [".json", ".yml", ".yaml"].iter().any(|suffix| file.ends_with(suffix));
            let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
            if !is_known {
                check.error(&path, format!("{file:?} must end with .json, .yml or .yaml"));
            } else if folder.contains('*') || name.matches('*').count() > 1 {
                check.error(&path, format!("{file:?}: one * may stand in the last part of the path, and nowhere else"));
            }
        }
    }
}

/// What is wrong with an address of a target, if something is.
pub(crate) fn check_address(address: &str) -> Result<(), String> {
    if address.contains('/') {
        let advice = "write host:port here, and the rest as scheme and metrics_path";
        return Err(format!("{address:?} is not a valid hostname: {advice}"));
    }
    Ok(())
}
