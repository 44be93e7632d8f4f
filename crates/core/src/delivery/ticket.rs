//! What a queued batch is owed: its room until the outcome is known, and perhaps an answer.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Request;
use crate::batch::{Permit, Refusal};
use crate::telemetry::UpDown;

/// The stake of one batch in the requests that carry it. Dropped with the last of them.
#[derive(Debug)]
pub(super) struct Ticket {
    /// Given back on drop.
    _permits: Vec<Permit>,
    units: i64,
    queue_size: UpDown,
    answer: Option<Mutex<Answer>>,
}

#[derive(Debug)]
struct Answer {
    sender: Option<oneshot::Sender<Result<(), Refusal>>>,
    refusal: Option<Refusal>,
}

impl Ticket {
    pub(super) fn new(permits: Vec<Permit>, units: usize, queue_size: UpDown) -> Self {
        let units = i64::try_from(units).unwrap_or(i64::MAX);
        queue_size.add(units);
        Self { _permits: permits, units, queue_size, answer: None }
    }

    /// Asks for the outcome: `Ok` if every request that carried the batch was delivered, else the
    /// first failure.
    pub(super) fn wait(&mut self) -> oneshot::Receiver<Result<(), Refusal>> {
        let (sender, receiver) = oneshot::channel();
        self.answer = Some(Mutex::new(Answer { sender: Some(sender), refusal: None }));
        receiver
    }

    fn fail(&self, refusal: &Refusal) {
        if let Some(answer) = &self.answer {
            answer.lock().refusal.get_or_insert_with(|| refusal.clone());
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.queue_size.sub(self.units);
        let Some(answer) = &self.answer else { return };
        let mut answer = answer.lock();
        let result = answer.refusal.take().map_or(Ok(()), Err);
        if let Some(sender) = answer.sender.take() {
            // The one who asked may be gone.
            let _ = sender.send(result);
        }
    }
}

/// A request on its way to a consumer, with the stakes of the batches in it.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) request: Request,
    tickets: Vec<Arc<Ticket>>,
    settled: bool,
}

impl Work {
    pub(super) fn new(request: Request, tickets: Vec<Arc<Ticket>>) -> Self {
        Self { request, tickets, settled: false }
    }

    /// Adds a batch.
    pub(super) fn merge(&mut self, request: Request, ticket: Arc<Ticket>) {
        self.request.merge(request);
        self.tickets.push(ticket);
    }

    /// The outcome is known.
    pub(super) fn settle(mut self, result: &Result<(), Refusal>) {
        self.settled = true;
        if let Err(refusal) = result {
            self.fail(refusal);
        }
    }

    fn fail(&self, refusal: &Refusal) {
        for ticket in &self.tickets {
            ticket.fail(refusal);
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.settled {
            self.fail(&Refusal::retryable(None, "the gateway is shutting down"));
        }
    }
}
