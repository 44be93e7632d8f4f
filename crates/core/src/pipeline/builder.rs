//! Building the graph: every component that a pipeline uses, each with the stage behind it.

use std::collections::HashMap;
use std::sync::Arc;

use super::edge::Edge;
use super::fan_out::{Branch, FanOut};
use super::graph::{BuiltConnector, BuiltExporter, BuiltPipeline, ComponentKind, Graph, GraphError, Pipeline, Plan};
use super::head::Head;
use super::joints::{Joint, joints, level_of, levels};
use super::part::Part;
use crate::batch::Signal;
use crate::clock::Clock;
use crate::component::health::Member;
use crate::component::{
    Board, BuildError, Component, Connector, ConnectorContext, Consumer, Exporter, ExporterContext, Extension,
    ExtensionContext, Extensions, Outputs, Processor, ProcessorContext, Receiver, ReceiverContext,
};
use crate::config::ComponentId;
use crate::delivery::BatchConfig;
use crate::net::admission::Gate;
use crate::telemetry::{Ledger, Telemetry};

/// What all components of one build share.
pub(super) struct Builder<'a> {
    plan: &'a Plan,
    telemetry: &'a Arc<Telemetry>,
    clock: &'a Arc<dyn Clock>,
    extensions: Extensions,
    errors: Vec<GraphError>,
}

/// The extensions as the board names them.
const EXTENSIONS: &str = "extensions";

/// The processors of one pipeline, in order.
type Chain = Vec<Part<dyn Processor>>;

/// The pipelines that take a signal from a receiver or connector.
type Heads = HashMap<(ComponentId, Signal), Vec<Branch>>;

/// An exporter for one signal, and its account.
struct Outlet {
    exporter: Arc<dyn Exporter>,
    edge: Arc<Edge>,
    ledger: Ledger,
}

impl Outlet {
    fn branch(&self) -> Branch {
        Branch { stage: Arc::clone(&self.edge) as Arc<dyn Consumer>, ledger: self.ledger.clone() }
    }
}

impl<'a> Builder<'a> {
    pub(super) fn new(plan: &'a Plan, telemetry: &'a Arc<Telemetry>, clock: &'a Arc<dyn Clock>) -> Self {
        Self { plan, telemetry, clock, extensions: Extensions::default(), errors: Vec::new() }
    }

    pub(super) fn build(mut self) -> Result<Graph, Vec<GraphError>> {
        let plan = self.plan;
        let extensions = self.extensions();
        let outlets = self.exporters();
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
                if let Some((connector, branch)) = self.connector(joint, &heads) {
                    let part = Part::new(ComponentKind::Connector, &joint.id, connector, self.clock);
                    connectors.push(BuiltConnector { joint: joint.clone(), level, part });
                    ways_out.entry((joint.id.clone(), joint.from)).or_insert_with(Vec::new).push(branch);
                }
            }
            for (pipeline, _) in plan.pipelines.iter().zip(&levels).filter(|(_, own)| **own == level) {
                let ledger = Ledger::new(self.telemetry, &format!("pipeline/{}", pipeline.id), pipeline.signal);
                let mut branches = Vec::new();
                for id in &pipeline.exporters {
                    let key = (id.clone(), pipeline.signal);
                    branches.extend(outlets.get(&key).map(Outlet::branch));
                    branches.extend(ways_out.get(&key).into_iter().flatten().cloned());
                }
                let exit: Arc<dyn Consumer> = Arc::new(FanOut::new(branches, Some(ledger.clone())));
                let (first, processors) = self.chain(pipeline, exit, &ledger);
                let head = Edge::new(Arc::new(Head { next: first, ledger: ledger.clone() }));
                for receiver in &pipeline.receivers {
                    let branch = Branch { stage: Arc::clone(&head) as Arc<dyn Consumer>, ledger: ledger.clone() };
                    heads.entry((receiver.clone(), pipeline.signal)).or_default().push(branch);
                }
                pipelines.push(BuiltPipeline { id: pipeline.id.clone(), level, processors });
            }
        }
        let receivers = self.receivers(heads);
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        pipelines.sort_by_key(|built| plan.pipelines.iter().position(|pipeline| pipeline.id == built.id));
        let exporters = outlets.into_iter().map(|((id, signal), outlet)| BuiltExporter {
            signal,
            part: Part::new(ComponentKind::Exporter, &id, outlet.exporter, self.clock),
        });
        let mut exporters: Vec<_> = exporters.collect();
        exporters.sort_by(|one, other| (&one.part.id, one.signal).cmp(&(&other.part.id, other.signal)));
        let board = Board::new(self.clock, Vec::new(), Vec::new());
        let mut graph = Graph { extensions, receivers, pipelines, connectors, exporters, board };
        let mut groups: Vec<String> = plan.pipelines.iter().map(|pipeline| name_of(&pipeline.id)).collect();
        if !graph.extensions.is_empty() {
            groups.insert(0, EXTENSIONS.to_owned());
        }
        graph.board = Board::new(self.clock, groups, members(&graph, plan));
        for extension in &graph.extensions {
            extension.component.observe(Arc::clone(&graph.board));
        }
        Ok(graph)
    }

    fn error(&mut self, kind: ComponentKind, id: &ComponentId, source: BuildError) {
        self.errors.push(GraphError { kind, id: id.clone(), source });
    }

    fn extensions(&mut self) -> Vec<Part<dyn Extension>> {
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
                    built.push(Part::new(ComponentKind::Extension, id, extension, self.clock));
                }
                Err(error) => self.error(ComponentKind::Extension, id, error),
            }
        }
        built
    }

    fn exporters(&mut self) -> HashMap<(ComponentId, Signal), Outlet> {
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
                        built.insert(key, Outlet { exporter, edge, ledger });
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
                    chain.push(Part::new(ComponentKind::Processor, id, Arc::clone(&processor), self.clock));
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

    /// The gates in the pipelines of `signal` that `receiver` feeds, each once.
    fn gates(&self, receiver: &ComponentId, signal: Signal) -> Vec<Arc<Gate>> {
        let fed = self
            .plan
            .pipelines
            .iter()
            .filter(|pipeline| pipeline.signal == signal && pipeline.receivers.contains(receiver));
        let mut gates: Vec<Arc<Gate>> = Vec::new();
        for gate in fed.flat_map(|pipeline| &pipeline.processors).filter_map(|id| self.plan.processors.get(id)?.gate())
        {
            if !gates.iter().any(|known| Arc::ptr_eq(known, &gate)) {
                gates.push(gate);
            }
        }
        gates
    }

    fn receivers(&mut self, mut heads: Heads) -> Vec<Part<dyn Receiver>> {
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
                    self.gates(&id, signal).into_iter().for_each(|gate| outputs.add_gate(signal, gate));
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
                Ok(receiver) => built.push(Part::new(ComponentKind::Receiver, &id, receiver, self.clock)),
                Err(error) => self.error(ComponentKind::Receiver, &id, error),
            }
        }
        built
    }
}

/// Who is on the board.
fn members(graph: &Graph, plan: &Plan) -> Vec<Member> {
    let in_pipelines = |is_in: &dyn Fn(&Pipeline) -> bool| -> Vec<String> {
        plan.pipelines.iter().filter(|pipeline| is_in(pipeline)).map(|pipeline| name_of(&pipeline.id)).collect()
    };
    let mut members = Vec::new();
    for part in &graph.extensions {
        let component = Arc::clone(&part.component) as Arc<dyn Component>;
        members.push(part.member(&component, vec![EXTENSIONS.to_owned()]));
    }
    for part in &graph.receivers {
        let component = Arc::clone(&part.component) as Arc<dyn Component>;
        members.push(part.member(&component, in_pipelines(&|pipeline| pipeline.receivers.contains(&part.id))));
    }
    for pipeline in &graph.pipelines {
        for part in &pipeline.processors {
            let component = Arc::clone(&part.component) as Arc<dyn Component>;
            members.push(part.member(&component, vec![name_of(&pipeline.id)]));
        }
    }
    for built in &graph.connectors {
        let component = Arc::clone(&built.part.component) as Arc<dyn Component>;
        let joins = |pipeline: &Pipeline| built.joint.is_fed_by(pipeline) || built.joint.feeds(pipeline);
        members.push(built.part.member(&component, in_pipelines(&joins)));
    }
    for built in &graph.exporters {
        let component = Arc::clone(&built.part.component) as Arc<dyn Component>;
        let ends = |pipeline: &Pipeline| pipeline.signal == built.signal && pipeline.exporters.contains(&built.part.id);
        members.push(built.part.member(&component, in_pipelines(&ends)));
    }
    members
}

/// A pipeline as the board names it.
fn name_of(pipeline: &ComponentId) -> String {
    format!("pipeline:{pipeline}")
}
