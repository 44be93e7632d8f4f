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

use super::prompb::{TimeSeries, WriteRequest};
use super::prompb_v2;

/// A request as it arrived.
#[derive(Clone)]
pub(super) struct Received {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) at: Instant,
    pub(super) status: StatusCode,
}

impl Received {
    /// Is it remote write 2.0?
    pub(super) fn is_v2(&self) -> bool {
        self.headers["x-prometheus-remote-write-version"] == "2.0.0"
    }

    pub(super) fn message(&self) -> WriteRequest {
        let message = snap::raw::Decoder::new().decompress_vec(&self.body).unwrap();
        if self.is_v2() { prompb_v2::resolve(&message).0 } else { WriteRequest::decode(message.as_slice()).unwrap() }
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

    /// The same of a receiver that knows 2.0, and has written so much.
    pub(super) fn written(mut self, samples: usize, histograms: usize, exemplars: usize) -> Self {
        for (name, count) in [
            ("x-prometheus-remote-write-samples-written", samples),
            ("x-prometheus-remote-write-histograms-written", histograms),
            ("x-prometheus-remote-write-exemplars-written", exemplars),
        ] {
            self.headers.push((name, count.to_string()));
        }
        self
    }

    /// The same of a receiver that knows 2.0, and has taken all of `request`, or nothing.
    pub(super) fn all_or_nothing(self, request: &Received) -> Self {
        match (request.is_v2(), self.status) {
            (false, _) => self,
            (true, 200..300) => {
                let series = request.message().timeseries;
                let count = |len: fn(&TimeSeries) -> usize| series.iter().map(len).sum();
                self.written(
                    count(|series| series.samples.len()),
                    count(|series| series.histograms.len()),
                    count(|series| series.exemplars.len()),
                )
            }
            (true, _) => self.written(0, 0, 0),
        }
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
    /// One that knows both versions and takes all of a request or nothing.
    pub(super) async fn start(
        answers: impl Fn(usize) -> (u16, Option<&'static str>, &'static str) + Send + Sync + 'static,
    ) -> Self {
        Self::judging(move |n, request| {
            let (status, retry_after, body) = answers(n);
            let headers = retry_after.map(|wait| ("retry-after", wait.to_owned())).into_iter().collect();
            Reply { status, headers, body }.all_or_nothing(request)
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
