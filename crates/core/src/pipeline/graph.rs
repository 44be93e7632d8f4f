//! Building the graph, starting it and shutting it down.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::edge::{Edge, Head};
use super::fan_out::{Branch, FanOut};
use super::joints::{Joint, PlannedConnector, joints, level_of, levels};
use crate::batch::Signal;
use crate::clock::Clock;
use crate::component::{
    BuildError, Component, Connector, ConnectorContext, Consumer, Exporter, ExporterConfig, ExporterContext, Extension,
    ExtensionConfig, ExtensionContext, Extensions, Host, Outputs, Processor, ProcessorConfig, ProcessorContext,
    Receiver, ReceiverConfig, ReceiverContext, StartError,
};
use crate::config::ComponentId;
use crate::delivery::BatchConfig;
use crate::telemetry::{Ledger, Telemetry};

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

/// The processors of one pipeline, in order.
type Chain = Vec<(ComponentId, Arc<dyn Processor>)>;

/// What one processor knows of a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// The pipeline.
    pub pipeline: String,
    /// The processor.
    pub processor: String,
    /// What it says: see [`Component::explain`].
    pub account: serde_json::Value,
}

/// The longest that receivers may take of a shutdown.
const RECEIVERS_SHARE: Duration = Duration::from_secs(5);

/// The built components. Nothing runs before [`Graph::start`].
pub struct Graph {
    extensions: Vec<(ComponentId, Arc<dyn Extension>)>,
    receivers: Vec<(ComponentId, Arc<dyn Receiver>)>,
    pipelines: Vec<BuiltPipeline>,
    connectors: Vec<BuiltConnector>,
    exporters: Vec<(ComponentId, Arc<dyn Exporter>)>,
}

struct BuiltPipeline {
    id: ComponentId,
    /// Over how many connectors data comes to it at the most.
    level: usize,
    processors: Chain,
}

struct BuiltConnector {
    joint: Joint,
    /// The highest level of a pipeline that leads to it.
    level: usize,
    connector: Arc<dyn Connector>,
}

/// What all components of one build share.
struct Builder<'a> {
    plan: &'a Plan,
    telemetry: &'a Arc<Telemetry>,
    clock: &'a Arc<dyn Clock>,
    extensions: Extensions,
    errors: Vec<GraphError>,
}

impl Graph {
    /// Builds every component that a pipeline uses, and connects them.
    ///
    /// # Errors
    /// All components that cannot be built.
    pub fn build(plan: &Plan, telemetry: &Arc<Telemetry>, clock: &Arc<dyn Clock>) -> Result<Self, Vec<GraphError>> {
        let mut builder = Builder { plan, telemetry, clock, extensions: Extensions::default(), errors: Vec::new() };
        let extensions = builder.extensions();
        let exporters = builder.exporters();
        let joints = joints(plan);
        let levels = levels(&plan.pipelines, &joints).map_err(|joint| {
            let source = BuildError::new(&[], "what comes out of it comes back to it through its pipelines");
            vec![GraphError { kind: ComponentKind::Connector, id: joint.id.clone(), source }]
        })?;
        let mut heads = Heads::new();
        let mut pipelines = Vec::new();
        let mut connectors: Vec<BuiltConnector> = Vec::new();
        let mut ways_out = HashMap::new();
        // From the last pipelines to the first, since each stage is built with the one behind it.
        for level in (0..=levels.iter().copied().max().unwrap_or_default()).rev() {
            for joint in joints.iter().filter(|joint| level_of(joint, &plan.pipelines, &levels) == level) {
                if let Some((connector, branch)) = builder.connector(joint, &heads) {
                    connectors.push(BuiltConnector { joint: joint.clone(), level, connector });
                    ways_out.entry((joint.id.clone(), joint.from)).or_insert_with(Vec::new).push(branch);
                }
            }
            for (pipeline, _) in plan.pipelines.iter().zip(&levels).filter(|(_, own)| **own == level) {
                let ledger = Ledger::new(telemetry, &format!("pipeline/{}", pipeline.id), pipeline.signal);
                let mut branches = Vec::new();
                for id in &pipeline.exporters {
                    let key = (id.clone(), pipeline.signal);
                    branches.extend(exporters.get(&key).map(BuiltExporter::branch));
                    branches.extend(ways_out.get(&key).into_iter().flatten().cloned());
                }
                let exit: Arc<dyn Consumer> = Arc::new(FanOut::new(branches, Some(ledger.clone())));
                let (first, processors) = builder.chain(pipeline, exit, &ledger);
                let head = Edge::new(Arc::new(Head { next: first, ledger: ledger.clone() }));
                for receiver in &pipeline.receivers {
                    let branch = Branch { stage: Arc::clone(&head) as Arc<dyn Consumer>, ledger: ledger.clone() };
                    heads.entry((receiver.clone(), pipeline.signal)).or_default().push(branch);
                }
                pipelines.push(BuiltPipeline { id: pipeline.id.clone(), level, processors });
            }
        }
        let receivers = builder.receivers(heads);
        if !builder.errors.is_empty() {
            return Err(builder.errors);
        }
        pipelines.sort_by_key(|built| plan.pipelines.iter().position(|pipeline| pipeline.id == built.id));
        let mut exporters: Vec<_> = exporters.into_iter().map(|((id, _), built)| (id, built.exporter)).collect();
        exporters.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(Self { extensions, receivers, pipelines, connectors, exporters })
    }

    /// What the processors know of a trace, each that knows of traces.
    #[must_use]
    pub fn explain(&self, trace_id: &[u8; 16]) -> Vec<Account> {
        let mut accounts = Vec::new();
        for pipeline in &self.pipelines {
            for (id, processor) in &pipeline.processors {
                let (pipeline, processor_id) = (pipeline.id.to_string(), id.to_string());
                let account = processor.explain(trace_id);
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
        for (id, extension) in &self.extensions {
            start_one("extension", id, extension.as_ref(), host).await?;
        }
        for (id, exporter) in &self.exporters {
            start_one("exporter", id, exporter.as_ref(), host).await?;
        }
        for level in (0..self.levels()).rev() {
            for built in self.connectors.iter().filter(|built| built.level == level) {
                start_one("connector", &built.joint.id, built.connector.as_ref(), host).await?;
            }
            for pipeline in self.pipelines.iter().filter(|pipeline| pipeline.level == level) {
                for (id, processor) in pipeline.processors.iter().rev() {
                    start_one("processor", id, processor.as_ref(), host).await?;
                }
            }
        }
        for (id, receiver) in &self.receivers {
            start_one("receiver", id, receiver.as_ref(), host).await?;
        }
        for (_, extension) in &self.extensions {
            extension.ready();
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
        for (_, extension) in &self.extensions {
            extension.not_ready();
        }
        let now = Instant::now();
        let share = RECEIVERS_SHARE.min(deadline.saturating_duration_since(now) / 4);
        join_all(self.receivers.iter().map(|(_, receiver)| receiver.shutdown(now + share))).await;
        for level in 0..self.levels() {
            let pipelines = self.pipelines.iter().filter(|pipeline| pipeline.level == level);
            join_all(pipelines.map(|pipeline| async move {
                for (_, processor) in &pipeline.processors {
                    processor.shutdown(deadline).await;
                }
            }))
            .await;
            let connectors = self.connectors.iter().filter(|built| built.level == level);
            join_all(connectors.map(|built| built.connector.shutdown(deadline))).await;
        }
        join_all(self.exporters.iter().map(|(_, exporter)| exporter.shutdown(deadline))).await;
        for (_, extension) in self.extensions.iter().rev() {
            extension.shutdown(deadline).await;
        }
    }
}

async fn start_one<C: Component + ?Sized>(
    kind: &str,
    id: &ComponentId,
    component: &C,
    host: &Host,
) -> Result<(), StartError> {
    let outcome = component.start(host).await;
    outcome.map_err(|error| StartError(format!("failed to start {kind} \"{id}\": {error}")))
}

/// The pipelines that take a signal from a receiver or connector.
type Heads = HashMap<(ComponentId, Signal), Vec<Branch>>;

/// An exporter for one signal, and its account.
struct BuiltExporter {
    exporter: Arc<dyn Exporter>,
    edge: Arc<Edge>,
    ledger: Ledger,
}

impl BuiltExporter {
    fn branch(&self) -> Branch {
        Branch { stage: Arc::clone(&self.edge) as Arc<dyn Consumer>, ledger: self.ledger.clone() }
    }
}

impl Builder<'_> {
    fn error(&mut self, kind: ComponentKind, id: &ComponentId, source: BuildError) {
        self.errors.push(GraphError { kind, id: id.clone(), source });
    }

    fn extensions(&mut self) -> Vec<(ComponentId, Arc<dyn Extension>)> {
        let mut built = Vec::new();
        for (id, config) in &self.plan.extensions {
            let context = ExtensionContext {
                id: id.clone(),
                telemetry: Arc::clone(self.telemetry),
                clock: Arc::clone(self.clock),
            };
            match config.build(context) {
                Ok(extension) => {
                    self.extensions.insert(id, Arc::clone(&extension));
                    built.push((id.clone(), extension));
                }
                Err(error) => self.error(ComponentKind::Extension, id, error),
            }
        }
        built
    }

    fn exporters(&mut self) -> HashMap<(ComponentId, Signal), BuiltExporter> {
        let mut built = HashMap::new();
        for pipeline in &self.plan.pipelines {
            for id in &pipeline.exporters {
                let key = (id.clone(), pipeline.signal);
                let Some(config) = self.plan.exporters.get(id).filter(|_| !built.contains_key(&key)) else {
                    continue;
                };
                let ledger = Ledger::new(self.telemetry, &format!("exporter/{id}"), pipeline.signal);
                let context = ExporterContext {
                    id: id.clone(),
                    signal: pipeline.signal,
                    ledger: ledger.clone(),
                    batching: self.batching_for(id, pipeline.signal),
                    extensions: &self.extensions,
                    telemetry: Arc::clone(self.telemetry),
                    clock: Arc::clone(self.clock),
                };
                match config.build(context) {
                    Ok(exporter) => {
                        let edge = Edge::new(Arc::clone(&exporter) as Arc<dyn Consumer>);
                        built.insert(key, BuiltExporter { exporter, edge, ledger });
                    }
                    Err(error) => {
                        self.errors.push(GraphError { kind: ComponentKind::Exporter, id: id.clone(), source: error });
                    }
                }
            }
        }
        built
    }

    /// The `batch` processor in front of an exporter sets its batching. Where pipelines differ,
    /// the first one with such a processor decides; then those before a connector of the same signal.
    fn batching_for(&self, exporter: &ComponentId, signal: Signal) -> Option<BatchConfig> {
        let all = || self.plan.pipelines.iter().filter(|pipeline| pipeline.signal == signal);
        let mut leading: Vec<&Pipeline> = all().filter(|pipeline| pipeline.exporters.contains(exporter)).collect();
        let mut next = 0;
        while let Some(&pipeline) = leading.get(next) {
            next += 1;
            let batching = pipeline.processors.iter().rev().find_map(|id| self.plan.processors.get(id)?.batching());
            if batching.is_some() {
                return batching;
            }
            let forwards = |id: &&ComponentId| {
                self.plan.connectors.get(*id).is_some_and(|connector| connector.pairs.contains(&(signal, signal)))
            };
            for connector in pipeline.receivers.iter().filter(forwards) {
                let before = all().filter(|before| before.exporters.contains(connector));
                let new: Vec<&Pipeline> =
                    before.filter(|before| !leading.iter().any(|one| one.id == before.id)).collect();
                leading.extend(new);
            }
        }
        None
    }

    /// Builds a pipeline's processors from last to first. Returns the first stage and the chain.
    fn chain(&mut self, pipeline: &Pipeline, exit: Arc<dyn Consumer>, ledger: &Ledger) -> (Arc<dyn Consumer>, Chain) {
        let mut next = exit;
        let mut chain = Vec::new();
        for id in pipeline.processors.iter().rev() {
            let Some(config) = self.plan.processors.get(id) else { continue };
            let context = ProcessorContext {
                id: id.clone(),
                pipeline: pipeline.id.clone(),
                signal: pipeline.signal,
                next: Edge::new(Arc::clone(&next)),
                ledger: ledger.clone(),
                extensions: &self.extensions,
                telemetry: Arc::clone(self.telemetry),
                clock: Arc::clone(self.clock),
            };
            match config.build(context) {
                Ok(processor) => {
                    chain.push((id.clone(), Arc::clone(&processor)));
                    next = processor;
                }
                Err(error) => self.error(ComponentKind::Processor, id, error),
            }
        }
        chain.reverse();
        (next, chain)
    }

    /// Builds the connector of `joint` in front of the pipelines that it feeds.
    fn connector(&mut self, joint: &Joint, heads: &Heads) -> Option<(Arc<dyn Connector>, Branch)> {
        let planned = self.plan.connectors.get(&joint.id)?;
        let behind = heads.get(&(joint.id.clone(), joint.to)).cloned().unwrap_or_default();
        let account = format!("connector/{}", joint.id);
        let taken = Ledger::new(self.telemetry, &account, joint.from);
        let given = Ledger::new(self.telemetry, &account, joint.to);
        let context = ConnectorContext {
            id: joint.id.clone(),
            from: joint.from,
            to: joint.to,
            next: Edge::new(Arc::new(FanOut::new(behind, None))),
            taken: taken.clone(),
            given,
            extensions: &self.extensions,
            telemetry: Arc::clone(self.telemetry),
            clock: Arc::clone(self.clock),
        };
        match planned.config.build(context) {
            Ok(connector) => {
                let stage: Arc<dyn Consumer> = Edge::new(Arc::clone(&connector) as Arc<dyn Consumer>);
                Some((connector, Branch { stage, ledger: taken }))
            }
            Err(error) => {
                self.error(ComponentKind::Connector, &joint.id, error);
                None
            }
        }
    }

    fn receivers(&mut self, mut heads: Heads) -> Vec<(ComponentId, Arc<dyn Receiver>)> {
        let mut built = Vec::new();
        let mut ids: Vec<ComponentId> = heads.keys().map(|(id, _)| id.clone()).collect();
        ids.sort();
        ids.dedup();
        for id in ids {
            let Some(config) = self.plan.receivers.get(&id) else { continue };
            let mut outputs = Outputs::default();
            for signal in Signal::ALL {
                if let Some(branches) = heads.remove(&(id.clone(), signal)) {
                    outputs.set(signal, Edge::new(Arc::new(FanOut::new(branches, None))));
                }
            }
            let context = ReceiverContext {
                id: id.clone(),
                outputs,
                extensions: &self.extensions,
                telemetry: Arc::clone(self.telemetry),
                clock: Arc::clone(self.clock),
            };
            match config.build(context) {
                Ok(receiver) => built.push((id, receiver)),
                Err(error) => self.error(ComponentKind::Receiver, &id, error),
            }
        }
        built
    }
}
