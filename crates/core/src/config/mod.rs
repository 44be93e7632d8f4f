//! Configuration: YAML whose every value knows where it came from.
//!
//! 1. [`Sources`] are read and merged into one tree of [`Node`]s;
//! 2. `${...}` references are expanded in its values;
//! 3. [`load`] takes the tree apart: sections, components, pipelines;
//! 4. [`decode`] reads each section as its component's configuration and validates it.
//!
//! Nothing stops at the first fault: [`Diagnostics`] collect them all, each with its place.

mod connectors;
mod de;
mod decode;
mod expand;
mod gateway;
mod known;
mod legacy;
mod links;
mod location;
mod node;
mod one;
mod pipelines;
mod print;
mod problem;
mod scalar;
mod service;
mod source;
mod types;
mod yaml;

#[cfg(test)]
mod tests;

pub use decode::{Check, Validate, decode, from_str};
use gateway::Section;
pub use gateway::{GatewayConfig, load};
pub use location::{Location, Source};
pub use node::{Node, Original, Scalar, Tree};
pub use one::{Located, component, from_file};
pub use problem::{Diagnostics, Problem, Severity};
pub use service::{LogLevel, MetricsConfig, MetricsLevel, TelemetryConfig};
pub use source::{Environment, Sources};
pub use types::{ByteSize, ComponentId, Duration, Enabled, Secret};
