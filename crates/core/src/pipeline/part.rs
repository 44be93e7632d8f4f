//! A component in the graph, with where in its life it is.

use std::sync::Arc;

use tokio::time::Instant;

use super::graph::ComponentKind;
use crate::clock::Clock;
use crate::component::health::{Life, Member};
use crate::component::{Component, Condition, Host, StartError};
use crate::config::ComponentId;

/// A component of one kind.
pub(super) struct Part<T: ?Sized> {
    kind: ComponentKind,
    pub(super) id: ComponentId,
    pub(super) component: Arc<T>,
    life: Arc<Life>,
}

impl<T: Component + ?Sized> Part<T> {
    pub(super) fn new(kind: ComponentKind, id: &ComponentId, component: Arc<T>, clock: &Arc<dyn Clock>) -> Self {
        Self { kind, id: id.clone(), component, life: Life::new(clock) }
    }

    pub(super) async fn start(&self, host: &Host) -> Result<(), StartError> {
        let host = Host { runtimes: host.runtimes.of(&self.name()), ..host.clone() };
        let started = self.component.start(&host).await;
        match &started {
            Ok(()) => self.life.enter(Condition::Ok),
            Err(error) => self.life.fail(Condition::PermanentError, error.to_string()),
        }
        started.map_err(|error| StartError(format!("failed to start {} \"{}\": {error}", self.kind.noun(), self.id)))
    }

    pub(super) async fn shutdown(&self, deadline: Instant) {
        self.life.enter(Condition::Stopping);
        self.component.shutdown(deadline).await;
        self.life.enter(Condition::Stopped);
    }

    /// As the board names it.
    fn name(&self) -> String {
        format!("{}:{}", self.kind.noun(), self.id)
    }

    /// Its place on the board. `component` is itself again.
    pub(super) fn member(&self, component: &Arc<dyn Component>, groups: Vec<String>) -> Member {
        Member { name: self.name(), groups, life: Arc::clone(&self.life), component: Arc::downgrade(component) }
    }
}
