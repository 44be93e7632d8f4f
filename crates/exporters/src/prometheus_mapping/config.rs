//! Keys that both exporters have.

use nyquist_core::config::{Check, Validate};
use serde::Deserialize;

use super::names::{Strategy, escape_namespace};
use super::settings::{ResourceLabels, glob};

/// `resource_to_telemetry_conversion`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ResourceConversion {
    /// All resource attributes become labels. Default false.
    pub enabled: bool,
    /// But not `service.name`, `service.namespace` and `service.instance.id`. Default false.
    pub exclude_service_attributes: bool,
}

/// `resource_constant_labels`: which resource attributes become labels of every series.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ConstantLabels {
    /// Patterns with `*` and `?`. Default none; with only `excluded`, everything else.
    pub included: Vec<String>,
    /// Patterns with `*` and `?`; they win. Default none.
    pub excluded: Vec<String>,
}

impl ConstantLabels {
    fn is_set(&self) -> bool {
        !(self.included.is_empty() && self.excluded.is_empty())
    }
}

impl Validate for ConstantLabels {
    fn validate(&self, check: &mut Check<'_>) {
        for (key, patterns) in [("included", &self.included), ("excluded", &self.excluded)] {
            for pattern in patterns {
                if let Err(problem) = glob(pattern) {
                    check.error(&[key], problem);
                }
            }
        }
    }
}

/// Checks the two ways of promoting resource attributes, of which only one may be used.
pub(crate) fn check_resource_labels(check: &mut Check<'_>, conversion: &ResourceConversion, constant: &ConstantLabels) {
    check.nested(&["resource_constant_labels"], constant);
    if conversion.enabled && constant.is_set() {
        check.error(
            &["resource_to_telemetry_conversion"],
            "resource_to_telemetry_conversion and resource_constant_labels are both set: keep resource_constant_labels",
        );
    }
}

/// What the two keys ask for; they have been checked.
pub(crate) fn resource_labels(conversion: &ResourceConversion, constant: &ConstantLabels) -> ResourceLabels {
    if conversion.enabled {
        return ResourceLabels::all(conversion.exclude_service_attributes);
    }
    if !constant.is_set() {
        return ResourceLabels::None;
    }
    let compile = |patterns: &[String]| patterns.iter().filter_map(|pattern| glob(pattern).ok()).collect();
    ResourceLabels::Matching {
        included: compile(&constant.included),
        excluded: compile(&constant.excluded),
        without_service: false,
    }
}

/// `namespace` as it stands in front of names: with the characters that `strategy` allows.
pub(crate) fn namespace(namespace: &str, strategy: Strategy) -> String {
    if strategy.escapes() { escape_namespace(namespace) } else { namespace.to_owned() }
}

/// The strategy that `translation_strategy` names; empty: what `add_metric_suffixes` says.
///
/// # Errors
/// If there is no such strategy.
pub(crate) fn strategy(name: &str, add_metric_suffixes: bool) -> Result<Strategy, String> {
    match name {
        "" if add_metric_suffixes => Ok(Strategy::UnderscoreEscapingWithSuffixes),
        "" | "UnderscoreEscapingWithoutSuffixes" => Ok(Strategy::UnderscoreEscapingWithoutSuffixes),
        "UnderscoreEscapingWithSuffixes" => Ok(Strategy::UnderscoreEscapingWithSuffixes),
        "NoUTF8EscapingWithSuffixes" => Ok(Strategy::NoUTF8EscapingWithSuffixes),
        "NoTranslation" => Ok(Strategy::NoTranslation),
        other => Err(format!(
            "unknown translation_strategy {other:?}: write UnderscoreEscapingWithSuffixes, \
             UnderscoreEscapingWithoutSuffixes, NoUTF8EscapingWithSuffixes or NoTranslation"
        )),
    }
}
