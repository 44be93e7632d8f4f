//! The reports: when, and to whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nyquist_core::batch::{Batch, DropReason, Signal};
use nyquist_core::component::Consumer;
use nyquist_core::telemetry::{Entry, Ledger};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::state::State;

/// How long to wait before a refused report is offered again: from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Reports what is counted to the pipelines behind.
pub(super) struct Reporter {
    pub(super) state: Arc<State>,
    pub(super) next: Arc<dyn Consumer>,
    /// The account of the points.
    pub(super) ledger: Ledger,
    pub(super) retries: nyquist_core::telemetry::Counter,
    /// Points that are offered now.
    pub(super) in_hand: AtomicUsize,
    /// Once set, the last report ends at this time.
    pub(super) stop: watch::Sender<Option<Instant>>,
}

impl Reporter {
    /// Reports every interval until it is stopped, and once more then.
    pub(super) async fn run(&self) {
        let interval = self.state.plan.flush_interval;
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopped = self.stop.subscribe();
        loop {
            tokio::select! {
                _ = ticks.tick() => self.report().await,
                () = until_stopped(&mut stopped) => break,
            }
        }
        self.report().await;
    }

    /// One report.
    pub(super) async fn report(&self) {
        let mut at = self.state.begin_report();
        while let Some(report) = self.state.next_report(&mut at) {
            let points = report.points;
            self.in_hand.store(points, Ordering::Release);
            self.ledger.add(Entry::Created, points);
            self.ledger.held(points as i64);
            let lost = self.send(Batch::from_wire(Signal::Metrics, report.bytes.into(), points)).await;
            self.settle(lost);
        }
        self.state.expire(&at);
    }

    /// Offers `batch` until it is accepted; why it was lost, if it was.
    async fn send(&self, batch: Batch) -> Option<DropReason> {
        let mut stopped = self.stop.subscribe();
        let mut backoff = BACKOFF.0;
        loop {
            let Err(refusal) = self.next.consume(batch.clone()).await else { return None };
            let points = batch.items();
            if !refusal.is_retryable() {
                tracing::error!(points, %refusal, "span metrics were refused for good and are lost");
                return Some(DropReason::Rejected);
            }
            self.retries.inc();
            let pause = refusal.retry_delay().unwrap_or(backoff).max(backoff);
            let deadline = *stopped.borrow_and_update();
            if deadline.is_some_and(|deadline| Instant::now() + pause > deadline) {
                tracing::error!(points, %refusal, "span metrics were not accepted before the shutdown");
                return Some(DropReason::Shutdown);
            }
            tracing::debug!(points, %refusal, "span metrics were refused; they are kept and offered again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.changed() => {}
            }
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    /// Books what became of the points that were offered.
    pub(super) fn settle(&self, lost: Option<DropReason>) {
        let points = self.in_hand.swap(0, Ordering::AcqRel);
        self.ledger.held(-(points as i64));
        match lost {
            None => self.ledger.add(Entry::Emitted, points),
            Some(reason) => self.ledger.dropped(reason, points),
        }
    }
}

async fn until_stopped(stopped: &mut watch::Receiver<Option<Instant>>) {
    // An error means that nobody can stop it any more: that is as good.
    let _ = stopped.wait_for(Option::is_some).await;
}
