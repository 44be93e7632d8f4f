//! `grpc.health.v1.Health`: is the gateway serving, or the pipeline that is named?
//!
//! Protocol: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>. `Check` only: `Watch`
//! is UNIMPLEMENTED, at which clients ask again from time to time.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use nyquist_core::batch::Code;
use nyquist_core::net::admission::Admission;
use nyquist_core::net::body::Reply;
use nyquist_core::net::compression::decode::Encoding;
use nyquist_core::net::grpc;
use nyquist_core::net::server::Handler;
use nyquist_core::wire::{Fields, Value, put_tag, put_varint};

use super::page::Shared;

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// The name of a pipeline is far shorter.
const MAX_MESSAGE: usize = 4 << 10;
/// Bytes of requests that are read at once.
const IN_FLIGHT: usize = 1 << 20;
const SERVING: u64 = 1;
const NOT_SERVING: u64 = 2;

/// Answers health checks.
pub(super) struct HealthService {
    shared: Arc<Shared>,
    admission: Arc<Admission>,
}

impl HealthService {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { shared, admission: Admission::new(IN_FLIGHT) })
    }

    async fn check(&self, request: Request<Incoming>) -> Result<Vec<u8>, (Code, String)> {
        let (head, mut body) = request.into_parts();
        if head.uri.path() != CHECK {
            return Err((Code::Unimplemented, format!("unknown method {}; there is {CHECK}", head.uri.path())));
        }
        let busy = || (Code::Unavailable, "too many health checks at once".to_owned());
        let mut room = self.admission.admit(MAX_MESSAGE).ok_or_else(busy)?;
        let message = grpc::read_message(&mut body, Encoding::Identity, MAX_MESSAGE, &mut room).await;
        let message = message.map_err(|error| (Code::InvalidArgument, error.to_string()))?;
        let mut service = String::new();
        for field in Fields::new(&message) {
            if let (1, Value::Len(name)) = (field.number, field.value) {
                service = String::from_utf8_lossy(name).into_owned();
            }
        }
        let report = self.shared.report(&service);
        let report = report.ok_or_else(|| (Code::NotFound, "Service not found.".to_owned()))?;
        let mut answer = Vec::new();
        put_tag(&mut answer, 1, 0);
        put_varint(&mut answer, if self.shared.serves(&report) { SERVING } else { NOT_SERVING });
        Ok(answer)
    }
}

impl Handler for HealthService {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        match self.check(request).await {
            Ok(answer) => grpc::reply(&answer),
            Err((code, message)) => grpc::refuse(&grpc::refusal(code, &message)),
        }
    }
}
