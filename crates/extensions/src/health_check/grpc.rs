//! `grpc.health.v1.Health`: is the gateway serving, or the pipeline that is named?
//!
//! Protocol: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>. `Check` says how it is, `Watch` at once and
//! again whenever that has changed, within a second.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use nyquist_core::batch::Code;
use nyquist_core::net::admission::Admission;
use nyquist_core::net::body::Reply;
use nyquist_core::net::compression::decode::Encoding;
use nyquist_core::net::grpc;
use nyquist_core::net::server::Handler;
use nyquist_core::wire::{Fields, Value, put_tag, put_varint};
use tokio::sync::{Semaphore, mpsc};

use super::page::Shared;

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
/// The name of a pipeline is far shorter.
const MAX_MESSAGE: usize = 4 << 10;
/// Bytes of requests that are read at once.
const IN_FLIGHT: usize = 1 << 20;
/// How many watch.
const WATCHERS: usize = 256;
/// How often a watcher's answer is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// `HealthCheckResponse.ServingStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serving {
    Yes = 1,
    No = 2,
    /// There is nothing of that name: to watchers only.
    Unknown = 3,
}

impl Serving {
    fn message(self) -> Vec<u8> {
        let mut message = Vec::new();
        put_tag(&mut message, 1, 0);
        put_varint(&mut message, self as u64);
        message
    }
}

/// Answers health checks.
pub(super) struct HealthService {
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    watchers: Arc<Semaphore>,
}

impl HealthService {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        let (admission, watchers) = (Admission::new(IN_FLIGHT), Arc::new(Semaphore::new(WATCHERS)));
        Arc::new(Self { shared, admission, watchers })
    }

    async fn call(&self, request: Request<Incoming>) -> Result<Response<Reply>, (Code, String)> {
        let (head, mut body) = request.into_parts();
        let watches = match head.uri.path() {
            CHECK => false,
            WATCH => true,
            other => return Err((Code::Unimplemented, format!("unknown method {other}; there are {CHECK} and {WATCH}"))),
        };
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
        if !watches {
            return match self.shared.serving(&service) {
                Serving::Unknown => Err((Code::NotFound, "Service not found.".to_owned())),
                serving => Ok(grpc::reply(&serving.message())),
            };
        }
        let place = Arc::clone(&self.watchers).try_acquire_owned().map_err(|_| busy())?;
        let (answers, stream) = mpsc::channel(1);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let _place = place;
            watch(&shared, &service, &answers).await;
        });
        Ok(grpc::reply_streaming(stream))
    }
}

/// Tells how `service` is, now and whenever that changes, until the client leaves.
async fn watch(shared: &Shared, service: &str, answers: &mpsc::Sender<Bytes>) {
    let mut told = None;
    let mut looks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = answers.closed() => return,
        }
        let serving = shared.serving(service);
        if told == Some(serving) {
            continue;
        }
        if answers.send(grpc::encode_message(&serving.message())).await.is_err() {
            return;
        }
        told = Some(serving);
    }
}

impl Shared {
    fn serving(&self, service: &str) -> Serving {
        match self.report(service) {
            None => Serving::Unknown,
            Some(report) if self.serves(&report) => Serving::Yes,
            Some(_) => Serving::No,
        }
    }
}

impl Handler for HealthService {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        let answered = self.call(request).await;
        answered.unwrap_or_else(|(code, message)| grpc::refuse(&grpc::refusal(code, &message)))
    }
}
