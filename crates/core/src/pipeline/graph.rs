//! Building the graph, starting it and shutting it down.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::builder::Builder;
use super::joints::{Joint, PlannedConnector};
use super::part::Part;
use crate::batch::Signal;
use crate::clock::Clock;
use crate::component::{
    Board, BuildError, Connector, Exporter, ExporterConfig, Extension, ExtensionConfig, Host, Processor,
    ProcessorConfig, Receiver, ReceiverConfig, StartError,
};
use crate::config::ComponentId;
use crate::runtime::Fault;
use crate::telemetry::Telemetry;

/// A pipeline as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// `traces` or `traces/name`.
    pub id: ComponentId,
    /// Its signal.
    pub signal: Signal,
    /// Where its data comes from.
    pub receivers: Vec<ComponentId>,
    /// What works on it, in order.
    pub processors: Vec<ComponentId>,
    /// Where it goes.
    pub exporters: Vec<ComponentId>,
}

/// What a graph is built from: ready configurations by id, and how they are connected.
#[derive(Default)]
pub struct Plan {
    /// The enabled extensions, in start order.
    pub extensions: Vec<(ComponentId, Box<dyn ExtensionConfig>)>,
    /// Receivers.
    pub receivers: HashMap<ComponentId, Box<dyn ReceiverConfig>>,
    /// Processors.
    pub processors: HashMap<ComponentId, Box<dyn ProcessorConfig>>,
    /// Exporters.
    pub exporters: HashMap<ComponentId, Box<dyn ExporterConfig>>,
    /// Connectors.
    pub connectors: HashMap<ComponentId, PlannedConnector>,
    /// The pipelines.
    pub pipelines: Vec<Pipeline>,
}

/// The five kinds of component, as the sections of a configuration file name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComponentKind {
    /// `receivers`
    Receiver,
    /// `processors`
    Processor,
    /// `exporters`
    Exporter,
    /// `connectors`
    Connector,
    /// `extensions`
    Extension,
}

impl ComponentKind {
    /// The section of the configuration: `receivers`.
    #[must_use]
    pub fn section(self) -> &'static str {
        match self {
            Self::Receiver => "receivers",
            Self::Processor => "processors",
            Self::Exporter => "exporters",
            Self::Connector => "connectors",
            Self::Extension => "extensions",
        }
    }

    /// What one of it is called: `receiver`.
    pub(super) fn noun(self) -> &'static str {
        self.section().trim_end_matches('s')
    }
}

/// A component of the plan cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("{}.{id}: {source}", kind.section())]
pub struct GraphError {
    /// Which section it stands in.
    pub kind: ComponentKind,
    /// Its id.
    pub id: ComponentId,
    /// What is wrong, and where in its section.
    pub source: BuildError,
}

/// What one processor knows of a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// The pipeline.
    pub pipeline: String,
    /// The processor.
    pub processor: String,
    /// What it says: see [`crate::component::Component::explain`].
    pub account: serde_json::Value,
}

/// The longest that receivers may take of a shutdown.
const RECEIVERS_SHARE: Duration = Duration::from_secs(5);

/// The built components. Nothing runs before [`Graph::start`].
pub struct Graph {
    pub(super) extensions: Vec<Part<dyn Extension>>,
    pub(super) receivers: Vec<Part<dyn Receiver>>,
    pub(super) pipelines: Vec<BuiltPipeline>,
    pub(super) connectors: Vec<BuiltConnector>,
    pub(super) exporters: Vec<BuiltExporter>,
    pub(super) board: Arc<Board>,
}

pub(super) struct BuiltPipeline {
    pub(super) id: ComponentId,
    /// Over how many connectors data comes to it at the most.
    pub(super) level: usize,
    /// In order.
    pub(super) processors: Vec<Part<dyn Processor>>,
}

pub(super) struct BuiltConnector {
    pub(super) joint: Joint,
    /// The highest level of a pipeline that leads to it.
    pub(super) level: usize,
    pub(super) part: Part<dyn Connector>,
}

pub(super) struct BuiltExporter {
    pub(super) signal: Signal,
    pub(super) part: Part<dyn Exporter>,
}

impl Graph {
    /// Builds every component that a pipeline uses, and connects them.
    ///
    /// # Errors
    /// All components that cannot be built.
    pub fn build(plan: &Plan, telemetry: &Arc<Telemetry>, clock: &Arc<dyn Clock>) -> Result<Self, Vec<GraphError>> {
        Builder::new(plan, telemetry, clock).build()
    }

    /// How all components are doing.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Something has happened after which the process must end; the graph still has to be shut down.
    pub fn fail(&self, fault: &Fault) {
        self.board.fail(fault);
    }

    /// What the processors know of a trace, each that knows of traces.
    #[must_use]
    pub fn explain(&self, trace_id: &[u8; 16]) -> Vec<Account> {
        let mut accounts = Vec::new();
        for pipeline in &self.pipelines {
            for processor in &pipeline.processors {
                let (pipeline, processor_id) = (pipeline.id.to_string(), processor.id.to_string());
                let account = processor.component.explain(trace_id);
                accounts.extend(account.map(|account| Account { pipeline, processor: processor_id, account }));
            }
        }
        accounts
    }

    /// Starts extensions, then exporters, then processors and connectors from last to first, then
    /// receivers.
    ///
    /// # Errors
    /// The first component that does not start; what had started is shut down again.
    pub async fn start(&self, host: &Host) -> Result<(), StartError> {
        let outcome = self.start_all(host).await;
        if outcome.is_err() {
            self.shutdown(Instant::now()).await;
        }
        outcome
    }

    async fn start_all(&self, host: &Host) -> Result<(), StartError> {
        for extension in &self.extensions {
            extension.start(host).await?;
        }
        for exporter in &self.exporters {
            exporter.part.start(host).await?;
        }
        for level in (0..self.levels()).rev() {
            for built in self.connectors.iter().filter(|built| built.level == level) {
                built.part.start(host).await?;
            }
            for pipeline in self.pipelines.iter().filter(|pipeline| pipeline.level == level) {
                for processor in pipeline.processors.iter().rev() {
                    processor.start(host).await?;
                }
            }
        }
        for receiver in &self.receivers {
            receiver.start(host).await?;
        }
        for extension in &self.extensions {
            extension.component.ready();
        }
        Ok(())
    }

    fn levels(&self) -> usize {
        self.pipelines.iter().map(|pipeline| pipeline.level + 1).max().unwrap_or_default()
    }

    /// Shuts down in the order in which data flows, each stage flushing to the next: receivers,
    /// processors and connectors, exporters, and extensions last. All share one `deadline`, of which receivers get
    /// at most a quarter: clients that do not let go must not cost the others their time.
    pub async fn shutdown(&self, deadline: Instant) {
        for extension in &self.extensions {
            extension.component.not_ready();
        }
        let now = Instant::now();
        let share = RECEIVERS_SHARE.min(deadline.saturating_duration_since(now) / 4);
        join_all(self.receivers.iter().map(|receiver| receiver.shutdown(now + share))).await;
        for level in 0..self.levels() {
            let pipelines = self.pipelines.iter().filter(|pipeline| pipeline.level == level);
            join_all(pipelines.map(|pipeline| async move {
                for processor in &pipeline.processors {
                    processor.shutdown(deadline).await;
                }
            }))
            .await;
            let connectors = self.connectors.iter().filter(|built| built.level == level);
            join_all(connectors.map(|built| built.part.shutdown(deadline))).await;
        }
        join_all(self.exporters.iter().map(|exporter| exporter.part.shutdown(deadline))).await;
        for extension in self.extensions.iter().rev() {
            extension.shutdown(deadline).await;
        }
    }
}
