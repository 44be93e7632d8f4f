//! The load generator: OTLP/gRPC unary calls, either in a closed loop (as fast as the answers come)
//! or at a fixed rate.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::payload::Template;

/// What the load came to; read by the measuring thread while the load runs.
#[derive(Default)]
pub struct Counters {
    pub items: AtomicU64,
    pub requests: AtomicU64,
    pub refused: AtomicU64,
    pub stop: AtomicBool,
    latency: Latency,
}

impl Counters {
    /// Forgets the latencies so far: the window begins.
    pub fn begin_window(&self) {
        self.latency.clear();
    }

    /// The latency that `quantile` of the calls in the window stayed under.
    pub fn latency(&self, quantile: f64) -> Duration {
        self.latency.quantile(quantile)
    }
}

/// How to send.
#[derive(Clone, Copy)]
pub struct Shape {
    pub connections: usize,
    /// Calls under way at once on each connection.
    pub in_flight: usize,
    /// Items a second over all connections; 0 for a closed loop.
    pub rate: u64,
}

/// Sends `templates` in turn to `port` until `counters.stop`.
pub async fn run(
    port: u16,
    path: &'static str,
    templates: Rc<Vec<Template>>,
    shape: Shape,
    counters: &'static Counters,
) {
    let sequence = Rc::new(RefCell::new(0_u64));
    let lanes = shape.connections * shape.in_flight;
    let mut tasks = Vec::new();
    for connection in 0..shape.connections {
        let sender = connect(port).await;
        for lane in 0..shape.in_flight {
            let (mut sender, templates, sequence) = (sender.clone(), templates.clone(), sequence.clone());
            let lane = connection * shape.in_flight + lane;
            tasks.push(tokio::task::spawn_local(async move {
                let mut pace = Pace::new(shape.rate, templates[0].items, lanes, lane);
                while !counters.stop.load(Ordering::Relaxed) {
                    let due = pace.next().await;
                    let number = sequence.replace_with(|last| *last + 1);
                    let template = &templates[number as usize % templates.len()];
                    let body = Bytes::from(template.request(number));
                    // At a fixed rate a late start counts: what a client would have waited.
                    let started = due.unwrap_or_else(Instant::now);
                    match call(&mut sender, port, path, body).await {
                        Some(0) => {
                            counters.latency.record(started.elapsed());
                            counters.items.fetch_add(template.items as u64, Ordering::Relaxed);
                            counters.requests.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => {
                            counters.refused.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
            }));
        }
    }
    for task in tasks {
        let _ = task.await;
    }
}

/// When the next call of a lane is due.
struct Pace {
    interval: Option<Duration>,
    due: Instant,
}

impl Pace {
    fn new(rate: u64, items: usize, lanes: usize, lane: usize) -> Self {
        if rate == 0 {
            return Self { interval: None, due: Instant::now() };
        }
        let interval = Duration::from_secs_f64(items as f64 * lanes as f64 / rate as f64);
        let offset = interval.mul_f64(lane as f64 / lanes as f64);
        Self { interval: Some(interval), due: Instant::now() + offset }
    }

    async fn next(&mut self) -> Option<Instant> {
        let interval = self.interval?;
        let due = self.due;
        self.due += interval;
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
            // The timer's own granularity of 1 ms is not the peer's latency.
            return Some(Instant::now().min(due + Duration::from_millis(1)));
        }
        Some(due)
    }
}

async fn connect(port: u16) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the gateway listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let (sender, connection) = hyper::client::conn::http2::Builder::new(LocalExecutor)
        .max_send_buf_size(4 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .expect("HTTP/2");
    tokio::task::spawn_local(connection);
    sender
}

async fn call(sender: &mut SendRequest<Full<Bytes>>, port: u16, path: &str, body: Bytes) -> Option<i32> {
    let request = Request::post(format!("http://127.0.0.1:{port}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body))
        .expect("a valid request");
    sender.ready().await.ok()?;
    let response = sender.send_request(request).await.ok()?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.ok()?;
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned());
    let status = status.or_else(|| head.headers.get("grpc-status").cloned())?;
    status.to_str().ok()?.parse().ok()
}

/// Runs hyper's tasks on the one thread of the load generator.
#[derive(Clone, Copy)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

const BUCKETS: usize = 1024;

/// Latencies in buckets that grow by 2 %: from 10 microseconds to far beyond a minute.
struct Latency([AtomicU64; BUCKETS]);

impl Default for Latency {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Latency {
    fn record(&self, latency: Duration) {
        let ratio = (latency.as_secs_f64() / 10e-6).max(1.0);
        let bucket = (ratio.ln() / 1.02_f64.ln()) as usize;
        self.0[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    fn clear(&self) {
        for bucket in &self.0 {
            bucket.store(0, Ordering::Relaxed);
        }
    }

    fn quantile(&self, quantile: f64) -> Duration {
        let counts: Vec<u64> = self.0.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return Duration::from_secs_f64(10e-6 * 1.02_f64.powi(bucket as i32 + 1));
            }
        }
        Duration::ZERO
    }
}
