//! What a shard does with a request: sends it until it is known what has become of every point.
//!
//! A request that is refused for what one point in it holds is sent again in halves, first half
//! first, so that only the point is lost: remote write 1.0 receivers refuse all of it. Receivers of
//! 2.0 take the good part and say how much that was; such a request is never sent again.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use nyquist_core::batch::{Code, DropReason};
use nyquist_core::clock::Clock;
use nyquist_core::component::ClientAuth;
use nyquist_core::delivery::{Backoff, Health, RetryConfig};
use nyquist_core::net::client::Chunks;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::answer::{Answer, Written};
use super::last_times::LastTimes;
use super::outgoing::{Limits, Outgoing};
use super::pending::Loss;
use super::protocol::{Negotiation, Version};
use super::stats::Stats;
use super::v2::Totals;
use super::{v1, v2};
use crate::http_client::HttpClient;

/// How much of a refusal's body is logged, in bytes.
const MAX_LOGGED: usize = 4096;

/// How often a refused request is cut in halves, all its parts together.
const MAX_SPLITS: usize = 128;

/// After so many points of a large request that were refused alone, without one that was taken in
/// between, small parts of it are no longer cut.
const HOPELESS: usize = 8;

/// A request of this many chunks is cut as far as it can be.
const SMALL: usize = 64;

/// What senders need.
pub(super) struct Sender {
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) auth: Option<Arc<dyn ClientAuth>>,
    pub(super) client: OnceLock<HttpClient>,
    pub(super) timeout: Duration,
    pub(super) retry: RetryConfig,
    pub(super) retry_on_429: bool,
    pub(super) negotiation: Negotiation,
    pub(super) limits: Limits,
    /// How many series a shard remembers the last time of; 0 to send samples whatever their order.
    pub(super) ordered_series: usize,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stats: Arc<Stats>,
    pub(super) health: Health,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Running,
    /// One attempt for what is left, no waits.
    Draining,
    Closed,
}

/// What a shard works with.
pub(super) struct Desk {
    encoder: snap::raw::Encoder,
    message: Vec<u8>,
    v2: v2::Buffers,
    times: Option<LastTimes>,
    phase: watch::Receiver<Phase>,
}

impl Desk {
    pub(super) fn new(sender: &Sender, phase: watch::Receiver<Phase>) -> Self {
        Self {
            encoder: snap::raw::Encoder::new(),
            message: Vec::new(),
            v2: v2::Buffers::new(),
            times: (sender.ordered_series > 0).then(|| LastTimes::new(sender.ordered_series)),
            phase,
        }
    }

    fn delivered(&mut self, outgoing: &Outgoing) {
        if let Some(times) = &mut self.times {
            outgoing.note(times);
        }
        outgoing.settle(None);
    }
}

/// What has become of a request.
enum Verdict {
    /// Its pushes have been told.
    Settled,
    /// It is longer than it may be; nothing was sent.
    TooLong,
    /// It is lost; the fault may be that of a part of it.
    Refused(Loss),
    /// It is lost.
    Lost(Loss),
    /// The backend does not know the version; it has taken nothing.
    TurnedDown(Loss),
    /// It was refused, by a backend that may not know the version.
    Doubtful(Loss),
}

/// How the attempts at a request ended.
enum Reply {
    Delivered(Option<Written>),
    Refused { status: StatusCode, written: Option<Written>, message: String },
    GivenUp(Loss),
}

impl Sender {
    /// Sends `outgoing`, and tells its pushes what has become of it.
    pub(super) async fn send(&self, mut outgoing: Outgoing, desk: &mut Desk) {
        outgoing.put_in_order(|metric, other, points| self.stats.replaced(metric, other, points));
        if let Some(times) = &desk.times {
            outgoing.drop_older(times, |metric, points| self.stats.out_of_order(metric.family.name.as_bytes(), points));
            if outgoing.is_empty() {
                return;
            }
        }
        let (mut splits, mut hopeless, whole) = (0, 0, outgoing.len());
        let mut left = vec![outgoing];
        while let Some(outgoing) = left.pop() {
            if whole <= SMALL || outgoing.len() >= whole / 4 {
                hopeless = 0;
            }
            let verdict = self.deliver(&outgoing, desk).await;
            let is_worth_splitting = match verdict {
                Verdict::Settled => {
                    hopeless = 0;
                    continue;
                }
                Verdict::TooLong => true,
                Verdict::Refused(_) => splits < MAX_SPLITS && hopeless < HOPELESS,
                _ => false,
            };
            let halves = if is_worth_splitting { outgoing.halves() } else { Err(outgoing) };
            let outgoing = match halves {
                Ok((first, second)) => {
                    if matches!(verdict, Verdict::Refused(_)) {
                        splits += 1;
                        self.stats.split();
                    }
                    left.extend([second, first]);
                    continue;
                }
                Err(outgoing) => outgoing,
            };
            hopeless += usize::from(is_worth_splitting);
            if let Verdict::Refused(loss) | Verdict::Lost(loss) | Verdict::TurnedDown(loss) | Verdict::Doubtful(loss) =
                verdict
            {
                self.stats.lost(loss.reason, outgoing.items(), &loss.message, || outgoing.metric_names());
                outgoing.settle(Some(&loss));
            }
        }
    }

    /// Sends it in the version that the backend takes.
    async fn deliver(&self, outgoing: &Outgoing, desk: &mut Desk) -> Verdict {
        let version = self.negotiation.version(self.clock.now());
        let verdict = match version {
            Version::V1 => return self.deliver_v1(outgoing, desk).await,
            Version::V2 => self.deliver_v2(outgoing, desk).await,
        };
        match verdict {
            Verdict::TurnedDown(loss) if self.negotiation.may_fall_back() => {
                self.fall_back(&loss.message);
                self.deliver_v1(outgoing, desk).await
            }
            Verdict::Doubtful(loss) => {
                let verdict = self.deliver_v1(outgoing, desk).await;
                if matches!(verdict, Verdict::Settled) {
                    self.fall_back(&loss.message);
                }
                verdict
            }
            verdict => verdict,
        }
    }

    /// From now on 1.0.
    fn fall_back(&self, message: &str) {
        if self.negotiation.fall_back(self.clock.now()) {
            self.stats.fell_back(message);
        }
    }

    async fn deliver_v1(&self, outgoing: &Outgoing, desk: &mut Desk) -> Verdict {
        desk.message.clear();
        desk.message.reserve(outgoing.v1_len());
        for (chunk, row, metric) in outgoing.chunks() {
            v1::put_chunk(&mut desk.message, chunk, row, metric);
        }
        match self.transmit(Version::V1, outgoing.headers(), desk).await {
            Reply::Delivered(_) => {
                desk.delivered(outgoing);
                Verdict::Settled
            }
            Reply::Refused { status, message, .. } if is_about_content(status) => Verdict::Refused(rejected(message)),
            Reply::Refused { message, .. } => Verdict::Lost(rejected(message)),
            Reply::GivenUp(loss) => Verdict::Lost(loss),
        }
    }

    async fn deliver_v2(&self, outgoing: &Outgoing, desk: &mut Desk) -> Verdict {
        let mut message = v2::Message::new(&mut desk.v2);
        for (chunk, row, metric) in outgoing.chunks() {
            message.put_chunk(chunk, row, metric);
        }
        let totals = message.finish(&mut desk.message);
        if totals == Totals::default() {
            // Metadata alone, which 2.0 has at the series.
            outgoing.settle(None);
            return Verdict::Settled;
        }
        if desk.message.len() > self.limits.bytes && outgoing.len() > 1 {
            return Verdict::TooLong;
        }
        match self.transmit(Version::V2, outgoing.headers(), desk).await {
            Reply::Delivered(Some(written)) => {
                self.settle_written(outgoing, desk, totals, written, "the backend did not say why")
            }
            Reply::Delivered(None) => Verdict::TurnedDown(rejected(
                "the backend does not say what it has written, so it knows remote write 1.0 only".to_owned(),
            )),
            Reply::Refused { status, written: Some(written), message } if is_about_content(status) => {
                self.settle_written(outgoing, desk, totals, written, &message)
            }
            Reply::Refused { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, message, .. } => {
                Verdict::TurnedDown(rejected(message))
            }
            Reply::Refused { status, message, .. }
                if may_be_about_version(status) && self.negotiation.is_in_doubt() =>
            {
                Verdict::Doubtful(rejected(message))
            }
            Reply::Refused { status, message, .. } if is_about_content(status) => Verdict::Refused(rejected(message)),
            Reply::Refused { message, .. } => Verdict::Lost(rejected(message)),
            Reply::GivenUp(loss) => Verdict::Lost(loss),
        }
    }

    /// The backend has told how much of a request it has taken: the rest is lost, and nothing is sent
    /// again.
    fn settle_written(
        &self,
        outgoing: &Outgoing,
        desk: &mut Desk,
        totals: Totals,
        written: Written,
        message: &str,
    ) -> Verdict {
        self.negotiation.prove_v2();
        self.stats.written(written, totals);
        let sent = totals.samples + totals.histograms;
        let missing =
            totals.samples.saturating_sub(written.samples) + totals.histograms.saturating_sub(written.histograms);
        if missing == 0 {
            desk.delivered(outgoing);
            return Verdict::Settled;
        }
        if missing == sent {
            return Verdict::Lost(rejected(message.to_owned()));
        }
        // A point can be several samples, and which ones are missing is not known.
        let items = outgoing.items();
        let lost = (missing as usize).saturating_mul(items).div_ceil((sent as usize).max(1));
        self.stats.lost(DropReason::PartlyRejected, lost, message, || outgoing.metric_names());
        outgoing.settle_partly(DropReason::PartlyRejected, lost);
        Verdict::Settled
    }

    /// Sends a request until there is an answer that is not worth another attempt.
    async fn transmit(&self, version: Version, headers: &HeaderMap, desk: &mut Desk) -> Reply {
        let body: Bytes = match desk.encoder.compress_vec(&desk.message) {
            Ok(body) => body.into(),
            Err(error) => return Reply::GivenUp(rejected(format!("cannot compress a request: {error}"))),
        };
        let mut backoff = Backoff::new(&self.retry);
        let started = Instant::now();
        let mut attempts = 0u32;
        loop {
            let (after, message) = match self.attempt_in_time(&body, version, headers, attempts).await {
                Answer::Delivered { written } => {
                    self.health.succeeded();
                    self.stats.sent();
                    return Reply::Delivered(written);
                }
                Answer::Refused { status, written, message } => {
                    if needs_people(status) {
                        self.health.refused(Code::PermissionDenied, &message);
                    }
                    return Reply::Refused { status, written, message };
                }
                Answer::Retry { after, message } => (after, message),
            };
            attempts = attempts.saturating_add(1);
            self.health.failed(&message, self.retry.enabled);
            let given_up = |reason, message| Reply::GivenUp(Loss { reason, code: Code::Unavailable, message });
            if *desk.phase.borrow() != Phase::Running {
                return given_up(DropReason::Shutdown, message);
            }
            if !self.retry.enabled {
                return given_up(DropReason::RetriesExhausted, message);
            }
            let limit = self.retry.give_up_after(false);
            let Some(wait) = backoff.next_wait_within(limit, started.elapsed(), after) else {
                return given_up(DropReason::RetriesExhausted, format!("no more retries left: {message}"));
            };
            tokio::select! {
                () = sleep(wait) => {}
                // The last attempt comes at once.
                _ = desk.phase.wait_for(|&phase| phase != Phase::Running) => {}
            }
        }
    }

    async fn attempt_in_time(&self, body: &Bytes, version: Version, headers: &HeaderMap, attempts: u32) -> Answer {
        let attempt = self.attempt(body, version, headers, attempts);
        if self.timeout.is_zero() {
            return attempt.await;
        }
        timeout(self.timeout, attempt).await.unwrap_or_else(|_| Answer::Retry {
            after: None,
            message: format!("no answer from {} within {:?} (timeout)", self.uri, self.timeout),
        })
    }

    async fn attempt(&self, body: &Bytes, version: Version, headers: &HeaderMap, attempts: u32) -> Answer {
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
        version.set_headers(sent);
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

fn rejected(message: String) -> Loss {
    Loss { reason: DropReason::Rejected, code: Code::Internal, message }
}

/// Is this how a backend may answer that does not know the version?
fn may_be_about_version(status: StatusCode) -> bool {
    is_about_content(status) || matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_ACCEPTABLE)
}

/// Will everything be refused until credentials or the address are put right?
fn needs_people(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)
}

/// May a part of the request pass, although all of it was refused?
fn is_about_content(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::CONFLICT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY
    )
}
