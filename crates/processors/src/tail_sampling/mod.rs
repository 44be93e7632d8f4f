//! `tail_sampling`: decides whole traces, once they are complete.
//!
//! A request is read once, before any lock, into runs of spans with folds: what every condition
//! wants to know of them (`rules`). Each touched shard is then locked once, the runs are copied
//! into its buffer (`buffer`), and the call returns: from then on the sampler is responsible. One task per shard
//! decides what is due and hands kept traces on, batch by batch; a refused batch is offered again.
//! Memory is bounded by a byte budget: near its limit the oldest traces are decided early, by the
//! same rules, and at the limit requests are refused, so nothing is lost silently.
//!
//! With `storage`, what is acknowledged is on disk first, and survives the process (`durable`).
//!
//! [`sampler`] is all of that without tasks, driven by explicit times; [`replay`] runs recorded requests
//! through it, and [`explain`] tells what became of a trace.

mod budget;
mod buffer;
pub mod config;
mod durable;
mod evidence;
pub mod explain;
mod metrics;
pub mod replay;
mod request;
mod rules;
pub mod sampler;
mod stress;
mod tally;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use nyquist_core::batch::{Batch, Permits, Refusal, Signal};
use nyquist_core::clock::Clock;
use nyquist_core::component::{
    BuildError, Component, Consumer, Host, Info, Processor, ProcessorConfig, ProcessorContext, ProcessorFactory,
    Stability, StartError, processor,
};
use nyquist_core::delivery::Status;
use nyquist_core::storage::{Owner, Storage};
use nyquist_core::telemetry::Telemetry;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use config::{StorageFull, TailSamplingConfig};
use durable::{Durable, Keeper, Replay};
use sampler::Sampler;
use worker::Worker;

/// How often a sender that waits for room looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long a start waits for what is in the storage to be restored, at most.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// How long the last write may take, after the deadline.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// The factory of `tail_sampling`.
#[must_use]
pub fn factory() -> ProcessorFactory {
    processor::<TailSamplingConfig>(Info {
        name: "tail_sampling",
        aliases: &[],
        signals: &[Signal::Traces],
        stability: Stability::Beta,
    })
}

impl ProcessorConfig for TailSamplingConfig {
    fn build(&self, context: ProcessorContext<'_>) -> Result<Arc<dyn Processor>, BuildError> {
        Ok(TailSampling::new(self, context)?)
    }
}

/// The processor.
pub struct TailSampling {
    sampler: Arc<Sampler>,
    next: Arc<dyn Consumer>,
    clock: Arc<dyn Clock>,
    discard_on_shutdown: bool,
    closed: AtomicBool,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    place: Option<Place>,
}

/// Where the buffer survives the process.
struct Place {
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
    fn find(config: &TailSamplingConfig, context: &ProcessorContext<'_>) -> Result<Option<Self>, BuildError> {
        let Some(id) = &config.storage else { return Ok(None) };
        let storage = context.extensions.storage(id);
        let storage = storage.map_err(|message| BuildError::new(&["storage"], message))?;
        let owner = Owner {
            role: "processor",
            kind: "tail_sampling".to_owned(),
            name: context.id.name.clone(),
            part: context.pipeline.to_string(),
        };
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
}

impl TailSampling {
    fn new(config: &TailSamplingConfig, context: ProcessorContext<'_>) -> Result<Arc<Self>, BuildError> {
        let place = Place::find(config, &context)?;
        let clock: Arc<dyn Clock> =
            if place.is_some() { Arc::new(durable::Ahead(context.clock)) } else { context.clock };
        let sampler = Sampler::new(config, &context.id, context.ledger, &context.telemetry)
            .map_err(|error| BuildError::new(&[], error.to_string()))?;
        Ok(Arc::new(Self {
            sampler: Arc::new(sampler),
            next: context.next,
            clock,
            discard_on_shutdown: config.drop_pending_traces_on_shutdown,
            closed: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            tasks: Mutex::default(),
            place,
        }))
    }

    fn worker(&self, shard: usize) -> Worker {
        Worker {
            sampler: Arc::clone(&self.sampler),
            shard,
            next: Arc::clone(&self.next),
            clock: Arc::clone(&self.clock),
            discard_on_shutdown: self.discard_on_shutdown,
            undecided_stay: self.place.is_some(),
        }
    }

    fn open(&self) -> Result<(), Refusal> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Refusal::retryable(None, "tail_sampling: the gateway is shutting down"));
        }
        Ok(())
    }

    /// The log on disk, if there is to be one.
    fn durable(&self) -> Result<Option<&Durable>, Refusal> {
        let Some(place) = &self.place else { return Ok(None) };
        match place.opened.get() {
            Some(durable) if *place.restored.borrow() => Ok(Some(durable)),
            _ => Err(Refusal::retryable(
                Some(Duration::from_secs(1)),
                "tail_sampling: what is in the storage is still being restored",
            )),
        }
    }

    /// Takes a request in that is safe already, if it is to be.
    async fn take_in(&self, message: &[u8]) -> Result<(), Refusal> {
        loop {
            if !self.sampler.must_wait() {
                match self.sampler.insert(message, self.clock.now()) {
                    Err(refusal) if refusal.is_retryable() && self.sampler.blocks() => {}
                    result => return result,
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            self.open()?;
        }
    }

    /// Opens the storage, and begins with what is in it.
    async fn restore(&self, host: &Host) -> Result<(), StartError> {
        let Some(place) = &self.place else { return Ok(()) };
        let opened = place.storage.open(&place.owner).await;
        let (log, recovered) = opened.map_err(|error| StartError(format!("storage: {error}")))?;
        let durable = Durable::new(log, place.when_full, self.sampler.fingerprint(), &place.telemetry);
        self.sampler.attach(Arc::clone(&durable), self.clock.now());
        let _ = place.opened.set(Arc::clone(&durable));
        let parts = || (Arc::clone(&durable), Arc::clone(&self.sampler), Arc::clone(&self.clock));
        let (one, two, three) = parts();
        *place.keeper.lock().await = Some(Keeper::new(one, two, three));
        let task = keep(Arc::clone(&place.keeper), self.stop.subscribe());
        self.tasks.lock().push(host.runtimes.spawn(task));
        if recovered.records == 0 {
            place.restored.send_replace(true);
            return Ok(());
        }
        let (one, two, three) = parts();
        let replay = Replay::new(one, two, three);
        let is_restored = place.restored.clone();
        let mut waiting = is_restored.subscribe();
        let task = host.runtimes.spawn(async move {
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
        place.replay.lock().replace(task);
        if tokio::time::timeout(START_PATIENCE, waiting.wait_for(|restored| *restored)).await.is_err() {
            tracing::warn!(
                "tail_sampling: the storage is still being restored; requests are refused until that is done"
            );
        }
        Ok(())
    }

    /// Writes down what was decided last, and closes the storage.
    async fn let_go(&self, deadline: Instant) {
        let Some(place) = &self.place else { return };
        if let Some(task) = place.replay.lock().take() {
            task.abort();
        }
        let finish = async {
            if let Some(keeper) = &mut *place.keeper.lock().await {
                keeper.tick().await;
            }
            if let Some(durable) = place.opened.get() {
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

#[async_trait]
impl Consumer for TailSampling {
    async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        self.open()?;
        let Some(durable) = self.durable()? else {
            return self.take_in(batch.wire()).await;
        };
        if !self.sampler.blocks() {
            self.sampler.prepare(self.clock.now())?;
        }
        let stored = durable.store(&mut batch, &*self.clock).await?;
        let taken = self.take_in(batch.wire()).await;
        if taken.is_err() {
            stored.refused();
        }
        taken
    }

    async fn reserve(&self, batch: &Batch, _: &mut Permits) -> Result<(), Refusal> {
        self.open()?;
        if let Some(durable) = self.durable()? {
            durable.room(batch)?;
        }
        if self.sampler.blocks() { Ok(()) } else { self.sampler.room() }
    }
}

#[async_trait]
impl Component for TailSampling {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        for shard in 0..self.sampler.shards() {
            let worker = self.worker(shard);
            self.tasks.lock().push(host.runtimes.spawn(worker.run(self.stop.subscribe())));
        }
        self.restore(host).await
    }

    fn explain(&self, trace_id: &[u8; 16]) -> Option<serde_json::Value> {
        let explanation = self.sampler.explain(trace_id, self.clock.now());
        serde_json::to_value(explanation.dated(self.clock.unix_nanos())).ok()
    }

    async fn shutdown(&self, deadline: Instant) {
        self.closed.store(true, Ordering::Release);
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for mut task in tasks {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                // Until it is gone, the batch in its hands is not accounted for.
                let _ = task.await;
            }
        }
        self.let_go(deadline).await;
        self.sampler.abandon();
    }

    fn status(&self) -> Option<Status> {
        self.place.as_ref()?.opened.get()?.status()
    }
}

/// Ticks until told to stop.
async fn keep(keeper: Arc<tokio::sync::Mutex<Option<Keeper>>>, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(durable::TICK);
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
