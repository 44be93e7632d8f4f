//! Senders: parallel over series, strictly sequential for each one.
//!
//! A shard has one request on its way, and that request's retries come before everything behind
//! it. What arrives meanwhile is collected and goes into the next request: under load requests are
//! full, without a timer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use nyquist_core::batch::{Code, DropReason};
use nyquist_core::clock::Clock;
use nyquist_core::component::ClientAuth;
use nyquist_core::delivery::{Backoff, Health, RetryConfig};
use nyquist_core::net::client::{Chunks, Client, user_agent};
use nyquist_core::runtime::Runtimes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::answer::Answer;
use super::encode::Segment;
use super::outgoing::{Limits, Outgoing, Waiting};
use super::pending::{Loss, Pending};
use super::stats::Stats;

/// How much of a refusal's body is logged, in bytes.
const MAX_LOGGED: usize = 4096;

/// What senders need.
pub(super) struct Sender {
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) auth: Option<Arc<dyn ClientAuth>>,
    pub(super) client: OnceLock<Client>,
    pub(super) timeout: Duration,
    pub(super) retry: RetryConfig,
    pub(super) retry_on_429: bool,
    pub(super) limits: Limits,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stats: Arc<Stats>,
    pub(super) health: Health,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    /// One attempt for what is left, no waits.
    Draining,
    Closed,
}

#[derive(Default)]
struct Shard {
    waiting: Mutex<VecDeque<Waiting>>,
    arrived: Notify,
}

/// All senders of an exporter.
pub(super) struct Shards {
    sender: Arc<Sender>,
    shards: Vec<Arc<Shard>>,
    phase: watch::Sender<Phase>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Shards {
    pub(super) fn new(sender: Sender, count: usize) -> Self {
        Self {
            sender: Arc::new(sender),
            shards: (0..count.max(1)).map(|_| Arc::default()).collect(),
            phase: watch::Sender::new(Phase::Running),
            tasks: Mutex::default(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn health(&self) -> &Health {
        &self.sender.health
    }

    /// Starts the senders, spread over the workers.
    pub(super) fn start(&self, runtimes: &Runtimes, client: Client) {
        // Started once: `Component::start` is.
        let _ = self.sender.client.set(client);
        let spawn = |(index, shard): (usize, &Arc<Shard>)| {
            let (sender, shard, phase) = (Arc::clone(&self.sender), Arc::clone(shard), self.phase.subscribe());
            let run = async move { sender.run(&shard, phase).await };
            runtimes.spawn_on(index, runtimes.vital("a shard of prometheus_remote_write", run))
        };
        self.tasks.lock().extend(self.shards.iter().enumerate().map(spawn));
    }

    /// Hands over the segments of a push, one for each shard.
    pub(super) fn feed(&self, segments: Vec<Segment>, headers: &Arc<HeaderMap>, pending: &Arc<Pending>) {
        for (shard, segment) in self.shards.iter().zip(segments) {
            if !segment.chunks.is_empty() {
                shard.waiting.lock().push_back(Waiting::new(segment, Arc::clone(headers), Arc::clone(pending)));
                shard.arrived.notify_one();
            }
        }
    }

    /// From now on everything gets one attempt, and nobody waits.
    pub(super) fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Ends the senders; what is left is dropped.
    pub(super) async fn close(&self) {
        self.phase.send_replace(Phase::Closed);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            let _ = timeout(Duration::from_secs(1), task).await;
        }
    }
}

impl Sender {
    async fn run(&self, shard: &Shard, mut phase: watch::Receiver<Phase>) {
        let mut closing = phase.clone();
        let work = async {
            let mut encoder = snap::raw::Encoder::new();
            loop {
                let outgoing = Outgoing::take(&mut shard.waiting.lock(), self.limits);
                if outgoing.is_empty() {
                    shard.arrived.notified().await;
                    continue;
                }
                let loss = self.send(&outgoing, &mut encoder, &mut phase).await;
                for (pending, chunks, items) in outgoing.stakes() {
                    pending.settle(chunks, items, loss.as_ref());
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = closing.wait_for(|&phase| phase == Phase::Closed) => {}
        }
    }

    /// Sends until the outcome is known. `None`: delivered.
    async fn send(
        &self,
        outgoing: &Outgoing,
        encoder: &mut snap::raw::Encoder,
        phase: &mut watch::Receiver<Phase>,
    ) -> Option<Loss> {
        let (body, replaced) = match outgoing.body(encoder) {
            Ok(encoded) => encoded,
            Err(error) => {
                let message = format!("cannot compress a request: {error}");
                self.stats.rejected(&message, outgoing.items());
                return Some(Loss { reason: DropReason::Rejected, code: Code::Internal, message });
            }
        };
        let mut backoff = Backoff::new(&self.retry);
        let started = Instant::now();
        let mut attempts = 0u32;
        loop {
            let (after, message) = match self.attempt_in_time(&body, outgoing.headers(), attempts).await {
                Answer::Delivered => {
                    self.health.succeeded();
                    self.stats.sent();
                    self.lose_replaced(outgoing, &replaced);
                    return None;
                }
                Answer::Refused { message } => {
                    self.stats.rejected(&message, outgoing.items());
                    return Some(Loss { reason: DropReason::Rejected, code: Code::Internal, message });
                }
                Answer::Retry { after, message } => (after, message),
            };
            attempts = attempts.saturating_add(1);
            self.health.failed(&message, self.retry.enabled);
            let given_up = |reason, message| Some(Loss { reason, code: Code::Unavailable, message });
            if *phase.borrow() != Phase::Running {
                return given_up(DropReason::Shutdown, message);
            }
            if !self.retry.enabled {
                return given_up(DropReason::RetriesExhausted, message);
            }
            let wait = backoff.next_wait(after);
            let limit = self.retry.max_elapsed_time.0;
            if !limit.is_zero() && started.elapsed().saturating_add(wait) > limit {
                return given_up(DropReason::RetriesExhausted, format!("no more retries left: {message}"));
            }
            tokio::select! {
                () = sleep(wait) => {}
                // The last attempt comes at once.
                _ = phase.wait_for(|&phase| phase != Phase::Running) => {}
            }
        }
    }

    /// Books the points of a delivered request that others of the same series and time replaced.
    fn lose_replaced(&self, outgoing: &Outgoing, replaced: &[usize]) {
        for ((pending, ..), &replaced) in outgoing.stakes().zip(replaced).filter(|(_, replaced)| **replaced > 0) {
            pending.lose(DropReason::Untranslatable, replaced);
            self.stats.duplicates(replaced);
        }
    }

    async fn attempt_in_time(&self, body: &Bytes, headers: &HeaderMap, attempts: u32) -> Answer {
        let attempt = self.attempt(body, headers, attempts);
        if self.timeout.is_zero() {
            return attempt.await;
        }
        timeout(self.timeout, attempt).await.unwrap_or_else(|_| Answer::Retry {
            after: None,
            message: format!("no answer from {} within {:?} (timeout)", self.uri, self.timeout),
        })
    }

    async fn attempt(&self, body: &Bytes, headers: &HeaderMap, attempts: u32) -> Answer {
        let retry = |message: String| Answer::Retry { after: None, message };
        let Some(client) = self.client.get() else { return retry("the exporter has not started".to_owned()) };
        let mut request = http::Request::new(Chunks::new(&[], std::slice::from_ref(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let sent = request.headers_mut();
        sent.extend(headers.clone());
        sent.extend(self.headers.clone());
        if let Some(auth) = &self.auth {
            auth.apply(sent);
        }
        if attempts > 0 {
            sent.insert(HeaderName::from_static("retry-attempt"), HeaderValue::from(attempts));
        }
        set_protocol_headers(sent);
        match client.send(request).await {
            Ok(reply) => {
                let body = reply.body.get(..reply.body.len().min(MAX_LOGGED)).unwrap_or_default();
                let unix_seconds = self.clock.unix_nanos() / 1_000_000_000;
                Answer::of(reply.status, &reply.headers, body, self.retry_on_429, unix_seconds)
            }
            Err(error) => retry(error.0),
        }
    }
}

/// The headers that the protocol prescribes; nobody overrides them.
fn set_protocol_headers(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
    headers.insert(HeaderName::from_static("x-prometheus-remote-write-version"), HeaderValue::from_static("0.1.0"));
    if let Ok(agent) = HeaderValue::try_from(user_agent()) {
        headers.insert(USER_AGENT, agent);
    }
}
