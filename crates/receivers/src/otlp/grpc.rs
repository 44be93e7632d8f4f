//! OTLP/gRPC: three unary methods.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use nyquist_core::batch::{Code, Signal};
use nyquist_core::component::ServerAuth;
use nyquist_core::net::body::{ReadError, Reply};
use nyquist_core::net::compression::decode::Encoding;
use nyquist_core::net::grpc::{self, MessageError};
use nyquist_core::net::server::Handler;
use tokio::time::Instant;

use super::client::{Client, Keep};
use super::intake::{Accepted, Lane, Rejection};
use super::limits::Limits;

/// The methods, in the order of `Signal::ALL`.
const METHODS: [&str; 3] = [
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
];

/// Answers OTLP/gRPC requests.
pub(super) struct GrpcHandler {
    pub(super) lanes: [Option<Arc<Lane>>; 3],
    pub(super) limits: Arc<Limits>,
    pub(super) auth: Option<Arc<dyn ServerAuth>>,
    pub(super) max_message: usize,
    pub(super) keep: Option<Keep>,
}

impl Handler for GrpcHandler {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        if !is_call(&request) {
            return not_grpc();
        }
        match self.call(request).await {
            Ok((signal, accepted)) => grpc::reply(&accepted.encode(signal)),
            Err(rejection) => grpc::refuse(&rejection.status()),
        }
    }
}

impl GrpcHandler {
    async fn call(&self, request: Request<Incoming>) -> Result<(Signal, Accepted), Rejection> {
        let (head, mut body) = request.into_parts();
        let deadline = timeout(&head.headers).and_then(|timeout| Instant::now().checked_add(timeout));
        let lane = self.lane(head.uri.path());
        let room = self.limits.make_room(Client::address(&head.extensions), &head.headers);
        let room = room.inspect_err(|_| lane.iter().for_each(|lane| lane.count_failure()))?;
        let client = Client::identify(self.auth.as_ref(), &head.headers, &head.extensions).await;
        let client = client.map_err(|reason| Rejection::new(Code::Unauthenticated, reason))?;
        let lane = lane?;
        lane.pass_gates()?;
        let read = async {
            let encoding = encoding(&head.headers)?;
            let mut room = self.limits.enter(room, &client, &head.headers)?;
            let metadata = self.keep.as_ref().map(|keep| keep.metadata(&head.headers, &client.identity));
            // While the body comes nobody needs them, and the smallest keeps the buffer that it was read into.
            drop(head);
            let message = grpc::read_message(&mut body, encoding, self.max_message, &mut room).await;
            Ok((message.map_err(|error| room.explain(error.into()))?, metadata, room))
        };
        let (message, metadata, room) = read.await.inspect_err(|_: &Rejection| lane.count_failure())?;
        let accepted = lane.take(message, metadata, room, deadline).await?;
        Ok((lane.signal, accepted))
    }

    fn lane(&self, path: &str) -> Result<&Arc<Lane>, Rejection> {
        let method = METHODS.iter().position(|method| *method == path);
        method.and_then(|index| self.lanes[index].as_ref()).ok_or_else(|| {
            let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
            let message = match method {
                "Export" => format!("unknown service {service}: no pipeline takes this signal from this receiver"),
                _ => format!("unknown method {method} for service {service}"),
            };
            Rejection::new(Code::Unimplemented, message)
        })
    }
}

impl From<MessageError> for Rejection {
    fn from(error: MessageError) -> Self {
        let code = match &error {
            MessageError::TooLarge { .. } | MessageError::TooLargeDecoded { .. } => Code::ResourceExhausted,
            MessageError::Body(ReadError::TooLarge) => Code::ResourceExhausted,
            MessageError::Body(error) => return Self::from_read(error),
            _ => Code::InvalidArgument,
        };
        Self::new(code, error.to_string())
    }
}

fn is_call(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && grpc::is_grpc(request.headers().get(header::CONTENT_TYPE))
}

/// The answer to somebody who took this for another kind of port.
fn not_grpc() -> Response<Reply> {
    let text = "415 unsupported media type: this endpoint speaks OTLP/gRPC (application/grpc over HTTP/2); \
                send OTLP/HTTP to the receiver's http endpoint, by default port 4318\n";
    let mut response = Response::new(Reply::new(bytes::Bytes::from_static(text.as_bytes())));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// How long the client waits, if it says so: `grpc-timeout`. What is not a timeout says nothing.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// How compressed messages of this request are compressed.
fn encoding(headers: &HeaderMap) -> Result<Encoding, Rejection> {
    let Some(name) = headers.get("grpc-encoding") else { return Ok(Encoding::Identity) };
    let name = name.to_str().unwrap_or("?");
    Encoding::from_name(name).ok_or_else(|| {
        let message = format!("grpc: Decompressor is not installed for grpc-encoding {name:?}");
        Rejection::new(Code::Unimplemented, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: the timeouts of the gRPC specification are read, and nothing else.
    #[test]
    fn timeouts_are_those_of_the_specification() {
        let of = |text: &'static str| {
            timeout(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), HeaderValue::from_static(text))]))
        };
        assert_eq!(of("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(of("3M"), Some(Duration::from_secs(180)));
        assert_eq!(of("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("7u"), Some(Duration::from_micros(7)));
        assert_eq!(of("0n"), Some(Duration::ZERO));
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S", "1\u{e9}"] {
            let header = HeaderValue::from_bytes(text.as_bytes()).unwrap();
            assert_eq!(timeout(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), header)])), None, "{text:?}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }
}
