mod batching;
mod config;
mod durable;
mod faulty;
mod merging;
mod model;
mod patience;
mod queue;
mod retry;
mod room;
mod shutdown;
mod unwritten;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::{Attempt, Delivery, Outcome, QueueConfig, Request, RetryConfig, Settings};
use crate::batch::{Batch, Code, Permits, Refusal, Signal};
use crate::clock::SystemClock;
use crate::component::{BuildError, Component, Consumer, ExporterContext, Extensions, Host};
use crate::config::ComponentId;
use crate::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use crate::runtime::Runtimes;
use crate::telemetry::{Ledger, Telemetry};

/// A backend in the same process.
#[derive(Default)]
struct Backend {
    /// The next answers; `Delivered` when they have run out.
    answers: Mutex<VecDeque<Outcome>>,
    /// Each attempt: when, and which spans.
    attempts: Mutex<Vec<(Instant, Vec<String>)>>,
    /// The spans of the attempts that were taken, in order.
    taken: Mutex<Vec<String>>,
    /// Attempts hang until there is a permit for each; `None`: they do not hang.
    gate: Option<Semaphore>,
    /// Requests with a span whose name begins so are never taken.
    stubborn: Option<&'static str>,
    /// Requests with a span whose name begins so are refused for good.
    poison: Option<&'static str>,
    /// The attempt at a request with a span whose name begins so panics.
    panics_at: Option<&'static str>,
    /// For each consumer so many requests are on their way; 0: one.
    for_each: usize,
    /// Requests that wait together are sent as one of so many bytes.
    merges_up_to: usize,
    /// The header that it looks at.
    reads: Option<&'static str>,
}

impl Backend {
    fn hanging() -> Arc<Self> {
        Arc::new(Self { gate: Some(Semaphore::new(0)), ..Self::default() })
    }

    fn answering(outcomes: impl IntoIterator<Item = Outcome>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(outcomes.into_iter().collect()), ..Self::default() })
    }

    fn let_through(&self, attempts: usize) {
        self.gate.as_ref().unwrap().add_permits(attempts);
    }

    /// How many spans each attempt had.
    fn sizes(&self) -> Vec<usize> {
        self.attempts.lock().iter().map(|(_, spans)| spans.len()).collect()
    }
}

struct ToBackend(Arc<Backend>);

#[async_trait]
impl Attempt for ToBackend {
    type Encoded = Vec<String>;

    fn encode(&self, request: &Request) -> Result<Vec<String>, Outcome> {
        let names = span_names(request);
        assert_eq!(names.len(), request.items());
        Ok(names)
    }

    fn in_flight(&self, num_consumers: usize) -> usize {
        num_consumers * self.0.for_each.max(1)
    }

    fn merges_up_to(&self) -> usize {
        self.0.merges_up_to
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.0.reads.iter().map(ToString::to_string).collect()
    }

    async fn attempt(&self, spans: &Vec<String>) -> Outcome {
        self.0.attempts.lock().push((Instant::now(), spans.clone()));
        if let Some(gate) = &self.0.gate {
            gate.acquire().await.unwrap().forget();
        }
        let panics = |name: &String| self.0.panics_at.is_some_and(|start| name.starts_with(start));
        assert!(!spans.iter().any(panics), "as the test wants it");
        if self.0.stubborn.is_some_and(|stubborn| spans.iter().any(|name| name.starts_with(stubborn))) {
            return down();
        }
        if self.0.poison.is_some_and(|poison| spans.iter().any(|name| name.starts_with(poison))) {
            return Outcome::Refused { code: Code::InvalidArgument, message: "poison".to_owned() };
        }
        let answer = self.0.answers.lock().pop_front().unwrap_or(Outcome::Delivered);
        if matches!(answer, Outcome::Delivered | Outcome::Partly { .. }) {
            self.0.taken.lock().extend_from_slice(spans);
        }
        answer
    }
}

fn span_names(request: &Request) -> Vec<String> {
    let data = TracesData::decode(request.bytes()).unwrap();
    let scopes = data.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).map(|span| span.name).collect()
}

fn down() -> Outcome {
    Outcome::Retry { code: Code::Unavailable, after: None, message: "down".to_owned() }
}

fn batch(name: &str, spans: usize) -> Batch {
    let span = |index: usize| Span { name: format!("{name}-{index}"), ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: (0..spans).map(span).collect(), ..ScopeSpans::default() }];
    let data = TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] };
    Batch::from_wire(Signal::Traces, data.encode_to_vec().into(), spans)
}

struct Rig {
    delivery: Arc<Delivery<ToBackend>>,
    ledger: Ledger,
    telemetry: Arc<Telemetry>,
}

impl Rig {
    async fn start(backend: &Arc<Backend>, queue: QueueConfig, retry: RetryConfig) -> Self {
        Self::start_with(backend, queue, retry, &Extensions::default(), None).await
    }

    async fn start_with(
        backend: &Arc<Backend>,
        queue: QueueConfig,
        retry: RetryConfig,
        extensions: &Extensions,
        memory: Option<usize>,
    ) -> Self {
        let rig = Self::build(backend, queue, retry, extensions, memory).unwrap();
        let (fatal, _) = mpsc::unbounded_channel();
        let clock = Arc::new(SystemClock::default());
        let telemetry = Arc::clone(&rig.telemetry);
        rig.delivery.start(&Host { runtimes: Runtimes::current(), clock, telemetry, fatal }).await.unwrap();
        rig
    }

    fn build(
        backend: &Arc<Backend>,
        queue: QueueConfig,
        retry: RetryConfig,
        extensions: &Extensions,
        memory: Option<usize>,
    ) -> Result<Self, BuildError> {
        let telemetry = Telemetry::new();
        let ledger = Ledger::new(&telemetry, "exporter/otlp", Signal::Traces);
        let context = ExporterContext {
            id: ComponentId::of("otlp"),
            signal: Signal::Traces,
            ledger: ledger.clone(),
            batching: None,
            extensions,
            telemetry: Arc::clone(&telemetry),
            clock: Arc::new(SystemClock::default()),
        };
        let settings = Settings {
            kind: "otlp",
            queue,
            retry,
            timeout: Duration::from_secs(5),
            endpoint: "backend:4317".to_owned(),
            max_request_bytes: 4 << 20,
        };
        let attempt = ToBackend(Arc::clone(backend));
        let delivery = match memory {
            Some(memory) => Delivery::with_memory(&context, settings, attempt, memory)?,
            None => Delivery::new(&context, settings, attempt)?,
        };
        Ok(Self { delivery, ledger, telemetry })
    }

    fn metric(&self, line_start: &str) -> f64 {
        let text = self.telemetry.render("");
        let line = text.lines().find(|line| line.starts_with(line_start));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    /// Until nothing is held any more.
    async fn settled(&self) {
        self.settled_by(Duration::from_millis(50)).await;
    }

    /// The same for what takes long: looks after every `step`.
    async fn settled_by(&self, step: Duration) {
        while self.ledger.held_count() > 0 {
            tokio::time::sleep(step).await;
        }
    }
}

/// Room for `batch`, as a fan-out asks for it.
async fn reserve(delivery: &Delivery<ToBackend>, batch: &Batch) -> Result<Permits, Refusal> {
    loop {
        let mut permits = Permits::reserving();
        let Err(no_room) = delivery.reserve(batch, &mut permits).await else { return Ok(permits) };
        drop(permits);
        no_room.wait().await?;
    }
}

fn queue(yaml: &str) -> QueueConfig {
    serde_yaml::from_str(yaml).unwrap()
}

fn retry(yaml: &str) -> RetryConfig {
    serde_yaml::from_str(yaml).unwrap()
}
