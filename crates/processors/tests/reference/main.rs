//! `tail_sampling` from outside, against a second sampler that was written from its documentation
//! alone, to be obviously right rather than fast.
//!
//! - [`spans`], [`conditions`], [`policies`], [`probability`], [`sampler`]: the reference. It works on decoded
//!   spans, asks every condition of every span, and remembers everything.
//! - [`model`]: random configurations and spans; both samplers keep the same spans.
//! - [`early`]: decisions before their time.
//! - [`limits`]: policies and rules with a budget.
//! - [`adaptive`]: percentages that follow a goal.
//! - [`ordered`]: important, failed, slow, the rest: 100,000 traces, exactly and within bounds.
//! - [`randomness`]: percentages of ids that are hashed.
//! - [`hostile`]: bytes that no client writes.
//!
//! A failing random case prints its seed and its configuration; `NYQUIST_SEED=n` runs that case
//! alone, `NYQUIST_LONG=1` twenty times as many cases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::disallowed_methods, reason = "a test")]

mod adaptive;
mod conditions;
mod early;
mod generate;
mod hostile;
mod limits;
mod model;
mod ordered;
mod policies;
mod probability;
mod random;
mod randomness;
mod rig;
mod sampler;
mod spans;
