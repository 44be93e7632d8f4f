//! The path of a batch, and the flush.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nyquist_core::batch::{Batch, DropReason, NoRoom, Permits, Refusal, Signal};
use nyquist_core::component::Consumer;
use nyquist_core::telemetry::{Entry, Ledger};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::absorb::Absorbed;
use super::admission::{Decision, Route, Scratch};
use super::edit;
use super::hash::Hashes;
use super::place::{self, Place};
use super::scan::{Action, POINTS_PER_LOCK, Plan, plan};
use super::shard::{Shards, encode, sort};
use super::shared::Shared;
use super::snapshot;

/// How long to wait before a refused flush is offered again: from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

pub(super) struct Limiter {
    pub(super) shared: Shared,
    pub(super) shards: Shards,
    /// Where the choice survives the process.
    pub(super) place: Option<Arc<Place>>,
    next: Arc<dyn Consumer>,
    ledger: Ledger,
    /// Points that were added to collapsed series and not reported yet. The ledger's are the whole pipeline's.
    held: AtomicUsize,
    /// Once set, the last flush ends at this time.
    stop: watch::Sender<Option<Instant>>,
}

impl Limiter {
    pub(super) fn new(shared: Shared, next: Arc<dyn Consumer>, ledger: Ledger) -> Self {
        let (held, stop) = (AtomicUsize::new(0), watch::Sender::new(None));
        Self { shared, shards: Shards::default(), place: None, next, ledger, held, stop }
    }

    /// Takes over what was chosen before a restart. False if `bytes` are no snapshot: then nothing is.
    pub(super) fn restore(&mut self, bytes: &[u8]) -> bool {
        let Some(snapshot) = snapshot::open(bytes) else { return false };
        self.shared.restore(Hashes::new(snapshot.seed), snapshot.written, place::INTERVAL);
        let mut metrics = Vec::new();
        let is_whole = snapshot.restore(&self.shared, |identity, metric| metrics.push((identity, metric))).is_some();
        for (identity, metric) in metrics {
            if is_whole {
                self.shards.insert(&self.shared, identity, metric);
            } else {
                metric.unbook(&self.shared);
            }
        }
        is_whole
    }

    /// What was chosen, in parts of `part` bytes (the last one may be shorter), made as they are asked for.
    pub(super) fn snapshot(&self, part: usize) -> impl Iterator<Item = Vec<u8>> + Send {
        let mut bytes = Vec::new();
        snapshot::put_header(&mut bytes, &self.shared);
        let mut metrics = (0..self.shards.len())
            .flat_map(|shard| self.shards.identities(shard).into_iter().map(move |identity| (shard, identity)));
        let mut is_over = false;
        std::iter::from_fn(move || {
            while bytes.len() < part && !is_over {
                match metrics.next() {
                    Some((shard, identity)) => {
                        self.shards.read(shard, identity, |metric| {
                            snapshot::put_metric(&mut bytes, &self.shared, metric);
                        });
                    }
                    None => {
                        snapshot::put_end(&mut bytes);
                        is_over = true;
                    }
                }
            }
            let rest = bytes.split_off(part.min(bytes.len()));
            Some(std::mem::replace(&mut bytes, rest)).filter(|part| !part.is_empty())
        })
    }

    pub(super) async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        self.next.reserve(batch, permits).await
    }

    pub(super) async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        let bytes = batch.wire().clone();
        let plan = plan(&self.shared, &self.shards, batch.metadata(), &bytes);
        if plan.actions.is_empty() {
            return self.next.consume(batch).await;
        }
        let removed = plan.actions.iter().filter(|action| is_removed(action.decision)).count();
        let left = batch.items().saturating_sub(removed);
        if left > 0 {
            batch.set_wire(edit::apply(&self.shared, &plan, &bytes).into(), left);
            self.next.consume(batch).await?;
        }
        // Only now, so that a batch that is refused and comes again is added once.
        self.settle(&plan, &bytes);
        Ok(())
    }

    /// Adds the collapsed points up and books what became of all that did not pass.
    fn settle(&self, plan: &Plan<'_>, bytes: &[u8]) {
        let (mut held, mut merged, mut ended) = (0, 0, 0);
        let mut dropped: HashMap<DropReason, usize> = HashMap::new();
        let mut scratch = Scratch::default();
        let one_metric = |one: &Action, other: &Action| one.context == other.context;
        let groups = plan.actions.chunk_by(one_metric).flat_map(|actions| actions.chunks(POINTS_PER_LOCK));
        for actions in groups {
            let Some(first) = actions.first() else { continue };
            let Some((context, names)) = plan.contexts.get(first.context) else { continue };
            let (mut limited, mut tagged) = (0, 0);
            let absorbed = self.shards.with(&self.shared, context, &mut scratch, |metric, scratch| {
                for action in actions {
                    let route = match action.decision {
                        Decision::Collapse(route) => route,
                        Decision::Drop(reason) => {
                            *dropped.entry(reason).or_default() += 1;
                            limited += 1;
                            continue;
                        }
                        Decision::Tag => {
                            tagged += 1;
                            continue;
                        }
                        Decision::Pass => continue,
                    };
                    ended += usize::from(route.was_individual);
                    scratch.grown = true;
                    let point = bytes.get(action.offset..action.offset + action.len).unwrap_or_default();
                    let shared = &self.shared;
                    match metric.absorb(shared, context, action.fingerprint, route, names, point, &mut scratch.dirty) {
                        Absorbed::Held => held += 1,
                        Absorbed::Merged => merged += 1,
                        Absorbed::Dropped(reason) => *dropped.entry(reason).or_default() += 1,
                    }
                }
            });
            if absorbed.is_none() {
                let lost = actions.iter().filter(|action| action.decision != Decision::Tag).count();
                *dropped.entry(DropReason::MemoryPressure).or_default() += lost;
            }
            if limited > 0 {
                self.shared.report.collapsed(context.name, &[], "drop_point").inc_by(limited);
            }
            if tagged > 0 {
                self.shared.report.collapsed(context.name, &[], "tag_only").inc_by(tagged);
                self.shared.report.tagged.inc_by(tagged);
            }
        }
        self.hold(held);
        self.ledger.add(Entry::Merged, merged);
        // A point whose series ends here went on as the flag that says so.
        self.ledger.add(Entry::Created, ended);
        for (reason, count) in dropped {
            self.ledger.dropped(reason, count);
        }
    }

    /// Flushes every `interval` until it is stopped, and once more then.
    pub(super) async fn run(&self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopped = self.stop.subscribe();
        loop {
            tokio::select! {
                _ = ticks.tick() => self.flush(false).await,
                () = until_stopped(&mut stopped) => break,
            }
        }
        self.flush(true).await;
    }

    /// Ends [`Limiter::run`] after a last flush, by `deadline`.
    pub(super) fn stop(&self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
    }

    /// Gives up what has not been reported by the deadline; nothing is in anybody's hands any more.
    pub(super) fn abandon(&self) {
        let held = self.held.load(Ordering::Relaxed);
        if held > 0 {
            tracing::error!(points = held, "collapsed series were not taken before the shutdown");
            self.let_go(held);
            self.ledger.dropped(DropReason::Shutdown, held);
        }
    }

    fn hold(&self, points: usize) {
        self.held.fetch_add(points, Ordering::Relaxed);
        self.ledger.held(points as i64);
    }

    fn let_go(&self, points: usize) {
        self.held.fetch_sub(points, Ordering::Relaxed);
        self.ledger.held(-(points as i64));
    }

    /// Emits what has changed, and gives up what is idle.
    pub(super) async fn flush(&self, is_last: bool) {
        let is_due = self.shared.sweep_is_due();
        let is_starved = self.shared.was_starved();
        if is_due || is_starved {
            self.shards.sweep(&self.shared, is_due, is_starved);
            self.shared.tenants.sweep();
        }
        // What a series is counted with is not reported before it is certain that after a crash it does not
        // get its slot back, and reports all of it on its own.
        if let Some(place) = &self.place
            && self.shared.take_slots_were_lost()
            && !place.save(self).await
        {
            self.shared.lost_slots();
        }
        for index in 0..self.shards.len() {
            // What comes meanwhile is for the next flush.
            let mut left = self.shards.queued(index);
            while left > 0 {
                let mut emissions = self.shards.take(&self.shared, index, &mut left, is_last);
                sort(&mut emissions);
                for emissions in emissions.chunk_by(|one, other| one.group.sender == other.group.sender) {
                    let mut batch = Batch::from_wire(Signal::Metrics, encode(emissions).into(), emissions.len());
                    if let Some(metadata) = emissions.first().and_then(|first| first.group.metadata.as_ref()) {
                        batch = batch.with_metadata(Arc::clone(metadata));
                    }
                    self.send(batch, emissions.iter().map(|emission| emission.held).sum()).await;
                }
            }
        }
        let top_n = self.shared.report.top_n;
        self.shared.report.usage(&self.shards.usage(top_n), &self.shared.tenants.usage(top_n));
        self.shared.report.flushed();
        self.shared.publish();
    }

    /// Offers `batch`, into which `held` points went, until it is accepted.
    async fn send(&self, batch: Batch, held: usize) {
        let items = batch.items();
        let mut stopped = self.stop.subscribe();
        let mut backoff = BACKOFF.0;
        let lost = loop {
            let Err(refusal) = self.next.consume(batch.clone()).await else { break None };
            if !refusal.is_retryable() {
                tracing::error!(points = items, %refusal, "collapsed series were refused for good and are lost");
                break Some(DropReason::Rejected);
            }
            let pause = refusal.retry_delay().unwrap_or(backoff).max(backoff);
            let deadline = *stopped.borrow_and_update();
            if deadline.is_some_and(|deadline| Instant::now() + pause > deadline) {
                tracing::error!(points = items, %refusal, "collapsed series were not accepted before the shutdown");
                break Some(DropReason::Shutdown);
            }
            tracing::debug!(points = items, %refusal, "collapsed series were refused; they are kept and offered again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.changed() => {}
            }
            backoff = (backoff * 2).min(BACKOFF.1);
        };
        self.let_go(held);
        self.ledger.add(Entry::Merged, held);
        self.ledger.add(Entry::Created, items);
        if let Some(reason) = lost {
            self.ledger.dropped(reason, items);
        }
    }
}

/// Does the point leave the batch?
fn is_removed(decision: Decision) -> bool {
    match decision {
        Decision::Drop(_) | Decision::Collapse(Route { was_individual: false, .. }) => true,
        Decision::Pass | Decision::Tag | Decision::Collapse(_) => false,
    }
}

async fn until_stopped(stopped: &mut watch::Receiver<Option<Instant>>) {
    // An error means that nobody can stop it any more: that is as good.
    let _ = stopped.wait_for(Option::is_some).await;
}
