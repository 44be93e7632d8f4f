//! What keeps a trace: the configuration compiled into folds over spans and verdicts over folds.
//!
//! - [`compile`] turns policies and rules into a [`RuleSet`], naming each mistake;
//! - [`plan`] looks at a span once, when it arrives, and reduces it to [`bits::Bits`];
//! - [`ottl`] asks conditions in OpenTelemetry's language of each span, into bits as well;
//! - [`expr`] evaluates a trace's folded state;
//! - [`verdict`] combines votes (policies) or takes the first match (rules);
//! - [`extra`] is what few traces have beside their bits, and [`marks`] the values that adaptive rates know traces by;
//! - [`lists`] holds values from files, which may change;
//! - [`adaptive`] and [`budgets`] are rates that change;
//! - [`limits`] holds the policies with state: token buckets and composite budgets; [`sieves`] are limits that
//!   pick traces by their randomness.

mod adaptive;
pub(super) mod ballot;
pub(super) mod bits;
mod budgets;
pub(super) mod compile;
mod compile_leaves;
mod compile_policies;
mod compile_rates;
mod compile_rules;
mod doubts;
pub(super) mod expr;
pub(super) mod extra;
mod fields;
mod keys;
mod limits;
pub(super) mod lists;
pub(super) mod marks;
mod matchers;
pub(super) mod ottl;
pub(super) mod plan;
mod prefix;
pub(super) mod random;
mod sieves;
pub(super) mod trace_state;
pub(super) mod verdict;

pub(super) use bits::Bits;
pub(super) use compile::RuleSet;
pub(super) use expr::Facts;
