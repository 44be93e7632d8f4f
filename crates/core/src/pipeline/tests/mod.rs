//! The graph with scripted stages.

mod fan_out;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Graph, Pipeline, Plan, PlannedConnector};
use crate::batch::{Batch, NoRoom, Permits, Refusal, Room, Signal};
use crate::clock::{Clock, SystemClock};
use crate::component::{
    BatchProcessor, BuildError, Component, Connector, ConnectorConfig, ConnectorContext, Consumer, Exporter,
    ExporterConfig, ExporterContext, Host, Processor, ProcessorConfig, ProcessorContext, Receiver, ReceiverConfig,
    ReceiverContext, StartError, Stateless,
};
use crate::config::ComponentId;
use crate::runtime::Runtimes;
use crate::telemetry::{Entry, Ledger, Telemetry};

fn batch(items: usize) -> Batch {
    Batch::from_wire(Signal::Traces, Bytes::from_static(b"bytes"), items)
}

/// A bounded stage that keeps what it takes, and refuses the next `refusals` batches.
struct Store {
    room: Arc<Room>,
    taken: Mutex<Vec<(Batch, Option<crate::batch::Permit>)>>,
    refusals: AtomicUsize,
    /// Whoever finds no room waits.
    waits: bool,
}

impl Store {
    fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            room: Room::new(capacity),
            taken: Mutex::default(),
            refusals: AtomicUsize::new(0),
            waits: false,
        })
    }

    fn items(&self) -> usize {
        self.taken.lock().iter().map(|(batch, _)| batch.items()).sum()
    }
}

#[async_trait]
impl Consumer for Store {
    async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        let refuse = |left: usize| left.checked_sub(1);
        if self.refusals.try_update(Ordering::AcqRel, Ordering::Acquire, refuse).is_ok() {
            return Err(Refusal::retryable(None, "scripted"));
        }
        let reserved = batch.permits_mut().take(&self.room);
        let permit = reserved.or_else(|| self.room.try_reserve(batch.items()));
        let permit = permit.ok_or_else(|| Refusal::retryable(None, "full"))?;
        self.taken.lock().push((batch, Some(permit)));
        Ok(())
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        let (room, units) = (Arc::clone(&self.room), batch.items());
        match room.try_reserve(units) {
            Some(permit) => permits.push(permit),
            None if self.waits => {
                let units = units + permits.units_of(&room);
                return Err(NoRoom::Full(Box::pin(async move {
                    room.wait_for(units, || ()).await;
                    Ok(())
                })));
            }
            None => return Err(Refusal::retryable(None, "full").into()),
        }
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A component that writes down what happens to it.
#[derive(Clone)]
struct Scripted {
    name: String,
    events: Arc<Mutex<Vec<String>>>,
    fails: bool,
    outputs: Arc<Mutex<Option<Arc<dyn Consumer>>>>,
    running: Arc<AtomicBool>,
}

impl Scripted {
    fn new(name: &str, events: &Arc<Mutex<Vec<String>>>) -> Self {
        let events = Arc::clone(events);
        Self { name: name.into(), events, fails: false, outputs: Arc::default(), running: Arc::default() }
    }
}

#[async_trait]
impl Component for Scripted {
    async fn start(&self, _: &Host) -> Result<(), StartError> {
        if self.fails {
            return Err(StartError("port taken".into()));
        }
        self.running.store(true, Ordering::Release);
        self.events.lock().push(format!("start {}", self.name));
        Ok(())
    }

    async fn shutdown(&self, _: Instant) {
        self.events.lock().push(format!("stop {}", self.name));
    }
}

impl Receiver for Scripted {}

#[async_trait]
impl Consumer for Scripted {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        self.events.lock().push(format!("{} got {}", self.name, batch.items()));
        let next = self.outputs.lock().clone();
        match next {
            Some(next) => next.consume(batch).await,
            None => Ok(()),
        }
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

impl ReceiverConfig for Scripted {
    fn build(&self, context: ReceiverContext<'_>) -> Result<Arc<dyn Receiver>, BuildError> {
        *self.outputs.lock() = context.outputs.get(Signal::Traces).cloned();
        Ok(Arc::new(self.clone()))
    }
}

impl ProcessorConfig for Scripted {
    fn build(&self, context: ProcessorContext<'_>) -> Result<Arc<dyn Processor>, BuildError> {
        let instance = Self { outputs: Arc::new(Mutex::new(Some(context.next))), ..self.clone() };
        Ok(Arc::new(instance))
    }
}

impl ExporterConfig for Scripted {
    fn build(&self, _: ExporterContext<'_>) -> Result<Arc<dyn Exporter>, BuildError> {
        Ok(Arc::new(self.clone()))
    }
}

impl ConnectorConfig for Scripted {
    fn build(&self, context: ConnectorContext<'_>) -> Result<Arc<dyn Connector>, BuildError> {
        let instance = Self { outputs: Arc::new(Mutex::new(Some(context.next))), ..self.clone() };
        Ok(Arc::new(instance))
    }
}

fn id(text: &str) -> ComponentId {
    text.parse().unwrap()
}

fn pipeline(name: &str, receivers: &[&str], processors: &[&str], exporters: &[&str]) -> Pipeline {
    let ids = |names: &[&str]| names.iter().map(|name| id(name)).collect();
    Pipeline {
        id: id(name),
        signal: Signal::Traces,
        receivers: ids(receivers),
        processors: ids(processors),
        exporters: ids(exporters),
    }
}

fn host(telemetry: &Arc<Telemetry>) -> Host {
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    Host {
        runtimes: Runtimes::current(),
        clock: Arc::new(SystemClock::default()),
        telemetry: Arc::clone(telemetry),
        fatal,
    }
}

fn build(plan: &Plan, telemetry: &Arc<Telemetry>) -> Graph {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    Graph::build(plan, telemetry, &clock).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// Scenario: one receiver feeds two pipelines that share an exporter. Guarantee: exporters start
/// first and receivers last, shutdown runs the other way, and a batch reaches every branch.
#[tokio::test]
async fn order_of_start_flow_and_drain() {
    let events = Arc::default();
    let new = |name: &str| Box::new(Scripted::new(name, &events));
    let receiver = new("in");
    let mut plan = Plan::default();
    plan.receivers.insert(id("in"), receiver.clone());
    plan.processors.insert(id("first"), new("first"));
    plan.processors.insert(id("second"), new("second"));
    plan.exporters.insert(id("out"), new("out"));
    plan.exporters.insert(id("unused"), new("unused"));
    plan.pipelines = vec![
        pipeline("traces", &["in"], &["first", "second"], &["out"]),
        pipeline("traces/other", &["in"], &[], &["out"]),
    ];
    let telemetry = Telemetry::new();
    let graph = build(&plan, &telemetry);
    assert!(events.lock().is_empty(), "building has no side effects");
    graph.start(&host(&telemetry)).await.unwrap();
    let output = receiver.outputs.lock().clone().unwrap();
    output.consume(batch(3)).await.unwrap();
    graph.shutdown(Instant::now() + Duration::from_secs(1)).await;
    let expected = [
        "start out",
        "start second",
        "start first",
        "start in",
        "first got 3",
        "second got 3",
        "out got 3",
        "out got 3",
        "stop in",
        "stop first",
        "stop second",
        "stop out",
    ];
    assert_eq!(*events.lock(), expected);
    for name in ["traces", "traces/other"] {
        let ledger = Ledger::new(&telemetry, &format!("pipeline/{name}"), Signal::Traces);
        assert_eq!((ledger.count(Entry::Accepted), ledger.count(Entry::Emitted)), (3, 3));
    }
}

/// Scenario: the receiver's port is taken. Guarantee: the error names it, and what had started is
/// shut down.
#[tokio::test]
async fn a_failed_start_is_undone() {
    let events = Arc::default();
    let mut plan = Plan::default();
    plan.receivers.insert(id("in/1"), Box::new(Scripted { fails: true, ..Scripted::new("in", &events) }));
    plan.exporters.insert(id("out"), Box::new(Scripted::new("out", &events)));
    plan.pipelines = vec![pipeline("traces", &["in/1"], &[], &["out"])];
    let telemetry = Telemetry::new();
    let error = build(&plan, &telemetry).start(&host(&telemetry)).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to start receiver \"in/1\": port taken");
    assert!(events.lock().iter().any(|event| event == "stop out"));
}

const TRACES_TO_TRACES: &[(Signal, Signal)] = &[(Signal::Traces, Signal::Traces)];

/// Scenario: two pipelines meet in a connector, behind which two others begin; one of those ends in a
/// further connector. Guarantee: what is behind starts first and is drained last, whatever the order
/// in the file, and a batch takes every way once.
#[tokio::test]
async fn connectors_are_drained_after_what_leads_to_them() {
    let events = Arc::default();
    let new = |name: &str| Box::new(Scripted::new(name, &events));
    let receiver = new("in");
    let mut plan = Plan::default();
    plan.receivers.insert(id("in"), receiver.clone());
    for name in ["last", "middle", "first"] {
        plan.processors.insert(id(name), new(name));
    }
    for name in ["near", "far"] {
        plan.connectors.insert(id(name), PlannedConnector { pairs: TRACES_TO_TRACES, config: new(name) });
    }
    plan.exporters.insert(id("out"), new("out"));
    plan.pipelines = vec![
        pipeline("traces/last", &["far"], &["last"], &["out"]),
        pipeline("traces/first", &["in"], &["first"], &["near"]),
        pipeline("traces/middle", &["near"], &["middle"], &["far", "out"]),
        pipeline("traces/short", &["near"], &[], &["out"]),
    ];
    let telemetry = Telemetry::new();
    let graph = build(&plan, &telemetry);
    graph.start(&host(&telemetry)).await.unwrap();
    let input = receiver.outputs.lock().clone().unwrap();
    input.consume(batch(3)).await.unwrap();
    graph.shutdown(Instant::now() + Duration::from_secs(1)).await;
    let events = events.lock();
    let order = |kind: &str| -> Vec<String> {
        events.iter().filter_map(|event| Some(event.strip_prefix(kind)?.to_owned())).collect()
    };
    assert_eq!(order("start "), ["out", "last", "far", "middle", "near", "first", "in"]);
    assert_eq!(order("stop "), ["in", "first", "near", "middle", "far", "last", "out"]);
    assert_eq!(order("out got "), ["3", "3", "3"], "by the last, the middle and the short pipeline");
    for name in ["first", "middle", "last", "short"] {
        let ledger = Ledger::new(&telemetry, &format!("pipeline/traces/{name}"), Signal::Traces);
        assert_eq!((ledger.count(Entry::Accepted), ledger.count(Entry::Emitted)), (3, 3), "{name}");
    }
}

/// Scenario: of the pipelines behind a connector one has no room. Guarantee: none of them, and no
/// other exporter of the pipeline in front, has taken anything.
#[tokio::test]
async fn a_full_pipeline_behind_a_connector_refuses_for_all() {
    struct Passes(Arc<dyn Consumer>);
    impl Component for Passes {}
    #[async_trait]
    impl Consumer for Passes {
        async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
            self.0.consume(batch).await
        }
        async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
            self.0.reserve(batch, permits).await
        }

        fn metadata_keys(&self) -> Vec<String> {
            Vec::new()
        }
    }
    struct PassesConfig;
    impl ConnectorConfig for PassesConfig {
        fn build(&self, context: ConnectorContext<'_>) -> Result<Arc<dyn Connector>, BuildError> {
            Ok(Arc::new(Passes(context.next)))
        }
    }
    struct Stored(Arc<Store>);
    impl Component for Stored {}
    #[async_trait]
    impl Consumer for Stored {
        async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
            self.0.consume(batch).await
        }
        async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
            self.0.reserve(batch, permits).await
        }

        fn metadata_keys(&self) -> Vec<String> {
            Vec::new()
        }
    }
    struct StoredConfig(Arc<Store>);
    impl ExporterConfig for StoredConfig {
        fn build(&self, _: ExporterContext<'_>) -> Result<Arc<dyn Exporter>, BuildError> {
            Ok(Arc::new(Stored(Arc::clone(&self.0))))
        }
    }
    let (beside, roomy, tight) = (Store::new(100), Store::new(100), Store::new(5));
    let receiver = Box::new(Scripted::new("in", &Arc::default()));
    let mut plan = Plan::default();
    plan.receivers.insert(id("in"), receiver.clone());
    let planned = PlannedConnector { pairs: TRACES_TO_TRACES, config: Box::new(PassesConfig) };
    plan.connectors.insert(id("joint"), planned);
    for (name, store) in [("beside", &beside), ("roomy", &roomy), ("tight", &tight)] {
        plan.exporters.insert(id(name), Box::new(StoredConfig(Arc::clone(store))));
    }
    plan.pipelines = vec![
        pipeline("traces", &["in"], &[], &["beside", "joint"]),
        pipeline("traces/roomy", &["joint"], &[], &["roomy"]),
        pipeline("traces/tight", &["joint"], &[], &["tight"]),
    ];
    let telemetry = Telemetry::new();
    let _graph = build(&plan, &telemetry);
    let input = receiver.outputs.lock().clone().unwrap();
    input.consume(batch(4)).await.unwrap();
    assert!(input.consume(batch(4)).await.unwrap_err().is_retryable());
    for store in [&beside, &roomy, &tight] {
        assert_eq!((store.items(), store.room.used()), (4, 4));
    }
}

/// Scenario: a plan that nobody checked leads a connector back to itself. Guarantee: an error that
/// names it, not a hang.
#[test]
fn a_loop_is_an_error() {
    let events = Arc::default();
    let mut plan = Plan::default();
    let config = Box::new(Scripted::new("joint", &events));
    plan.connectors.insert(id("joint"), PlannedConnector { pairs: TRACES_TO_TRACES, config });
    plan.pipelines = vec![pipeline("traces", &["in", "joint"], &[], &["joint"])];
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let errors = Graph::build(&plan, &Telemetry::new(), &clock).err().unwrap();
    assert!(matches!(errors.as_slice(), [one] if one.id == id("joint")), "{errors:?}");
}

struct KeepHalf;

impl BatchProcessor for KeepHalf {
    fn process(&self, batch: &mut Batch) -> Result<(), Refusal> {
        let bytes = batch.wire().clone();
        let items = batch.items() / 2;
        batch.set_wire(bytes, items);
        Ok(())
    }
}

/// Scenario: a stateless processor removes items. Guarantee: they are booked as filtered, and only
/// once the rest was accepted.
#[tokio::test]
async fn stateless_processors_book_what_they_remove() {
    let store = Store::new(4);
    let ledger = Ledger::detached();
    let stage = Stateless::new(KeepHalf, Arc::clone(&store) as Arc<dyn Consumer>, ledger.clone());
    stage.consume(batch(6)).await.unwrap();
    assert_eq!((store.items(), ledger.count(Entry::Filtered)), (3, 3));
    stage.consume(batch(6)).await.unwrap_err();
    assert_eq!(ledger.count(Entry::Filtered), 3);
}
