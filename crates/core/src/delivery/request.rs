//! What an exporter sends, and what may come of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::Lost;
use crate::batch::{Batch, Code, DropReason, Metadata, Signal};
use crate::component::{Host, StartError};
use crate::wire::{SizeLimit, split_by_size};

/// One OTLP export request: one or more batches of one signal, merged.
///
/// The message is the concatenation of its parts (repeated fields of concatenated protobuf
/// messages append), so merging copies nothing.
#[derive(Debug, Clone)]
pub struct Request {
    signal: Signal,
    parts: Vec<Bytes>,
    items: usize,
    size: usize,
    metadata: Arc<Metadata>,
    pub(super) order: u64,
}

impl Request {
    /// The message in `bytes`, which holds `items` items.
    #[must_use]
    pub fn new(signal: Signal, bytes: Bytes, items: usize) -> Self {
        let size = bytes.len();
        Self { signal, parts: vec![bytes], items, size, metadata: Arc::default(), order: 0 }
    }

    pub(super) fn with_metadata(self, metadata: Arc<Metadata>) -> Self {
        Self { metadata, ..self }
    }

    pub(super) fn from_batch(batch: Batch) -> Self {
        let (signal, items, metadata) = (batch.signal(), batch.items(), Arc::clone(batch.metadata()));
        Self { metadata, ..Self::new(signal, batch.into_wire(), items) }
    }

    /// Its place in the order in which requests left the queue: 0, 1, 2 and so on. For attempts
    /// that must keep that order although several are under way.
    #[must_use]
    pub fn order(&self) -> u64 {
        self.order
    }

    /// Which kind of telemetry it is.
    #[must_use]
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// How many spans, data points or log records it holds.
    #[must_use]
    pub fn items(&self) -> usize {
        self.items
    }

    /// The message's length in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The message, in pieces to be read one after the other.
    #[must_use]
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// The message in one piece; copies if it was merged.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        if let [only] = self.parts.as_slice() {
            return only.clone();
        }
        let mut whole = BytesMut::with_capacity(self.size);
        for part in &self.parts {
            whole.extend_from_slice(part);
        }
        whole.freeze()
    }

    /// What is known of the client; of a merged request, of the first one.
    #[must_use]
    pub fn metadata(&self) -> &Arc<Metadata> {
        &self.metadata
    }

    /// Two or more smaller requests, or this one if it holds a single item.
    pub(super) fn halves(&self) -> Vec<Self> {
        self.split(SizeLimit::items((self.items / 2).max(1)))
    }

    /// This request if it is within `limit`, or else pieces that are, in order.
    pub(super) fn within(self, limit: SizeLimit) -> Vec<Self> {
        if self.size <= limit.bytes && self.items <= limit.items {
            return vec![self];
        }
        let pieces = self.split(limit);
        if pieces.is_empty() { vec![self] } else { pieces }
    }

    fn split(&self, limit: SizeLimit) -> Vec<Self> {
        let pieces = split_by_size(self.signal, &self.bytes(), limit);
        let piece =
            |(bytes, items)| Self { metadata: Arc::clone(&self.metadata), ..Self::new(self.signal, bytes, items) };
        pieces.into_iter().map(piece).collect()
    }

    /// Takes over what `other` holds.
    pub(super) fn merge(&mut self, other: &mut Self) {
        self.parts.append(&mut other.parts);
        self.items += std::mem::take(&mut other.items);
        self.size += std::mem::take(&mut other.size);
    }
}

/// What came of one attempt to deliver a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The backend has it all.
    Delivered,
    /// The backend has it, except `rejected` items, which it will never take.
    Partly {
        /// How many items it did not take; may be 0 with a message that is only a warning.
        rejected: usize,
        /// Why, in the backend's words.
        message: String,
    },
    /// All has been done that could be: what is not listed was delivered.
    Settled {
        /// How many items were lost, by reason.
        lost: Lost,
        /// What happened, for the log; empty if there is nothing to say, or it has been said.
        message: String,
    },
    /// Handed to another queue of the same ledger, which answers for it from now on: `load_balancing`,
    /// when a backend has left.
    Moved {
        /// How many items no other queue took, and why they are lost.
        lost: Option<(DropReason, usize)>,
        /// What those who took the others have lost of it, and booked, before they answered.
        reported: Lost,
    },
    /// Not delivered; worth another attempt.
    Retry {
        /// The backend's status; `UNAVAILABLE` if it could not be reached.
        code: Code,
        /// How long the backend asks to be left alone.
        after: Option<Duration>,
        /// What happened.
        message: String,
    },
    /// Refused for good.
    Refused {
        /// The backend's status.
        code: Code,
        /// What happened.
        message: String,
    },
    /// Refused because of its size: smaller pieces may pass.
    TooLarge {
        /// What happened.
        message: String,
    },
}

/// What an exporter implements; [`super::Delivery`] does the rest.
#[async_trait]
pub trait Attempt: Send + Sync + 'static {
    /// A request as it goes over the wire.
    type Encoded: Send + Sync;

    /// Called once, before anything is sent: loads certificates, for example.
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let _ = host;
        Ok(())
    }

    /// Compresses, frames, translates; once for all attempts at `request`. Runs on a worker: must
    /// not block.
    ///
    /// # Errors
    /// The outcome, if there is nothing that could be sent.
    fn encode(&self, request: &Request) -> Result<Self::Encoded, Outcome>;

    /// The metadata, in lower case, that `encode` looks at: requests that differ in it are not merged.
    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }

    /// Requests that wait in the queue together are sent as one of up to so many bytes; 0: never. For exporters whose
    /// requests are pieces of larger ones. None waits for others to come: who wants that has `batch`, beside which
    /// this is not asked for.
    fn merges_up_to(&self) -> usize {
        0
    }

    /// How many requests may be on their way at once where `num_consumers` says so many. More where an attempt is
    /// mostly waiting for stages of its own, as that of `load_balancing` does.
    fn in_flight(&self, num_consumers: usize) -> usize {
        num_consumers
    }

    /// Sends it once. Dropped when `timeout` passes.
    async fn attempt(&self, encoded: &Self::Encoded) -> Outcome;
}
