//! Where the buffer survives the process: opening it, and letting go of it.

use std::sync::{Arc, OnceLock};

use nyquist_core::batch::Refusal;
use nyquist_core::clock::Clock;
use nyquist_core::component::{BuildError, Host, ProcessorContext, StartError};
use nyquist_core::delivery::Status;
use nyquist_core::storage::{Owner, Storage};
use nyquist_core::telemetry::Telemetry;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use super::{Durable, Keeper, Replay, TICK, record};
use crate::tail_sampling::config::{StorageFull, TailSamplingConfig};
use crate::tail_sampling::sampler::Sampler;

/// How long a start waits for what is in the storage to be restored, at most.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// How long the last write may take, after the deadline.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Where the buffer survives the process.
pub(in crate::tail_sampling) struct Place {
    storage: Arc<dyn Storage>,
    owner: Owner,
    when_full: StorageFull,
    telemetry: Arc<Telemetry>,
    opened: OnceLock<Arc<Durable>>,
    keeper: Arc<tokio::sync::Mutex<Option<Keeper>>>,
    replay: Mutex<Option<JoinHandle<()>>>,
    /// Everything in the storage is in the buffer.
    restored: watch::Sender<bool>,
}

impl Place {
    /// The place that `storage` names, if it names one.
    ///
    /// # Errors
    /// If there is no such storage.
    pub(in crate::tail_sampling) fn find(
        config: &TailSamplingConfig,
        context: &ProcessorContext<'_>,
    ) -> Result<Option<Self>, BuildError> {
        let Some(id) = &config.storage else { return Ok(None) };
        let (storage, owner) = context.find_storage(id, "tail_sampling", record::FORMAT)?;
        Ok(Some(Self {
            storage,
            owner,
            when_full: config.storage_full,
            telemetry: Arc::clone(&context.telemetry),
            opened: OnceLock::new(),
            keeper: Arc::default(),
            replay: Mutex::default(),
            restored: watch::Sender::new(false),
        }))
    }

    /// The log, once everything in it is in the buffer.
    ///
    /// # Errors
    /// A retryable refusal until then.
    pub(in crate::tail_sampling) fn durable(&self) -> Result<&Durable, Refusal> {
        match self.opened.get() {
            Some(durable) if *self.restored.borrow() => Ok(durable),
            _ => Err(Refusal::retryable(
                Some(Duration::from_secs(1)),
                "tail_sampling: what is in the storage is still being restored",
            )),
        }
    }

    /// How it is doing.
    pub(in crate::tail_sampling) fn status(&self) -> Option<Status> {
        self.opened.get()?.status()
    }

    /// Opens the storage, and begins with what is in it. Returns the task that keeps it, until `stop`.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(in crate::tail_sampling) async fn open(
        &self,
        host: &Host,
        sampler: &Arc<Sampler>,
        clock: &Arc<dyn Clock>,
        stop: watch::Receiver<bool>,
    ) -> Result<JoinHandle<()>, StartError> {
        let opened = self.storage.open(&self.owner).await;
        let (log, recovered) = opened.map_err(|error| StartError(format!("storage: {error}")))?;
        let durable = Durable::new(log, self.when_full, sampler.fingerprint(), &self.telemetry);
        sampler.attach(Arc::clone(&durable), clock.now());
        let _ = self.opened.set(Arc::clone(&durable));
        let parts = || (Arc::clone(&durable), Arc::clone(sampler), Arc::clone(clock));
        // Before anything is let go.
        let replay = (recovered.records > 0).then(|| {
            let (one, two, three) = parts();
            Replay::new(one, two, three)
        });
        let (one, two, three) = parts();
        *self.keeper.lock().await = Some(Keeper::new(one, two, three));
        let task = host.runtimes.vital("the keeper of tail_sampling's storage", keep(Arc::clone(&self.keeper), stop));
        let task = host.runtimes.spawn(task);
        let Some(replay) = replay else {
            self.restored.send_replace(true);
            return Ok(task);
        };
        let is_restored = self.restored.clone();
        let mut waiting = is_restored.subscribe();
        let restoring = host.runtimes.spawn(async move {
            match replay.run().await {
                Ok(restored) => {
                    tracing::info!(
                        requests = restored.requests,
                        spans = restored.spans,
                        decided_traces = restored.decided,
                        "tail_sampling: restored the buffer from the storage"
                    );
                    is_restored.send_replace(true);
                }
                Err(error) => {
                    tracing::warn!(%error, "tail_sampling: could not restore all of the storage; the rest stays there")
                }
            }
        });
        self.replay.lock().replace(restoring);
        if tokio::time::timeout(START_PATIENCE, waiting.wait_for(|restored| *restored)).await.is_err() {
            tracing::warn!(
                "tail_sampling: the storage is still being restored; requests are refused until that is done"
            );
        }
        Ok(task)
    }

    /// Writes down what was decided last, and closes the storage.
    pub(in crate::tail_sampling) async fn let_go(&self, deadline: Instant) {
        if let Some(task) = self.replay.lock().take() {
            task.abort();
        }
        let finish = async {
            if let Some(keeper) = &mut *self.keeper.lock().await {
                keeper.tick().await;
            }
            if let Some(durable) = self.opened.get() {
                durable.close().await;
            }
        };
        if tokio::time::timeout_at(deadline + LAST_WRITE, finish).await.is_err() {
            tracing::warn!(
                "tail_sampling: the storage does not answer; some traces may be sent again at the next start"
            );
        }
    }
}

/// Ticks until told to stop.
async fn keep(keeper: Arc<tokio::sync::Mutex<Option<Keeper>>>, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !*stop.borrow_and_update() {
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            _ = ticks.tick() => {
                if let Some(keeper) = &mut *keeper.lock().await {
                    keeper.tick().await;
                }
            }
        }
    }
}
