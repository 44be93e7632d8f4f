//! The pipeline stage.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::admission::{Admission, Turned, full};
use super::durable::{Durable, IN_MEMORY, Store};
use super::gather::Gather;
use super::metrics::Metrics;
use super::status::{Health, LogGate, Status};
use super::ticket::{Ticket, Work};
use super::{Attempt, Lost, OnFull, QueueConfig, Request, RetryConfig};
use crate::batch::{Batch, DropReason, Metadata, NoRoom, Permits, Refusal, Signal};
use crate::clock::Clock;
use crate::component::{BuildError, Component, Consumer, ExporterContext, Host, StartError};
use crate::runtime::Runtimes;
use crate::storage::Storage;
use crate::telemetry::Ledger;
use crate::wire::SizeLimit;

/// How a [`Delivery`] works: the shared part of an exporter's configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The exporter's type, by its one name (not the spelling in the configuration): what the directory
    /// of a queue on disk is named after.
    pub kind: &'static str,
    /// `sending_queue`.
    pub queue: QueueConfig,
    /// `retry_on_failure`.
    pub retry: RetryConfig,
    /// `timeout`, of one attempt; zero for none.
    pub timeout: Duration,
    /// Where the data goes, as log lines name it.
    pub endpoint: String,
    /// Requests from the queue stay under this many bytes, unless one item is longer: what peers of this protocol take.
    pub max_request_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// No retry waits; one attempt for what is left.
    Draining,
    /// No attempts.
    Closed,
}

/// Who has a request that is not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeper {
    /// Its sender, who waits for the outcome.
    Sender,
    /// This process.
    Memory,
    /// The storage log, also when the process has ended.
    Disk,
}

/// Which requests that wait together are sent as one.
pub(super) struct Merging {
    most_bytes: usize,
    /// Those that differ in this metadata, in lower case, are not.
    keys: Vec<String>,
}

impl Merging {
    fn new<A: Attempt>(attempt: &A) -> Option<Self> {
        let most_bytes = attempt.merges_up_to();
        (most_bytes > 0).then(|| Self { most_bytes, keys: attempt.metadata_keys() })
    }

    fn may_join(&self, first: &Request, next: &Request) -> bool {
        first.size().saturating_add(next.size()) <= self.most_bytes
            && first.metadata().under(&self.keys).eq(next.metadata().under(&self.keys))
    }
}

pub(super) struct State {
    pub(super) gather: Option<Gather>,
    pub(super) merging: Option<Merging>,
    pub(super) ready: VecDeque<Work>,
    /// Consumers at work, by worker.
    pub(super) consumers: Vec<usize>,
    /// One of them has not taken its first request yet.
    pub(super) is_beginning: bool,
    pub(super) open: bool,
    /// How many requests have left the queue.
    left: u64,
    /// What peers take at once.
    max_request_bytes: usize,
    /// The queue on disk, once it is open.
    pub(super) store: Option<Store>,
    /// How many releases the log had been told of when each of the last requests was done with, the oldest first, as
    /// far as it has not written them down yet.
    pub(super) unwritten: VecDeque<u64>,
}

impl State {
    /// The next request that is ready, numbered.
    pub(super) fn pop(&mut self) -> Option<Work> {
        let mut work = self.ready.pop_front()?;
        if let Some(merging) = &self.merging {
            while let Some(next) = self.ready.pop_front_if(|next| merging.may_join(&work.request, &next.request)) {
                work.join(next);
            }
        }
        self.number(&mut work.request);
        Some(work)
    }

    /// Adds a request to what is gathered, or to what is ready. Returns whether something waits for
    /// its time now that nothing waited before.
    pub(super) fn add(&mut self, request: Request, ticket: Ticket) -> bool {
        let ticket = Arc::new(ticket);
        match &mut self.gather {
            Some(gather) => gather.add(request, &ticket, &mut self.ready),
            None => {
                let pieces = request.within(SizeLimit::bytes(self.max_request_bytes));
                self.ready.extend(pieces.into_iter().map(|piece| Work::new(piece, Arc::clone(&ticket))));
                false
            }
        }
    }

    /// Sends what is gathered. Returns whether there was anything.
    pub(super) fn flush(&mut self) -> bool {
        let Some(gather) = &mut self.gather else { return false };
        let ready = self.ready.len();
        gather.flush(&mut self.ready);
        self.ready.len() > ready
    }

    fn number(&mut self, request: &mut Request) {
        request.order = self.left;
        self.left += 1;
    }
}

pub(super) struct Inner<A> {
    pub(super) attempt: A,
    pub(super) settings: Settings,
    /// Requests on their way at once, at most.
    pub(super) in_flight: usize,
    pub(super) admission: Option<Admission>,
    pub(super) state: Mutex<State>,
    pub(super) runtimes: OnceLock<Arc<Runtimes>>,
    pub(super) phase: watch::Sender<Phase>,
    /// Something waits in `gather` now.
    pub(super) armed: Notify,
    /// The last consumer has gone.
    pub(super) idle: Notify,
    pub(super) metrics: Metrics,
    pub(super) ledger: Ledger,
    pub(super) health: Health,
    pub(super) exporter: String,
    pub(super) dropped_log: LogGate,
    pub(super) partly_log: LogGate,
    pub(super) full_log: LogGate,
    pub(super) storage_log: LogGate,
    pub(super) lost_at_shutdown: AtomicU64,
    pub(super) signal: Signal,
    pub(super) clock: Arc<dyn Clock>,
    /// The metadata, in lower case, that something here looks at.
    pub(super) metadata_keys: Vec<String>,
    pub(super) keeper: Keeper,
    /// Where the queue on disk will be.
    pub(super) durable: Option<Durable>,
    /// Bytes of requests of a queue on disk that are in memory too.
    pub(super) in_memory: Arc<AtomicUsize>,
    /// The most of them.
    pub(super) memory_bound: usize,
    /// How many wait for room on disk.
    pub(super) disk_waiters: AtomicUsize,
}

/// An exporter: an [`Attempt`] with everything around it.
pub struct Delivery<A: Attempt> {
    pub(super) inner: Arc<Inner<A>>,
}

impl<A: Attempt> Delivery<A> {
    /// The exporter that delivers by `attempt`.
    ///
    /// # Errors
    /// If `sending_queue.storage` names no storage.
    pub fn new(context: &ExporterContext<'_>, settings: Settings, attempt: A) -> Result<Arc<Self>, BuildError> {
        Self::with_memory(context, settings, attempt, IN_MEMORY)
    }

    /// The same with its queue on disk in `storage`, which `key` of the exporter's configuration asks for, rather than
    /// `sending_queue.storage`.
    ///
    /// # Errors
    /// If what the exporter keeps of its clients' metadata must not be on disk.
    pub fn in_storage(
        context: &ExporterContext<'_>,
        settings: Settings,
        attempt: A,
        storage: Arc<dyn Storage>,
        key: &'static [&'static str],
    ) -> Result<Arc<Self>, BuildError> {
        let durable = Durable::at(storage, key, context, &settings);
        Self::build(context, settings, attempt, Some(durable), IN_MEMORY)
    }

    /// As `new`, with `memory_bound` bytes of a queue on disk in memory too.
    pub(super) fn with_memory(
        context: &ExporterContext<'_>,
        settings: Settings,
        attempt: A,
        memory_bound: usize,
    ) -> Result<Arc<Self>, BuildError> {
        let durable = Durable::find(context, &settings)?;
        Self::build(context, settings, attempt, durable, memory_bound)
    }

    fn build(
        context: &ExporterContext<'_>,
        settings: Settings,
        attempt: A,
        durable: Option<Durable>,
        memory_bound: usize,
    ) -> Result<Arc<Self>, BuildError> {
        let exporter = context.id.to_string();
        let queue = &settings.queue;
        let keeper = match &durable {
            _ if !queue.enabled || queue.wait_for_result => Keeper::Sender,
            Some(_) => Keeper::Disk,
            None => Keeper::Memory,
        };
        let batching = queue.batch.as_ref().or(context.batching.as_ref());
        let gather = batching
            .filter(|_| queue.enabled)
            .map(|batching| Gather::new(batching, queue.sizer, settings.max_request_bytes))
            .map(|gather| gather.partitioned_by(attempt.metadata_keys()));
        let merging = Merging::new(&attempt).filter(|_| gather.is_none());
        let metadata_keys = gather.as_ref().map_or_else(|| attempt.metadata_keys(), |gather| gather.keys().to_vec());
        if let (Keeper::Disk, Some(durable)) = (keeper, &durable) {
            Metadata::check_for_disk(&metadata_keys).map_err(|message| BuildError::new(durable.key, message))?;
        }
        let capacity = queue.enabled.then_some(queue.queue_size);
        let inner = Inner {
            in_flight: attempt.in_flight(queue.num_consumers),
            attempt,
            admission: queue.enabled.then(|| Admission::new(queue)),
            state: Mutex::new(State {
                gather,
                merging,
                ready: VecDeque::new(),
                consumers: Vec::new(),
                is_beginning: false,
                open: true,
                left: 0,
                max_request_bytes: settings.max_request_bytes,
                store: None,
                unwritten: VecDeque::new(),
            }),
            runtimes: OnceLock::new(),
            phase: watch::Sender::new(Phase::Running),
            armed: Notify::new(),
            idle: Notify::new(),
            metrics: Metrics::new(&context.telemetry, &exporter, context.signal, capacity),
            ledger: context.ledger.clone(),
            health: Health::new(exporter.clone(), context.signal.name(), settings.endpoint.clone()),
            exporter,
            dropped_log: LogGate::default(),
            partly_log: LogGate::default(),
            full_log: LogGate::default(),
            storage_log: LogGate::default(),
            lost_at_shutdown: AtomicU64::new(0),
            signal: context.signal,
            clock: Arc::clone(&context.clock),
            metadata_keys,
            keeper,
            durable,
            in_memory: Arc::default(),
            memory_bound,
            disk_waiters: AtomicUsize::new(0),
            settings,
        };
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    /// Intake ends, retry waits end, nothing new is begun that is safe on disk. For exporters with
    /// stages of their own, which stop retrying between this and `shutdown`.
    pub fn begin_shutdown(&self) {
        self.inner.stop_intake();
    }
    /// Takes a batch, as `consume` does, and says what is known to be lost of what was taken: of a batch whose sender
    /// waits for the outcome (`wait_for_result`, or no queue), all that is. Of others the ledger has it, later.
    ///
    /// # Errors
    /// The refusal; nothing was taken then.
    pub async fn take(&self, mut batch: Batch) -> Result<Lost, Refusal> {
        let items = batch.items();
        if items == 0 {
            return Ok(Lost::default());
        }
        let Some(admission) = &self.inner.admission else {
            let mut request = Request::from_batch(batch);
            self.inner.state.lock().number(&mut request);
            return self.inner.process(&request).await.map_err(|failure| failure.refusal);
        };
        let mut reserved = std::mem::take(batch.permits_mut());
        let permits = loop {
            match admission.admit(&batch, &mut reserved) {
                Ok(permits) => break permits,
                Err(Turned::Full(lack)) if admission.wait => self.inner.wait_for_room(lack, items).await?,
                Err(Turned::Full(_)) => {
                    self.inner.make_room();
                    let dropped = self.inner.turn_away(full(), items, admission.on_full);
                    return dropped.map(|()| Lost::of(DropReason::QueueFull, items));
                }
                Err(Turned::TooLarge(refusal)) => {
                    return self.inner.turn_away(refusal, items, OnFull::Refuse).map(|()| Lost::default());
                }
            }
        };
        let request = Request::from_batch(batch);
        if self.inner.keeper == Keeper::Disk {
            return self.inner.persist(request, permits, admission.on_full).await.map(|()| Lost::default());
        }
        let mut ticket = Ticket::new(permits, self.inner.metrics.queue_size.clone());
        if self.inner.keeper == Keeper::Memory {
            return self.inner.enqueue(request, ticket).map(|()| Lost::default());
        }
        let answer = ticket.wait();
        self.inner.enqueue(request, ticket)?;
        answer.await.unwrap_or_else(|_| Err(shutting_down()))
    }
}

#[async_trait]
impl<A: Attempt> Consumer for Delivery<A> {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        self.take(batch).await.map(|_| ())
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        let Some(admission) = &self.inner.admission else { return Ok(()) };
        let items = batch.items();
        let refusal = match admission.admit(batch, &mut Permits::default()) {
            Ok(reserved) => {
                reserved.into_iter().for_each(|permit| permits.push(permit));
                return self.inner.check_disk(batch, admission.on_full);
            }
            Err(Turned::Full(lack)) if admission.wait => {
                let (inner, lack) = (Arc::clone(&self.inner), lack.beside(permits));
                return Err(NoRoom::Full(Box::pin(async move { inner.wait_for_room(lack, items).await })));
            }
            // Finds out again, and counts, when the batch comes.
            Err(Turned::Full(_)) if admission.on_full == OnFull::Drop => return Ok(()),
            Err(Turned::Full(_)) => {
                self.inner.make_room();
                full()
            }
            Err(Turned::TooLarge(refusal)) => refusal,
        };
        self.inner.metrics.enqueue_failed.inc_by(items as u64);
        Err(refusal.into())
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.inner.metadata_keys.clone()
    }
}

#[async_trait]
impl<A: Attempt> Component for Delivery<A> {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        self.inner.attempt.start(host).await?;
        let gathers = {
            let mut state = self.inner.state.lock();
            state.consumers = vec![0; host.runtimes.workers()];
            state.gather.is_some()
        };
        if self.inner.runtimes.set(Arc::clone(&host.runtimes)).is_err() {
            return Err(StartError(format!("exporter {} was started twice", self.inner.exporter)));
        }
        if gathers {
            let flush = Arc::clone(&self.inner).flush_on_time();
            host.runtimes.spawn(host.runtimes.vital("the batching of a sending queue", flush));
        }
        self.inner.open_store().await?;
        Ok(())
    }

    async fn shutdown(&self, deadline: Instant) {
        self.inner.drain(deadline).await;
    }

    fn status(&self) -> Option<Status> {
        Some(self.inner.health.status())
    }
}

pub(super) fn shutting_down() -> Refusal {
    Refusal::retryable(None, "the gateway is shutting down")
}

/// What becomes of a request whose task is dropped in the middle of the work on it.
pub(super) fn interrupted() -> Refusal {
    if std::thread::panicking() {
        return Refusal::permanent("the exporter failed on it; this is a bug, see the gateway's log");
    }
    shutting_down()
}

pub(super) fn signed(items: usize) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}
