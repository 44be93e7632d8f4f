//! Tests of the processor as a whole.

mod component;
mod corpus;
mod life;
mod model;
mod support;
