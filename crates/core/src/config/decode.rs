//! From a node to a checked configuration.

use std::collections::HashSet;

use serde::de::DeserializeOwned;

use super::de::Reading;
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
    /// The errors that reading the value gave. If there are any, what is said about keys that are not
    /// there, or beside values that were left out, may be their consequence: it can wait.
    read: std::ops::Range<usize>,
    left_out: HashSet<*const Node>,
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

    /// A warning at each of `keys` below the checked value that was written: it is there for the Collector's sake, and
    /// does nothing because of `why`.
    pub fn without_effect(&mut self, keys: &[&str], why: &str) {
        for key in keys {
            if self.is_written(&[key]) {
                self.warning(&[key], format!("has no effect: {why}"));
            }
        }
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
        self.walk(path, |_| true)
    }

    /// Whether there is a value at `path`, and `accepts` each mapping and list on the way.
    fn walk(&self, path: &[&str], accepts: impl Fn(&Node) -> bool) -> bool {
        let own = self.prefix.iter().map(String::as_str).chain(path.iter().copied());
        let mut node = self.node;
        for part in own {
            let next = match part.parse::<usize>() {
                Ok(index) if !node.items().is_empty() => node.items().get(index),
                _ => node.get(part),
            };
            let Some(next) = next.filter(|_| accepts(node)) else { return false };
            node = next;
        }
        true
    }

    /// Whether a finding at `path` may follow from an error that is reported already.
    fn may_follow(&self, path: &[&str], shown: &str) -> bool {
        let earlier = self.diagnostics.errors.get(..self.read.start).unwrap_or_default();
        if earlier.iter().any(|error| error.path == shown) {
            // The reference that was to bring the value failed.
            return true;
        }
        let is_complete = |node: &Node| {
            let mut children = node.items().iter().chain(node.entries().iter().map(|(.., value)| value));
            !children.any(|child| self.left_out.contains(&std::ptr::from_ref(child)))
        };
        !self.read.is_empty() && !self.walk(path, is_complete)
    }

    fn report(&mut self, path: &[&str], problem: Problem) {
        let full: Vec<&str> = self.prefix.iter().map(String::as_str).chain(path.iter().copied()).collect();
        let location = self.node.locate(&full, self.diagnostics.scope_key());
        let mut shown = self.diagnostics.scope_path().to_owned();
        for part in full {
            let is_index = !part.is_empty() && part.chars().all(|letter| letter.is_ascii_digit());
            shown = if is_index { format!("{shown}[{part}]") } else { join(&shown, part) };
        }
        if !self.may_follow(path, &shown) {
            self.diagnostics.push(problem.at(&location, shown));
        }
    }
}

/// Reads `node` as a `C`, then validates it. `None` if there were errors. A null node is an empty mapping.
pub fn decode<C: DeserializeOwned + Validate>(node: &Node, diagnostics: &mut Diagnostics) -> Option<C> {
    let errors = diagnostics.errors.len();
    let Reading { value, left_out } = de::read::<C>(node, diagnostics)?;
    let read = errors..diagnostics.errors.len();
    value.validate(&mut Check { diagnostics, node, prefix: Vec::new(), read, left_out });
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
