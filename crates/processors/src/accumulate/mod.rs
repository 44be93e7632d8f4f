//! What points add up to: sums, histograms of both kinds, summaries.
//!
//! Used by the processors that re-aggregate: a cumulative stream is added by its increments
//! ([`total::growth`], [`distribution::Distribution::since`]), a delta one as it is.

pub(crate) mod distribution;
pub(crate) mod exponential;
pub(crate) mod total;
pub(crate) mod write;
