//! The thread of a log: everything that may block happens here.
//!
//! It takes all that has come in since it looked last, and answers it with as few writes, and at
//! most one fsync a segment, as that allows: the longer a disk takes, the larger the groups.

use std::mem;
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::engine::{Engine, Incoming};
use super::{Chunk, Cursor, Error, Fsync, Position};

/// How often a disk that failed is tried.
const PROBE_EVERY: Duration = Duration::from_secs(1);

pub(super) type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// An append that waits for its answer.
pub(super) struct Append {
    pub(super) record: Incoming,
    pub(super) answer: Answer<Position>,
    /// Its share of the hand-over.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// What the thread is to do, in this order.
#[derive(Default)]
pub(super) struct Orders {
    appends: Vec<Append>,
    releases: Vec<Range<u64>>,
    way: bool,
    reads: Vec<(Cursor, usize, Answer<Chunk>)>,
    syncs: Vec<Answer<()>>,
    closed: bool,
    /// How many releases were ordered, since the log was opened.
    ordered: u64,
}

impl Orders {
    fn is_empty(&self) -> bool {
        let Self { appends, releases, way, reads, syncs, closed, ordered: _ } = self;
        let no_answers = appends.is_empty() && reads.is_empty() && syncs.is_empty();
        no_answers && releases.is_empty() && !way && !closed
    }
}

/// The hand-over to the thread.
#[derive(Default)]
pub(super) struct Inbox {
    orders: Mutex<Orders>,
    news: Condvar,
}

impl Inbox {
    pub(super) fn append(&self, append: Append) {
        self.order(|orders| orders.appends.push(append));
    }

    pub(super) fn release(&self, range: Range<u64>) {
        self.order(|orders| {
            orders.ordered += 1;
            match orders.releases.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => orders.releases.push(range),
            }
        });
    }

    /// How many releases were ordered so far.
    pub(super) fn ordered(&self) -> u64 {
        self.orders.lock().ordered
    }

    /// Somebody found no room and did not come to ask.
    pub(super) fn make_way(&self) {
        self.order(|orders| orders.way = true);
    }

    pub(super) fn read(&self, cursor: Cursor, max_bytes: usize, answer: Answer<Chunk>) {
        self.order(|orders| orders.reads.push((cursor, max_bytes, answer)));
    }

    pub(super) fn sync(&self, answer: Answer<()>) {
        self.order(|orders| orders.syncs.push(answer));
    }

    /// The thread finishes what it has, syncs, and ends.
    pub(super) fn close(&self) {
        self.order(|orders| orders.closed = true);
    }

    /// After the end nobody would answer: dropping the order tells who waits.
    fn order(&self, add: impl FnOnce(&mut Orders)) {
        let mut orders = self.orders.lock();
        if orders.closed {
            return;
        }
        let was_empty = orders.is_empty();
        add(&mut orders);
        drop(orders);
        if was_empty {
            self.news.notify_one();
        }
    }

    /// The thread has ended: whoever waits, or comes later, is told so.
    pub(super) fn abandon(&self) {
        *self.orders.lock() = Orders { closed: true, ..Orders::default() };
    }

    /// Everything there is to do; nothing if `timeout` passes first.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Orders {
        let mut orders = self.orders.lock();
        if orders.is_empty() {
            match timeout {
                Some(timeout) => _ = self.news.wait_for(&mut orders, timeout),
                None => self.news.wait(&mut orders),
            }
        }
        // Stays closed for those who come late.
        let (closed, ordered) = (orders.closed, orders.ordered);
        mem::replace(&mut *orders, Orders { closed, ordered, ..Orders::default() })
    }
}

/// Runs until the inbox is closed.
pub(super) fn run(engine: Engine, inbox: &Inbox) {
    let mut worker = Worker::new(engine, Instant::now());
    loop {
        let orders = inbox.wait(worker.may_wait(Instant::now()));
        if worker.turn(orders, Instant::now()).is_break() {
            return;
        }
    }
}

/// What the thread does, at times that it is told.
pub(super) struct Worker {
    engine: Engine,
    /// How long what is answered may stay unsynced.
    interval: Option<Duration>,
    synced: Instant,
    probed: Instant,
}

impl Worker {
    pub(super) fn new(mut engine: Engine, now: Instant) -> Self {
        let interval = match engine.limits.fsync {
            Fsync::Interval(interval) => Some(interval),
            Fsync::None | Fsync::Always => None,
        };
        // What another process left is held to this one's promise.
        if engine.limits.fsync != Fsync::None {
            report(engine.sync());
        }
        Self { engine, interval, synced: now, probed: now }
    }

    /// How long it may wait for orders; `None`: until some come.
    pub(super) fn may_wait(&self, now: Instant) -> Option<Duration> {
        let left = |of: Duration, since: Instant| of.saturating_sub(now.saturating_duration_since(since));
        let sync = self.interval.filter(|_| self.engine.is_dirty()).map(|interval| left(interval, self.synced));
        let probe = self.engine.stats.failing().map(|_| left(PROBE_EVERY, self.probed));
        sync.into_iter().chain(probe).min()
    }

    /// Does what is due, and what is ordered. Breaks when that was the end.
    pub(super) fn turn(&mut self, orders: Orders, now: Instant) -> ControlFlow<()> {
        let Self { engine, interval, synced, probed } = self;
        let is_over = |time: Duration, since: Instant| now.saturating_duration_since(since) >= time;
        if engine.stats.failing().is_some() && is_over(PROBE_EVERY, *probed) {
            *probed = now;
            engine.probe();
        }
        if interval.is_some_and(|interval| is_over(interval, *synced)) {
            *synced = now;
            report(engine.sync());
        }
        append(engine, orders.appends);
        let has_releases = !orders.releases.is_empty();
        orders.releases.into_iter().for_each(|range| engine.release(range));
        if has_releases {
            engine.settle();
            engine.stats.settled(orders.ordered);
        }
        if orders.way {
            engine.make_way();
        }
        for (cursor, max_bytes, answer) in orders.reads {
            // Whoever asked may be gone.
            let _ = answer.send(engine.read(cursor, max_bytes));
        }
        if !orders.syncs.is_empty() || orders.closed {
            let outcome = engine.sync();
            orders.syncs.into_iter().for_each(|answer| _ = answer.send(outcome.clone()));
            report(outcome);
        }
        if orders.closed {
            engine.close();
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

fn append(engine: &mut Engine, mut appends: Vec<Append>) {
    if appends.is_empty() {
        return;
    }
    // Who has stopped waiting will not hear that the record is there, so it must not be.
    appends.retain(|append| !append.answer.is_closed());
    let empty = || Incoming::new(0, 0, 0, Vec::new());
    let records: Vec<Incoming> = appends.iter_mut().map(|append| mem::replace(&mut append.record, empty())).collect();
    let answers = engine.append(&records);
    for (append, answer) in appends.into_iter().zip(answers) {
        let _ = append.answer.send(answer);
    }
}

/// A failed fsync of which nobody waits for the outcome.
fn report(outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "fsync failed: what was written since the last one may not survive a power cut");
    }
}
