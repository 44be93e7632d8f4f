//! The graph of components: building, fan-out, start and drain order.
//!
//! Each component is built with the stage behind it, at the other end of an [`Edge`], which can be pointed at another
//! stage while data flows. A pipeline begins with a stage that books what it accepts and ends with a [`FanOut`] to its
//! exporters; a receiver that feeds several pipelines does so through a fan-out too. A connector is an
//! exporter to the pipelines before it and a receiver to those behind it.

mod builder;
mod edge;
mod explain;
mod fan_out;
mod graph;
mod head;
mod joints;
mod part;

pub use edge::Edge;
pub use explain::{EXPLAIN_PATH, ExplainPage, parse_trace_id};
pub use fan_out::FanOut;
pub use graph::{Account, ComponentKind, Graph, GraphError, Pipeline, Plan};
pub use joints::PlannedConnector;

#[cfg(test)]
mod tests;
