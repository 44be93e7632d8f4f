//! What the states of components come to.

use std::time::Instant;

use super::*;
use crate::clock::ManualClock;
use crate::delivery::Status;

/// A component that says of itself, and of its parts, what it is told to.
#[derive(Default)]
struct Told(Mutex<Option<Status>>, Mutex<Vec<(String, Status)>>);

impl Component for Told {
    fn status(&self) -> Option<Status> {
        self.0.lock().clone()
    }

    fn parts(&self) -> Vec<(String, Status)> {
        self.1.lock().clone()
    }
}

fn failing(error: &str, is_permanent: bool) -> Option<Status> {
    let failing_since = Some(Instant::now());
    Some(Status { failing_since, last_error: Some(error.to_owned()), is_permanent })
}

struct Bench {
    clock: Arc<ManualClock>,
    components: Vec<Arc<Told>>,
    lives: Vec<Arc<Life>>,
    board: Arc<Board>,
}

impl Bench {
    /// Components by name, with the groups that each belongs to.
    fn new(members: &[(&str, &[&str])]) -> Self {
        let manual = ManualClock::new(1_000_000_000_000);
        let clock: Arc<dyn Clock> = Arc::clone(&manual) as _;
        let components: Vec<Arc<Told>> = members.iter().map(|_| Arc::default()).collect();
        let lives: Vec<Arc<Life>> = members.iter().map(|_| Life::new(&clock)).collect();
        let on_board = members.iter().zip(&components).zip(&lives).map(|(((name, groups), component), life)| Member {
            name: (*name).to_owned(),
            groups: groups.iter().map(ToString::to_string).collect(),
            life: Arc::clone(life),
            component: Arc::downgrade(&(Arc::clone(component) as Arc<dyn Component>)),
        });
        let groups = ["extensions", "pipeline:traces", "pipeline:metrics"].map(str::to_owned);
        let board = Board::new(&clock, groups.into(), on_board.collect());
        Self { clock: manual, components, lives, board }
    }

    fn run(self) -> Self {
        self.lives.iter().for_each(|life| life.enter(Condition::Ok));
        self
    }

    fn overall(&self) -> Condition {
        self.board.report(Priority::Permanent).state.condition
    }
}

const TWO: &[(&str, &[&str])] = &[
    ("extension:health_check", &["extensions"]),
    ("receiver:otlp", &["pipeline:traces", "pipeline:metrics"]),
    ("exporter:otlp", &["pipeline:traces"]),
    ("exporter:prom", &["pipeline:metrics"]),
];

/// Scenario: one of two exporters fails, then recovers. Guarantee: its pipeline and the gateway say so
/// with its error, the other pipeline does not.
#[test]
fn an_error_shows_where_it_is_and_above() {
    let bench = Bench::new(TWO).run();
    assert_eq!(bench.overall(), Condition::Ok);
    *bench.components[2].0.lock() = failing("connection refused", false);
    let report = bench.board.report(Priority::Permanent);
    assert_eq!(report.state.condition, Condition::RecoverableError);
    assert_eq!(report.state.error.as_deref(), Some("connection refused"));
    let groups: Vec<(&str, Condition)> =
        report.parts.iter().map(|(name, part)| (name.as_str(), part.state.condition)).collect();
    let expected = [
        ("extensions", Condition::Ok),
        ("pipeline:traces", Condition::RecoverableError),
        ("pipeline:metrics", Condition::Ok),
    ];
    assert_eq!(groups, expected);
    *bench.components[2].0.lock() = Some(Status::default());
    assert_eq!(bench.overall(), Condition::Ok);
}

/// Scenario: one of the parts of an exporter fails. Guarantee: it shows beneath the exporter, and nowhere else unless the
/// exporter says so; nothing is told of parts of what does not run.
#[test]
fn parts_show_beneath_their_component() {
    let bench = Bench::new(TWO).run();
    let parts = [("backend:a", Status::default()), ("backend:b", failing("connection refused", false).unwrap())];
    *bench.components[2].1.lock() = parts.map(|(name, status)| (name.to_owned(), status)).into();
    let traces = || bench.board.pipeline("traces", Priority::Permanent).unwrap();
    assert_eq!(traces().state.condition, Condition::Ok);
    let (_, exporter) = &traces().parts[1];
    assert_eq!(exporter.state.condition, Condition::Ok);
    let shown: Vec<_> = exporter.parts.iter().map(|(name, part)| (name.as_str(), part.state.condition)).collect();
    assert_eq!(shown, [("backend:a", Condition::Ok), ("backend:b", Condition::RecoverableError)]);
    assert_eq!(exporter.parts[1].1.state.error.as_deref(), Some("connection refused"));
    bench.lives[2].enter(Condition::Stopping);
    assert!(traces().parts[1].1.parts.is_empty());
}

/// Scenario: a permanent and a recoverable error at once. Guarantee: the one that matters more to the
/// configuration is told.
#[test]
fn the_priority_decides_between_errors() {
    let bench = Bench::new(TWO).run();
    *bench.components[2].0.lock() = failing("unauthenticated", true);
    *bench.components[3].0.lock() = failing("connection refused", false);
    let of = |priority| bench.board.report(priority).state.condition;
    assert_eq!(of(Priority::Permanent), Condition::PermanentError);
    assert_eq!(of(Priority::Recoverable), Condition::RecoverableError);
}

/// Scenario: components start, stop and are gone one after the other. Guarantee: the whole is starting
/// until the last one runs, and stopping until the last one is gone.
#[test]
fn the_whole_runs_only_when_all_parts_do() {
    let bench = Bench::new(TWO);
    assert_eq!(bench.overall(), Condition::Starting);
    for life in &bench.lives {
        assert_eq!(bench.overall(), Condition::Starting);
        life.enter(Condition::Ok);
    }
    assert_eq!(bench.overall(), Condition::Ok);
    // What it says of itself no longer matters once it leaves.
    *bench.components[2].0.lock() = failing("connection refused", false);
    for life in &bench.lives {
        life.enter(Condition::Stopping);
        assert_eq!(bench.overall(), Condition::Stopping);
        life.enter(Condition::Stopped);
    }
    assert_eq!(bench.overall(), Condition::Stopped);
}

/// Scenario: a vital task of an exporter has panicked. Guarantee: the exporter, its pipeline and the gateway are in a
/// fatal state, also while everything shuts down; the other pipeline is not.
#[test]
fn a_fatal_fault_is_the_state_of_its_component_and_of_the_gateway() {
    let bench = Bench::new(TWO).run();
    let fault = Fault { component: Some("exporter:otlp".into()), message: "it panicked".to_owned() };
    bench.board.fail(&fault);
    bench.lives.iter().for_each(|life| life.enter(Condition::Stopping));
    let state = bench.board.report(Priority::Permanent).state;
    assert_eq!(
        (state.condition, state.error.as_deref()),
        (Condition::FatalError, Some("exporter:otlp: it panicked"))
    );
    let of = |id| bench.board.pipeline(id, Priority::Permanent).unwrap();
    let (traces, metrics) = (of("traces"), of("metrics"));
    assert_eq!(traces.state.condition, Condition::FatalError);
    assert_eq!(traces.parts[1].1.state.error.as_deref(), Some("it panicked"));
    assert_eq!(metrics.state.condition, Condition::Stopping);
}

/// Scenario: a fault of which nobody knows where it happened. Guarantee: it is the state of the gateway, whatever
/// its parts say.
#[test]
fn a_fault_of_nobody_is_the_state_of_the_gateway() {
    let bench = Bench::new(TWO).run();
    bench.board.fail(&Fault { component: None, message: "out of threads".to_owned() });
    let state = bench.board.report(Priority::Permanent).state;
    assert_eq!((state.condition, state.error.as_deref()), (Condition::FatalError, Some("out of threads")));
}

/// Scenario: time passes between changes. Guarantee: an error is told with the time at which it began,
/// all else with the time of the last change.
#[test]
fn times_are_those_of_the_change() {
    let bench = Bench::new(TWO).run();
    bench.clock.advance(Duration::from_secs(5));
    bench.lives[0].enter(Condition::Ok);
    let since = |report: &Report| report.state.since / 1_000_000_000;
    assert_eq!(since(&bench.board.report(Priority::Permanent)), 1005);
    bench.lives[2].fail(Condition::PermanentError, "cannot start".to_owned());
    bench.clock.advance(Duration::from_secs(5));
    assert_eq!(since(&bench.board.report(Priority::Permanent)), 1005);
    assert_eq!(since(&bench.board.pipeline("metrics", Priority::Permanent).unwrap()), 1000);
}

#[test]
fn only_pipelines_that_exist_have_a_report() {
    let bench = Bench::new(TWO).run();
    let names = |id| bench.board.pipeline(id, Priority::Permanent).map(|report| report.parts.len());
    assert_eq!((names("traces"), names("metrics"), names("logs")), (Some(2), Some(2), None));
    assert_eq!(names("extensions"), Some(1));
}
