//! Our ordered rules.

use std::fmt;
use std::path::PathBuf;

use nyquist_core::config::Duration;
use serde::{Deserialize, Deserializer, de};

use super::ottl::OttlConditionConfig;

/// One rule. Without `when` it matches every trace.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RuleConfig {
    /// Its name: unique, in metrics and on kept traces.
    pub name: String,
    /// How much of what it matches is kept: 0 to 100.
    pub sampling_percentage: Option<f64>,
    /// Instead: percentages that follow a goal.
    pub adaptive: Option<AdaptiveConfig>,
    /// Instead of or beside the percentage: so many spans a second.
    pub budget: Option<BudgetConfig>,
    /// Only record what it would decide, and go on with the next rule (false).
    pub dry_run: bool,
    /// What it matches.
    pub when: Option<ConditionConfig>,
}

/// `adaptive`: exactly one goal.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct AdaptiveConfig {
    /// This part of traces, from above 0 to 100.
    pub goal_percentage: Option<f64>,
    /// So many traces a second.
    pub goal_traces_per_second: Option<f64>,
    /// So many spans a second.
    pub goal_spans_per_second: Option<f64>,
    /// What tells traces apart: attributes, `span_name`; with `root.` before it, of the root span.
    pub keys: Vec<String>,
    /// How often percentages change (15s).
    pub adjustment_interval: Duration,
    /// The weight of the newest interval in the average (0.5).
    pub weight: f64,
    /// So many combinations of values have a percentage of their own; others share one (500).
    pub max_keys: usize,
    /// The percentage until the first interval is over (`goal_percentage`, or 10).
    pub initial_percentage: Option<f64>,
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        Self {
            goal_percentage: None,
            goal_traces_per_second: None,
            goal_spans_per_second: None,
            keys: Vec::new(),
            adjustment_interval: Duration::from_secs(15),
            weight: 0.5,
            max_keys: 500,
            initial_percentage: None,
        }
    }
}

/// `budget`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct BudgetConfig {
    /// So many; what is not used is lent to other rules with a budget.
    pub spans_per_second: f64,
    /// So many at once (twice the rate).
    pub burst_capacity: Option<f64>,
}

/// A condition. Where several keys are set, all of them must hold.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ConditionConfig {
    /// All of these.
    pub all: Option<Vec<ConditionConfig>>,
    /// At least one of these.
    pub any: Option<Vec<ConditionConfig>>,
    /// Not this.
    pub not: Option<Box<ConditionConfig>>,
    /// How the conditions in this block relate to spans.
    #[serde(rename = "match")]
    pub match_: Option<Match>,
    /// An attribute.
    pub attribute: Option<AttributeCondition>,
    /// The name of a span.
    pub span_name: Option<NameCondition>,
    /// The name of an event of a span.
    pub event_name: Option<NameCondition>,
    /// The name of a span's instrumentation scope.
    pub scope_name: Option<NameCondition>,
    /// The version of a span's instrumentation scope.
    pub scope_version: Option<NameCondition>,
    /// The status of a span.
    pub status: Option<StatusCondition>,
    /// A span has an event `exception`.
    pub exception: Option<bool>,
    /// A span failed: status ERROR, an event `exception`, or a truthy attribute `error`.
    pub error: Option<bool>,
    /// How long it took.
    pub latency: Option<LatencyCondition>,
    /// How many spans have arrived.
    pub span_count: Option<SpanCountCondition>,
    /// A span or an event meets a condition in OpenTelemetry's language.
    pub ottl: Option<OttlConditionConfig>,
}

/// How conditions relate to the spans of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// Each condition may be met by another span.
    AnySpan,
    /// One span meets the whole block.
    SameSpan,
    /// The root span meets the whole block.
    Root,
}

/// Where an attribute is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttributePlace {
    /// On the span.
    Span,
    /// On its resource.
    Resource,
    /// On its instrumentation scope.
    Scope,
    /// On its events.
    Event,
    /// On any of the four.
    #[default]
    Any,
}

/// `attribute`: where, and exactly one test (`min` and `max` together are one).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct AttributeCondition {
    /// The attribute.
    pub key: String,
    /// Where it is looked for.
    pub scope: AttributePlace,
    /// One of these values; a text matches text only, a number numbers, a boolean booleans.
    pub values: Option<Vec<ScalarValue>>,
    /// There, and none of these values.
    pub not_values: Option<Vec<ScalarValue>>,
    /// A file with one value a line, read again when it changes; matches texts, and whole numbers.
    pub values_file: Option<PathBuf>,
    /// A text that begins with this.
    pub prefix: Option<String>,
    /// A text that ends with this.
    pub suffix: Option<String>,
    /// A text with this in it.
    pub contains: Option<String>,
    /// A regular expression, not anchored, that a text value matches.
    pub regex: Option<String>,
    /// A number of at least this.
    pub min: Option<f64>,
    /// A number of at most this.
    pub max: Option<f64>,
    /// true, a number other than 0, or a text other than "", "0", "false", "no", "off".
    pub truthy: Option<bool>,
    /// The attribute is there.
    pub exists: Option<bool>,
}

/// `span_name` and other names: exactly one of its keys.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NameCondition {
    /// One of these.
    pub values: Option<Vec<String>>,
    /// A file with one name a line, read again when it changes.
    pub values_file: Option<PathBuf>,
    /// Begins with this.
    pub prefix: Option<String>,
    /// Ends with this.
    pub suffix: Option<String>,
    /// Has this in it.
    pub contains: Option<String>,
    /// A regular expression, not anchored.
    pub regex: Option<String>,
}

/// `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StatusCondition {
    /// Not set.
    Unset,
    /// OK.
    Ok,
    /// ERROR.
    Error,
}

/// What `latency` measures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatencyOf {
    /// From the earliest start to the latest end of what has arrived.
    #[default]
    Trace,
    /// The root span.
    Root,
    /// The span that took longest.
    LongestSpan,
    /// Any one span; in a block about one span, that span.
    Span,
}

/// `latency`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct LatencyCondition {
    /// Of what.
    pub of: LatencyOf,
    /// Longer than this.
    pub threshold: Option<Duration>,
    /// And at most this. One of the two is required.
    pub upper_threshold: Option<Duration>,
}

/// `span_count`, both bounds inclusive.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct SpanCountCondition {
    /// At least.
    pub min: Option<u64>,
    /// At most.
    pub max: Option<u64>,
}

/// A value to compare an attribute with.
#[derive(Debug, Clone, PartialEq)]
pub enum ScalarValue {
    /// Text.
    String(String),
    /// A whole number.
    Int(i64),
    /// Another number.
    Double(f64),
    /// A boolean.
    Bool(bool),
}

impl<'de> Deserialize<'de> for ScalarValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ScalarValue;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a text, a number or a boolean")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ScalarValue, E> {
                Ok(ScalarValue::String(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<ScalarValue, E> {
                Ok(ScalarValue::Bool(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<ScalarValue, E> {
                Ok(ScalarValue::Int(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<ScalarValue, E> {
                i64::try_from(value)
                    .map(ScalarValue::Int)
                    .map_err(|_| E::custom("the number does not fit into 64 bits with a sign"))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<ScalarValue, E> {
                Ok(ScalarValue::Double(value))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
