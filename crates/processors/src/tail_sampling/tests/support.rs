//! Making requests, and reading what was kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nyquist_core::config::ComponentId;
use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::proto::trace::v1::span::Event;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use nyquist_core::telemetry::{Ledger, Telemetry};
use parking_lot::Mutex;
use prost::Message;

use crate::tail_sampling::config::TailSamplingConfig;
use crate::tail_sampling::sampler::Sampler;

pub(crate) type Id = [u8; 16];

pub(crate) const T1: Id = [1; 16];
pub(crate) const T2: Id = [2; 16];
pub(crate) const T3: Id = [3; 16];
/// Keeps what has an error.
pub(crate) const ERRORS: &str = "
memory_limit_mib: 64
policies: [{name: E, type: status_code, status_code: {status_codes: [ERROR]}}]
";
/// Keeps everything.
pub(crate) const EVERYTHING: &str = "
memory_limit_mib: 64
rules: [{name: all, sampling_percentage: 100}]
";

/// A sampler of `base` with more keys.
pub(crate) fn config(base: &str, more: &str) -> Rig {
    Rig::new(&format!("{base}\n{more}"))
}

/// A sampler with everything around it.
pub(crate) struct Rig {
    pub(crate) sampler: Sampler,
    pub(crate) ledger: Ledger,
    pub(crate) telemetry: Arc<Telemetry>,
}

impl Rig {
    pub(crate) fn new(yaml: &str) -> Self {
        let config: TailSamplingConfig = serde_yaml::from_str(yaml).expect("the configuration has the right types");
        Self::of(&config).expect("the configuration is valid")
    }

    pub(crate) fn of(config: &TailSamplingConfig) -> Result<Self, String> {
        let telemetry = Telemetry::new();
        let ledger = Ledger::detached();
        let id = ComponentId::of("tail_sampling");
        let sampler = Sampler::new(config, &id, ledger.clone(), &telemetry).map_err(|error| error.to_string())?;
        Ok(Self { sampler, ledger, telemetry })
    }

    pub(crate) fn insert(&self, data: &TracesData, now: Duration) {
        self.sampler.insert(&data.encode_to_vec(), now).expect("there is room");
    }

    /// Decides what is due.
    pub(crate) fn decide(&self, now: Duration) {
        for shard in 0..self.sampler.shards() {
            while self.sampler.decide(shard, now, 7) {}
        }
    }

    /// Decides everything.
    pub(crate) fn decide_all(&self, now: Duration) {
        for shard in 0..self.sampler.shards() {
            while self.sampler.decide_all(shard, now, 7, false) {}
        }
    }

    /// All spans that are kept so far; each batch is accepted.
    pub(crate) fn take(&self, now: Duration) -> Vec<KeptSpan> {
        let mut kept = Vec::new();
        for shard in 0..self.sampler.shards() {
            while let Some(out) = self.sampler.take(shard, now) {
                let batch = out.batch();
                let items = batch.items();
                let spans = read(&batch.into_wire());
                assert_eq!(spans.len(), items, "the number of items is that of the spans");
                kept.extend(spans);
                out.accepted();
            }
        }
        kept
    }

    /// Decides everything and takes what is kept.
    pub(crate) fn finish(&self, now: Duration) -> Vec<KeptSpan> {
        self.decide_all(now);
        self.take(now)
    }

    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.telemetry.counter(&format!("otelcol_processor_tail_sampling_{name}"), "", labels).get()
    }
}

/// The warnings that are logged while `act` runs, in this thread.
pub(crate) fn warnings_of(act: impl FnOnce()) -> Vec<String> {
    let messages = Arc::default();
    tracing::subscriber::with_default(Warnings(Arc::clone(&messages)), act);
    std::mem::take(&mut messages.lock())
}

/// Writes the messages of warnings down.
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().push(message.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Reads a section as the gateway does: unknown keys and invalid values are errors.
pub(crate) fn read_config(yaml: &str) -> Result<TailSamplingConfig, String> {
    match nyquist_core::config::from_str(yaml) {
        Ok((config, _)) => Ok(config),
        Err(diagnostics) => Err(format!("{diagnostics:?}")),
    }
}

/// Whatever a test does, the budget is kept.
impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let (peak, limit) = (self.sampler.peak_memory(), self.sampler.memory_limit());
            assert!(peak <= limit, "{peak} bytes were in use, of {limit}");
        }
    }
}

/// A span that was kept, with where it stood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeptSpan {
    pub(crate) span: Span,
    pub(crate) resource: Option<Resource>,
    pub(crate) scope: Option<InstrumentationScope>,
    pub(crate) schema_urls: (String, String),
}

impl KeptSpan {
    pub(crate) fn id(&self) -> Id {
        self.span.trace_id.as_slice().try_into().expect("ids have 16 bytes")
    }

    pub(crate) fn text(&self, key: &str) -> Option<String> {
        match value(&self.span.attributes, key)? {
            Value::StringValue(text) => Some(text.clone()),
            _ => None,
        }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        value(&self.span.attributes, key).is_some()
    }
}

pub(crate) fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
}

pub(crate) fn read(message: &[u8]) -> Vec<KeptSpan> {
    let data = TracesData::decode(message).expect("what is kept can be decoded");
    let mut spans = Vec::new();
    for resource in data.resource_spans {
        for scope in resource.scope_spans {
            for span in scope.spans {
                spans.push(KeptSpan {
                    span,
                    resource: resource.resource.clone(),
                    scope: scope.scope.clone(),
                    schema_urls: (resource.schema_url.clone(), scope.schema_url.clone()),
                });
            }
        }
    }
    spans
}

/// Spans of how many traces, and how many of each.
pub(crate) fn by_trace(kept: &[KeptSpan]) -> BTreeMap<Id, usize> {
    let mut counts = BTreeMap::new();
    for span in kept {
        *counts.entry(span.id()).or_default() += 1;
    }
    counts
}

pub(crate) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub(crate) fn text(value: &str) -> Value {
    Value::StringValue(value.to_owned())
}

pub(crate) fn resource(attributes: Vec<KeyValue>) -> Resource {
    Resource { attributes, ..Resource::default() }
}

/// A root span of 100 ms.
pub(crate) fn span(id: Id) -> Span {
    Span {
        trace_id: id.to_vec(),
        span_id: vec![1; 8],
        name: "GET /".to_owned(),
        start_time_unix_nano: 1_000_000_000,
        end_time_unix_nano: 1_100_000_000,
        ..Span::default()
    }
}

pub(crate) fn failed(mut span: Span) -> Span {
    span.status = Some(Status { code: 2, ..Status::default() });
    span
}

pub(crate) fn child(id: Id) -> Span {
    Span { parent_span_id: vec![1; 8], span_id: vec![9; 8], ..span(id) }
}

pub(crate) fn large_span(id: Id, filling: usize) -> Span {
    Span { attributes: vec![attribute("filling", text(&"x".repeat(filling)))], ..span(id) }
}

pub(crate) fn id_of(number: u64) -> Id {
    // Random-looking, so that rates apply.
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut id = [7; 16];
    id[8..].copy_from_slice(&(number ^ number >> 29).to_be_bytes());
    id
}

pub(crate) fn exception() -> Event {
    Event { name: "exception".to_owned(), ..Event::default() }
}

/// A request of `spans` below one resource and scope.
pub(crate) fn request(spans: Vec<Span>) -> TracesData {
    let attributes = vec![attribute("service.name", text("svc"))];
    TracesData { resource_spans: vec![resource_spans(resource(attributes), spans)] }
}

pub(crate) fn resource_spans(resource: Resource, spans: Vec<Span>) -> ResourceSpans {
    let scope = ScopeSpans { spans, ..ScopeSpans::default() };
    ResourceSpans { resource: Some(resource), scope_spans: vec![scope], ..ResourceSpans::default() }
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
