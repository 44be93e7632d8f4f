//! A remote write receiver that answers what a test tells it to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::prompb::WriteRequest;

/// A request as it arrived.
#[derive(Clone)]
pub(super) struct Received {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) at: Instant,
    pub(super) status: StatusCode,
}

impl Received {
    pub(super) fn message(&self) -> WriteRequest {
        let message = snap::raw::Decoder::new().decompress_vec(&self.body).unwrap();
        WriteRequest::decode(message.as_slice()).unwrap()
    }
}

/// What a request is answered.
#[derive(Clone, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: &'static str,
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }
}

/// Answers requests: by their number, and by what they hold.
type Answers = dyn Fn(usize, &Received) -> Reply + Send + Sync;

pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    answers: Box<Answers>,
    received: Mutex<Vec<Received>>,
    arrived: Notify,
}

impl Receiver {
    pub(super) async fn start(
        answers: impl Fn(usize) -> (u16, Option<&'static str>, &'static str) + Send + Sync + 'static,
    ) -> Self {
        Self::judging(move |n, _| {
            let (status, retry_after, body) = answers(n);
            let headers = retry_after.map(|wait| ("retry-after", wait.to_owned())).into_iter().collect();
            Reply { status, headers, body }
        })
        .await
    }

    /// One whose answers depend on what it is sent.
    pub(super) async fn judging(answers: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { answers: Box::new(answers), received: Mutex::default(), arrived: Notify::new() });
        let served = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&served);
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(Arc::clone(&state), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, state }
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.state.received.lock().clone()
    }

    /// Waits until `enough` says so of what has arrived.
    pub(super) async fn wait_for(&self, enough: impl Fn(&[Received]) -> bool) {
        loop {
            let arrived = self.state.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if enough(&self.state.received.lock()) {
                return;
            }
            arrived.await;
        }
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut request = Received { headers: head.headers, body, at: Instant::now(), status: StatusCode::OK };
    let mut received = state.received.lock();
    let reply = (state.answers)(received.len(), &request);
    request.status = StatusCode::from_u16(reply.status).unwrap();
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    received.push(request);
    drop(received);
    state.arrived.notify_waiters();
    Ok(response.body(Full::new(Bytes::from_static(reply.body.as_bytes()))).unwrap())
}
