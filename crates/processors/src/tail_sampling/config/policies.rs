//! The Collector's policies. Zero values are the Collector's defaults.

use serde::Deserialize;

use super::ottl::OttlConditionConfig;

/// One policy: a name, a type, and a block that is named like the type.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PolicyConfig {
    /// Its name: unique, in metrics and on kept traces.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The trace took longer than a threshold.
    pub latency: Option<LatencyPolicyConfig>,
    /// An integer attribute lies in a range.
    pub numeric_attribute: Option<NumericAttributeConfig>,
    /// A fraction of traces, by a hash of the id.
    pub probabilistic: Option<ProbabilisticConfig>,
    /// Any span has one of these statuses.
    pub status_code: Option<StatusCodeConfig>,
    /// A text attribute has one of these values.
    pub string_attribute: Option<StringAttributeConfig>,
    /// An entry of `tracestate` has one of these values.
    pub trace_state: Option<TraceStateConfig>,
    /// So many spans a second.
    pub rate_limiting: Option<RateLimitingConfig>,
    /// So many bytes a second.
    pub bytes_limiting: Option<BytesLimitingConfig>,
    /// The number of spans lies in a range.
    pub span_count: Option<SpanCountPolicyConfig>,
    /// A boolean attribute has this value.
    pub boolean_attribute: Option<BooleanAttributeConfig>,
    /// A span or an event meets a condition in OpenTelemetry's language.
    pub ottl_condition: Option<OttlConditionConfig>,
    /// All of several policies.
    pub and: Option<AndConfig>,
    /// The opposite of a policy.
    pub not: Option<NotConfig>,
    /// Drops what all of several policies match, whatever others say.
    pub drop: Option<DropConfig>,
    /// Budgets of spans a second for several policies.
    pub composite: Option<CompositeConfig>,
}

impl PolicyConfig {
    /// The blocks that are there, by name.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &'static str> {
        [
            ("latency", self.latency.is_some()),
            ("numeric_attribute", self.numeric_attribute.is_some()),
            ("probabilistic", self.probabilistic.is_some()),
            ("status_code", self.status_code.is_some()),
            ("string_attribute", self.string_attribute.is_some()),
            ("trace_state", self.trace_state.is_some()),
            ("rate_limiting", self.rate_limiting.is_some()),
            ("bytes_limiting", self.bytes_limiting.is_some()),
            ("span_count", self.span_count.is_some()),
            ("boolean_attribute", self.boolean_attribute.is_some()),
            ("ottl_condition", self.ottl_condition.is_some()),
            ("and", self.and.is_some()),
            ("not", self.not.is_some()),
            ("drop", self.drop.is_some()),
            ("composite", self.composite.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, present)| present.then_some(name))
    }
}

/// `latency`: from the earliest start to the latest end, in whole milliseconds.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct LatencyPolicyConfig {
    /// Longer than this.
    pub threshold_ms: i64,
    /// And at most this; 0 for no upper bound.
    pub upper_threshold_ms: i64,
}

/// `numeric_attribute`: integers only; a bound of 0 is no bound.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NumericAttributeConfig {
    /// The attribute.
    pub key: String,
    /// At least; 0 for no bound.
    pub min_value: i64,
    /// At most; 0 for no bound.
    pub max_value: i64,
    /// Samples traces without such a value instead.
    pub invert_match: bool,
}

/// `probabilistic`: FNV-1a 64 over the salt and the trace id.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ProbabilisticConfig {
    /// 0 to 100.
    pub sampling_percentage: f64,
    /// Replaces `default-hash-seed`.
    pub hash_salt: String,
}

/// `status_code`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StatusCodeConfig {
    /// `OK`, `ERROR`, `UNSET`.
    pub status_codes: Vec<String>,
}

/// `string_attribute`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StringAttributeConfig {
    /// The attribute.
    pub key: String,
    /// Its values, or regular expressions.
    pub values: Vec<String>,
    /// The values are regular expressions, not anchored.
    pub enabled_regex_matching: bool,
    /// Accepted and without effect: results need no cache here.
    pub cache_max_size: i64,
    /// Samples traces without such a value instead.
    pub invert_match: bool,
}

/// `trace_state`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct TraceStateConfig {
    /// The entry.
    pub key: String,
    /// Its values.
    pub values: Vec<String>,
}

/// `rate_limiting`: a token bucket; a trace costs its number of spans.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct RateLimitingConfig {
    /// The rate.
    pub spans_per_second: i64,
    /// The size of the bucket; 0 for twice the rate.
    pub burst_capacity: i64,
}

/// `bytes_limiting`: a token bucket; a trace costs its size.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct BytesLimitingConfig {
    /// The rate.
    pub bytes_per_second: i64,
    /// The size of the bucket; 0 for twice the rate.
    pub burst_capacity: i64,
}

/// `span_count`, both bounds inclusive.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct SpanCountPolicyConfig {
    /// At least.
    pub min_spans: i32,
    /// At most; 0 for no bound.
    pub max_spans: i32,
}

/// `boolean_attribute`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct BooleanAttributeConfig {
    /// The attribute.
    pub key: String,
    /// Its value.
    pub value: bool,
    /// Samples traces without such a value instead.
    pub invert_match: bool,
}

/// `and`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct AndConfig {
    /// All of these.
    pub and_sub_policy: Vec<PolicyConfig>,
}

/// `not`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NotConfig {
    /// Not this.
    pub not_sub_policy: Option<Box<PolicyConfig>>,
}

/// `drop`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct DropConfig {
    /// What all of these match is dropped.
    pub drop_sub_policy: Vec<PolicyConfig>,
}

/// `composite`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct CompositeConfig {
    /// The most that one sub-policy may use, and the base of percentages.
    pub max_total_spans_per_second: i64,
    /// The order in which sub-policies are asked; the rest follow in their own order.
    pub policy_order: Vec<String>,
    /// The sub-policies.
    pub composite_sub_policy: Vec<PolicyConfig>,
    /// Their shares.
    pub rate_allocation: Vec<RateAllocationConfig>,
}

/// A share of a `composite` budget.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RateAllocationConfig {
    /// The sub-policy.
    pub policy: String,
    /// Its share; 0 for an equal share.
    pub percent: i64,
}
