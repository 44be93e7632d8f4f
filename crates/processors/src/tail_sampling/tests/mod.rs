//! Tests of the processor as a whole.

mod component;
mod corpus;
mod explain;
mod life;
mod lists;
mod model;
mod ottl;
mod probability;
mod rates;
mod support;
