//! The queue on disk (`sending_queue.storage`).
//!
//! A batch is acknowledged when the storage log has its record, and the record is released when the
//! outcome of everything in it is known. So what a crash or a shutdown interrupts is there at the next
//! start, in order. Beside the disk, up to [`IN_MEMORY`] bytes are kept in memory: while there is room,
//! requests go to consumers without being read again; the others are the [`Backlog`], which one task at
//! a time reads back as memory empties. What comes while there is a backlog joins it, to keep the order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::backlog::{Backlog, Missing};
use super::sending::reached;
use super::stage::{Inner, Keeper, Phase, Settings, State, shutting_down, signed};
use super::ticket::{self, Ticket};
use super::{Attempt, OnFull, Request, record};
use crate::batch::{Batch, DropReason, NoRoom, Permit, Refusal, while_wanted};
use crate::component::{BuildError, ExporterContext, StartError};
use crate::storage::{self, Chunk, Error, Log, Owner, Storage};
use crate::telemetry::Entry;

/// Bytes of requests that are in memory too, what is on its way included. A single larger one passes.
pub(super) const IN_MEMORY: usize = 32 << 20;
/// So many times `num_consumers` requests, as configured, may be done with and not written down as such beside those that
/// are on their way: a crash sends them again. More than once, so that consumers do not wait for each fsync of what comes
/// in meanwhile.
pub(super) const UNWRITTEN: usize = 4;
/// Bytes that are read back at once.
const CHUNK: usize = 1 << 20;

/// Where a queue on disk will be.
pub(super) struct Durable {
    storage: Arc<dyn Storage>,
    owner: Owner,
    /// The key that says so.
    pub(super) key: &'static [&'static str],
}

impl Durable {
    /// The place that `sending_queue.storage` names, if it names one.
    pub(super) fn find(context: &ExporterContext<'_>, settings: &Settings) -> Result<Option<Self>, BuildError> {
        const KEY: &[&str] = &["sending_queue", "storage"];
        let Some(id) = settings.queue.storage.as_ref().filter(|_| settings.queue.enabled) else { return Ok(None) };
        let storage = context.extensions.storage(id).map_err(|message| BuildError::new(KEY, message))?;
        Ok(Some(Self::at(storage, KEY, context, settings)))
    }

    /// This place, which `key` of the exporter's configuration asks for.
    pub(super) fn at(
        storage: Arc<dyn Storage>,
        key: &'static [&'static str],
        context: &ExporterContext<'_>,
        settings: &Settings,
    ) -> Self {
        Self { storage, owner: Owner::exporter(settings.kind, &context.id.name, context.signal), key }
    }
}

/// A queue on disk.
pub(super) struct Store {
    pub(super) log: Log,
    backlog: Backlog,
}

impl<A: Attempt> Inner<A> {
    /// Opens the queue on disk, if there is one, and begins with what is in it.
    pub(super) async fn open_store(self: &Arc<Self>) -> Result<(), StartError> {
        let (Some(durable), Some(admission)) = (&self.durable, &self.admission) else { return Ok(()) };
        let opened = durable.storage.open(&durable.owner).await;
        let (log, recovered) = opened.map_err(|error| StartError(format!("{}: {error}", durable.key.join("."))))?;
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let units = admission.units(size(recovered.records), size(recovered.weight), size(recovered.bytes));
        let mut backlog = Backlog::new(self.metrics.queue_size.clone());
        let permits = admission.take(&units);
        backlog.recover(recovered.next_sequence, recovered.records, recovered.weight, permits);
        self.ledger.add(Entry::Created, size(recovered.weight));
        self.ledger.held(signed(size(recovered.weight)));
        let mut state = self.state.lock();
        state.store = Some(Store { log, backlog });
        self.read_on(&mut state);
        Ok(())
    }

    /// Takes a request in: once its record is as durable as was asked for, it is ours.
    pub(super) async fn persist(
        self: &Arc<Self>,
        request: Request,
        permits: Vec<Permit>,
        on_full: OnFull,
    ) -> Result<(), Refusal> {
        let log = {
            let state = self.state.lock();
            state.store.as_ref().filter(|_| state.open).map(|store| store.log.clone())
        };
        let Some(log) = log else { return Err(shutting_down()) };
        let weight = u32::try_from(request.items()).unwrap_or(u32::MAX);
        let position = loop {
            let freed = log.freed();
            let arrival = self.clock.unix_nanos();
            match log.append(record::KIND, weight, arrival, record::encode(&request, &self.metadata_keys)).await {
                Ok(position) => break position,
                Err(Error::Closed) => return Err(shutting_down()),
                Err(Error::Full { .. }) if self.waits_for_room() => self.wait_for_disk(freed, request.items()).await?,
                Err(error) => return self.refuse_for_disk(error, request.items(), on_full),
            }
        };
        self.ledger.add(Entry::Accepted, request.items());
        self.ledger.held(signed(request.items()));

        let mut state = self.state.lock();
        let State { open: true, store: Some(store), .. } = &mut *state else {
            // Shut down meanwhile. It is safe on disk.
            return Ok(());
        };
        let used = self.in_memory.load(Ordering::Acquire);
        let has_room = used == 0 || used.saturating_add(request.size()) <= self.memory_bound;
        let is_next = store.backlog.is_empty() && has_room;
        if !is_next && !store.backlog.has_passed(position) {
            store.backlog.push(position, request.items(), permits);
            self.read_on(&mut state);
            return Ok(());
        }
        let ticket = self.ticket(&log, position, &request, permits);
        self.put(state, [(request, ticket)]);
        Ok(())
    }

    /// Whether the disk is likely to take `batch`: asked before a fan-out commits itself.
    pub(super) fn check_disk(self: &Arc<Self>, batch: &Batch, on_full: OnFull) -> Result<(), NoRoom> {
        if self.keeper != Keeper::Disk {
            return Ok(());
        }
        let log = self.state.lock().store.as_ref().map(|store| store.log.clone());
        let Some(log) = log else { return Err(shutting_down().into()) };
        let (freed, items) = (log.freed(), batch.items());
        match log.check_room(batch.size() as u64) {
            Ok(()) => Ok(()),
            // Finds out again, and counts, when the batch comes.
            Err(Error::Full { .. }) if on_full == OnFull::Drop => Ok(()),
            Err(Error::Full { .. }) if self.waits_for_room() => {
                let inner = Arc::clone(self);
                Err(NoRoom::Full(Box::pin(async move { inner.wait_for_disk(freed, items).await })))
            }
            Err(error) => Ok(self.refuse_for_disk(error, items, OnFull::Refuse)?),
        }
    }

    /// `block_on_overflow`
    fn waits_for_room(&self) -> bool {
        self.admission.as_ref().is_some_and(|admission| admission.wait)
    }

    /// Until the disk has more room for what holds `items`.
    async fn wait_for_disk(self: &Arc<Self>, freed: impl Future<Output = ()>, items: usize) -> Result<(), Refusal> {
        let _waiter = Waiter::among(&self.disk_waiters);
        self.make_room();
        let mut phase = self.phase.subscribe();
        tokio::select! {
            freed = while_wanted(freed) => {
                freed.or_else(|refusal| self.turn_away(refusal, items, OnFull::Refuse))
            }
            () = reached(&mut phase, Phase::Draining) => Err(shutting_down()),
        }
    }

    fn refuse_for_disk(self: &Arc<Self>, error: Error, items: usize, on_full: OnFull) -> Result<(), Refusal> {
        match error {
            Error::Full { .. } => {
                self.make_room();
                self.turn_away(error.into(), items, on_full)
            }
            error => {
                self.metrics.enqueue_failed.inc_by(items as u64);
                if let Some(since) = self.storage_log.event(items) {
                    let (items, requests) = (since.items, since.requests);
                    tracing::error!(exporter = self.exporter, items, requests, %error, "cannot queue on disk, refusing data");
                }
                Err(error.into())
            }
        }
    }

    /// A request is done with. Waits while the log is behind with writing that down.
    pub(super) async fn write_down(&self) {
        if self.keeper != Keeper::Disk {
            return;
        }
        let most = self.settings.queue.num_consumers.saturating_mul(UNWRITTEN);
        let wait = {
            let mut state = self.state.lock();
            let State { store: Some(store), unwritten, .. } = &mut *state else { return };
            unwritten.push_back(store.log.releases());
            let settled = store.log.settled_releases();
            while unwritten.front().is_some_and(|releases| *releases <= settled) {
                unwritten.pop_front();
            }
            // Others wait for those before.
            let first = unwritten.len().checked_sub(most + 1).and_then(|index| unwritten.get(index));
            first.map(|releases| store.log.wait_until_settled(*releases))
        };
        if let Some(wait) = wait {
            wait.await;
        }
    }

    fn ticket(&self, log: &Log, position: storage::Position, request: &Request, permits: Vec<Permit>) -> Ticket {
        let record = ticket::Record {
            log: log.clone(),
            sequence: position.sequence,
            in_memory: Arc::clone(&self.in_memory),
            bytes: request.size(),
            stays: AtomicBool::new(false),
        };
        Ticket::of_record(permits, self.metrics.queue_size.clone(), record)
    }

    /// Sees to it that the backlog is read while there is room in memory.
    pub(super) fn read_on(self: &Arc<Self>, state: &mut State) {
        let State { open: true, store: Some(store), .. } = state else { return };
        let Some(runtimes) = self.runtimes.get() else { return };
        let is_wanted = !store.backlog.is_empty() && self.in_memory.load(Ordering::Acquire) <= self.memory_bound / 2;
        if is_wanted && !store.backlog.is_read {
            store.backlog.is_read = true;
            let read = Arc::clone(self).read_back(store.log.clone());
            runtimes.spawn(runtimes.vital("the reader of a persistent queue", read));
        }
    }

    /// Reads the backlog until memory is full, or nothing is left of it.
    async fn read_back(self: Arc<Self>, log: Log) {
        let mut phase = self.phase.subscribe();
        loop {
            let next = self.state.lock().store.as_ref().map(|store| store.backlog.next_read());
            let Some((cursor, until)) = next else { return };
            let read = tokio::select! {
                read = log.read(cursor, CHUNK) => read,
                _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
            };
            match read {
                Ok(chunk) => {
                    if !self.take_back(&log, chunk, until) {
                        return;
                    }
                }
                Err(Error::Closed) => return,
                Err(error) => {
                    if let Some(since) = self.storage_log.event(0) {
                        let failures = since.requests;
                        tracing::error!(exporter = self.exporter, failures, %error, "cannot read the queue, trying again");
                    }
                    tokio::select! {
                        () = sleep(Duration::from_secs(1)) => {}
                        _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
                    }
                }
            }
        }
    }

    /// Puts what was read into the queue. Returns whether to read on.
    fn take_back(self: &Arc<Self>, log: &Log, chunk: Chunk, until: u64) -> bool {
        let Some(admission) = &self.admission else { return false };
        let mut requests = Vec::with_capacity(chunk.records.len());
        let mut state = self.state.lock();
        if !state.open {
            return false;
        }
        for read in chunk.records {
            let items = read.weight as usize;
            let bytes = read.payload.len();
            let request = record::decode(self.signal, read.payload, items).filter(|_| read.kind == record::KIND);
            let Some(request) = request else {
                // Counted as missing when the backlog has been read.
                log.release(read.position.sequence);
                continue;
            };
            let Some(store) = &mut state.store else { return false };
            // What is in memory already is passed over.
            let Some(permits) = store.backlog.take(read.position, items, &admission.units(1, items, bytes)) else {
                continue;
            };
            let ticket = self.ticket(log, read.position, &request, permits);
            requests.push((request, ticket));
        }
        let Some(store) = &mut state.store else { return false };
        let missing = store.backlog.advance(chunk.next, chunk.is_end, until);
        let more = !store.backlog.is_empty() && self.in_memory.load(Ordering::Acquire) < self.memory_bound.max(1);
        store.backlog.is_read = more;
        self.put(state, requests);
        if let Some(missing) = missing {
            self.book_missing(missing);
        }
        more
    }

    fn book_missing(&self, Missing { requests, items }: Missing) {
        self.ledger.held(-signed(items));
        self.ledger.dropped(DropReason::Unreadable, items);
        tracing::error!(
            exporter = self.exporter,
            dropped_items = items,
            dropped_requests = requests,
            "the queue on disk is damaged: what could not be read is lost"
        );
    }

    /// Lets go of the disk; says what stays there.
    pub(super) async fn close_store(&self) {
        let Some(store) = self.state.lock().store.take() else { return };
        store.log.close().await;
        let usage = store.log.usage();
        if usage.records > 0 {
            tracing::info!(
                exporter = self.exporter,
                requests = usage.records,
                "not delivered yet; kept on disk for the next start"
            );
        }
    }
}

/// One of those who wait, while it lives.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn among(waiters: &'a AtomicUsize) -> Self {
        waiters.fetch_add(1, Ordering::AcqRel);
        Self(waiters)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
