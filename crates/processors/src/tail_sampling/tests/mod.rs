//! Tests of the processor as a whole.

mod component;
mod corpus;
mod explain;
mod life;
mod lists;
mod model;
mod probability;
mod rates;
mod support;
