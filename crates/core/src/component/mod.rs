//! The contracts of components, and how they are registered.
//!
//! Life of a component: its factory parses a configuration, `build` makes the component without
//! any side effect (no socket, no task, no file), [`Component::start`] spawns,
//! [`Component::shutdown`] stops intake, flushes to the next stage and returns.

mod factory;
pub(crate) mod health;
mod identify;
mod stateless;
mod trouble;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

pub use factory::{
    BuildError, ConnectorConfig, ConnectorContext, ConnectorFactory, ExporterConfig, ExporterContext, ExporterFactory,
    ExtensionConfig, ExtensionContext, ExtensionFactory, Extensions, Info, Outputs, Parse, ProcessorConfig,
    ProcessorContext, ProcessorFactory, ReceiverConfig, ReceiverContext, ReceiverFactory, Registry, Stability,
    connector, exporter, extension, processor, receiver,
};
pub use health::{Board, Condition, Priority, Report, State};
pub use stateless::{BatchProcessor, Stateless};
pub use trouble::Trouble;

use crate::batch::{Batch, Metadata, NoRoom, Permits, Refusal};
use crate::clock::Clock;
use crate::runtime::{Fault, Runtimes};
use crate::telemetry::Telemetry;

/// A stage that takes batches: the only data interface there is.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// Takes a batch. `Ok` moves the responsibility for it to this stage; a refusal leaves it
    /// with the caller. Back-pressure is the call that has not returned.
    ///
    /// Called concurrently. The caller runs it to completion: it is not cancelled when a client
    /// goes away.
    async fn consume(&self, batch: Batch) -> Result<(), Refusal>;

    /// Sets room aside for `batch`, which a fan-out is about to offer to several stages.
    ///
    /// A stage with bounded room adds a permit to `permits`, which then travel with the batch
    /// ([`Batch::permits_mut`]); a stage that passes batches on asks the next one. Dropped
    /// permits give their room back. A stage without bounds has nothing to do. Nobody waits for room
    /// in here, since the caller may hold room of others: [`NoRoom::Full`] says what to wait for.
    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        let _ = (batch, permits);
        Ok(())
    }

    /// The metadata, in lower case, that this stage or one behind it looks at. A stage that passes batches on
    /// asks the next one (so there is no default, which would be forgotten to replace); a stage that lets batches
    /// wait keeps these, and mixes no batches that differ in them.
    fn metadata_keys(&self) -> Vec<String>;
}

/// What a running component may use.
#[derive(Clone)]
pub struct Host {
    /// Where tasks run.
    pub runtimes: Arc<Runtimes>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The gateway's own metrics.
    pub telemetry: Arc<Telemetry>,
    /// Asks the process to shut down: for faults that no retry mends. A component does so by
    /// [`Runtimes::fail`], which knows its name.
    pub fatal: tokio::sync::mpsc::UnboundedSender<Fault>,
}

/// A component could not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// What all components have in common.
#[async_trait]
pub trait Component: Send + Sync {
    /// Opens sockets and spawns tasks. Called once, after everything downstream has started.
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let _ = host;
        Ok(())
    }

    /// Stops intake, flushes what it holds to the next stage by `deadline`, ends its tasks.
    /// Called once, after everything upstream has shut down.
    async fn shutdown(&self, deadline: Instant) {
        let _ = deadline;
    }

    /// What it knows of the trace `trace_id`, for `nyquist explain`: a JSON object; `None` if it keeps
    /// nothing of traces. Names and numbers only: whoever reads own metrics may ask.
    fn explain(&self, trace_id: &[u8; 16]) -> Option<serde_json::Value> {
        let _ = trace_id;
        None
    }

    /// How it is doing, for health checks; `None` if it has nothing to say.
    fn status(&self) -> Option<crate::delivery::Status> {
        None
    }

    /// How each of its parts is doing, by name, where it has parts that fail on their own. For those who look closely:
    /// what they come to is up to [`Component::status`].
    fn parts(&self) -> Vec<(String, crate::delivery::Status)> {
        Vec::new()
    }
}

/// Brings telemetry in.
pub trait Receiver: Component {}

/// Works on what passes; built with the stage that comes next.
pub trait Processor: Component + Consumer {}
impl<T: Component + Consumer + ?Sized> Processor for T {}

/// Takes telemetry out.
pub trait Exporter: Component + Consumer {}
impl<T: Component + Consumer + ?Sized> Exporter for T {}

/// The end of some pipelines and the beginning of others.
///
/// `consume` takes what comes out of the pipelines before it; what it makes of that it gives to the
/// stage it was built with. One that passes batches on does so within `consume`, so that the answer is
/// that of the pipelines behind it, and asks them for room in `reserve`. One that keeps state takes
/// the responsibility with its `Ok`. Shut down after all pipelines that lead to it and before those
/// that it leads to.
pub trait Connector: Component + Consumer {}
impl<T: Component + Consumer + ?Sized> Connector for T {}

/// Something beside the pipelines.
pub trait Extension: Component {
    /// The extension as an authenticator of outgoing requests.
    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        None
    }

    /// The extension as an authenticator of incoming requests.
    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        None
    }

    /// The extension as a place where components keep what must survive the process.
    fn storage(&self) -> Option<Arc<dyn crate::storage::Storage>> {
        None
    }

    /// Where it may read how all components are doing. Called once, before `start`.
    fn observe(&self, board: Arc<Board>) {
        let _ = board;
    }

    /// All pipelines have started.
    fn ready(&self) {}

    /// Shutdown has begun; pipelines still drain.
    fn not_ready(&self) {}
}

/// Adds credentials to outgoing requests.
pub trait ClientAuth: Send + Sync {
    /// Adds its headers. Called for every request, so that a re-read token is used at once.
    fn apply(&self, headers: &mut http::HeaderMap);

    /// The same for data of `client`, of whose metadata it may make use.
    fn apply_for(&self, headers: &mut http::HeaderMap, client: &Metadata) {
        let _ = client;
        self.apply(headers);
    }

    /// The metadata that [`Self::apply_for`] looks at, in lower case: data of clients that differ in it
    /// is never merged into one request.
    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Decides whether a request may come in.
pub trait ServerAuth: Send + Sync {
    /// `Err` with the message for a 401 / UNAUTHENTICATED answer.
    fn authenticate(&self, headers: &http::HeaderMap) -> Result<(), String>;

    /// The same, and who it is that comes in. An authenticator that knows overrides it.
    fn identify(&self, headers: &http::HeaderMap) -> Result<Identity, String> {
        self.authenticate(headers).map(|()| Identity::default())
    }

    /// Does the answer take so long (milliseconds) that the workers must not wait for it?
    fn is_slow(&self, headers: &http::HeaderMap) -> bool {
        let _ = headers;
        false
    }

    /// The headers that carry the secrets, in lower case: they are not kept with the data.
    fn secret_headers(&self) -> Vec<String> {
        vec![http::header::AUTHORIZATION.as_str().to_owned()]
    }
}

/// Who has been let in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// What the authenticator knows of it, as the Collector calls it: `subject`, `username`,
    /// `claims.tenant`.
    pub attributes: Vec<(String, String)>,
}

impl Identity {
    /// The value of one attribute.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
