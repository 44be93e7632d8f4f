//! The pipeline stage.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::admission::{Admission, Turned};
use super::gather::Gather;
use super::metrics::Metrics;
use super::status::{Health, LogGate, Status};
use super::ticket::{Ticket, Work};
use super::{Attempt, Backoff, OnFull, Outcome, QueueConfig, Request, RetryConfig};
use crate::batch::{Batch, Code, DropReason, Permits, Refusal};
use crate::component::{Component, Consumer, ExporterContext, Host, StartError};
use crate::runtime::Runtimes;
use crate::telemetry::{Entry, Ledger};

/// How a [`Delivery`] works: the shared part of an exporter's configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `sending_queue`.
    pub queue: QueueConfig,
    /// `retry_on_failure`.
    pub retry: RetryConfig,
    /// `timeout`, of one attempt; zero for none.
    pub timeout: Duration,
    /// Where the data goes, as log lines name it.
    pub endpoint: String,
    /// Merged requests stay under this many bytes: what peers of this protocol take.
    pub max_request_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// No retry waits; one attempt for what is left.
    Draining,
    /// No attempts.
    Closed,
}

struct State {
    gather: Option<Gather>,
    ready: VecDeque<Work>,
    /// Consumers at work, by worker.
    consumers: Vec<usize>,
    open: bool,
    /// How many requests have left the queue.
    left: u64,
}

impl State {
    /// The next request that is ready, numbered.
    fn pop(&mut self) -> Option<Work> {
        let mut work = self.ready.pop_front()?;
        self.number(&mut work.request);
        Some(work)
    }

    fn number(&mut self, request: &mut Request) {
        request.order = self.left;
        self.left += 1;
    }
}

struct Inner<A> {
    attempt: A,
    settings: Settings,
    admission: Option<Admission>,
    state: Mutex<State>,
    runtimes: OnceLock<Arc<Runtimes>>,
    phase: watch::Sender<Phase>,
    /// Something waits in `gather` now.
    armed: Notify,
    /// The last consumer has gone.
    idle: Notify,
    metrics: Metrics,
    ledger: Ledger,
    health: Health,
    exporter: String,
    dropped_log: LogGate,
    partly_log: LogGate,
    full_log: LogGate,
    lost_at_shutdown: AtomicU64,
}

/// An exporter: an [`Attempt`] with everything around it.
pub struct Delivery<A: Attempt> {
    inner: Arc<Inner<A>>,
}

/// How the work on a request ended.
enum End {
    Delivered { lost: Vec<(DropReason, usize)>, message: String },
    Failed { reason: DropReason, refusal: Refusal },
    /// Smaller pieces may pass.
    TooLarge(String),
}

impl<A: Attempt> Delivery<A> {
    /// The exporter that delivers by `attempt`.
    #[must_use]
    pub fn new(context: &ExporterContext<'_>, settings: Settings, attempt: A) -> Arc<Self> {
        let exporter = context.id.to_string();
        let queue = &settings.queue;
        let batching = queue.batch.as_ref().or(context.batching.as_ref());
        let gather = batching
            .filter(|_| queue.enabled)
            .map(|batching| Gather::new(batching, queue.sizer, settings.max_request_bytes));
        let capacity = queue.enabled.then_some(queue.queue_size);
        let inner = Inner {
            attempt,
            admission: queue.enabled.then(|| Admission::new(queue)),
            state: Mutex::new(State { gather, ready: VecDeque::new(), consumers: Vec::new(), open: true, left: 0 }),
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
            lost_at_shutdown: AtomicU64::new(0),
            settings,
        };
        Arc::new(Self { inner: Arc::new(inner) })
    }
}

#[async_trait]
impl<A: Attempt> Consumer for Delivery<A> {
    async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        let items = batch.items();
        if items == 0 {
            return Ok(());
        }
        let Some(admission) = &self.inner.admission else {
            let mut request = Request::from_batch(batch);
            self.inner.state.lock().number(&mut request);
            return self.inner.process(&request, false).await;
        };
        let mut reserved = std::mem::take(batch.permits_mut());
        let permits = match admission.admit(&batch, &mut reserved).await {
            Ok(permits) => permits,
            Err(turned) => return self.inner.turn_away(turned, items, admission.on_full),
        };
        let queue_size = self.inner.metrics.queue_size.clone();
        let mut ticket = Ticket::new(permits, admission.units(&batch), queue_size);
        let request = Request::from_batch(batch);
        if !self.inner.settings.queue.wait_for_result {
            return self.inner.enqueue(request, ticket, true);
        }
        let answer = ticket.wait();
        self.inner.enqueue(request, ticket, false)?;
        answer.await.unwrap_or_else(|_| Err(shutting_down()))
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), Refusal> {
        let Some(admission) = &self.inner.admission else { return Ok(()) };
        match admission.admit(batch, &mut Permits::default()).await {
            Ok(reserved) => {
                reserved.into_iter().for_each(|permit| permits.push(permit));
                Ok(())
            }
            // Finds out again, and counts, when the batch comes.
            Err(Turned::Full(_)) if admission.on_full == OnFull::Drop => Ok(()),
            Err(turned) => {
                self.inner.make_room();
                self.inner.metrics.enqueue_failed.inc_by(batch.items() as u64);
                Err(turned.into())
            }
        }
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
            host.runtimes.spawn(Arc::clone(&self.inner).flush_on_time());
        }
        Ok(())
    }

    async fn shutdown(&self, deadline: Instant) {
        self.inner.drain(deadline).await;
    }

    fn status(&self) -> Option<Status> {
        Some(self.inner.health.status())
    }
}

impl<A: Attempt> Inner<A> {
    /// A batch found no room.
    fn turn_away(self: &Arc<Self>, turned: Turned, items: usize, on_full: OnFull) -> Result<(), Refusal> {
        self.make_room();
        self.metrics.enqueue_failed.inc_by(items as u64);
        let dropped = on_full == OnFull::Drop && matches!(turned, Turned::Full(_));
        if let Some(since) = self.full_log.event(items) {
            let what = if dropped { "dropping data" } else { "refusing data" };
            tracing::warn!(
                exporter = self.exporter,
                items = since.items,
                requests = since.requests,
                "sending queue is full, {what}; see sending_queue.queue_size and num_consumers"
            );
        }
        if !dropped {
            return Err(turned.into());
        }
        self.ledger.add(Entry::Accepted, items);
        self.ledger.dropped(DropReason::QueueFull, items);
        Ok(())
    }

    /// The queue is full: what it gathers must not wait for company any longer.
    fn make_room(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let State { gather: Some(gather), ready, .. } = &mut *state else { return };
        gather.flush(ready);
        self.dispatch(state);
    }

    /// Takes a request into the queue. `acknowledged`: the sender is told that it is ours now.
    fn enqueue(self: &Arc<Self>, request: Request, ticket: Ticket, acknowledged: bool) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if !state.open || self.runtimes.get().is_none() {
            return Err(shutting_down());
        }
        if acknowledged {
            self.ledger.add(Entry::Accepted, request.items());
            self.ledger.held(signed(request.items()));
        }
        let ticket = Arc::new(ticket);
        let State { gather, ready, .. } = &mut *state;
        let armed = match gather {
            Some(gather) => gather.add(request, &ticket, ready),
            None => {
                ready.push_back(Work::new(request, vec![ticket]));
                false
            }
        };
        self.dispatch(state);
        if armed {
            self.armed.notify_one();
        }
        Ok(())
    }

    /// Starts consumers for what is ready, as far as there may be more of them.
    fn dispatch(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let Some(runtimes) = self.runtimes.get() else { return };
        let mut begun = Vec::new();
        let mut at_work: usize = state.consumers.iter().sum();
        while at_work < self.settings.queue.num_consumers {
            let Some(work) = state.pop() else { break };
            let worker = least_busy(&state.consumers, Runtimes::current_index());
            if let Some(consumers) = state.consumers.get_mut(worker) {
                *consumers += 1;
            }
            at_work += 1;
            begun.push((worker, work));
        }
        drop(state);
        for (worker, work) in begun {
            let consumer = Slot { inner: Arc::clone(self), worker, taken: true };
            runtimes.spawn_on(worker, consumer.work(work));
        }
    }

    /// Sends what was gathered when its time has come.
    async fn flush_on_time(self: Arc<Self>) {
        let mut phase = self.phase.subscribe();
        loop {
            let due = self.state.lock().gather.as_ref().and_then(Gather::next_due);
            let wait = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => self.armed.notified().await,
                }
            };
            tokio::select! {
                () = wait => {}
                _ = phase.changed() => return,
            }
            let mut state = self.state.lock();
            let State { gather: Some(gather), ready, .. } = &mut *state else { return };
            gather.flush_due(Instant::now(), ready);
            self.dispatch(state);
        }
    }

    /// Works on one request until its outcome is known, and books it.
    async fn process(&self, request: &Request, acknowledged: bool) -> Result<(), Refusal> {
        let mut booking = Booking::new(self, request.items(), acknowledged);
        let message = match self.deliver(request).await {
            End::TooLarge(message) => message,
            end => return booking.settle(end),
        };
        let pieces = request.halves();
        if pieces.len() < 2 {
            let refusal = Refusal::permanent(message).with_code(Code::InvalidArgument);
            return booking.settle(End::Failed { reason: DropReason::Rejected, refusal });
        }
        let mut result = Ok(());
        for piece in pieces {
            // Its own booking takes over.
            booking.items = booking.items.saturating_sub(piece.items());
            let delivered = Box::pin(self.process(&piece, acknowledged)).await;
            result = result.and(delivered);
        }
        result
    }

    async fn deliver(&self, request: &Request) -> End {
        let encoded = match self.attempt.encode(request) {
            Ok(encoded) => encoded,
            Err(outcome) => return self.conclude(outcome).unwrap_or_else(|retry| retry.into_end(DropReason::Rejected)),
        };
        let mut phase = self.phase.subscribe();
        let mut backoff = Backoff::new(&self.settings.retry);
        let started = Instant::now();
        loop {
            let attempt = self.attempt_in_time(&encoded);
            let outcome = tokio::select! {
                biased;
                outcome = attempt => outcome,
                () = reached(&mut phase, Phase::Closed) => {
                    return End::Failed { reason: DropReason::Shutdown, refusal: shutting_down() };
                }
            };
            let retry = match self.conclude(outcome) {
                Ok(end) => return end,
                Err(retry) => retry,
            };
            self.health.failed(&retry.message, self.settings.retry.enabled);
            if *phase.borrow() != Phase::Running {
                return retry.into_end(DropReason::Shutdown);
            }
            if !self.settings.retry.enabled {
                return retry.into_end(DropReason::RetriesExhausted);
            }
            let wait = backoff.next_wait(retry.after);
            let limit = self.settings.retry.max_elapsed_time.0;
            if !limit.is_zero() && started.elapsed().saturating_add(wait) > limit {
                let message = format!("no more retries left: {}", retry.message);
                return Retry { message, ..retry }.into_end(DropReason::RetriesExhausted);
            }
            tracing::debug!(
                exporter = self.exporter,
                error = retry.message,
                wait_seconds = wait.as_secs_f64(),
                "will try again"
            );
            tokio::select! {
                () = sleep(wait) => {}
                // The last attempt comes at once.
                () = reached(&mut phase, Phase::Draining) => {}
            }
        }
    }

    async fn attempt_in_time(&self, encoded: &A::Encoded) -> Outcome {
        let limit = self.settings.timeout;
        let attempt = self.attempt.attempt(encoded);
        if limit.is_zero() {
            return attempt.await;
        }
        timeout(limit, attempt).await.unwrap_or_else(|_| Outcome::Retry {
            code: Code::DeadlineExceeded,
            after: None,
            message: format!("no answer from {} within {limit:?} (timeout)", self.settings.endpoint),
        })
    }

    /// The end that `outcome` is, unless it is worth another attempt.
    fn conclude(&self, outcome: Outcome) -> Result<End, Retry> {
        let refused = |code, message: String| End::Failed {
            reason: DropReason::Rejected,
            refusal: Refusal::permanent(message).with_code(code),
        };
        match outcome {
            Outcome::Delivered => {
                self.health.succeeded();
                Ok(End::Delivered { lost: Vec::new(), message: String::new() })
            }
            Outcome::Partly { rejected, message } => {
                self.health.succeeded();
                Ok(End::Delivered { lost: vec![(DropReason::PartlyRejected, rejected)], message })
            }
            Outcome::Settled { lost, message } => {
                self.health.succeeded();
                Ok(End::Delivered { lost, message })
            }
            Outcome::Retry { code, after, message } => Err(Retry { code, after, message }),
            Outcome::Refused { code, message } => Ok(refused(code, message)),
            Outcome::TooLarge { message } => Ok(End::TooLarge(message)),
        }
    }

    async fn drain(self: &Arc<Self>, deadline: Instant) {
        let waiting = self.stop_intake();
        if waiting > 0 {
            tracing::info!(exporter = self.exporter, requests = waiting, "sending what is queued, one attempt each");
        }
        if timeout_at(deadline, self.all_done()).await.is_err() {
            self.phase.send_replace(Phase::Closed);
            let left = std::mem::take(&mut self.state.lock().ready);
            for work in left {
                let items = work.request.items();
                let acknowledged = !self.settings.queue.wait_for_result;
                let mut booking = Booking::new(self, items, acknowledged);
                let end = End::Failed { reason: DropReason::Shutdown, refusal: shutting_down() };
                work.settle(&booking.settle(end));
            }
            // Consumers end at their next await.
            let _ = timeout(Duration::from_secs(1), self.all_done()).await;
        }
        self.phase.send_replace(Phase::Closed);
        self.log_rest();
    }

    /// Returns how many requests are waiting or on their way.
    fn stop_intake(self: &Arc<Self>) -> usize {
        self.phase.send_replace(Phase::Draining);
        let mut state = self.state.lock();
        state.open = false;
        let State { gather, ready, consumers, .. } = &mut *state;
        if let Some(gather) = gather {
            gather.flush(ready);
        }
        let waiting = ready.len() + consumers.iter().sum::<usize>();
        self.dispatch(state);
        waiting
    }

    async fn all_done(&self) {
        loop {
            let gone = self.idle.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            {
                let state = self.state.lock();
                if state.ready.is_empty() && state.consumers.iter().all(|&consumers| consumers == 0) {
                    return;
                }
            }
            gone.await;
        }
    }

    fn log_drop(&self, reason: DropReason, refusal: &Refusal, items: usize) {
        if reason == DropReason::Shutdown {
            self.lost_at_shutdown.fetch_add(items as u64, Ordering::Relaxed);
        }
        let Some(since) = self.dropped_log.event(items) else { return };
        tracing::error!(
            exporter = self.exporter,
            error = refusal.message(),
            reason = reason.name(),
            dropped_items = since.items,
            dropped_requests = since.requests,
            "Exporting failed. Dropping data."
        );
    }

    fn log_rest(&self) {
        if let Some(since) = self.dropped_log.rest() {
            tracing::error!(
                exporter = self.exporter,
                dropped_items = since.items,
                dropped_requests = since.requests,
                "Exporting failed. Dropping data."
            );
        }
        let lost = self.lost_at_shutdown.load(Ordering::Relaxed);
        if lost > 0 {
            tracing::error!(
                exporter = self.exporter,
                dropped_items = lost,
                "shut down before {} had taken everything; what was left is lost",
                self.settings.endpoint
            );
        }
    }
}

/// A failure that another attempt may mend.
struct Retry {
    code: Code,
    after: Option<Duration>,
    message: String,
}

impl Retry {
    fn into_end(self, reason: DropReason) -> End {
        let refusal = Refusal::retryable(self.after, self.message).with_code(self.code);
        End::Failed { reason, refusal }
    }
}

/// A request that must end up in the ledger, even if the task that works on it is dropped.
struct Booking<'a, A: Attempt> {
    inner: &'a Inner<A>,
    items: usize,
    /// It is ours; otherwise the sender keeps it unless it is delivered.
    acknowledged: bool,
}

impl<'a, A: Attempt> Booking<'a, A> {
    fn new(inner: &'a Inner<A>, items: usize, acknowledged: bool) -> Self {
        inner.metrics.in_flight.inc();
        Self { inner, items, acknowledged }
    }

    fn settle(&mut self, end: End) -> Result<(), Refusal> {
        let items = std::mem::take(&mut self.items);
        let Inner { ledger, metrics, .. } = self.inner;
        if self.acknowledged {
            ledger.held(-signed(items));
        }
        match end {
            End::Delivered { lost, message } => {
                if !self.acknowledged {
                    ledger.add(Entry::Accepted, items);
                }
                let mut exported = items;
                for &(reason, lost) in &lost {
                    let lost = lost.min(exported);
                    exported -= lost;
                    ledger.dropped(reason, lost);
                }
                ledger.add(Entry::Exported, exported);
                metrics.sent.inc_by(items as u64);
                let is_rejected = lost.iter().any(|&(reason, lost)| reason == DropReason::PartlyRejected && lost > 0);
                if is_rejected || !message.is_empty() {
                    self.log_partly(items - exported, &message);
                }
                Ok(())
            }
            End::Failed { reason, refusal } => {
                metrics.send_failed.inc_by(items as u64);
                if self.acknowledged {
                    ledger.dropped(reason, items);
                    self.inner.log_drop(reason, &refusal, items);
                }
                Err(refusal)
            }
            End::TooLarge(message) => Err(Refusal::permanent(message)),
        }
    }

    fn log_partly(&self, rejected: usize, message: &str) {
        let Some(since) = self.inner.partly_log.event(rejected) else { return };
        tracing::warn!(
            exporter = self.inner.exporter,
            message,
            dropped_items = since.items,
            requests = since.requests,
            "{} took the request but not all of it",
            self.inner.settings.endpoint
        );
    }
}

impl<A: Attempt> Drop for Booking<'_, A> {
    fn drop(&mut self) {
        self.inner.metrics.in_flight.dec();
        if self.items > 0 {
            let _ = self.settle(End::Failed { reason: DropReason::Shutdown, refusal: shutting_down() });
        }
    }
}

/// A consumer's place among the `num_consumers`; given up on drop, should its task not get to its
/// end.
struct Slot<A: Attempt> {
    inner: Arc<Inner<A>>,
    worker: usize,
    taken: bool,
}

impl<A: Attempt> Slot<A> {
    async fn work(mut self, first: Work) {
        let acknowledged = !self.inner.settings.queue.wait_for_result;
        let mut next = Some(first);
        while let Some(work) = next {
            let result = self.inner.process(&work.request, acknowledged).await;
            work.settle(&result);
            next = self.next();
        }
    }

    /// More work, or else the place is given up: both under one lock.
    fn next(&mut self) -> Option<Work> {
        let mut state = self.inner.state.lock();
        let work = state.pop();
        if work.is_none() {
            self.taken = false;
            leave(&self.inner, &mut state, self.worker);
        }
        work
    }
}

impl<A: Attempt> Drop for Slot<A> {
    fn drop(&mut self) {
        if self.taken {
            let mut state = self.inner.state.lock();
            leave(&self.inner, &mut state, self.worker);
            // What waited for this consumer must not wait for the next batch.
            self.inner.dispatch(state);
        }
    }
}

fn leave<A>(inner: &Inner<A>, state: &mut State, worker: usize) {
    if let Some(consumers) = state.consumers.get_mut(worker) {
        *consumers -= 1;
    }
    inner.idle.notify_waiters();
}

/// The worker for a new consumer: `local`, unless another one has clearly less to do.
fn least_busy(consumers: &[usize], local: usize) -> usize {
    let here = consumers.get(local).copied().unwrap_or(usize::MAX);
    let (other, least) = consumers.iter().copied().enumerate().min_by_key(|&(_, busy)| busy).unwrap_or((0, 0));
    if here <= least.saturating_add(1) { local } else { other }
}

async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    let there = |phase: &Phase| match wanted {
        Phase::Running => true,
        Phase::Draining => *phase != Phase::Running,
        Phase::Closed => *phase == Phase::Closed,
    };
    // An error means that the exporter is gone.
    let _ = phase.wait_for(there).await;
}

fn shutting_down() -> Refusal {
    Refusal::retryable(None, "the gateway is shutting down")
}

fn signed(items: usize) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}
