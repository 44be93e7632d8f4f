//! The graph with scripted stages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::fan_out::Branch;
use super::{FanOut, Graph, Pipeline, Plan, PlannedConnector};
use crate::batch::{Batch, DropReason, Permits, Refusal, Room, Signal};
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
}

impl Store {
    fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { room: Room::new(capacity), taken: Mutex::default(), refusals: AtomicUsize::new(0) })
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

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), Refusal> {
        let permit = self.room.try_reserve(batch.items()).ok_or_else(|| Refusal::retryable(None, "full"))?;
        permits.push(permit);
        Ok(())
    }
}

fn branch(stage: &Arc<Store>) -> Branch {
    Branch { stage: Arc::clone(stage) as Arc<dyn Consumer>, ledger: Ledger::detached() }
}

/// Scenario: the second of two branches has no room. Guarantee: nothing is committed anywhere,
/// and the room that was set aside in the first branch is given back.
#[tokio::test]
async fn a_full_branch_refuses_for_all() {
    let (roomy, tight) = (Store::new(100), Store::new(5));
    let fan_out = FanOut::new(vec![branch(&roomy), branch(&tight)], None);
    fan_out.consume(batch(4)).await.unwrap();
    let refusal = fan_out.consume(batch(4)).await.unwrap_err();
    assert!(refusal.is_retryable());
    assert_eq!((roomy.items(), tight.items()), (4, 4));
    assert_eq!((roomy.room.used(), tight.room.used()), (4, 4));
}

/// Scenario: a fan-out over two fan-outs. Guarantee: one reservation covers the whole tree, each
/// leaf takes its own permit, and the branches share the bytes.
#[tokio::test]
async fn nested_fan_outs_reserve_once() {
    let (one, two, three) = (Store::new(9), Store::new(9), Store::new(9));
    let inner: Arc<dyn Consumer> = Arc::new(FanOut::new(vec![branch(&one), branch(&two)], None));
    let inner = Branch { stage: inner, ledger: Ledger::detached() };
    let outer = FanOut::new(vec![inner, branch(&three)], None);
    outer.consume(batch(9)).await.unwrap();
    for store in [&one, &two, &three] {
        assert_eq!(store.room.used(), 9, "exactly one reservation");
    }
    let pointer = |store: &Store| store.taken.lock()[0].0.wire().as_ptr();
    assert_eq!(pointer(&one), pointer(&three));
    assert!(outer.consume(batch(1)).await.is_err());
    one.taken.lock().clear();
    assert_eq!(one.room.used(), 0, "a permit gives its room back");
}

/// Scenario: a branch refuses although its room was reserved, then accepts. Guarantee: the caller
/// sees success, each branch has the batch once.
#[tokio::test(start_paused = true)]
async fn a_late_refusal_is_retried_from_here() {
    let (steady, moody) = (Store::new(9), Store::new(9));
    moody.refusals.store(3, Ordering::Release);
    let fan_out = FanOut::new(vec![branch(&steady), branch(&moody)], None);
    fan_out.consume(batch(2)).await.unwrap();
    assert_eq!((steady.items(), moody.items()), (2, 2));
}

/// Scenario: it goes on refusing for now. Guarantee: the caller is told in the end, and loses nothing.
#[tokio::test(start_paused = true)]
async fn a_lasting_late_refusal_reaches_the_caller() {
    let (steady, moody) = (Store::new(9), Store::new(9));
    moody.refusals.store(usize::MAX, Ordering::Release);
    let account = Ledger::detached();
    let moody_branch = Branch { stage: Arc::clone(&moody) as Arc<dyn Consumer>, ledger: account.clone() };
    let fan_out = FanOut::new(vec![branch(&steady), moody_branch], None);
    assert!(fan_out.consume(batch(2)).await.unwrap_err().is_retryable());
    assert_eq!((steady.items(), moody.items()), (2, 0));
    assert_eq!((account.count(Entry::Accepted), account.dropped_count(DropReason::Rejected)), (0, 0));
}

/// Scenario: it refuses for good what another branch has taken. Guarantee: the loss is booked on that branch's account
/// only.
#[tokio::test(start_paused = true)]
async fn a_late_refusal_for_good_is_counted() {
    struct Picky;
    #[async_trait]
    impl Consumer for Picky {
        async fn consume(&self, _: Batch) -> Result<(), Refusal> {
            Err(Refusal::permanent("scripted"))
        }
        async fn reserve(&self, _: &Batch, _: &mut Permits) -> Result<(), Refusal> {
            Ok(())
        }
    }
    let steady = Store::new(9);
    let account = Ledger::detached();
    let picky = Branch { stage: Arc::new(Picky), ledger: account.clone() };
    let fan_out = FanOut::new(vec![branch(&steady), picky], None);
    fan_out.consume(batch(2)).await.unwrap();
    assert_eq!(steady.items(), 2);
    assert_eq!((account.count(Entry::Accepted), account.dropped_count(DropReason::Rejected)), (2, 2));
}

/// A random walk over reservations: room in use always equals the permits that are alive.
#[tokio::test]
async fn rooms_balance_over_random_walks() {
    use rand::{RngExt, SeedableRng};
    for seed in 0..200u64 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let room = Room::new(50);
        let mut alive: Vec<crate::batch::Permit> = Vec::new();
        for _ in 0..200 {
            match random.random_range(0..4) {
                0 => alive.extend(room.try_reserve(random.random_range(0..20))),
                1 => drop(alive.pop()),
                2 => {
                    let part = alive.last_mut().map(|permit| permit.split(3));
                    alive.extend(part);
                }
                _ if !alive.is_empty() => drop(alive.swap_remove(random.random_range(0..alive.len()))),
                _ => {}
            }
            let expected: usize = alive.iter().map(crate::batch::Permit::units).sum();
            assert_eq!(room.used(), expected, "seed {seed}");
            assert!(room.used() <= 50, "seed {seed}");
        }
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
        async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), Refusal> {
            self.0.reserve(batch, permits).await
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
        async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), Refusal> {
            self.0.reserve(batch, permits).await
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
