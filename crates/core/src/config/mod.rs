//! Configuration: YAML whose every value knows where it came from.

mod node;
mod types;

pub use node::{Check, Diagnostics, Location, Node, Scalar, Tree, Validate, decode};
pub use types::{ByteSize, ComponentId, Duration, Secret};
