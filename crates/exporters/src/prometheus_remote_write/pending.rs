//! A push whose parts are on their way.

use std::sync::atomic::{AtomicUsize, Ordering};

use nyquist_core::batch::{Code, DropReason};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What became of a request.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    pub(super) reason: DropReason,
    pub(super) code: Code,
    pub(super) message: String,
}

#[derive(Debug, Default)]
pub(super) struct Result {
    /// Data points that were lost.
    pub(super) lost: Vec<(DropReason, usize)>,
    /// The last loss of a whole request.
    pub(super) loss: Option<Loss>,
}

/// Counts the parts of a push until all have been dealt with.
#[derive(Debug)]
pub(super) struct Pending {
    chunks: AtomicUsize,
    result: Mutex<Result>,
    done: Notify,
}

impl Pending {
    /// A push of `chunks` chunks.
    pub(super) fn new(chunks: usize) -> Self {
        Self { chunks: AtomicUsize::new(chunks), result: Mutex::default(), done: Notify::new() }
    }

    /// `items` data points of it are lost, while the parts that hold them go on.
    pub(super) fn lose(&self, reason: DropReason, items: usize) {
        let mut result = self.result.lock();
        match result.lost.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, lost)) => *lost += items,
            None => result.lost.push((reason, items)),
        }
    }

    /// `chunks` of it, with `items` data points, were delivered, or lost.
    pub(super) fn settle(&self, chunks: usize, items: usize, loss: Option<&Loss>) {
        if let Some(loss) = loss {
            self.lose(loss.reason, items);
            self.result.lock().loss = Some(loss.clone());
        }
        if self.chunks.fetch_sub(chunks, Ordering::AcqRel) == chunks {
            self.done.notify_one();
        }
    }

    /// Returns when all parts have been dealt with.
    pub(super) async fn done(&self) -> Result {
        // One waiter, so a permit is stored if everything is done before it waits.
        if self.chunks.load(Ordering::Acquire) > 0 {
            self.done.notified().await;
        }
        std::mem::take(&mut self.result.lock())
    }
}
