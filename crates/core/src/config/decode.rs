//! From a node to a checked configuration.

use serde::de::DeserializeOwned;

use super::expand::join;
use super::{Diagnostics, Node, Problem, Source, de, yaml};

/// Checks beyond types: bounds, and rules between keys.
pub trait Validate {
    /// Reports what is wrong with `self`.
    fn validate(&self, check: &mut Check<'_>) {
        let _ = check;
    }
}

impl<T: Validate> Validate for Option<T> {
    fn validate(&self, check: &mut Check<'_>) {
        if let Some(value) = self {
            value.validate(check);
        }
    }
}

/// Where a [`Validate`] implementation reports. Paths are relative to the value being checked: keys,
/// and indices of lists in digits. A report points at the deepest part of its path that exists.
pub struct Check<'a> {
    diagnostics: &'a mut Diagnostics,
    node: &'a Node,
    prefix: Vec<String>,
    /// Keys were unknown: what is missing may be one of them, misspelt.
    only_present: bool,
}

impl Check<'_> {
    /// An error at `path` below the checked value: `["retry_on_failure", "multiplier"]`.
    pub fn error(&mut self, path: &[&str], message: impl Into<String>) {
        self.report(path, Problem::error(message));
    }

    /// An error with advice: `["compression"]`, `unknown codec "brotli"`, `write gzip or zstd`.
    pub fn error_with(&mut self, path: &[&str], message: impl Into<String>, suggestion: impl Into<String>) {
        self.report(path, Problem::error(message).suggest(suggestion));
    }

    /// A warning at `path` below the checked value.
    pub fn warning(&mut self, path: &[&str], message: impl Into<String>) {
        self.report(path, Problem::warning(message));
    }

    /// Checks `value`, which stands at `path`.
    pub fn nested(&mut self, path: &[&str], value: &impl Validate) {
        let depth = self.prefix.len();
        self.prefix.extend(path.iter().map(ToString::to_string));
        value.validate(self);
        self.prefix.truncate(depth);
    }

    /// Whether `path` below the checked value was written at all.
    #[must_use]
    pub fn is_written(&self, path: &[&str]) -> bool {
        let own = self.prefix.iter().map(String::as_str).chain(path.iter().copied());
        let mut node = self.node;
        for part in own {
            let next = match part.parse::<usize>() {
                Ok(index) if !node.items().is_empty() => node.items().get(index),
                _ => node.get(part),
            };
            let Some(next) = next else { return false };
            node = next;
        }
        true
    }

    fn report(&mut self, path: &[&str], problem: Problem) {
        if self.only_present && !self.is_written(path) {
            return;
        }
        let full: Vec<&str> = self.prefix.iter().map(String::as_str).chain(path.iter().copied()).collect();
        let location = self.node.locate(&full, self.diagnostics.scope_key());
        let mut shown = self.diagnostics.scope_path().to_owned();
        for part in full {
            let is_index = !part.is_empty() && part.chars().all(|letter| letter.is_ascii_digit());
            shown = if is_index { format!("{shown}[{part}]") } else { join(&shown, part) };
        }
        self.diagnostics.push(problem.at(&location, shown));
    }
}

/// Reads `node` as a `C`, then validates it. `None` if there were errors. A null node is an empty mapping.
pub fn decode<C: DeserializeOwned + Validate>(node: &Node, diagnostics: &mut Diagnostics) -> Option<C> {
    let errors = diagnostics.errors.len();
    let value: C = de::read(node, diagnostics)?;
    let only_present = diagnostics.errors.len() > errors;
    value.validate(&mut Check { diagnostics, node, prefix: Vec::new(), only_present });
    (diagnostics.errors.len() == errors).then_some(value)
}

/// Reads YAML text as a `C`, as if it were a component's section: for tests of configurations.
///
/// # Errors
/// All findings if there is an error among them.
pub fn from_str<C: DeserializeOwned + Validate>(text: &str) -> Result<(C, Diagnostics), Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    match yaml::parse(&Source::new("config.yaml", text)) {
        Ok(document) => {
            document.problems.into_iter().for_each(|problem| diagnostics.push(problem));
            match decode(&document.root, &mut diagnostics) {
                Some(value) if diagnostics.errors.is_empty() => return Ok((value, diagnostics)),
                _ => {}
            }
        }
        Err(problem) => diagnostics.push(*problem),
    }
    Err(diagnostics)
}
