//! The Collector's policies, with its semantics where it has sound ones.
//!
//! Different on purpose: a missing, foreign or empty block is an error; a numeric or boolean policy
//! does not take values of other types for 0 or false; `not` may hold any policy.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::adaptive::LEVELS;
use super::compile::{AttributeValue, Builder, Odds, Place, Reason, SAMPLING_RATE, put_attribute};
use super::compile_leaves::leaf;
use super::doubts::{Coin, Doubts, Shares};
use super::expr::Expr;
use super::limits::{Composite, Member};
use super::random::probability;
use super::verdict::{Judge, Policy, leveled_threshold};
use crate::tail_sampling::config::{CompositeConfig, PolicyConfig, TailSamplingConfig};

const TYPES: [&str; 17] = [
    "always_sample",
    "and",
    "boolean_attribute",
    "bytes_limiting",
    "composite",
    "drop",
    "latency",
    "not",
    "numeric_attribute",
    "ottl_condition",
    "probabilistic",
    "rate_limiting",
    "span_count",
    "status_code",
    "string_attribute",
    "trace_flags",
    "trace_state",
];
const WITHOUT_BLOCK: [&str; 2] = ["always_sample", "trace_flags"];
const MAX_DEPTH: usize = 16;

/// A compiled policy; `threshold` is what the Collector attributes by (see [`Policy::threshold`]).
pub(super) struct Compiled {
    pub(super) expr: Expr,
    pub(super) threshold: u64,
    /// The threshold tells which part of traces is kept.
    pub(super) known: bool,
    /// There are limits that pick by randomness: see [`Policy::is_leveled`].
    pub(super) is_leveled: bool,
    /// What its rates and limits go by.
    pub(super) coins: BTreeSet<Coin>,
}

impl From<Expr> for Compiled {
    fn from(expr: Expr) -> Self {
        let known = !matches!(expr, Expr::SpanRate(_) | Expr::ByteRate(_) | Expr::Composite(_));
        let is_leveled = matches!(expr, Expr::SpanSieve(_) | Expr::ByteSieve(_));
        let coins = is_leveled.then_some(Coin::Randomness).into_iter().collect();
        Self { expr, threshold: 0, known, is_leveled, coins }
    }
}

impl Compiled {
    fn shares(&self) -> Shares<'_> {
        Shares { is_rated: self.threshold > 0 || self.is_leveled, known: self.known, coins: &self.coins }
    }

    fn odds(&self) -> Odds {
        if self.known { Odds::Threshold(self.threshold) } else { Odds::Unknown }
    }

    /// Those of each of its reasons.
    fn all_odds(&self) -> Vec<Odds> {
        if !self.is_leveled {
            return vec![self.odds()];
        }
        let apart: &[bool] = if self.threshold > 0 { &[false, true] } else { &[false] };
        let levels = apart.iter().flat_map(|&apart| (0..LEVELS).map(move |level| (level, apart)));
        let odds = |(level, apart)| match self.known {
            true => Odds::Threshold(leveled_threshold(self.threshold, level, apart)),
            false => Odds::Unknown,
        };
        levels.map(odds).collect()
    }
}

pub(super) fn compile(config: &TailSamplingConfig, builder: &mut Builder<'_>) -> (Judge, Vec<String>, Vec<Reason>) {
    let mut names: Vec<String> = Vec::new();
    let mut reasons = Vec::new();
    let mut drops = Vec::new();
    let mut others = Vec::new();
    let mut doubts = Doubts::default();
    for (index, policy) in config.policies.iter().enumerate() {
        let place = Place::at("policies").index(index);
        builder.unique_name(&policy.name, &names, &place);
        names.push(policy.name.clone());
        let drop = policy.kind == "drop";
        let compiled = if drop { drop_policy(policy, &place, builder) } else { top_level(policy, &place, builder) };
        let Some(compiled) = compiled else {
            continue;
        };
        let (reason, odds) = (reasons.len() as u16, compiled.odds());
        let reason_of = |member: Option<&str>, odds| {
            let attributes = attributes(&policy.name, member);
            Reason { name: index, member: member.map(str::to_owned), attributes, odds }
        };
        reasons.extend(compiled.all_odds().into_iter().map(|odds| reason_of(None, odds)));
        if let Some(composite) = &policy.composite {
            let members = ordered_members(composite, builder.compat).into_iter();
            reasons.extend(members.map(|member| reason_of(Some(&member.name), odds)));
        }
        doubts.add(&compiled.shares(), drop, usize::from(reason)..reasons.len());
        let list = if drop { &mut drops } else { &mut others };
        let Compiled { expr, threshold, is_leveled, .. } = compiled;
        list.push(Policy { index, expr, reason, threshold, is_leveled });
    }
    if builder.compat && builder.span_ingest && !drops.is_empty() {
        // There a `drop` that does not drop leaves the batch undecided, and no other policy is asked.
        others.clear();
    }
    doubts.settle(config.sample_on_first_match, &mut reasons);
    for reason in &mut reasons {
        let keeps = config.policies.get(reason.name).is_some_and(|policy| policy.kind != "drop");
        if keeps && let Odds::Threshold(threshold) = reason.odds {
            put_attribute(&mut reason.attributes, SAMPLING_RATE, AttributeValue::Double(percentage(threshold)));
        }
    }
    (Judge::Policies { drops, others, first_match: config.sample_on_first_match }, names, reasons)
}

/// What a threshold keeps; as round as what it was made of.
fn percentage(threshold: u64) -> f64 {
    const DIGITS: f64 = 1e9;
    (100.0 * probability(threshold) * DIGITS).round() / DIGITS
}

fn attributes(policy: &str, member: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    put_attribute(&mut out, "tailsampling.policy", AttributeValue::Text(policy));
    if let Some(member) = member {
        put_attribute(&mut out, "tailsampling.composite_policy", AttributeValue::Text(member));
    }
    out
}

/// Checks that the policy has the block of its type and no other.
fn check_blocks(policy: &PolicyConfig, place: &Place, builder: &mut Builder<'_>) -> bool {
    let kind = policy.kind.as_str();
    if kind.is_empty() {
        builder.error(&place.key("type"), format!("a type is required: one of {}", TYPES.join(", ")));
        return false;
    }
    if !TYPES.contains(&kind) {
        builder.error(&place.key("type"), format!("unknown type {kind:?}: the types are {}", TYPES.join(", ")));
        return false;
    }
    let mut sound = true;
    if builder.span_ingest && is_stateful(policy) {
        let message = format!("span-ingest looks at each batch alone, which {kind} with a limit or upper bound cannot");
        builder.error(place, message);
        sound = false;
    }
    for block in policy.blocks().filter(|&block| block != kind) {
        builder.error(&place.key(block), format!("this block belongs to type {block}, but the type is {kind}"));
        sound = false;
    }
    if !WITHOUT_BLOCK.contains(&kind) && !policy.blocks().any(|block| block == kind) {
        builder.error(place, format!("type {kind} needs a block `{kind}:` with its settings"));
        sound = false;
    }
    sound
}

/// Does the policy need the whole trace, or what was decided before?
fn is_stateful(policy: &PolicyConfig) -> bool {
    match policy.kind.as_str() {
        "rate_limiting" | "bytes_limiting" | "composite" => true,
        "latency" => policy.latency.is_some_and(|latency| latency.upper_threshold_ms > 0),
        "span_count" => policy.span_count.is_some_and(|count| count.max_spans > 0),
        _ => false,
    }
}

fn drop_policy(policy: &PolicyConfig, place: &Place, builder: &mut Builder<'_>) -> Option<Compiled> {
    if !check_blocks(policy, place, builder) {
        return None;
    }
    let members = &policy.drop.as_ref()?.drop_sub_policy;
    let place = place.key("drop").key("drop_sub_policy");
    if members.is_empty() && !builder.compat {
        builder.error(&place, "an empty list would drop every trace: list what should be dropped");
        return None;
    }
    all_of(members, &place, builder, Nest::TOP.inside("drop"))
}

fn top_level(policy: &PolicyConfig, place: &Place, builder: &mut Builder<'_>) -> Option<Compiled> {
    if policy.kind != "composite" {
        return any_policy(policy, place, builder, Nest::TOP);
    }
    if !check_blocks(policy, place, builder) {
        return None;
    }
    composite(policy.composite.as_ref()?, &place.key("composite"), builder)
}

/// Where a policy stands.
#[derive(Clone, Copy)]
struct Nest {
    depth: usize,
    parent: &'static str,
}

impl Nest {
    const TOP: Self = Self { depth: 0, parent: "" };

    fn inside(self, parent: &'static str) -> Self {
        Self { depth: self.depth + 1, parent }
    }

    /// May a policy of type `kind` stand here in the Collector?
    fn allows(self, kind: &str) -> bool {
        match kind {
            "and" => matches!(self.parent, "" | "composite"),
            "not" => matches!(self.parent, "" | "and" | "drop"),
            _ => true,
        }
    }
}

fn any_policy(policy: &PolicyConfig, place: &Place, builder: &mut Builder<'_>, nest: Nest) -> Option<Compiled> {
    if nest.depth > MAX_DEPTH {
        builder.error(place, format!("policies are nested more than {MAX_DEPTH} deep"));
        return None;
    }
    if builder.compat && !nest.allows(&policy.kind) {
        let message = format!(
            "the Collector takes no {} inside of {}: leave out `compat: otelcol` for this",
            policy.kind, nest.parent
        );
        builder.error(place, message);
        return None;
    }
    if !check_blocks(policy, place, builder) {
        return None;
    }
    let block = place.key(&policy.kind);
    match policy.kind.as_str() {
        "and" => {
            let members = &policy.and.as_ref()?.and_sub_policy;
            let block = block.key("and_sub_policy");
            if members.is_empty() && !builder.compat {
                builder.error(&block, "an empty list would sample every trace: use always_sample for that");
                return None;
            }
            all_of(members, &block, builder, nest.inside("and"))
        }
        "not" => {
            let block = block.key("not_sub_policy");
            let Some(inner) = &policy.not.as_ref()?.not_sub_policy else {
                builder.error(&block, "a policy is required");
                return None;
            };
            let inner = any_policy(inner, &block, builder, nest.inside("not"))?;
            // What a fraction leaves is not those above a threshold.
            let known = inner.known && inner.threshold == 0 && !inner.is_leveled;
            let expr = Expr::Not(Box::new(inner.expr));
            Some(Compiled { expr, threshold: 0, known, is_leveled: false, coins: BTreeSet::new() })
        }
        "drop" | "composite" => {
            builder.error(place, format!("type {} works only at the top level of policies", policy.kind));
            None
        }
        _ => leaf(policy, &block, builder),
    }
}

fn all_of(members: &[PolicyConfig], place: &Place, builder: &mut Builder<'_>, nest: Nest) -> Option<Compiled> {
    let mut parts = Vec::new();
    let (mut threshold, mut known, mut is_leveled, mut coins) = (0, true, false, BTreeSet::new());
    for (index, member) in members.iter().enumerate() {
        if let Some(compiled) = any_policy(member, &place.index(index), builder, nest) {
            threshold = threshold.max(compiled.threshold);
            known &= compiled.known;
            is_leveled |= compiled.is_leveled;
            coins.extend(compiled.coins);
            parts.push(compiled.expr);
        }
    }
    // The stricter of two hashes is not both of them.
    known &= coins.iter().filter(|coin| matches!(coin, Coin::Hash(_))).count() < 2;
    (parts.len() == members.len()).then_some(Compiled { expr: Expr::All(parts), threshold, known, is_leveled, coins })
}

/// The sub-policies in the order in which they are asked; the Collector does not heed `policy_order`.
fn ordered_members(config: &CompositeConfig, compat: bool) -> Vec<&PolicyConfig> {
    let members = &config.composite_sub_policy;
    if compat {
        return members.iter().collect();
    }
    let listed = config.policy_order.iter().filter_map(|name| members.iter().find(|member| member.name == *name));
    let mut ordered: Vec<&PolicyConfig> = listed.collect();
    ordered.extend(members.iter().filter(|member| !config.policy_order.contains(&member.name)));
    ordered
}

fn composite(config: &CompositeConfig, place: &Place, builder: &mut Builder<'_>) -> Option<Compiled> {
    let members = &config.composite_sub_policy;
    let list = place.key("composite_sub_policy");
    if members.is_empty() {
        builder.error(&list, "at least one policy is required");
        return None;
    }
    let known = |name: &String| members.iter().any(|member| member.name == *name);
    let order: &[String] = if builder.compat { &[] } else { &config.policy_order };
    for (index, name) in order.iter().enumerate() {
        if !known(name) {
            builder.error(&place.key("policy_order").index(index), format!("there is no sub-policy {name:?}"));
        } else if order.iter().take(index).any(|earlier| earlier == name) {
            builder.error(&place.key("policy_order").index(index), format!("{name:?} is listed twice"));
        }
    }
    for (index, allocation) in config.rate_allocation.iter().enumerate() {
        if !known(&allocation.policy) {
            let place = place.key("rate_allocation").index(index).key("policy");
            builder.error(&place, format!("there is no sub-policy {:?}", allocation.policy));
        }
        if builder.compat {
            continue;
        }
        let place = place.key("rate_allocation").index(index);
        if config.rate_allocation.iter().take(index).any(|earlier| earlier.policy == allocation.policy) {
            builder.error(&place.key("policy"), format!("{:?} is listed twice", allocation.policy));
        }
        if !(0..=100).contains(&allocation.percent) {
            builder.error(&place.key("percent"), format!("{} is not between 0 and 100", allocation.percent));
        }
    }
    for (index, member) in members.iter().enumerate() {
        let earlier: Vec<String> = members.iter().take(index).map(|member| member.name.clone()).collect();
        builder.unique_name(&member.name, &earlier, &list.index(index));
    }
    let max_total = u64::try_from(config.max_total_spans_per_second).unwrap_or(0);
    if max_total == 0 {
        builder.error(&place.key("max_total_spans_per_second"), "a number above 0 is required");
    }
    let equal_share = max_total / members.len() as u64;
    let mut compiled = Vec::new();
    for member in ordered_members(config, builder.compat) {
        let index = members.iter().position(|other| std::ptr::eq(other, member)).unwrap_or(0);
        let expr = any_policy(member, &list.index(index), builder, Nest::TOP.inside("composite"))?.expr;
        // (In the Collector the last of two counts.)
        let percent = config.rate_allocation.iter().rfind(|allocation| allocation.policy == member.name);
        let percent = percent.and_then(|allocation| u64::try_from(allocation.percent).ok()).unwrap_or(0);
        let budget = if percent == 0 { equal_share } else { max_total.saturating_mul(percent) / 100 };
        compiled.push(Member { expr, budget });
    }
    Some(Expr::Composite(Arc::new(Composite::new(compiled, max_total, builder.compat))).into())
}
