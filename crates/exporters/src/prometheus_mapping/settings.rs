//! What a user may choose about the mapping, ready for use.

use regex::Regex;

use super::labels::LabelRules;
use super::names::Strategy;

/// Which resource attributes become labels of every series.
#[derive(Debug, Clone, Default)]
pub enum ResourceLabels {
    /// None.
    #[default]
    None,
    /// Those that a pattern includes and none excludes. No `included` pattern stands for all.
    Matching {
        /// Patterns of names.
        included: Vec<Regex>,
        /// Patterns of names; they win.
        excluded: Vec<Regex>,
        /// Leave out `service.name`, `service.namespace` and `service.instance.id`.
        without_service: bool,
    },
}

impl ResourceLabels {
    /// All resource attributes.
    #[must_use]
    pub fn all(without_service: bool) -> Self {
        Self::Matching { included: Vec::new(), excluded: Vec::new(), without_service }
    }

    /// Does no attribute become a label?
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn holds(&self, key: &[u8]) -> bool {
        let Self::Matching { included, excluded, without_service } = self else { return false };
        if *without_service && is_identity(key) {
            return false;
        }
        let Ok(key) = std::str::from_utf8(key) else { return false };
        let is_included = included.is_empty() || included.iter().any(|pattern| pattern.is_match(key));
        is_included && !excluded.iter().any(|pattern| pattern.is_match(key))
    }
}

/// Is this one of the attributes that make up `job` and `instance`?
pub(super) fn is_identity(key: &[u8]) -> bool {
    matches!(key, b"service.name" | b"service.namespace" | b"service.instance.id")
}

/// A pattern with `*` and `?`, over a whole attribute name.
///
/// # Errors
/// If it is too long.
pub fn glob(pattern: &str) -> Result<Regex, String> {
    let escaped = regex::escape(pattern).replace(r"\*", ".*").replace(r"\?", ".");
    Regex::new(&format!("(?s)^{escaped}$")).map_err(|error| format!("cannot use the pattern {pattern:?}: {error}"))
}

/// How metrics become Prometheus series.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How names are made.
    pub strategy: Strategy,
    /// Exponential histograms become native ones, rather than classic ones without buckets.
    pub native_histograms: bool,
    /// In front of every name; empty for none.
    pub namespace: String,
    /// Labels of every series that does not have them already; names are valid.
    pub external_labels: Vec<(String, String)>,
    /// Do the external labels overwrite labels of their names?
    pub external_override: bool,
    /// Are `otel_scope_*` labels added?
    pub scope_labels: bool,
    /// Which resource attributes become labels.
    pub resource_labels: ResourceLabels,
    /// Is there a `target_info`?
    pub target_info: bool,
    /// Patterns of the resource attributes that `target_info` has; none stands for all.
    pub target_labels: Vec<Regex>,
    /// Is `a..b` to become the label `a_b` instead of `a__b`?
    pub collapse_underscores: bool,
    /// Are sums and histograms of delta temporality passed on, for a sink that accumulates?
    pub accept_delta: bool,
    /// What becomes of histograms with explicit bounds.
    pub custom_buckets: CustomBuckets,
    /// Are points without a time left out? Remote write has nothing that could stand for it.
    pub needs_time: bool,
}

/// Are histograms with explicit bounds made native ones with custom buckets (schema -53)? Those that
/// cannot be, because they have no sum, stay classic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CustomBuckets {
    /// No: classic series, `_bucket`, `_sum` and `_count`.
    #[default]
    Off,
    /// Yes.
    Instead,
    /// Yes, and the classic series remain.
    Beside,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            native_histograms: true,
            namespace: String::new(),
            external_labels: Vec::new(),
            external_override: false,
            scope_labels: true,
            resource_labels: ResourceLabels::None,
            target_info: true,
            target_labels: Vec::new(),
            collapse_underscores: false,
            accept_delta: false,
            custom_buckets: CustomBuckets::Off,
            needs_time: false,
        }
    }
}

impl Settings {
    /// Does `target_info` have this resource attribute?
    pub(super) fn is_target_label(&self, key: &[u8]) -> bool {
        let is_wanted = |key: &str| self.target_labels.iter().any(|pattern| pattern.is_match(key));
        let is_wanted = self.target_labels.is_empty() || std::str::from_utf8(key).is_ok_and(is_wanted);
        is_wanted && !is_identity(key)
    }

    pub(super) fn label_rules(&self) -> LabelRules {
        LabelRules { escape: self.strategy.escapes(), collapse_underscores: self.collapse_underscores }
    }
}
