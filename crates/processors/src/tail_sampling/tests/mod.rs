//! Tests of the processor as a whole.

mod component;
mod corpus;
mod explain;
mod life;
mod model;
mod support;

// `nyquist explain` and `nyquist sample`.
mod asked;
mod replayed;
