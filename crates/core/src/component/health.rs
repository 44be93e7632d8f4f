//! How components are doing, and what that comes to for a pipeline and for the gateway.
//!
//! The graph notes where in its life each component is; what a running component says of itself
//! ([`Component::status`]) is asked for when somebody looks. Nothing of this is on the way of data.
//! The words and how they add up are those of the Collector's component status.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::Component;
use crate::clock::Clock;
use crate::delivery::Status;
use crate::runtime::Fault;

/// How a component, a pipeline or the gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Not running yet.
    Starting,
    /// Running, and nothing is wrong.
    Ok,
    /// Something is wrong that may mend by itself: a backend that cannot be reached.
    RecoverableError,
    /// Something is wrong that takes people: a backend that does not accept the credentials. Other
    /// than in the Collector it ends when it is mended.
    PermanentError,
    /// The gateway is about to end because of it.
    FatalError,
    /// Shutting down.
    Stopping,
    /// Shut down.
    Stopped,
}

impl Condition {
    /// The Collector's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "StatusStarting",
            Self::Ok => "StatusOK",
            Self::RecoverableError => "StatusRecoverableError",
            Self::PermanentError => "StatusPermanentError",
            Self::FatalError => "StatusFatalError",
            Self::Stopping => "StatusStopping",
            Self::Stopped => "StatusStopped",
        }
    }

    fn is_error(self) -> bool {
        matches!(self, Self::RecoverableError | Self::PermanentError | Self::FatalError)
    }
}

/// A condition, since when it has been so, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The condition.
    pub condition: Condition,
    /// What went wrong.
    pub error: Option<String>,
    /// Since when, in nanoseconds since 1970.
    pub since: u64,
}

/// The state of something and of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What the parts come to.
    pub state: State,
    /// `pipeline:traces` or `exporter:otlp`, in the order of the configuration; of a component, what it calls them.
    pub parts: Vec<(String, Report)>,
}

/// Which error tells more where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// A permanent one.
    #[default]
    Permanent,
    /// A recoverable one: where permanent ones do not count as unhealthy, and these do.
    Recoverable,
}

/// Where in its life a component is. What it says of itself counts while it is `Ok`.
pub(crate) struct Life {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl Life {
    pub(crate) fn new(clock: &Arc<dyn Clock>) -> Arc<Self> {
        let state = State { condition: Condition::Starting, error: None, since: clock.unix_nanos() };
        Arc::new(Self { clock: Arc::clone(clock), state: Mutex::new(state) })
    }

    /// Goes on to `condition`; what was fatal stays so to the end.
    pub(crate) fn enter(&self, condition: Condition) {
        if self.state.lock().condition != Condition::FatalError {
            self.set(condition, None);
        }
    }

    pub(crate) fn fail(&self, condition: Condition, error: String) {
        self.set(condition, Some(error));
    }

    fn set(&self, condition: Condition, error: Option<String>) {
        *self.state.lock() = State { condition, error, since: self.clock.unix_nanos() };
    }

    fn state(&self) -> State {
        self.state.lock().clone()
    }
}

/// One component on the board.
pub(crate) struct Member {
    /// `exporter:otlp`.
    pub(crate) name: String,
    /// `extensions`, or each `pipeline:` that it is part of.
    pub(crate) groups: Vec<String>,
    pub(crate) life: Arc<Life>,
    /// Weak, since an extension that reads the board is on it.
    pub(crate) component: Weak<dyn Component>,
}

impl Member {
    fn report(&self, now: u64) -> Report {
        let life = self.life.state();
        let Some(component) = self.component.upgrade().filter(|_| life.condition == Condition::Ok) else {
            return Report { state: life, parts: Vec::new() };
        };
        let report = |status| Report { state: told(status, &life, now), parts: Vec::new() };
        let parts = component.parts().into_iter().map(|(name, status)| (name, report(status)));
        Report { parts: parts.collect(), ..report(component.status().unwrap_or_default()) }
    }
}

/// What `status` comes to; if nothing is wrong, the state of its life.
fn told(status: Status, life: &State, now: u64) -> State {
    let Some(since) = status.failing_since else { return life.clone() };
    let condition = if status.is_permanent { Condition::PermanentError } else { Condition::RecoverableError };
    State { condition, error: status.last_error, since: now.saturating_sub(nanos(since.elapsed())) }
}

/// All components of a graph.
pub struct Board {
    clock: Arc<dyn Clock>,
    /// In the order of the configuration.
    groups: Vec<String>,
    members: Vec<Member>,
    fatal: Mutex<Option<State>>,
    started: u64,
}

impl Board {
    pub(crate) fn new(clock: &Arc<dyn Clock>, groups: Vec<String>, members: Vec<Member>) -> Arc<Self> {
        let started = clock.unix_nanos();
        Arc::new(Self { clock: Arc::clone(clock), groups, members, fatal: Mutex::default(), started })
    }

    /// When the gateway began, in nanoseconds since 1970.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.started
    }

    /// Something happened after which the gateway ends.
    pub(crate) fn fail(&self, fault: &Fault) {
        let of_component = |member: &&Member| fault.component.as_deref() == Some(member.name.as_str());
        for member in self.members.iter().filter(of_component) {
            member.life.fail(Condition::FatalError, fault.message.clone());
        }
        let state = State {
            condition: Condition::FatalError,
            error: Some(fault.to_string()),
            since: self.clock.unix_nanos(),
        };
        *self.fatal.lock() = Some(state);
    }

    /// How the gateway is doing: its parts are the extensions and the pipelines, and theirs the
    /// components.
    #[must_use]
    pub fn report(&self, priority: Priority) -> Report {
        let parts = self.groups.iter().map(|group| (group.clone(), self.group(group, priority))).collect();
        let mut report = self.sum(parts, priority);
        if let Some(fatal) = self.fatal.lock().clone() {
            report.state = fatal;
        }
        report
    }

    /// How the pipeline `id` (`traces`, or `traces/name`) is doing; also `extensions`. `None` if there
    /// is no such pipeline.
    #[must_use]
    pub fn pipeline(&self, id: &str, priority: Priority) -> Option<Report> {
        let name = format!("pipeline:{id}");
        let found = self.groups.iter().find(|group| **group == name || *group == id)?;
        Some(self.group(found, priority))
    }

    fn group(&self, group: &String, priority: Priority) -> Report {
        let now = self.clock.unix_nanos();
        let members = self.members.iter().filter(|member| member.groups.contains(group));
        self.sum(members.map(|member| (member.name.clone(), member.report(now))).collect(), priority)
    }

    /// The Collector's rules: what happens in a life comes before errors, and an error is told with the
    /// time at which the first of its kind began.
    fn sum(&self, parts: Vec<(String, Report)>, priority: Priority) -> Report {
        let states = || parts.iter().map(|(_, part)| &part.state);
        let condition = sum_of(states().map(|state| state.condition).collect(), priority);
        let alike = states().filter(|state| state.condition == condition);
        let told = if condition.is_error() {
            alike.min_by_key(|state| state.since).cloned()
        } else {
            let last = states().map(|state| state.since).max();
            last.map(|since| State { condition, error: None, since })
        };
        let state = told.unwrap_or(State { condition, error: None, since: self.started });
        Report { state, parts }
    }
}

fn sum_of(seen: BTreeSet<Condition>, priority: Priority) -> Condition {
    use Condition::{FatalError, Ok, PermanentError, RecoverableError, Starting, Stopped, Stopping};
    if let (Some(&only), 1) = (seen.first(), seen.len()) {
        return only;
    }
    let (first, second) = match priority {
        Priority::Permanent => (PermanentError, RecoverableError),
        Priority::Recoverable => (RecoverableError, PermanentError),
    };
    let order = [FatalError, Starting, Stopping, Stopped, first, second];
    match order.into_iter().find(|condition| seen.contains(condition)) {
        // Some have stopped: the whole is on its way.
        Some(Stopped) => Stopping,
        Some(condition) => condition,
        None => Ok,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
