//! Shutting down.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::Attempt;
use super::booking::Booking;
use super::sending::End;
use super::stage::{Inner, Keeper, Phase, State, shutting_down};
use crate::batch::DropReason;

impl<A: Attempt> Inner<A> {
    pub(super) async fn drain(self: &Arc<Self>, deadline: Instant) {
        let waiting = self.stop_intake();
        if waiting > 0 && self.keeper == Keeper::Disk {
            tracing::info!(exporter = self.exporter, requests = waiting, "finishing what is on its way");
        } else if waiting > 0 {
            tracing::info!(exporter = self.exporter, requests = waiting, "sending what is queued, one attempt each");
        }
        if timeout_at(deadline, self.all_done()).await.is_err() {
            self.phase.send_replace(Phase::Closed);
            let left = std::mem::take(&mut self.state.lock().ready);
            for work in left {
                let mut booking = Booking::new(self, work.request.items());
                let end = End::Failed { reason: DropReason::Shutdown, refusal: shutting_down() };
                work.settle(booking.settle(end));
            }
            // Consumers end at their next await.
            let _ = timeout(Duration::from_secs(1), self.all_done()).await;
        }
        self.phase.send_replace(Phase::Closed);
        self.close_store().await;
        self.log_rest();
    }

    /// Returns how many requests are waiting or on their way.
    pub(super) fn stop_intake(self: &Arc<Self>) -> usize {
        self.phase.send_if_modified(|phase| {
            let was_running = *phase == Phase::Running;
            if was_running {
                *phase = Phase::Draining;
            }
            was_running
        });
        let mut state = self.state.lock();
        state.open = false;
        let State { gather, ready, consumers, .. } = &mut *state;
        if let Some(gather) = gather {
            gather.flush(ready);
        }
        if self.keeper == Keeper::Disk {
            // The next process begins with it.
            ready.clear();
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
