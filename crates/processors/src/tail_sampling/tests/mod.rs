//! Tests of the processor as a whole.

mod component;
mod compressed;
mod corpus;
mod counts;
mod explain;
mod headers;
mod life;
mod lists;
mod memory;
mod model;
mod ottl;
mod pauses;
mod probability;
mod rates;
mod recorded;
mod settings;
pub(crate) mod support;
mod telemetry;
mod timing;

// `nyquist explain` and `nyquist sample`.
mod asked;
mod replayed;
