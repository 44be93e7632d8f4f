//! For how long whoever brings a batch waits until it is taken.
//!
//! It belongs to the call, not to the batch: what a stage has acknowledged, and hands on in its own time, has nobody
//! behind it who could lose patience. So it is known to the task that runs the call, and to no other.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{Code, Refusal};

tokio::task_local! {
    static PATIENCE: Patience;
}

/// When a caller does not wait any longer.
#[derive(Debug, Clone)]
pub struct Patience {
    deadline: Option<Instant>,
    presence: Arc<Presence>,
}

#[derive(Debug, Default)]
struct Presence {
    is_over: AtomicBool,
    left: Notify,
}

/// Whoever waits; gone when it is dropped.
#[derive(Debug)]
pub struct Caller(Arc<Presence>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.left.notify_waiters();
    }
}

impl Presence {
    async fn end(&self) {
        let left = self.left.notified();
        tokio::pin!(left);
        left.as_mut().enable();
        if !self.is_over.load(Ordering::Acquire) {
            left.await;
        }
    }
}

impl Patience {
    /// The patience of somebody who waits until `deadline`, or as long as it takes, and does not go before.
    #[must_use]
    pub fn new(deadline: Option<Instant>) -> (Caller, Self) {
        let presence = Arc::<Presence>::default();
        (Caller(Arc::clone(&presence)), Self { deadline, presence })
    }

    /// Runs `call` with this patience.
    pub async fn of<F: Future>(self, call: F) -> F::Output {
        PATIENCE.scope(self, call).await
    }

    /// Until it has come to its end. Says what to answer then.
    async fn end(self) -> Refusal {
        let late = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.presence.end() => {
                Refusal::retryable(None, "the client has gone before there was room").with_code(Code::Cancelled)
            }
            () = late => {
                let message = "the client's deadline has passed before there was room: try again later";
                Refusal::retryable(None, message).with_code(Code::DeadlineExceeded)
            }
        }
    }
}

/// Waits for `something`, but no longer than the caller of this task, if it has one.
///
/// # Errors
/// If the caller's deadline has passed, or it has gone. Nothing may have been taken from it by then.
pub async fn while_wanted<F: Future>(something: F) -> Result<F::Output, Refusal> {
    let Ok(patience) = PATIENCE.try_with(Patience::clone) else { return Ok(something.await) };
    tokio::select! {
        biased;
        output = something => Ok(output),
        refusal = patience.end() => Err(refusal),
    }
}
