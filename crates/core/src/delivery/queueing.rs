//! From the queue to consumers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use tokio::time::{Instant, sleep_until};

use super::admission::{Admission, Lack};
use super::gather::Gather;
use super::stage::{Inner, Keeper, State, shutting_down, signed};
use super::ticket::{Ticket, Work};
use super::{Attempt, OnFull, Request};
use crate::batch::{DropReason, Refusal, while_wanted};
use crate::runtime::Runtimes;
use crate::telemetry::Entry;

impl<A: Attempt> Inner<A> {
    /// A batch of so many items did not get in. Returns `Ok` if it is dropped.
    pub(super) fn turn_away(&self, refusal: Refusal, items: usize, on_full: OnFull) -> Result<(), Refusal> {
        self.metrics.enqueue_failed.inc_by(items as u64);
        let dropped = on_full == OnFull::Drop;
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
            return Err(refusal);
        }
        self.ledger.add(Entry::Accepted, items);
        self.ledger.dropped(DropReason::QueueFull, items);
        Ok(())
    }

    /// Waits until there may be the room that a batch of so many items lacks, no longer than its caller does.
    pub(super) async fn wait_for_room(self: &Arc<Self>, lack: Lack, items: usize) -> Result<(), Refusal> {
        let waited = while_wanted(lack.wait(|| self.make_room())).await;
        waited.flatten().or_else(|refusal| self.turn_away(refusal, items, OnFull::Refuse))
    }

    /// The queue is full: what it gathers must not wait for company any longer.
    pub(super) fn make_room(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.flush() {
            self.dispatch(state);
        }
    }

    /// Takes a request into the queue.
    pub(super) fn enqueue(self: &Arc<Self>, request: Request, ticket: Ticket) -> Result<(), Refusal> {
        let state = self.state.lock();
        if !state.open || self.runtimes.get().is_none() {
            return Err(shutting_down());
        }
        if self.keeper == Keeper::Memory {
            self.ledger.add(Entry::Accepted, request.items());
            self.ledger.held(signed(request.items()));
        }
        self.put(state, [(request, ticket)]);
        Ok(())
    }

    /// Puts requests where consumers find them, at once or when they have company: not while somebody waits for their
    /// room, who has looked for what was gathered before these came (under the same lock).
    pub(super) fn put(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        requests: impl IntoIterator<Item = (Request, Ticket)>,
    ) {
        let mut is_armed = false;
        for (request, ticket) in requests {
            is_armed |= state.add(request, ticket);
        }
        let is_short = self.admission.as_ref().is_some_and(Admission::is_short);
        if is_short || self.disk_waiters.load(Ordering::Acquire) > 0 {
            state.flush();
        }
        self.dispatch(state);
        if is_armed {
            self.armed.notify_one();
        }
    }

    /// Starts consumers for what is ready, as far as there may be more of them.
    pub(super) fn dispatch(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let Some(runtimes) = self.runtimes.get() else { return };
        let mut begun = Vec::new();
        let mut at_work: usize = state.consumers.iter().sum();
        while at_work < self.in_flight {
            let first = if state.merging.is_none() {
                let Some(work) = state.pop() else { break };
                Some(work)
            } else {
                // When its turn has come it takes what is there by then, which is all that came together; if that is
                // too much for one request, it calls the next consumer.
                if state.is_beginning || state.ready.is_empty() {
                    break;
                }
                state.is_beginning = true;
                None
            };
            let worker = least_busy(&state.consumers, Runtimes::current_index());
            if let Some(consumers) = state.consumers.get_mut(worker) {
                *consumers += 1;
            }
            at_work += 1;
            begun.push((worker, first));
        }
        drop(state);
        for (worker, first) in begun {
            let consumer = Slot { inner: Arc::clone(self), worker, taken: true, is_beginning: first.is_none() };
            runtimes.spawn_on(worker, consumer.work(first));
        }
    }

    /// Sends what was gathered when its time has come.
    pub(super) async fn flush_on_time(self: Arc<Self>) {
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
}

/// A consumer's place among those that there may be; given up on drop, should its task not get to its
/// end.
struct Slot<A: Attempt> {
    inner: Arc<Inner<A>>,
    worker: usize,
    taken: bool,
    /// It is the one that has not taken its first request yet.
    is_beginning: bool,
}

impl<A: Attempt> Slot<A> {
    async fn work(mut self, first: Option<Work>) {
        let mut next = first.or_else(|| self.next());
        while let Some(work) = next {
            self.inner.work_off(work).await;
            self.inner.write_down().await;
            next = self.next();
        }
    }

    /// More work, or else the place is given up: both under one lock.
    fn next(&mut self) -> Option<Work> {
        let mut state = self.inner.state.lock();
        let work = state.pop();
        self.inner.read_on(&mut state);
        if work.is_none() {
            self.taken = false;
            leave(&self.inner, &mut state, self.worker);
        }
        if std::mem::take(&mut self.is_beginning) {
            state.is_beginning = false;
            self.inner.dispatch(state);
        }
        work
    }
}

impl<A: Attempt> Drop for Slot<A> {
    fn drop(&mut self) {
        if self.taken {
            let mut state = self.inner.state.lock();
            // One that never had its turn takes its first request with it, as the others do: where the runtime has
            // ended, the next will not have its turn either.
            let first = self.is_beginning.then(|| state.pop()).flatten();
            state.is_beginning &= !self.is_beginning;
            leave(&self.inner, &mut state, self.worker);
            // What waited for this consumer, in memory or on disk, must not wait for the next batch.
            self.inner.read_on(&mut state);
            self.inner.dispatch(state);
            drop(first);
            if std::thread::panicking() {
                let fate = if self.inner.keeper == Keeper::Disk {
                    "it stays on disk for the next start"
                } else {
                    "it is lost"
                };
                tracing::error!(
                    exporter = self.inner.exporter,
                    "the exporter failed on a request, {fate}; this is a bug, please report it"
                );
            }
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
