//! Targets from files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use nyquist_core::config::{Check, Validate, from_str};
use serde::Deserialize;

use super::config::StaticConfig;

/// More than this is no list of targets.
const MAX_FILE: u64 = 64 << 20;

/// The groups of one file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
struct Groups(Vec<StaticConfig>);

impl Validate for Groups {
    fn validate(&self, check: &mut Check<'_>) {
        for (index, group) in self.0.iter().enumerate() {
            check.nested(&[&index.to_string()], group);
        }
    }
}

/// What the files that `patterns` name hold.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// The text of each file that could be read, and its groups.
    read: BTreeMap<String, (String, Vec<StaticConfig>)>,
    /// What was last complained about, by file.
    complaints: BTreeMap<String, String>,
}

impl Files {
    /// Reads the files again. Whether anything is different. A file that cannot be read, or not
    /// understood, keeps the targets it had; one that is gone has none.
    pub(crate) fn refresh(&mut self, patterns: &[String]) -> bool {
        let mut found = Vec::new();
        let mut complaints = BTreeMap::new();
        for pattern in patterns {
            match matching(pattern) {
                Ok(paths) => found.extend(paths),
                Err(error) => drop(complaints.insert(pattern.clone(), error)),
            }
        }
        let mut changed = false;
        self.read.retain(|path, _| {
            let stays = found.contains(path);
            changed |= !stays;
            stays
        });
        for path in found {
            match read(&path) {
                Ok(text) if self.read.get(&path).is_some_and(|(known, _)| *known == text) => {}
                Ok(text) => match parse(&text, &path) {
                    Ok(groups) => {
                        self.read.insert(path, (text, groups));
                        changed = true;
                    }
                    Err(error) => drop(complaints.insert(path, error)),
                },
                Err(error) => drop(complaints.insert(path, error)),
            }
        }
        for (path, error) in &complaints {
            if self.complaints.get(path) != Some(error) {
                tracing::warn!(file = path, error, "cannot read targets; those known before stay");
            }
        }
        self.complaints = complaints;
        changed
    }

    /// All groups, each with the file it is from as `__meta_filepath`.
    pub(crate) fn groups(&self) -> Vec<StaticConfig> {
        let mut all = Vec::new();
        for (path, (_, groups)) in &self.read {
            for group in groups {
                let mut group = group.clone();
                group.labels.insert("__meta_filepath".to_owned(), path.clone());
                all.push(group);
            }
        }
        all
    }
}

fn parse(text: &str, path: &str) -> Result<Vec<StaticConfig>, String> {
    match from_str::<Groups>(text) {
        Ok((groups, _)) => Ok(groups.0),
        Err(diagnostics) => {
            let first = diagnostics.errors.first().map(ToString::to_string).unwrap_or_default();
            Err(first.replace("config.yaml", path))
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "bounded by take")]
fn read(path: &str) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("has more than {} MiB", MAX_FILE >> 20));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// The files that `pattern` matches.
fn matching(pattern: &str) -> Result<Vec<String>, String> {
    let (folder, name) = pattern.rsplit_once('/').map_or((".", pattern), |(folder, name)| (folder, name));
    let Some((before, after)) = name.split_once('*') else {
        return if Path::new(pattern).exists() {
            Ok(vec![pattern.to_owned()])
        } else {
            Err("there is no such file".to_owned())
        };
    };
    let folder = if folder.is_empty() { "/" } else { folder };
    let entries = fs::read_dir(folder).map_err(|error| format!("cannot read the folder: {error}"))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_match = name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after);
        if is_match {
            found.push(format!("{}/{name}", folder.trim_end_matches('/')));
        }
    }
    found.sort();
    Ok(found)
}
