//! What the tests of several processors share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use nyquist_core::batch::{Batch, Refusal};
use nyquist_core::clock::{Clock, SystemClock};
use nyquist_core::component::{Component, Consumer, Extensions, Host, ProcessorContext};
use nyquist_core::config::{ComponentId, Diagnostics, Location, Node, Scalar, Tree, Validate, decode};
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::{Ledger, Telemetry};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

/// Reads `yaml` as the configuration `C`, validated.
pub(crate) fn decode_yaml<C: DeserializeOwned + Validate>(yaml: &str, diagnostics: &mut Diagnostics) -> Option<C> {
    let value: serde_yaml::Value = serde_yaml::from_str(yaml).unwrap();
    decode(&node(&value), diagnostics)
}

/// Reads `yaml` as the configuration `C`, which must be valid.
pub(crate) fn config<C: DeserializeOwned + Validate>(yaml: &str) -> C {
    let mut diagnostics = Diagnostics::default();
    let config = decode_yaml(yaml, &mut diagnostics);
    config.unwrap_or_else(|| panic!("{:?}", diagnostics.errors))
}

/// The errors that `yaml` gives as the configuration `C`.
pub(crate) fn errors<C: DeserializeOwned + Validate>(yaml: &str) -> Vec<String> {
    let mut diagnostics = Diagnostics::default();
    let _ = decode_yaml::<C>(yaml, &mut diagnostics);
    diagnostics.errors
}

fn node(value: &serde_yaml::Value) -> Node {
    let tree = match value {
        serde_yaml::Value::Null => Tree::Scalar(Scalar::Null),
        serde_yaml::Value::Bool(value) => Tree::Scalar(Scalar::Bool(*value)),
        serde_yaml::Value::Number(value) => Tree::Scalar(match value.as_i64() {
            Some(value) => Scalar::Int(value),
            None => Scalar::Float(value.as_f64().unwrap()),
        }),
        serde_yaml::Value::String(value) => Tree::Scalar(Scalar::String(value.clone())),
        serde_yaml::Value::Sequence(items) => Tree::List(items.iter().map(node).collect()),
        serde_yaml::Value::Mapping(entries) => {
            let entry = |(key, value): (&serde_yaml::Value, &serde_yaml::Value)| {
                (key.as_str().unwrap().to_owned(), Location::default(), node(value))
            };
            Tree::Map(entries.iter().map(entry).collect())
        }
        serde_yaml::Value::Tagged(_) => panic!("no tags in tests"),
    };
    Node { tree, location: Location::default() }
}

/// A last stage that records what it is given, and refuses as often as told.
#[derive(Default)]
pub(crate) struct Sink {
    pub(crate) batches: Mutex<Vec<Batch>>,
    /// Refuse (retryable) the next so many batches.
    pub(crate) refuse: AtomicUsize,
}

impl Component for Sink {}

#[async_trait]
impl Consumer for Sink {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        if self.refuse.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(Refusal::retryable(None, "told to refuse"));
        }
        self.batches.lock().push(batch);
        Ok(())
    }
}

impl Sink {
    pub(crate) fn take(&self) -> Vec<Batch> {
        std::mem::take(&mut *self.batches.lock())
    }
}

/// What a processor is built with in tests.
pub(crate) fn context<'a>(
    signal: nyquist_core::batch::Signal,
    next: Arc<dyn Consumer>,
    extensions: &'a Extensions,
    telemetry: &Arc<Telemetry>,
    clock: Arc<dyn Clock>,
) -> ProcessorContext<'a> {
    ProcessorContext {
        id: ComponentId::of("tested"),
        pipeline: ComponentId::of(signal.name()),
        signal,
        next,
        ledger: Ledger::new(telemetry, "pipeline", signal),
        extensions,
        telemetry: Arc::clone(telemetry),
        clock,
    }
}

/// A host on the current runtime.
pub(crate) fn host(telemetry: &Arc<Telemetry>, clock: Option<Arc<dyn Clock>>) -> Host {
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    Host {
        runtimes: Runtimes::current(),
        clock: clock.unwrap_or_else(|| Arc::new(SystemClock::default())),
        telemetry: Arc::clone(telemetry),
        fatal,
    }
}
