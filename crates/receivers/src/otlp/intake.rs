//! What both protocols do with a message once it is there: check it, hand it on, count it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use nyquist_core::batch::{Batch, Code, DropReason, Metadata, Patience, Refusal, Signal};
use nyquist_core::component::{Consumer, Outputs};
use nyquist_core::net::admission::Gate;
use nyquist_core::net::body::ReadError;
use nyquist_core::net::grpc;
use nyquist_core::net::turns::aside;
use nyquist_core::telemetry::{Counter, Ledger, Telemetry};
use nyquist_core::wire;
use tokio::time::Instant;

use super::limits::Pass;

/// The least that a refused client is asked to wait.
pub(super) const MIN_RETRY: Duration = Duration::from_secs(1);

/// A request that was not accepted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rejection {
    pub(super) code: Code,
    pub(crate) message: String,
    /// The client should come back after this time.
    pub(crate) retry: Option<Duration>,
    /// The request did not come in time: 408 in HTTP.
    pub(super) is_slow: bool,
}

impl Rejection {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: None, is_slow: false }
    }

    /// The client may come back after `delay`.
    pub(super) fn retry_after(code: Code, message: impl Into<String>, delay: Duration) -> Self {
        Self { retry: Some(delay), ..Self::new(code, message) }
    }

    /// There is no room for the request now.
    pub(super) fn no_room() -> Self {
        let message = "too many bytes of requests are in flight (max_in_flight): try again";
        Self::retry_after(Code::Unavailable, message, MIN_RETRY)
    }

    /// The request's body did not come in time.
    pub(super) fn too_slow(message: impl Into<String>) -> Self {
        Self { is_slow: true, ..Self::new(Code::DeadlineExceeded, message) }
    }

    pub(super) fn from_read(error: &ReadError) -> Self {
        match error {
            ReadError::TooLarge => Self::new(Code::InvalidArgument, "http: request body too large"),
            ReadError::NoRoom => Self::no_room(),
            ReadError::Stalled(_) => Self::too_slow(format!("cannot read the request: {error}")),
            ReadError::TooSlow(_) => Self::too_slow(format!("cannot read the request: {error} (min_body_rate)")),
            ReadError::Broken(_) => Self::new(Code::Cancelled, format!("cannot read the request: {error}")),
        }
    }

    /// As a gRPC status, with `RetryInfo` where the client may try again.
    pub(super) fn status(&self) -> tonic::Status {
        match self.retry {
            Some(delay) => grpc::with_retry(self.code, &self.message, delay),
            None => tonic::Status::new(self.code, &*self.message),
        }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        let retry = refusal.is_retryable().then(|| refusal.retry_delay().unwrap_or_default().max(MIN_RETRY));
        Self { retry, ..Self::new(refusal.code(), refusal.message()) }
    }
}

/// Items of an accepted request that were left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(super) rejected: usize,
}

impl Accepted {
    /// The `error_message` of the `partial_success`.
    pub(super) fn message(self, signal: Signal) -> String {
        let items = signal.items_name().replace('_', " ");
        format!("{} {items} without a valid trace or span id were dropped", self.rejected)
    }

    /// The encoded `Export*ServiceResponse`: the same for all signals.
    pub(super) fn encode(self, signal: Signal) -> Vec<u8> {
        use nyquist_core::wire::{put_len_field, put_tag, put_varint};
        let mut response = Vec::new();
        if self.rejected > 0 {
            let mut partial = Vec::new();
            put_tag(&mut partial, 1, 0);
            put_varint(&mut partial, self.rejected as u64);
            put_len_field(&mut partial, 2, self.message(signal).as_bytes());
            put_len_field(&mut response, 1, &partial);
        }
        response
    }
}

/// The way of one signal over one protocol into its pipelines.
pub(crate) struct Lane {
    pub(crate) signal: Signal,
    next: Arc<dyn Consumer>,
    gates: Vec<Arc<Gate>>,
    ledger: Ledger,
    accepted: Counter,
    refused: Counter,
    succeeded: Counter,
    turned_away: Counter,
    failed: Counter,
}

impl Lane {
    fn new(id: &str, signal: Signal, transport: &str, next: Arc<dyn Consumer>, telemetry: &Telemetry) -> Self {
        let items = |what: &str, help: &str| {
            let name = format!("otelcol_receiver_{what}_{}", signal.items_name());
            telemetry.counter(&name, help, &[("receiver", id), ("transport", transport)])
        };
        let requests = |outcome: &str| {
            let labels = [("receiver", id), ("transport", transport), ("outcome", outcome)];
            telemetry.counter("otelcol_receiver_requests", "Requests by what became of them.", &labels)
        };
        Self {
            signal,
            next,
            gates: Vec::new(),
            ledger: Ledger::new(telemetry, &format!("receiver/{id}"), signal),
            accepted: items("accepted", "Items that were taken into a pipeline."),
            refused: items("refused", "Items that a pipeline refused."),
            succeeded: requests("success"),
            turned_away: requests("refused"),
            failed: requests("failure"),
        }
    }

    /// The lanes of `transport`, in the order of `Signal::ALL`.
    pub(crate) fn all(id: &str, transport: &str, outputs: &Outputs, telemetry: &Telemetry) -> [Option<Arc<Self>>; 3] {
        Signal::ALL.map(|signal| {
            let next = Arc::clone(outputs.get(signal)?);
            let gates = outputs.gates(signal).to_vec();
            Some(Arc::new(Self { gates, ..Self::new(id, signal, transport, next, telemetry) }))
        })
    }

    /// What would be refused for want of memory is refused before its body is read.
    pub(crate) fn pass_gates(&self) -> Result<(), Rejection> {
        if self.gates.iter().all(|gate| gate.is_open()) {
            return Ok(());
        }
        self.turned_away.inc();
        let message = "data refused due to high memory usage";
        Err(Rejection::retry_after(Code::Unavailable, message, MIN_RETRY))
    }

    /// Takes a message that has been read. `room` stays charged until the pipeline has it. The client waits until
    /// `deadline`, if it says so.
    pub(crate) async fn take(
        self: &Arc<Self>,
        bytes: Bytes,
        metadata: Option<Arc<Metadata>>,
        room: impl Into<Pass>,
        deadline: Option<Instant>,
    ) -> Result<Accepted, Rejection> {
        let Acceptable { bytes, items, invalid: rejected, has_edge_ids } = self.check(bytes).await?;
        let mut room = room.into();
        room.charge(bytes.len(), items);
        if rejected > 0 {
            self.ledger.dropped(DropReason::InvalidId, rejected);
        }
        if items == 0 {
            self.succeeded.inc();
            return Ok(Accepted { rejected });
        }
        let mut batch = Batch::from_wire(self.signal, bytes, items).with_edge_ids(has_edge_ids);
        if let Some(metadata) = metadata {
            batch = batch.with_metadata(metadata);
        }
        let lane = Arc::clone(self);
        let delivery = async move {
            let outcome = lane.next.consume(batch).await;
            match &outcome {
                Ok(()) => {
                    lane.accepted.inc_by(items as u64);
                    lane.succeeded.inc();
                }
                Err(_) => {
                    lane.refused.inc_by(items as u64);
                    lane.turned_away.inc();
                }
            }
            drop(room);
            outcome
        };
        match to_completion(delivery, deadline).await {
            Some(Ok(())) => Ok(Accepted { rejected }),
            Some(Err(refusal)) => Err(refusal.into()),
            None => {
                self.refused.inc_by(items as u64);
                self.failed.inc();
                Err(Rejection::new(Code::Internal, "internal error while the data was processed"))
            }
        }
    }

    /// A request that never became a batch.
    pub(crate) fn count_failure(&self) {
        self.failed.inc();
    }

    async fn check(&self, bytes: Bytes) -> Result<Acceptable, Rejection> {
        let signal = self.signal;
        let result = if bytes.len() <= CHECK_APART {
            checked(signal, bytes)
        } else {
            let result = aside(move || checked(signal, bytes)).await;
            result.ok_or_else(|| Rejection::new(Code::Internal, "internal error while the request was checked"))?
        };
        result.map_err(|error| {
            self.failed.inc();
            Rejection::new(Code::InvalidArgument, format!("cannot decode the request: {error}"))
        })
    }
}

/// Larger messages are checked on a thread of their own: it takes a millisecond and more.
const CHECK_APART: usize = 1 << 20;

/// A message that has passed the ingress check.
pub(super) struct Acceptable {
    /// As pipelines take it.
    pub(super) bytes: Bytes,
    /// How many items it holds.
    pub(super) items: usize,
    /// How many were taken out of it because their ids are not valid.
    pub(super) invalid: usize,
    /// What [`Batch::has_edge_ids`] says.
    pub(super) has_edge_ids: bool,
}

/// The ingress check.
pub(super) fn checked(signal: Signal, mut bytes: Bytes) -> Result<Acceptable, wire::CheckError> {
    let checked = wire::check(signal, &bytes)?;
    if checked.split_values {
        bytes = wire::join_split_values(signal, &bytes);
    }
    if checked.invalid_ids > 0 {
        (bytes, _) = wire::without_invalid_ids(&bytes);
    }
    Ok(Acceptable {
        bytes,
        items: checked.items - checked.invalid_ids,
        invalid: checked.invalid_ids,
        has_edge_ids: signal == Signal::Traces && !checked.inner_ids && !checked.split_values,
    })
}

/// Runs `future` to its end, even if the caller's own future is dropped meanwhile: what is half taken must not be
/// left so. But it does not wait for room (`block_on_overflow`) for somebody who has gone, or whose `deadline` has
/// passed. `None` if it panicked.
///
/// Most deliveries end without waiting, so it is first polled in place; only what has to wait
/// gets a task of its own.
pub(crate) async fn to_completion<F>(future: F, deadline: Option<Instant>) -> Option<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (_caller, patience) = Patience::new(deadline);
    let mut future = Box::pin(patience.of(future));
    let first = std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        Poll::Ready(polled)
    })
    .await;
    match first {
        Ok(Poll::Ready(output)) => Some(output),
        Ok(Poll::Pending) => tokio::spawn(future).await.ok(),
        Err(_) => None,
    }
}
