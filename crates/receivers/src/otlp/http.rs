//! OTLP/HTTP: protobuf and JSON, each answered in kind.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, request};
use hyper::body::Incoming;
use nyquist_core::batch::{Code, Metadata, Signal};
use nyquist_core::component::ServerAuth;
use nyquist_core::net::body::{Pace, Reply, Room, next_data, read_all};
use nyquist_core::net::compression::decode::{DecodeError, Encoding, decode_in_turns};
use nyquist_core::net::grpc;
use nyquist_core::net::server::Handler;
use nyquist_core::net::turns::{IN_PLACE, SLICE, aside};

use super::client::{Client, Keep};
use super::cors::Cors;
use super::intake::{Accepted, Lane, Rejection};
use super::json;
use super::limits::{Limits, Pass};

/// Answers OTLP/HTTP requests.
pub(super) struct HttpHandler {
    pub(super) lanes: [Option<Arc<Lane>>; 3],
    pub(super) paths: [String; 3],
    pub(super) limits: Arc<Limits>,
    pub(super) auth: Option<Arc<dyn ServerAuth>>,
    /// Query parameters that the authenticator sees as headers.
    pub(super) auth_params: Vec<String>,
    pub(super) max_body: usize,
    /// Which encodings are decoded; `None` for any.
    pub(super) encodings: Option<Vec<Encoding>>,
    pub(super) read_timeout: Option<Duration>,
    pub(super) keep: Option<Keep>,
    pub(super) cors: Option<Cors>,
    pub(super) response_headers: HeaderMap,
}

/// How a request, and so its reply, is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Protobuf,
    Json,
}

impl Format {
    /// The format that the request's `Content-Type` names, parameters aside.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let name = content_type.split(';').next().unwrap_or_default().trim();
        if name.eq_ignore_ascii_case("application/x-protobuf") {
            Some(Self::Protobuf)
        } else if name.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else {
            None
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        })
    }
}

impl Handler for HttpHandler {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        let preflight = self.cors.as_ref().and_then(|cors| cors.preflight(&request));
        let mut response = match preflight {
            Some(response) => response,
            None => self.answer(request).await,
        };
        for (name, value) in &self.response_headers {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }
}

/// A request that was let in: what is left of it but its body.
struct Begun {
    lane: Arc<Lane>,
    format: Format,
    encoding: Encoding,
    room: Pass,
    metadata: Option<Arc<Metadata>>,
}

impl HttpHandler {
    async fn answer(&self, request: Request<Incoming>) -> Response<Reply> {
        let (head, mut body) = request.into_parts();
        let version = head.version;
        // A copy: the original would keep the buffer that it was read into.
        let origin = head.headers.get(header::ORIGIN).filter(|_| self.cors.is_some());
        let origin = origin.and_then(|origin| HeaderValue::from_bytes(origin.as_bytes()).ok());
        let mut response = match self.begin(head).await {
            Ok(begun) => {
                let (signal, format) = (begun.lane.signal, begun.format);
                match self.export(begun, &mut body).await {
                    Ok(accepted) => success(signal, format, accepted),
                    Err(rejection) => failure(Some(format), &rejection),
                }
            }
            Err(response) => response,
        };
        if let Some(cors) = &self.cors {
            cors.decorate(origin.as_ref(), response.headers_mut());
        }
        let is_unread = version < Version::HTTP_2 && !response.status().is_success();
        if is_unread && response.status() != StatusCode::REQUEST_TIMEOUT {
            drain(&mut body).await;
        }
        response
    }

    /// All that can be done before the body is read. The headers end here: while the body comes nobody needs them.
    async fn begin(&self, head: request::Parts) -> Result<Begun, Response<Reply>> {
        let room = self.limits.make_room(Client::address(&head.extensions), &head.headers).map_err(|rejection| {
            self.lane(&head).iter().for_each(|lane| lane.count_failure());
            failure(Format::of(&head.headers), &rejection)
        })?;
        let (client, lane, format, encoding) = self.check_head(&head).await?;
        lane.pass_gates().map_err(|rejection| failure(Some(format), &rejection))?;
        let room = self.limits.enter(room, &client, &head.headers).map_err(|rejection| {
            lane.count_failure();
            failure(Some(format), &rejection)
        })?;
        let metadata = self.keep.as_ref().map(|keep| keep.metadata(&head.headers, &client.identity));
        Ok(Begun { lane, format, encoding, room, metadata })
    }

    /// Who sends it, where it goes and how it is written, in the Collector's order.
    async fn check_head(
        &self,
        head: &request::Parts,
    ) -> Result<(Client, Arc<Lane>, Format, Encoding), Response<Reply>> {
        let format = Format::of(&head.headers);
        let client = self.identify(head).await.map_err(|rejection| failure(format, &rejection))?;
        let encoding = self.encoding(&head.headers).map_err(|rejection| failure(format, &rejection))?;
        let Some(lane) = self.lane(head) else {
            return Err(text(StatusCode::NOT_FOUND, "404 page not found\n"));
        };
        if head.method != Method::POST {
            return Err(text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed, supported: [POST]"));
        }
        let Some(format) = format else {
            let message = "415 unsupported media type, supported: [application/json, application/x-protobuf]";
            return Err(text(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        };
        Ok((client, Arc::clone(lane), format, encoding))
    }

    fn lane(&self, head: &request::Parts) -> Option<&Arc<Lane>> {
        let signal = self.paths.iter().position(|path| path == head.uri.path())?;
        self.lanes[signal].as_ref()
    }

    async fn identify(&self, head: &request::Parts) -> Result<Client, Rejection> {
        let auth = self.auth.as_ref();
        let found = match (self.auth_params.is_empty(), head.uri.query()) {
            (false, Some(query)) if auth.is_some() => {
                let headers = with_params(&head.headers, query, &self.auth_params);
                Client::identify(auth, &headers, &head.extensions).await
            }
            _ => Client::identify(auth, &head.headers, &head.extensions).await,
        };
        found.map_err(|reason| Rejection::new(Code::Unauthenticated, reason))
    }

    fn encoding(&self, headers: &HeaderMap) -> Result<Encoding, Rejection> {
        let Some(name) = headers.get(header::CONTENT_ENCODING) else { return Ok(Encoding::Identity) };
        let known = name.to_str().ok().and_then(Encoding::from_name);
        match (&self.encodings, known) {
            // Decoding is off altogether: the parser gets what came.
            (Some(allowed), _) if allowed.is_empty() => Ok(Encoding::Identity),
            (Some(allowed), Some(encoding)) if encoding == Encoding::Identity || allowed.contains(&encoding) => {
                Ok(encoding)
            }
            (None, Some(encoding)) => Ok(encoding),
            _ => {
                let name = String::from_utf8_lossy(name.as_bytes());
                Err(Rejection::new(Code::InvalidArgument, format!("unsupported Content-Encoding: {name}")))
            }
        }
    }

    async fn export(&self, begun: Begun, body: &mut Incoming) -> Result<Accepted, Rejection> {
        let Begun { lane, format, encoding, mut room, metadata } = begun;
        let message = self.message(lane.signal, (format, encoding), body, &mut room).await;
        let message = message.map_err(|rejection| room.explain(rejection)).inspect_err(|_| lane.count_failure())?;
        lane.take(message, metadata, room, None).await
    }

    /// The request's message, in protobuf.
    async fn message(
        &self,
        signal: Signal,
        (format, encoding): (Format, Encoding),
        body: &mut Incoming,
        room: &mut Pass,
    ) -> Result<Bytes, Rejection> {
        let body = self.read(body, room).await?;
        let body = decoded(encoding, body, self.max_body, room).await?;
        match format {
            Format::Protobuf => Ok(body),
            Format::Json => transcoded(signal, body, self.max_body, room).await,
        }
    }

    async fn read(&self, body: &mut Incoming, room: &mut Pass) -> Result<Bytes, Rejection> {
        let reading = read_all(body, self.max_body, room);
        let result = match self.read_timeout {
            None => reading.await,
            Some(limit) => tokio::time::timeout(limit, reading)
                .await
                .map_err(|_| Rejection::too_slow(format!("the request took longer than read_timeout ({limit:?})")))?,
        };
        result.map_err(|error| Rejection::from_read(&error))
    }
}

async fn decoded(encoding: Encoding, body: Bytes, limit: usize, room: &mut Pass) -> Result<Bytes, Rejection> {
    decode_in_turns(encoding, body, limit, room).await.map_err(|error| match error {
        DecodeError::TooLarge { .. } => Rejection::new(Code::InvalidArgument, "http: request body too large"),
        DecodeError::NoRoom => Rejection::no_room(),
        other => Rejection::new(Code::InvalidArgument, other.to_string()),
    })
}

async fn transcoded(signal: Signal, body: Bytes, limit: usize, room: &mut Pass) -> Result<Bytes, Rejection> {
    let size = body.len();
    let message = if size <= IN_PLACE {
        json::to_wire(signal, &body, limit)
    } else {
        let read = aside(move || json::to_wire(signal, &body, limit)).await;
        read.ok_or_else(|| Rejection::new(Code::Internal, "internal error while the request was read"))?
    };
    let message = message
        .map_err(|error| Rejection::new(Code::InvalidArgument, format!("cannot decode the request: {error}")))?;
    if !room.grow_to(size.max(message.len())) {
        return Err(Rejection::no_room());
    }
    Ok(message.into())
}

fn success(signal: Signal, format: Format, accepted: Accepted) -> Response<Reply> {
    let body = match format {
        Format::Protobuf => accepted.encode(signal).into(),
        Format::Json => json::reply(signal, accepted),
    };
    let mut response = Response::new(Reply::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, format.content_type());
    response
}

/// A refusal as a `google.rpc.Status` in the request's format; as text where that is unknown.
fn failure(format: Option<Format>, rejection: &Rejection) -> Response<Reply> {
    let status = if rejection.is_slow { StatusCode::REQUEST_TIMEOUT } else { grpc::http_status(rejection.code) };
    let mut response = match format {
        None => text(status, &rejection.message),
        Some(format) => {
            let body = match format {
                Format::Protobuf => grpc::encode_status(rejection.code, &rejection.message, rejection.retry),
                Format::Json => json::status(rejection),
            };
            let mut response = Response::new(Reply::new(body));
            *response.status_mut() = status;
            response.headers_mut().insert(header::CONTENT_TYPE, format.content_type());
            response
        }
    };
    let is_temporary = status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
    if let Some(delay) = rejection.retry
        && is_temporary
    {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(delay.as_secs().max(1)));
    }
    response
}

fn text(status: StatusCode, message: &str) -> Response<Reply> {
    let mut response = Response::new(Reply::new(Bytes::copy_from_slice(message.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Reads and forgets what is left of the body. An HTTP/1 client that is still writing would
/// otherwise be cut off by a reset, and never see why.
///
/// Nobody is in a hurry for what is refused already: it is read by the slice, with a pause after each, so that the
/// good clients of the worker have it to themselves nearly all the time.
pub(crate) async fn drain(body: &mut Incoming) {
    const MOST: usize = 32 << 20;
    const LONGEST: Duration = Duration::from_secs(2);
    const PAUSE: Duration = Duration::from_millis(1);
    let reading = async {
        let (mut read, mut pace) = (0, Pace::new(None));
        while let Ok(Some(data)) = next_data(body, &mut pace).await {
            let slices = read / SLICE;
            read += data.len();
            if read > MOST {
                return;
            }
            if read / SLICE > slices {
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    let _ = tokio::time::timeout(LONGEST, reading).await;
}

/// `headers` and, as if they were headers too, those `params` that `query` has.
fn with_params(headers: &HeaderMap, query: &str, params: &[String]) -> HeaderMap {
    let mut all = headers.clone();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let is_wanted = params.iter().any(|param| param == name);
        let parsed = (HeaderName::try_from(name), HeaderValue::from_bytes(&query_decode(value)));
        if let (true, (Ok(name), Ok(value))) = (is_wanted, parsed) {
            all.append(name, value);
        }
    }
    all
}

fn query_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = if first == b'%' { after.get(..2) } else { None };
        match digits.and_then(|digits| hex::decode(digits).ok()) {
            Some(byte) => {
                decoded.extend(byte);
                rest = &after[2..];
            }
            None => {
                decoded.push(if first == b'+' { b' ' } else { first });
                rest = after;
            }
        }
    }
    decoded
}
