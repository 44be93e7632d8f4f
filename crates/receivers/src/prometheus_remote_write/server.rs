//! Requests and answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version as HttpVersion, request};
use hyper::body::Incoming;
use nyquist_core::batch::{Batch, DropReason, Metadata, Refusal, Signal};
use nyquist_core::component::{Consumer, ServerAuth};
use nyquist_core::net::admission::{Admission, Admitted, Gate, footprint};
use nyquist_core::net::body::{ReadError, Reply, read_all};
use nyquist_core::net::compression::decode::{DecodeError, Encoding, decode};
use nyquist_core::net::server::Handler;
use nyquist_core::telemetry::{Counter, Ledger, Telemetry};

use super::decode::{self, Version};
use super::infos::Infos;
use super::metadata::Families;
use super::translate::{Outcome, translate};
use crate::otlp::client::{Client, Keep};
use crate::otlp::{drain, to_completion};

/// Where senders send to.
pub(super) const PATH: &str = "/api/v1/write";

/// The least that a sender is asked to wait.
const MIN_RETRY: Duration = Duration::from_secs(1);
/// What each request is charged beside its bytes.
const OVERHEAD: usize = 4 << 10;
/// A request may come to so many times the largest body, as OTLP.
const EXPANSION: usize = 8;

/// Answers requests.
pub(super) struct WriteHandler {
    pub(super) lane: Arc<Lane>,
    pub(super) admission: Arc<Admission>,
    pub(super) gates: Vec<Arc<Gate>>,
    pub(super) auth: Option<Arc<dyn ServerAuth>>,
    pub(super) max_body: usize,
    pub(super) read_timeout: Option<Duration>,
    pub(super) keep: Option<Keep>,
    pub(super) families: Families,
    pub(super) infos: Infos,
}

/// The way into the pipeline, and what is counted on it.
pub(super) struct Lane {
    next: Arc<dyn Consumer>,
    ledger: Ledger,
    accepted: Counter,
    refused: Counter,
    requests_ok: Counter,
    requests_refused: Counter,
    requests_failed: Counter,
    lost_exemplars: Counter,
}

impl Lane {
    pub(super) fn new(id: &str, next: Arc<dyn Consumer>, telemetry: &Telemetry) -> Self {
        let items = |what: &str, help: &str| {
            let name = format!("otelcol_receiver_{what}_metric_points");
            telemetry.counter(&name, help, &[("receiver", id), ("transport", "http")])
        };
        let requests = |outcome: &str| {
            let labels = [("receiver", id), ("transport", "http"), ("outcome", outcome)];
            telemetry.counter("otelcol_receiver_requests", "Requests by what became of them.", &labels)
        };
        let lost = "Exemplars of series that had no sample in their request.";
        Self {
            next,
            ledger: Ledger::new(telemetry, &format!("receiver/{id}"), Signal::Metrics),
            accepted: items("accepted", "Items that were taken into a pipeline."),
            refused: items("refused", "Items that a pipeline refused."),
            requests_ok: requests("success"),
            requests_refused: requests("refused"),
            requests_failed: requests("failure"),
            lost_exemplars: telemetry.counter("nyquist_receiver_lost_exemplars", lost, &[("receiver", id)]),
        }
    }
}

/// An answer that says no.
struct Rejection {
    status: StatusCode,
    message: String,
    retry: Option<Duration>,
}

impl Rejection {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry: None }
    }

    /// Senders give up on 429 unless they are told otherwise, and never on 503.
    fn later(message: impl Into<String>, delay: Option<Duration>) -> Self {
        let retry = Some(delay.unwrap_or_default().max(MIN_RETRY));
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: message.into(), retry }
    }

    fn no_room() -> Self {
        Self::later("too many bytes of requests are in flight (max_in_flight): try again", None)
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        if refusal.is_retryable() {
            return Self::later(refusal.message(), refusal.retry_delay());
        }
        // A 5xx would be sent again for ever.
        Self::new(StatusCode::BAD_REQUEST, refusal.message())
    }
}

impl Handler for WriteHandler {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        let (head, mut body) = request.into_parts();
        let http_version = head.version;
        let result = match self.begin(head).await {
            Ok(begun) => {
                let version = begun.version;
                self.write(begun, &mut body).await.map(|outcome| answer(version, &outcome))
            }
            Err(rejection) => Err(rejection),
        };
        let response = result.unwrap_or_else(|rejection| refusal(&rejection));
        if http_version < HttpVersion::HTTP_2 && !response.status().is_success() {
            drain(&mut body).await;
        }
        response
    }
}

/// A request that was let in: what is left of it but its body.
struct Begun {
    version: Version,
    room: Admitted,
    metadata: Option<Arc<Metadata>>,
}

impl WriteHandler {
    /// All that can be done before the body is read. The headers end here: while the body comes nobody needs them.
    async fn begin(&self, head: request::Parts) -> Result<Begun, Rejection> {
        let room = self.admission.admit(OVERHEAD + footprint(&head.headers));
        let room = room.ok_or_else(Rejection::no_room).inspect_err(|_| self.lane.requests_failed.inc())?;
        let (version, client) = self.check_head(&head).await?;
        if !self.gates.iter().all(|gate| gate.is_open()) {
            self.lane.requests_refused.inc();
            return Err(Rejection::later("data refused due to high memory usage", None));
        }
        let metadata = self.keep.as_ref().map(|keep| keep.metadata(&head.headers, &client.identity));
        Ok(Begun { version, room: room.kept_beside(), metadata })
    }

    /// All that can be said before the body is read.
    async fn check_head(&self, head: &request::Parts) -> Result<(Version, Client), Rejection> {
        let client = Client::identify(self.auth.as_ref(), &head.headers, &head.extensions).await;
        let client = client.map_err(|reason| Rejection::new(StatusCode::UNAUTHORIZED, reason))?;
        if head.uri.path() != PATH {
            let message = format!("404 page not found: remote write goes to {PATH}\n");
            return Err(Rejection::new(StatusCode::NOT_FOUND, message));
        }
        if head.method != Method::POST {
            let message = "405 method not allowed, supported: [POST]";
            return Err(Rejection::new(StatusCode::METHOD_NOT_ALLOWED, message));
        }
        let unsupported = |message: String| Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
        let encoding = text(&head.headers, &header::CONTENT_ENCODING);
        if !matches!(encoding, "" | "snappy") {
            return Err(unsupported(format!(
                "{encoding} encoding is not supported: remote write is compressed with snappy"
            )));
        }
        let version = version(text(&head.headers, &header::CONTENT_TYPE)).map_err(unsupported)?;
        Ok((version, client))
    }

    async fn write(&self, begun: Begun, body: &mut Incoming) -> Result<Outcome, Rejection> {
        let Begun { version, mut room, metadata } = begun;
        let read = async {
            let message = self.read(body, &mut room).await?;
            let mut outcome = self.translated(version, &message)?;
            // The message goes, what it came to stays.
            drop(message);
            if !room.grow_to(outcome.bytes) {
                return Err(Rejection::no_room());
            }
            let batch = Batch::from_metrics(std::mem::take(&mut outcome.data));
            Ok((outcome, batch, room))
        };
        let (outcome, mut batch, room) = read.await.inspect_err(|_: &Rejection| self.lane.requests_failed.inc())?;
        if outcome.points > 0 {
            batch.wire();
            if let Some(metadata) = metadata {
                batch = batch.with_metadata(metadata);
            }
            self.deliver(batch, outcome.points, room).await?;
        } else {
            self.lane.requests_ok.inc();
        }
        self.lane.lost_exemplars.inc_by(outcome.lost_exemplars as u64);
        self.lane.ledger.dropped(DropReason::Rejected, outcome.rejected);
        Ok(outcome)
    }

    async fn read(&self, body: &mut Incoming, room: &mut Admitted) -> Result<Bytes, Rejection> {
        let reading = read_all(body, self.max_body, room);
        let compressed = match self.read_timeout {
            None => reading.await,
            Some(limit) => tokio::time::timeout(limit, reading).await.map_err(|_| {
                let message = format!("the request took longer than read_timeout ({limit:?})");
                Rejection::new(StatusCode::REQUEST_TIMEOUT, message)
            })?,
        };
        let too_large = || {
            let message = format!("the request has more than {} bytes (max_request_body_size)", self.max_body);
            Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        let compressed = compressed.map_err(|error| match error {
            ReadError::TooLarge => too_large(),
            ReadError::NoRoom => Rejection::no_room(),
            other => Rejection::new(StatusCode::BAD_REQUEST, format!("cannot read the request: {other}")),
        })?;
        let message = decode(Encoding::Snappy, &compressed, self.max_body).map_err(|error| match error {
            DecodeError::TooLarge { .. } => too_large(),
            other => Rejection::new(StatusCode::BAD_REQUEST, format!("cannot decompress the request: {other}")),
        })?;
        if room.grow_to(message.len()) { Ok(message) } else { Err(Rejection::no_room()) }
    }

    fn translated(&self, version: Version, message: &[u8]) -> Result<Outcome, Rejection> {
        let bad = |message: String| Rejection::new(StatusCode::BAD_REQUEST, message);
        let request = decode::Request::new(version, message).map_err(bad)?;
        self.families.learn(request.metadata());
        let budget = self.max_body.saturating_mul(EXPANSION);
        translate(&request, &self.families, &self.infos, budget).map_err(|_| {
            let message = format!("the request comes to more than {budget} bytes as OTLP: send fewer samples at once");
            Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        })
    }

    /// Runs to its end even if the sender goes away.
    async fn deliver(&self, batch: Batch, points: usize, room: Admitted) -> Result<(), Rejection> {
        let lane = Arc::clone(&self.lane);
        let delivery = async move {
            let outcome = lane.next.consume(batch).await;
            match &outcome {
                Ok(()) => {
                    lane.accepted.inc_by(points as u64);
                    lane.requests_ok.inc();
                }
                Err(_) => {
                    lane.refused.inc_by(points as u64);
                    lane.requests_refused.inc();
                }
            }
            drop(room);
            outcome
        };
        match to_completion(delivery, None).await {
            Some(outcome) => outcome.map_err(Rejection::from),
            None => {
                self.lane.refused.inc_by(points as u64);
                self.lane.requests_failed.inc();
                let message = "internal error while the data was processed";
                Err(Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, message))
            }
        }
    }
}

/// The protocol that a content type names.
fn version(content_type: &str) -> Result<Version, String> {
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let supported = "supported are application/x-protobuf with proto=prometheus.WriteRequest or \
                     proto=io.prometheus.write.v2.Request";
    if !media_type.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(format!("content type {media_type:?} is not supported: {supported}"));
    }
    let proto = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("proto").then(|| value.trim().trim_matches('"'))
    });
    match proto {
        None | Some("prometheus.WriteRequest") => Ok(Version::V1),
        Some("io.prometheus.write.v2.Request") => Ok(Version::V2),
        Some(other) => Err(format!("proto {other:?} is not supported: {supported}")),
    }
}

/// The answer to a request whose good part was taken: 204, or 400 with what was not.
fn answer(version: Version, outcome: &Outcome) -> Response<Reply> {
    let mut response = if outcome.rejected == 0 {
        let mut response = Response::new(Reply::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        let mut message = format!("{} samples or histograms were not taken; the others were:\n", outcome.rejected);
        outcome.complaints.iter().for_each(|complaint| message.push_str(&format!("{complaint}\n")));
        refusal(&Rejection::new(StatusCode::BAD_REQUEST, message))
    };
    if version == Version::V2 {
        for (name, count) in [
            ("x-prometheus-remote-write-samples-written", outcome.samples),
            ("x-prometheus-remote-write-histograms-written", outcome.histograms),
            ("x-prometheus-remote-write-exemplars-written", outcome.exemplars),
        ] {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(count));
        }
    }
    response
}

fn refusal(rejection: &Rejection) -> Response<Reply> {
    let mut response = Response::new(Reply::new(Bytes::copy_from_slice(rejection.message.as_bytes())));
    *response.status_mut() = rejection.status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    if let Some(delay) = rejection.retry {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(delay.as_secs().max(1)));
    }
    response
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
