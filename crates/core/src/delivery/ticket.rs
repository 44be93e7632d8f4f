//! What a queued batch is owed: its room until the outcome is known, perhaps an answer, perhaps that
//! its record on disk is released.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::booking::Failure;
use super::stage::interrupted;
use super::{Lost, Request};
use crate::batch::{Permit, Refusal};
use crate::storage::Log;
use crate::telemetry::UpDown;

/// The stake of one batch in the requests that carry it. Dropped with the last of them.
#[derive(Debug)]
pub(super) struct Ticket {
    /// Given back on drop.
    _permits: Vec<Permit>,
    units: i64,
    queue_size: UpDown,
    answer: Option<Mutex<Answer>>,
    record: Option<Record>,
}

/// The batch's record in the storage log.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) log: Log,
    pub(super) sequence: u64,
    /// Its bytes are counted here while it is in memory.
    pub(super) in_memory: Arc<AtomicUsize>,
    pub(super) bytes: usize,
    /// Something of it is not done with: it stays in the log.
    pub(super) stays: AtomicBool,
}

impl Drop for Record {
    fn drop(&mut self) {
        self.in_memory.fetch_sub(self.bytes, Ordering::AcqRel);
        if !*self.stays.get_mut() {
            self.log.release(self.sequence);
        }
    }
}

#[derive(Debug)]
struct Answer {
    sender: Option<oneshot::Sender<Result<Lost, Refusal>>>,
    refusal: Option<Refusal>,
    lost: Lost,
}

impl Ticket {
    /// The first of `permits` is in units of the queue's size.
    pub(super) fn new(permits: Vec<Permit>, queue_size: UpDown) -> Self {
        let units = permits.first().map_or(0, |permit| i64::try_from(permit.units()).unwrap_or(i64::MAX));
        queue_size.add(units);
        Self { _permits: permits, units, queue_size, answer: None, record: None }
    }

    /// The same for a batch that is on disk.
    pub(super) fn of_record(permits: Vec<Permit>, queue_size: UpDown, record: Record) -> Self {
        record.in_memory.fetch_add(record.bytes, Ordering::AcqRel);
        let mut ticket = Self::new(permits, queue_size);
        ticket.record = Some(record);
        ticket
    }

    /// Asks for the outcome: if every request that carried the batch was delivered, what was lost of it; else the
    /// first failure.
    pub(super) fn wait(&mut self) -> oneshot::Receiver<Result<Lost, Refusal>> {
        let (sender, receiver) = oneshot::channel();
        self.answer = Some(Mutex::new(Answer { sender: Some(sender), refusal: None, lost: Lost::default() }));
        receiver
    }

    fn fail(&self, refusal: &Refusal, stays: bool) {
        if let Some(record) = self.record.as_ref().filter(|_| stays) {
            record.stays.store(true, Ordering::Release);
        }
        if let Some(answer) = &self.answer {
            answer.lock().refusal.get_or_insert_with(|| refusal.clone());
        }
    }

    /// So much of it was not taken.
    fn lose(&self, lost: Lost) {
        if let Some(answer) = self.answer.as_ref().filter(|_| !lost.is_empty()) {
            answer.lock().lost.merge(lost);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.queue_size.sub(self.units);
        let Some(answer) = &self.answer else { return };
        let mut answer = answer.lock();
        let lost = std::mem::take(&mut answer.lost);
        let result = answer.refusal.take().map_or(Ok(lost), Err);
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
    /// The batches in it, and how many of its items are of each.
    tickets: Vec<(Arc<Ticket>, usize)>,
    /// What was put together because it waited together: each with its own stakes. Empty if nothing was.
    parts: Vec<Self>,
    settled: bool,
}

impl Work {
    pub(super) fn new(request: Request, ticket: Arc<Ticket>) -> Self {
        let tickets = vec![(ticket, request.items())];
        Self { request, tickets, parts: Vec::new(), settled: false }
    }

    /// Adds a batch.
    pub(super) fn merge(&mut self, mut request: Request, ticket: Arc<Ticket>) {
        self.tickets.push((ticket, request.items()));
        self.request.merge(&mut request);
    }

    /// Sends `other` with it. Both stay what they are: should the request be refused, they can be tried one by one.
    pub(super) fn join(&mut self, other: Self) {
        if self.parts.is_empty() {
            let (request, tickets) = (self.request.clone(), std::mem::take(&mut self.tickets));
            self.parts.push(Self { request, tickets, parts: Vec::new(), settled: false });
        }
        self.request.merge(&mut other.request.clone());
        self.parts.push(other);
    }

    /// What it was put together from, to be settled one by one; nothing if it was not.
    pub(super) fn take_parts(&mut self) -> Vec<Self> {
        std::mem::take(&mut self.parts)
    }

    /// The outcome is known.
    pub(super) fn settle(mut self, result: Result<Lost, Failure>) {
        self.settled = true;
        match result {
            Ok(mut lost) => {
                for part in self.parts.drain(..) {
                    let share = lost.take_share(part.request.items());
                    part.settle(Ok(share));
                }
                self.tickets.iter().for_each(|(ticket, items)| ticket.lose(lost.take_share(*items)));
            }
            Err(failure) => {
                self.parts.drain(..).for_each(|part| part.settle(Err(failure.clone())));
                self.fail(&failure.refusal, failure.stays);
            }
        }
    }

    fn fail(&self, refusal: &Refusal, stays: bool) {
        for (ticket, _) in &self.tickets {
            ticket.fail(refusal, stays);
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.settled {
            self.fail(&interrupted(), true);
        }
    }
}
