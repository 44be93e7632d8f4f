//! One backend: an `otlp` exporter of its own, that hands its queue on when the backend has left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, Code, DropReason, Signal};
use nyquist_core::clock::Clock;
use nyquist_core::component::{BuildError, ExporterContext, Extensions, Host, StartError};
use nyquist_core::config::ComponentId;
use nyquist_core::delivery::{Attempt, BatchConfig, Delivery, Lost, Outcome, Request, Settings};
use nyquist_core::net::client::{Chunks, GrpcEndpoint};
use nyquist_core::telemetry::{Ledger, Telemetry};
use tokio::time::{Instant, sleep, timeout};

use super::balancer::Balancer;
use super::config::parse_endpoint;
use super::metrics::BackendMetrics;
use crate::otlp::{GrpcAttempt, MAX_MERGED, OtlpConfig};

/// Pieces for one backend that wait together are sent as one request of up to so many bytes: as many as one of the
/// requests that they were cut out of usually has.
const MERGED: usize = 256 << 10;

/// What the exporters of all backends have in common.
pub(super) struct Template {
    /// The load balancer's id.
    pub(super) id: ComponentId,
    pub(super) signal: Signal,
    pub(super) ledger: Ledger,
    pub(super) batching: Option<BatchConfig>,
    pub(super) extensions: Extensions,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) otlp: OtlpConfig,
}

impl Template {
    fn context(&self, id: ComponentId) -> ExporterContext<'_> {
        ExporterContext {
            id,
            signal: self.signal,
            ledger: self.ledger.clone(),
            batching: self.batching.clone(),
            extensions: &self.extensions,
            telemetry: Arc::clone(&self.telemetry),
            clock: Arc::clone(&self.clock),
        }
    }

    /// Finds out whether a backend could be built: what is wrong with the template is said at the start,
    /// not when the first backend turns up. Returns the metadata, in lower case, that it would look at.
    pub(super) fn check(&self) -> Result<Vec<String>, BuildError> {
        let nowhere = GrpcEndpoint { host: "backend".to_owned(), port: 4317, is_https: false, socket: None };
        match GrpcAttempt::new(&self.otlp, &nowhere, &self.context(self.id.clone())) {
            Ok(attempt) => Ok(attempt.metadata_keys()),
            Err(BuildError { mut path, message }) => {
                path.splice(0..0, ["protocol".to_owned(), "otlp".to_owned()]);
                Err(BuildError { path, message })
            }
        }
    }

    /// The id by which logs and metrics call the exporter to `endpoint`.
    fn id_of(&self, endpoint: &str) -> ComponentId {
        let name = if self.id.name.is_empty() { endpoint.to_owned() } else { format!("{}/{endpoint}", self.id.name) };
        ComponentId { kind: self.id.kind.clone(), name }
    }
}

/// A member of the ring, or one that has left and still moves its queue.
pub(super) struct Backend {
    /// Tells it from others, also from a later one with the same endpoint.
    pub(super) number: u64,
    /// As the resolver spells it.
    pub(super) endpoint: String,
    pub(super) delivery: Arc<Delivery<BackendAttempt>>,
    left: Arc<AtomicBool>,
}

impl Backend {
    pub(super) fn new(
        number: u64,
        endpoint: &str,
        template: &Template,
        balancer: Weak<Balancer>,
    ) -> Result<Arc<Self>, BuildError> {
        let address = parse_endpoint(endpoint).map_err(|error| BuildError::new(&["resolver"], error))?;
        let context = template.context(template.id_of(endpoint));
        let left = Arc::new(AtomicBool::new(false));
        let attempt = BackendAttempt {
            grpc: GrpcAttempt::new(&template.otlp, &address, &context)?,
            endpoint: address.authority(),
            timeout: template.otlp.timeout.0,
            left: Arc::clone(&left),
            balancer,
            metrics: BackendMetrics::new(&template.telemetry, &template.id.to_string(), endpoint),
        };
        let settings = Settings {
            kind: "load_balancing",
            queue: template.otlp.sending_queue.clone(),
            retry: template.otlp.retry_on_failure.clone(),
            // The attempt keeps it, because moving a queue takes as long as it takes.
            timeout: Duration::ZERO,
            endpoint: address.authority(),
            max_request_bytes: MAX_MERGED,
        };
        let delivery = Delivery::new(&context, settings, attempt)?;
        Ok(Arc::new(Self { number, endpoint: endpoint.to_owned(), delivery, left }))
    }

    /// From now on nothing new is sent to it: what it holds goes to the others, attempt by attempt.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }

    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }
}

/// Sends to one backend; once that has left, gives to the others instead.
pub(super) struct BackendAttempt {
    grpc: GrpcAttempt,
    endpoint: String,
    timeout: Duration,
    left: Arc<AtomicBool>,
    balancer: Weak<Balancer>,
    metrics: BackendMetrics,
}

/// A request, and its form on the wire unless its backend had left by then.
pub(super) struct Outgoing {
    request: Request,
    framed: Option<Chunks>,
}

#[async_trait]
impl Attempt for BackendAttempt {
    type Encoded = Outgoing;

    async fn start(&self, host: &Host) -> Result<(), StartError> {
        self.grpc.start(host).await
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.grpc.metadata_keys()
    }

    fn merges_up_to(&self) -> usize {
        MERGED
    }

    fn encode(&self, request: &Request) -> Result<Outgoing, Outcome> {
        let framed = if self.left.load(Ordering::Acquire) { None } else { Some(self.grpc.encode(request)?) };
        Ok(Outgoing { request: request.clone(), framed })
    }

    async fn attempt(&self, outgoing: &Outgoing) -> Outcome {
        let has_left = || self.left.load(Ordering::Acquire);
        if let Some(framed) = outgoing.framed.as_ref().filter(|_| !has_left()) {
            let begun = Instant::now();
            let outcome = self.in_time(framed).await;
            let is_success = matches!(outcome, Outcome::Delivered | Outcome::Partly { .. });
            self.metrics.attempt(begun.elapsed(), is_success);
            if !matches!(outcome, Outcome::Retry { .. }) || !has_left() {
                return outcome;
            }
        }
        self.hand_on(&outgoing.request).await
    }
}

impl BackendAttempt {
    async fn in_time(&self, framed: &Chunks) -> Outcome {
        let attempt = self.grpc.attempt(framed);
        if self.timeout.is_zero() {
            return attempt.await;
        }
        timeout(self.timeout, attempt).await.unwrap_or_else(|_| Outcome::Retry {
            code: Code::DeadlineExceeded,
            after: None,
            message: format!("no answer from {} within {:?} (timeout)", self.endpoint, self.timeout),
        })
    }

    /// Gives a request to the backends that are there, and waits until they have room for it.
    async fn hand_on(&self, request: &Request) -> Outcome {
        const LONGEST_WAIT: Duration = Duration::from_secs(1);
        let batch = Batch::from_wire(request.signal(), request.bytes(), request.items());
        let mut left = vec![batch.with_metadata(Arc::clone(request.metadata()))];
        let (mut refused, mut reported) = (0, Lost::default());
        let mut wait = Duration::from_millis(20);
        let lost = |left: &[Batch], refused: usize, reported: Lost| {
            let items = refused + left.iter().map(Batch::items).sum::<usize>();
            Outcome::Moved { lost: Some((DropReason::Shutdown, items)), reported }
        };
        loop {
            let Some(balancer) = self.balancer.upgrade() else { return lost(&left, refused, reported) };
            let unplaced = match balancer.place_all(left).await {
                Ok(more) => {
                    reported.merge(more);
                    return self.moved(request.items(), refused, reported);
                }
                Err(unplaced) => unplaced,
            };
            left = unplaced.left;
            refused += unplaced.refused;
            reported.merge(unplaced.lost);
            if left.is_empty() {
                return self.moved(request.items(), refused, reported);
            }
            if balancer.is_closing() {
                return lost(&left, refused, reported);
            }
            drop(balancer);
            sleep(unplaced.refusal.retry_delay().unwrap_or(wait).min(LONGEST_WAIT)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// `items` are with the others, but for those that were `refused` for good; the others have `reported` what they
    /// have lost of theirs.
    fn moved(&self, items: usize, refused: usize, reported: Lost) -> Outcome {
        self.metrics.moved.inc_by((items - refused.min(items)) as u64);
        Outcome::Moved { lost: (refused > 0).then_some((DropReason::Rejected, refused)), reported }
    }
}
