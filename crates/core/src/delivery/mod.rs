//! What every exporter shares: queue, batching, retry, timeout.
//!
//! An exporter implements one [`Attempt`] and says what came of it. [`Delivery`] makes a pipeline
//! stage of that:
//!
//! ```text
//! consume -> room (requests | items | bytes, and always bytes) -> ack
//!            gather (merge by size or time) -> ready -> consumer: attempt, wait, attempt, ...
//! ```
//!
//! - The ack comes when the batch has room; merging happens behind it.
//! - A batch keeps its room until its outcome is known, in flight and between retries too.
//! - `sending_queue.num_consumers` requests are on their way at once (an attempt may have it otherwise). A consumer is a task that
//!   lives while there is work; it starts on the worker that brought the work, unless another one
//!   has clearly less to do.
//! - Every item ends in exactly one place of the exporter's ledger: exported or dropped{reason}.
//!
//! The memory queue survives nothing: what it holds when the process is killed is lost, what it
//! holds at a shutdown gets one attempt each. The queue on disk (`sending_queue.storage`, the module
//! `durable`) acknowledges when the storage log has the batch, and loses nothing to either.

mod admission;
mod backlog;
mod booking;
mod config;
mod drain;
mod durable;
mod gather;
mod lost;
mod metrics;
mod queueing;
mod ranges;
mod record;
mod request;
mod retry;
mod sending;
mod stage;
mod status;
#[cfg(test)]
mod tests;
mod ticket;

pub use config::{BatchConfig, OnFull, Partition, QueueConfig, RetryBeside, RetryConfig, Sizer};
pub use lost::Lost;
pub use request::{Attempt, Outcome, Request};
pub use retry::Backoff;
pub use stage::{Delivery, Settings};
pub use status::{Health, LogGate, Since, Status};
