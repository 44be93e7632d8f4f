//! Factories and the registry: the list of component types that a binary has.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::{ClientAuth, Connector, Consumer, Exporter, Extension, Processor, Receiver, ServerAuth};
use crate::batch::Signal;
use crate::clock::Clock;
use crate::config::{ComponentId, Diagnostics, Node, Validate};
use crate::net::admission::Gate;
use crate::storage::{Owner, Storage};
use crate::telemetry::{Ledger, Telemetry};

/// How settled a component's behaviour and keys are, in the Collector's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    /// Keys may change.
    Alpha,
    /// Keys may change with notice.
    Beta,
    /// Keys stay.
    Stable,
}

/// What a factory says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Info {
    /// The type, as in YAML.
    pub name: &'static str,
    /// Other spellings that are accepted for ever.
    pub aliases: &'static [&'static str],
    /// Which signals it handles.
    pub signals: &'static [Signal],
    /// How settled it is.
    pub stability: Stability,
}

/// A component cannot be built from its configuration (which was valid on its own).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct BuildError {
    /// Where, below the component's own section: `["auth", "authenticator"]`.
    pub path: Vec<String>,
    /// What, and what to do.
    pub message: String,
}

impl BuildError {
    /// An error at `path` below the component's section.
    pub fn new(path: &[&str], message: impl Into<String>) -> Self {
        Self { path: path.iter().map(ToString::to_string).collect(), message: message.into() }
    }
}

/// The extensions that are there, for components that refer to them.
#[derive(Default, Clone)]
pub struct Extensions {
    built: HashMap<String, Arc<dyn Extension>>,
}

impl Extensions {
    /// Adds one under its id.
    pub fn insert(&mut self, id: &ComponentId, extension: Arc<dyn Extension>) {
        self.built.insert(id.to_string(), extension);
    }

    /// The extension `id` as an authenticator of outgoing requests.
    ///
    /// # Errors
    /// If it is not enabled, or is no such authenticator.
    pub fn client_auth(&self, id: &str) -> Result<Arc<dyn ClientAuth>, String> {
        self.get(id)?.client_auth().ok_or_else(|| format!("extension {id:?} cannot authenticate outgoing requests"))
    }

    /// The extension `id` as an authenticator of incoming requests.
    ///
    /// # Errors
    /// If it is not enabled, or is no such authenticator.
    pub fn server_auth(&self, id: &str) -> Result<Arc<dyn ServerAuth>, String> {
        self.get(id)?.server_auth().ok_or_else(|| format!("extension {id:?} cannot authenticate incoming requests"))
    }

    /// The extension `id` as a place where a component keeps what must survive the process. Ask in
    /// `build`, open in `start`.
    ///
    /// # Errors
    /// If it is not enabled, or is no storage.
    pub fn storage(&self, id: &str) -> Result<Arc<dyn Storage>, String> {
        self.get(id)?.storage().ok_or_else(|| format!("extension {id:?} is no storage; file_storage is one"))
    }

    /// The extension `id` as a middleware of HTTP clients.
    ///
    /// # Errors
    /// Always: no extension is one. The error says which are enabled.
    pub fn client_middleware(&self, id: &str) -> Result<Infallible, String> {
        let mut enabled: Vec<&str> = self.built.keys().map(String::as_str).collect();
        enabled.sort_unstable();
        let enabled = if enabled.is_empty() { "none".to_owned() } else { enabled.join(", ") };
        Err(format!("extension {id:?} is no middleware, nor is any other (enabled are: {enabled}): remove the entry"))
    }

    fn get(&self, id: &str) -> Result<&Arc<dyn Extension>, String> {
        self.built.get(id).ok_or_else(|| format!("extension {id:?} is not in service.extensions"))
    }
}

/// The stages that a receiver feeds: one for each signal that a pipeline takes from it.
#[derive(Default, Clone)]
pub struct Outputs {
    by_signal: [Option<Arc<dyn Consumer>>; 3],
    gates: [Vec<Arc<Gate>>; 3],
}

impl Outputs {
    /// Sets the stage that takes `signal`.
    pub fn set(&mut self, signal: Signal, next: Arc<dyn Consumer>) {
        self.by_signal[signal as usize] = Some(next);
    }

    /// Adds a gate of a pipeline that takes `signal`.
    pub fn add_gate(&mut self, signal: Signal, gate: Arc<Gate>) {
        self.gates[signal as usize].push(gate);
    }

    /// The gates of the pipelines that take `signal`: while one of them is closed, a body need not be
    /// read, since it would be refused.
    #[must_use]
    pub fn gates(&self, signal: Signal) -> &[Arc<Gate>] {
        &self.gates[signal as usize]
    }

    /// The stage that takes `signal`; `None` if no pipeline does.
    #[must_use]
    pub fn get(&self, signal: Signal) -> Option<&Arc<dyn Consumer>> {
        self.by_signal[signal as usize].as_ref()
    }
}

/// What a receiver is built with.
pub struct ReceiverContext<'a> {
    /// Its id.
    pub id: ComponentId,
    /// Where its data goes.
    pub outputs: Outputs,
    /// The enabled extensions.
    pub extensions: &'a Extensions,
    /// The gateway's own metrics.
    pub telemetry: Arc<Telemetry>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What a processor is built with: one instance for each pipeline that lists it.
pub struct ProcessorContext<'a> {
    /// Its id.
    pub id: ComponentId,
    /// The pipeline's id: `traces` or `traces/name`.
    pub pipeline: ComponentId,
    /// The pipeline's signal.
    pub signal: Signal,
    /// The next stage.
    pub next: Arc<dyn Consumer>,
    /// The pipeline's ledger.
    pub ledger: Ledger,
    /// The enabled extensions.
    pub extensions: &'a Extensions,
    /// The gateway's own metrics.
    pub telemetry: Arc<Telemetry>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl ProcessorContext<'_> {
    /// The storage `id`, which the processor's key `storage` names, and whose its log there is: that of the processor of
    /// type `kind`, with payloads of the storage format's version `format`.
    ///
    /// # Errors
    /// If there is no such storage.
    pub fn find_storage(&self, id: &str, kind: &str, format: u32) -> Result<(Arc<dyn Storage>, Owner), BuildError> {
        let storage = self.extensions.storage(id);
        let storage = storage.map_err(|message| BuildError::new(&["storage"], message))?;
        Ok((storage, Owner::processor(kind, &self.id.name, &self.pipeline, format)))
    }
}

/// What an exporter is built with: one instance for each signal it is used for.
pub struct ExporterContext<'a> {
    /// Its id.
    pub id: ComponentId,
    /// Its signal.
    pub signal: Signal,
    /// Its ledger.
    pub ledger: Ledger,
    /// The batching that the `batch` processors in front of it ask for, if any.
    pub batching: Option<crate::delivery::BatchConfig>,
    /// The enabled extensions.
    pub extensions: &'a Extensions,
    /// The gateway's own metrics.
    pub telemetry: Arc<Telemetry>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What a connector is built with: one instance for each pair of signals it is used for.
pub struct ConnectorContext<'a> {
    /// Its id.
    pub id: ComponentId,
    /// The signal of the pipelines that it ends.
    pub from: Signal,
    /// The signal of the pipelines that it begins.
    pub to: Signal,
    /// The pipelines that it begins; a batch goes to all of them or to none.
    pub next: Arc<dyn Consumer>,
    /// Its account of what it takes.
    pub taken: Ledger,
    /// Its account of what it gives: the same one where both signals are the same.
    pub given: Ledger,
    /// The enabled extensions.
    pub extensions: &'a Extensions,
    /// The gateway's own metrics.
    pub telemetry: Arc<Telemetry>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What an extension is built with.
pub struct ExtensionContext {
    /// Its id.
    pub id: ComponentId,
    /// The gateway's own metrics.
    pub telemetry: Arc<Telemetry>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// A receiver's ready configuration.
pub trait ReceiverConfig: Send + Sync {
    /// Makes the receiver; no side effects.
    ///
    /// # Errors
    /// If what it refers to is not there.
    fn build(&self, context: ReceiverContext<'_>) -> Result<Arc<dyn Receiver>, BuildError>;
}

/// A processor's ready configuration.
pub trait ProcessorConfig: Send + Sync {
    /// Makes the processor; no side effects.
    ///
    /// # Errors
    /// If what it refers to is not there.
    fn build(&self, context: ProcessorContext<'_>) -> Result<Arc<dyn Processor>, BuildError>;

    /// The batching it asks of the exporters that its pipeline leads to: the `batch` processor.
    fn batching(&self) -> Option<crate::delivery::BatchConfig> {
        None
    }

    /// The gate that it puts before the receivers which feed its pipeline: the `memory_limiter`
    /// processor. Asked after `build`.
    fn gate(&self) -> Option<Arc<Gate>> {
        None
    }
}

/// An exporter's ready configuration.
pub trait ExporterConfig: Send + Sync {
    /// Makes the exporter; no side effects.
    ///
    /// # Errors
    /// If what it refers to is not there.
    fn build(&self, context: ExporterContext<'_>) -> Result<Arc<dyn Exporter>, BuildError>;
}

/// A connector's ready configuration.
pub trait ConnectorConfig: Send + Sync {
    /// Makes the connector; no side effects.
    ///
    /// # Errors
    /// If what it refers to is not there.
    fn build(&self, context: ConnectorContext<'_>) -> Result<Arc<dyn Connector>, BuildError>;
}

/// An extension's ready configuration.
pub trait ExtensionConfig: Send + Sync {
    /// Makes the extension; no side effects.
    ///
    /// # Errors
    /// If what it refers to is not there.
    fn build(&self, context: ExtensionContext) -> Result<Arc<dyn Extension>, BuildError>;
}

/// Reads a component's section. Problems go to the diagnostics, located; `None` if there were
/// errors.
pub type Parse<C> = fn(&Node, &mut Diagnostics) -> Option<Box<C>>;

macro_rules! factory {
    ($factory:ident, $config:ident, $make:ident, $what:literal) => {
        #[doc = concat!("A type of ", $what, ".")]
        #[derive(Clone, Copy)]
        pub struct $factory {
            /// What it is.
            pub info: Info,
            /// Reads its configuration.
            pub parse: Parse<dyn $config>,
        }

        #[doc = concat!("The factory of the ", $what, " type whose configuration is `C`.")]
        #[must_use]
        pub fn $make<C>(info: Info) -> $factory
        where
            C: $config + DeserializeOwned + Validate + 'static,
        {
            $factory { info, parse: |node, diagnostics| Some(Box::new(crate::config::decode::<C>(node, diagnostics)?)) }
        }
    };
}

factory!(ReceiverFactory, ReceiverConfig, receiver, "receiver");
factory!(ProcessorFactory, ProcessorConfig, processor, "processor");
factory!(ExporterFactory, ExporterConfig, exporter, "exporter");
factory!(ExtensionFactory, ExtensionConfig, extension, "extension");

/// A type of connector.
#[derive(Clone, Copy)]
pub struct ConnectorFactory {
    /// What it is; `signals` are those that it takes.
    pub info: Info,
    /// What it takes, and what it makes of it.
    pub pairs: &'static [(Signal, Signal)],
    /// Reads its configuration.
    pub parse: Parse<dyn ConnectorConfig>,
}

/// The factory of the connector type whose configuration is `C`, between the signals of `pairs`.
#[must_use]
pub fn connector<C>(info: Info, pairs: &'static [(Signal, Signal)]) -> ConnectorFactory
where
    C: ConnectorConfig + DeserializeOwned + Validate + 'static,
{
    let parse = |node: &Node, diagnostics: &mut Diagnostics| -> Option<Box<dyn ConnectorConfig>> {
        Some(Box::new(crate::config::decode::<C>(node, diagnostics)?))
    };
    ConnectorFactory { info, pairs, parse }
}

/// The component types that a binary has. A plugin is a `push`.
#[derive(Clone, Default)]
pub struct Registry {
    /// Receivers.
    pub receivers: Vec<ReceiverFactory>,
    /// Processors.
    pub processors: Vec<ProcessorFactory>,
    /// Exporters.
    pub exporters: Vec<ExporterFactory>,
    /// Connectors.
    pub connectors: Vec<ConnectorFactory>,
    /// Extensions.
    pub extensions: Vec<ExtensionFactory>,
}
