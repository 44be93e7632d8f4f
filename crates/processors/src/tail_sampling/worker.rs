//! The task of one shard: decides what is due, and hands on what is kept, one batch at a time.

use std::pin::Pin;
use std::sync::Arc;

use nyquist_core::clock::Clock;
use nyquist_core::component::Consumer;
use tokio::sync::watch;
use tokio::time::{Duration, MissedTickBehavior, interval, sleep};

use super::sampler::{Outgoing, Sampler};

/// How often due traces are looked for: the precision of `decision_wait`.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// Kept traces leave at least every so many ticks; sooner if there is a full batch.
const TICKS_PER_FLUSH: u32 = 2;
/// Traces that are decided under one lock.
const SLICE: usize = 256;
/// Decisions that are behind get so much of the runtime before others have their turn. Were it less than what
/// receivers need for theirs, decisions would fall behind further the more there is to do.
const TURN: Duration = Duration::from_millis(2);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// The longest that the next stage can ask to be left alone.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// One shard's task.
pub(super) struct Worker {
    pub(super) sampler: Arc<Sampler>,
    pub(super) shard: usize,
    pub(super) next: Arc<dyn Consumer>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) discard_on_shutdown: bool,
    /// Undecided traces are left for the next start.
    pub(super) undecided_stay: bool,
}

type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Worker {
    /// Works until told to stop; then decides everything and hands all of it on.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sending: Option<Sending> = None;
        let mut until_flush = self.shard as u32 % TICKS_PER_FLUSH;
        let mut flush = false;
        // When the round of decisions began that is under way.
        let mut round: Option<Duration> = None;
        while !*stop.borrow_and_update() {
            tokio::select! {
                biased;
                _ = stop.changed() => {}
                // Also while decisions are behind: what is kept must leave, or its memory stays.
                () = finish(&mut sending), if sending.is_some() => sending = None,
                _ = ticks.tick() => {
                    round.get_or_insert_with(|| self.clock.now());
                    flush |= until_flush == 0;
                    until_flush = until_flush.checked_sub(1).unwrap_or(TICKS_PER_FLUSH - 1);
                }
                () = tokio::task::yield_now(), if round.is_some() => {}
            }
            if let Some(begin) = round
                && !self.decide()
            {
                self.sampler.decided_in(self.clock.now().saturating_sub(begin));
                round = None;
            }
            if sending.is_none() && (flush || self.sampler.has_full_batch(self.shard)) {
                sending = self.sampler.take(self.shard, self.clock.now()).map(|out| self.send(out));
                flush &= sending.is_some();
            }
        }
        finish(&mut sending).await;
        if self.undecided_stay {
            while self.decide() {
                tokio::task::yield_now().await;
            }
        } else {
            while self.sampler.decide_all(self.shard, self.clock.now(), SLICE, self.discard_on_shutdown) {
                tokio::task::yield_now().await;
            }
        }
        while let Some(out) = self.sampler.take(self.shard, self.clock.now()) {
            self.send(out).await;
        }
    }

    /// Decides what is due, for one turn. True if there is more.
    fn decide(&self) -> bool {
        let begin = self.clock.now();
        loop {
            let now = self.clock.now();
            if now.saturating_sub(begin) >= TURN {
                return true;
            }
            if !self.sampler.decide(self.shard, now, SLICE) {
                return false;
            }
        }
    }

    /// Offers a batch, and what goes with it, until it is taken, or refused for good.
    fn send(&self, mut out: Outgoing) -> Sending {
        let (next, sampler, clock) = (Arc::clone(&self.next), Arc::clone(&self.sampler), Arc::clone(&self.clock));
        Box::pin(async move {
            let mut backoff = FIRST_BACKOFF;
            loop {
                let outcome = next.consume(out.batch()).await;
                if let Err(refusal) = &outcome
                    && refusal.is_retryable()
                {
                    sampler.count_retry();
                    tracing::debug!(%refusal, "kept traces were refused for now");
                    let delay = refusal.retry_delay().unwrap_or(backoff).min(MAX_DELAY);
                    sleep(delay.mul_f64(rand::random_range(1.0..1.3))).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    continue;
                }
                out.write_down(&*clock).await;
                let rest = match outcome {
                    Ok(()) => out.accepted(),
                    Err(refusal) => {
                        tracing::warn!(%refusal, "kept traces were refused for good and are lost");
                        out.rejected()
                    }
                };
                let Some(more) = rest else { return };
                (out, backoff) = (more, FIRST_BACKOFF);
            }
        })
    }
}

/// Completes when the batch on its way is settled; at once if there is none.
async fn finish(sending: &mut Option<Sending>) {
    if let Some(sending) = sending {
        sending.await;
    }
}
