//! The attempts at one request.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::booking::{Booking, Failure};
use super::stage::{Inner, Keeper, Phase, shutting_down};
use super::ticket::Work;
use super::{Attempt, Backoff, Lost, Outcome, Request};
use crate::batch::{Code, DropReason, Refusal, while_wanted};

/// How often a backend may answer `OUT_OF_RANGE` to one request that nothing else gives up. OTLP has that code tried again,
/// but it is an answer to what the request holds, no outage: a few such requests would have all consumers to themselves.
const MOST_OUT_OF_RANGE: usize = 20;

/// How the work on a request ended.
pub(super) enum End {
    Delivered {
        lost: Lost,
        /// What is to be said of it.
        message: Option<String>,
    },
    Failed {
        reason: DropReason,
        refusal: Refusal,
    },
    Moved {
        lost: Option<(DropReason, usize)>,
        reported: Lost,
    },
    /// Smaller pieces may pass.
    TooLarge(String),
}

impl End {
    /// Did it end because the gateway does?
    pub(super) fn is_shutdown(&self) -> bool {
        match self {
            Self::Delivered { lost, .. } => lost.iter().any(|(reason, _)| reason == DropReason::Shutdown),
            Self::Failed { reason, .. } => *reason == DropReason::Shutdown,
            Self::Moved { .. } | Self::TooLarge(_) => false,
        }
    }

    /// Would other requests, smaller ones, fare better?
    fn is_refusal(&self) -> bool {
        matches!(self, Self::TooLarge(_) | Self::Failed { reason: DropReason::Rejected, .. })
    }
}

impl<A: Attempt> Inner<A> {
    /// Works on what has left the queue until everybody who has a stake in it knows the outcome. If requests that were
    /// sent as one are refused, each is sent by itself: one bad one takes no other down.
    pub(super) async fn work_off(&self, mut work: Work) {
        let mut booking = Booking::new(self, work.request.items());
        let end = self.deliver(&work.request).await;
        let parts = if end.is_refusal() { work.take_parts() } else { Vec::new() };
        if parts.is_empty() {
            let result = self.finish(booking, end, &work.request).await;
            return work.settle(result);
        }
        tracing::debug!(exporter = self.exporter, requests = parts.len(), "refused together; sent one by one");
        for part in parts {
            // Its own booking takes over.
            booking.items = booking.items.saturating_sub(part.request.items());
            let result = self.process(&part.request).await;
            part.settle(result);
        }
        work.settle(Ok(Lost::default()));
    }

    /// Works on one request until its outcome is known, and books it.
    pub(super) async fn process(&self, request: &Request) -> Result<Lost, Failure> {
        let booking = Booking::new(self, request.items());
        let end = self.deliver(request).await;
        self.finish(booking, end, request).await
    }

    /// Books how the work on `request` ended; what is too large goes on in halves.
    async fn finish(&self, mut booking: Booking<'_, A>, end: End, request: &Request) -> Result<Lost, Failure> {
        let End::TooLarge(message) = end else { return booking.settle(end) };
        let pieces = request.halves();
        if pieces.len() < 2 {
            let refusal = Refusal::permanent(message).with_code(Code::InvalidArgument);
            return booking.settle(End::Failed { reason: DropReason::Rejected, refusal });
        }
        let mut result = Ok(Lost::default());
        for piece in pieces {
            // Its own booking takes over.
            booking.items = booking.items.saturating_sub(piece.items());
            let delivered = Box::pin(self.process(&piece)).await;
            result = Failure::both(result, delivered);
        }
        result
    }

    async fn deliver(&self, request: &Request) -> End {
        let encoded = match self.attempt.encode(request) {
            Ok(encoded) => encoded,
            Err(outcome) => return self.conclude(outcome).unwrap_or_else(|retry| retry.into_end(DropReason::Rejected)),
        };
        let mut phase = self.phase.subscribe();
        if *phase.borrow() == Phase::Closed {
            return End::Failed { reason: DropReason::Shutdown, refusal: shutting_down() };
        }
        let mut backoff = Backoff::new(&self.settings.retry);
        let started = Instant::now();
        let limit = self.settings.retry.give_up_after(self.keeper == Keeper::Disk);
        // Who writes 0 wants no end.
        let is_bounded = !limit.is_zero() || self.settings.retry.max_elapsed_time.is_some();
        let mut out_of_range = 0;
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
            if retry.code == Code::OutOfRange && !is_bounded {
                out_of_range += 1;
                if out_of_range == MOST_OUT_OF_RANGE {
                    let message = format!("answered so {out_of_range} times: {}", retry.message);
                    return Retry { message, ..retry }.into_end(DropReason::Rejected);
                }
            }
            let Some(wait) = backoff.next_wait_within(limit, started.elapsed(), retry.after) else {
                let message = format!("no more retries left: {}", retry.message);
                return Retry { message, ..retry }.into_end(DropReason::RetriesExhausted);
            };
            tracing::debug!(
                exporter = self.exporter,
                error = retry.message,
                wait_seconds = wait.as_secs_f64(),
                "will try again"
            );
            tokio::select! {
                // Without a queue somebody waits.
                waited = while_wanted(sleep(wait)) => if waited.is_err() {
                    return retry.into_end(DropReason::RetriesExhausted);
                },
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
                Ok(End::Delivered { lost: Lost::default(), message: None })
            }
            Outcome::Partly { rejected, message } => {
                self.health.succeeded();
                let message = (rejected > 0 || !message.is_empty()).then_some(message);
                Ok(End::Delivered { lost: Lost::of(DropReason::PartlyRejected, rejected), message })
            }
            Outcome::Settled { lost, message } => {
                self.health.succeeded();
                Ok(End::Delivered { lost, message: Some(message).filter(|message| !message.is_empty()) })
            }
            Outcome::Moved { lost, reported } => Ok(End::Moved { lost, reported }),
            Outcome::Retry { code, after, message } => Err(Retry { code, after, message }),
            Outcome::Refused { code, message } => {
                self.health.refused(code, &message);
                Ok(refused(code, message))
            }
            Outcome::TooLarge { message } => Ok(End::TooLarge(message)),
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

pub(super) async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    let there = |phase: &Phase| match wanted {
        Phase::Running => true,
        Phase::Draining => *phase != Phase::Running,
        Phase::Closed => *phase == Phase::Closed,
    };
    // An error means that the exporter is gone.
    let _ = phase.wait_for(there).await;
}
