//! Conditions in OpenTelemetry's transformation language.

use serde::Deserialize;

/// `ottl_condition` of policies and `ottl` of rules: at least one condition.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct OttlConditionConfig {
    /// What becomes of a condition that has no value on a span (silent).
    pub error_mode: ErrorMode,
    /// Conditions on spans; one of them is enough.
    pub span: Vec<String>,
    /// Conditions on events of spans; one of them is enough.
    pub spanevent: Vec<String>,
}

/// What becomes of a condition that has no value on a span, such as a key of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorMode {
    /// It does not hold, and a warning is logged.
    Ignore,
    /// It does not hold.
    #[default]
    Silent,
    /// The policy has no vote on the trace.
    Propagate,
}
