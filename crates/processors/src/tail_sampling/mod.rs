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

mod beside;
mod budget;
mod buffer;
mod client;
pub mod config;
mod durable;
mod evidence;
pub mod explain;
mod lock;
mod metrics;
mod outgoing;
pub mod replay;
mod request;
mod restore;
mod rules;
pub mod sampler;
mod setup;
mod sizes;
mod stress;
mod tally;
#[cfg(test)]
mod tests;
mod visit;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use nyquist_core::batch::{Batch, Metadata, NoRoom, Permits, Refusal, Signal, while_wanted};
use nyquist_core::clock::Clock;
use nyquist_core::component::{
    BuildError, Component, Consumer, Host, Info, Processor, ProcessorConfig, ProcessorContext, ProcessorFactory,
    Stability, StartError, processor,
};
use nyquist_core::delivery::Status;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use client::ClientKeys;
use config::TailSamplingConfig;
use durable::Place;
use sampler::Sampler;
use worker::Worker;

/// How often a sender that waits for room looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

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
    /// What is kept of clients, because something behind looks at it.
    keys: ClientKeys,
    next: Arc<dyn Consumer>,
    clock: Arc<dyn Clock>,
    discard_on_shutdown: bool,
    closed: AtomicBool,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    place: Option<Place>,
}

impl TailSampling {
    fn new(config: &TailSamplingConfig, context: ProcessorContext<'_>) -> Result<Arc<Self>, BuildError> {
        let place = Place::find(config, &context)?;
        let keys = ClientKeys::new(context.next.metadata_keys());
        if place.is_some() {
            Metadata::check_for_disk(keys.names()).map_err(|message| BuildError::new(&["storage"], message))?;
        }
        let clock: Arc<dyn Clock> =
            if place.is_some() { Arc::new(durable::Ahead(context.clock)) } else { context.clock };
        let sampler = Sampler::new(config, &context.id, context.ledger, &context.telemetry)
            .map_err(|error| BuildError::new(&[], error.to_string()))?;
        Ok(Arc::new(Self {
            sampler: Arc::new(sampler),
            keys,
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

    /// Takes a request of `client` in that is safe already, in record `sequence`, if it is to be.
    async fn take_in(&self, client: &[u8], message: &[u8], sequence: u64) -> Result<(), Refusal> {
        loop {
            if !self.sampler.must_wait() {
                match self.sampler.insert_from(client, message, sequence, self.clock.now()) {
                    Err(refusal) if refusal.is_retryable() && self.sampler.blocks() => {}
                    result => return result,
                }
            }
            while_wanted(tokio::time::sleep(LOOK_AGAIN)).await?;
            self.open()?;
        }
    }
}

#[async_trait]
impl Consumer for TailSampling {
    async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        self.open()?;
        let client = self.keys.encode(batch.metadata());
        let Some(place) = &self.place else {
            return self.take_in(&client, batch.wire(), 0).await;
        };
        let durable = place.durable()?;
        if !self.sampler.blocks() {
            self.sampler.prepare(self.clock.now())?;
        }
        let stored = durable.store(&mut batch, &client, &*self.clock).await?;
        let taken = self.take_in(&client, batch.wire(), stored.sequence()).await;
        if taken.is_err() {
            stored.refused();
        }
        taken
    }

    async fn reserve(&self, batch: &Batch, _: &mut Permits) -> Result<(), NoRoom> {
        self.open()?;
        if let Some(place) = &self.place {
            place.durable()?.room(batch)?;
        }
        if self.sampler.blocks() { Ok(()) } else { Ok(self.sampler.room()?) }
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.keys.names().to_vec()
    }
}

#[async_trait]
impl Component for TailSampling {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        for shard in 0..self.sampler.shards() {
            let run = self.worker(shard).run(self.stop.subscribe());
            let task = host.runtimes.vital("a shard of tail_sampling", run);
            self.tasks.lock().push(host.runtimes.spawn(task));
        }
        if let Some(place) = &self.place {
            let keeper = place.open(host, &self.sampler, &self.clock, self.stop.subscribe()).await?;
            self.tasks.lock().push(keeper);
        }
        Ok(())
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
        if let Some(place) = &self.place {
            place.let_go(deadline).await;
        }
        self.sampler.abandon();
    }

    fn status(&self) -> Option<Status> {
        self.place.as_ref()?.status()
    }
}
