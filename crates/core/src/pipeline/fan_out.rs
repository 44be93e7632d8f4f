//! Giving one batch to several stages.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use crate::batch::{Batch, DropReason, NoRoom, Permits, Refusal};
use crate::component::Consumer;
use crate::telemetry::{Entry, Ledger};

/// For how long a branch that refuses after its room was reserved is asked again.
const LATE_REFUSAL_PATIENCE: Duration = Duration::from_secs(5);

/// One branch of a fan-out.
#[derive(Clone)]
pub struct Branch {
    /// The stage.
    pub stage: Arc<dyn Consumer>,
    /// The account of what the stage leads to: a batch that it refuses too late is booked there.
    pub ledger: Ledger,
}

/// Gives each batch to every branch, or to none.
///
/// Room is reserved in all branches before anything is committed. If one has none, the caller gets
/// one refusal and no branch has taken anything, so that a retry doubles nothing. The bytes are
/// shared, never copied.
pub struct FanOut {
    branches: Vec<Branch>,
    emitted: Option<Ledger>,
}

impl FanOut {
    /// A fan-out to `branches`, which books what it hands over in `emitted`.
    #[must_use]
    pub fn new(branches: Vec<Branch>, emitted: Option<Ledger>) -> Self {
        Self { branches, emitted }
    }

    /// Room for `batch` in all branches, waiting for it where that is configured: with nothing in hand, so
    /// that no two wait for each other.
    async fn room_for(&self, batch: &Batch) -> Result<Permits, Refusal> {
        loop {
            let mut permits = Permits::reserving();
            let Err(no_room) = self.reserve(batch, &mut permits).await else { return Ok(permits) };
            drop(permits);
            no_room.wait().await?;
        }
    }

    async fn give_to_all(&self, mut batch: Batch) -> Result<(), Refusal> {
        if let [only] = self.branches.as_slice() {
            return only.stage.consume(batch).await;
        }
        // A model is encoded once, here, so that the branches share bytes.
        batch.wire();
        if !batch.permits_mut().is_reserved() {
            let permits = self.room_for(&batch).await?;
            *batch.permits_mut() = permits;
        }
        let mut refused = Vec::new();
        for branch in &self.branches {
            if let Err(refusal) = branch.stage.consume(batch.clone()).await {
                refused.push((branch, refusal));
            }
        }
        if refused.len() == self.branches.len()
            && let Some((_, refusal)) = refused.pop()
        {
            return Err(refusal);
        }
        let mut outcome = Ok(());
        for (branch, refusal) in refused {
            outcome = outcome.and(insist(branch, &batch, refusal).await);
        }
        outcome
    }
}

/// A branch said yes to the reservation and no to the batch, while another branch has taken it:
/// if the caller sent it again, that other branch would get it twice. So the branch is asked again
/// from here. If it still says no for now (a disk that filled up in between), the caller is told after all:
/// twice is better than lost. What it refuses for good is lost, counted, and said.
async fn insist(branch: &Branch, batch: &Batch, mut refusal: Refusal) -> Result<(), Refusal> {
    let deadline = Instant::now() + LATE_REFUSAL_PATIENCE;
    let mut wait = Duration::from_millis(50);
    while refusal.is_retryable() && Instant::now() < deadline {
        sleep(refusal.retry_delay().unwrap_or_default().max(wait).min(LATE_REFUSAL_PATIENCE)).await;
        wait *= 2;
        match branch.stage.consume(batch.clone()).await {
            Ok(()) => return Ok(()),
            Err(again) => refusal = again,
        }
    }
    if refusal.is_retryable() {
        return Err(refusal);
    }
    tracing::error!(
        items = batch.items(),
        reason = %refusal,
        "a branch refused a batch that another branch had taken; it is lost for the refusing branch"
    );
    branch.ledger.add(Entry::Accepted, batch.items());
    branch.ledger.dropped(DropReason::Rejected, batch.items());
    Ok(())
}

#[async_trait]
impl Consumer for FanOut {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        let items = batch.items();
        self.give_to_all(batch).await?;
        if let Some(ledger) = &self.emitted {
            ledger.add(Entry::Emitted, items);
        }
        Ok(())
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        for branch in &self.branches {
            branch.stage.reserve(batch, permits).await?;
        }
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.branches.iter().flat_map(|branch| branch.stage.metadata_keys()).collect()
    }
}
