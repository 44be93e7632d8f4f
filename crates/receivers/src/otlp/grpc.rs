//! OTLP/gRPC: three unary methods.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use nyquist_core::batch::{Code, Signal};
use nyquist_core::component::ServerAuth;
use nyquist_core::net::body::{ReadError, Reply};
use nyquist_core::net::compression::decode::Encoding;
use nyquist_core::net::grpc::{self, MessageError};
use nyquist_core::net::server::Handler;

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
        let accepted = lane.take(message, metadata, room).await?;
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

/// How compressed messages of this request are compressed.
fn encoding(headers: &HeaderMap) -> Result<Encoding, Rejection> {
    let Some(name) = headers.get("grpc-encoding") else { return Ok(Encoding::Identity) };
    let name = name.to_str().unwrap_or("?");
    Encoding::from_name(name).ok_or_else(|| {
        let message = format!("grpc: Decompressor is not installed for grpc-encoding {name:?}");
        Rejection::new(Code::Unimplemented, message)
    })
}
