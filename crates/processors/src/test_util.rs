//! What the tests of several processors share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use nyquist_core::batch::{Batch, Refusal};
use nyquist_core::clock::{Clock, SystemClock};
use nyquist_core::component::{Component, Consumer, Extensions, Host, ProcessorContext};
use nyquist_core::config::{ComponentId, Validate, from_str};
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::{Ledger, Telemetry};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

/// Reads `yaml` as the configuration `C`, which must be valid.
pub(crate) fn config<C: DeserializeOwned + Validate>(yaml: &str) -> C {
    from_str(yaml).map(|(config, _)| config).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// The errors that `yaml` gives as the configuration `C`: `path: message` each.
pub(crate) fn errors<C: DeserializeOwned + Validate>(yaml: &str) -> Vec<String> {
    let diagnostics = from_str::<C>(yaml).err().unwrap_or_default();
    diagnostics.errors.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
}

/// A last stage that records what it is given, and refuses as often as told.
#[derive(Default)]
pub(crate) struct Sink {
    pub(crate) batches: Mutex<Vec<Batch>>,
    /// Refuse (retryable) the next so many batches.
    pub(crate) refuse: AtomicUsize,
    /// The metadata that it looks at.
    pub(crate) reads: &'static [&'static str],
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

    fn metadata_keys(&self) -> Vec<String> {
        self.reads.iter().map(ToString::to_string).collect()
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
