//! What measuring programs share: realistic requests, with spans of about 410 bytes and ten attributes, in traces of ten; and the
//! memory that the process takes.

#![allow(dead_code, clippy::expect_used, missing_docs, reason = "shared by measuring programs")]

use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use prost::Message;

pub(crate) const SPANS_PER_REQUEST: usize = 500;
pub(crate) const SPANS_PER_TRACE: usize = 10;
/// Few enough to be in a cache, as a request that has just been received is.
pub(crate) const REQUESTS: usize = 8;

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn span(id: [u8; 16], number: usize, random: u64) -> Span {
    let start = 1_700_000_000_000_000_000 + random % 1_000_000_000;
    let slow = random.is_multiple_of(200);
    Span {
        trace_id: id.to_vec(),
        span_id: random.to_le_bytes().to_vec(),
        parent_span_id: if number == 0 { vec![] } else { vec![3; 8] },
        name: "GET /api/v1/orders/{id}".to_owned(),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + if slow { 2_000_000_000 } else { 10_000_000 },
        attributes: vec![
            text("http.request.method", "GET"),
            attribute("http.response.status_code", Value::IntValue(200)),
            text("url.path", "/api/v1/orders/8841"),
            text("server.address", "orders.shop.svc"),
            attribute("server.port", Value::IntValue(8080)),
            text("network.peer.address", "10.20.30.40"),
            text("user.id", format!("user-{}", random % 10_000)),
            text("user_agent.original", "okhttp/4.12"),
            text("http.route", "/api/v1/orders/{id}"),
            text("thread.name", "worker-7"),
        ],
        status: random.is_multiple_of(500).then(|| Status { code: 2, ..Status::default() }),
        flags: 0x101,
        ..Span::default()
    }
}

/// Bytes of this process that are in memory.
pub(crate) fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

/// A message, and which trace id of the request stands where.
pub(crate) type Template = (Vec<u8>, Vec<(usize, usize)>);

/// Requests whose trace ids can be changed in place, and where those are.
pub(crate) struct Requests {
    pub(crate) messages: Vec<Template>,
    random: u64,
}

impl Requests {
    /// `interleaved`: the spans of the traces of a request take turns.
    pub(crate) fn new(interleaved: bool) -> Self {
        Self::of(interleaved, SPANS_PER_REQUEST / SPANS_PER_TRACE)
    }

    /// Every span is a trace of its own.
    pub(crate) fn of_single_spans() -> Self {
        Self::of(true, SPANS_PER_REQUEST)
    }

    /// The same with other trace ids: for thread `number` of several.
    pub(crate) fn of_thread(mut self, number: usize) -> Self {
        self.random ^= (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self
    }

    fn of(interleaved: bool, traces: usize) -> Self {
        let mut random = 88_172_645_463_325_252;
        let mut messages = Vec::new();
        for _ in 0..REQUESTS {
            let mut spans = Vec::new();
            for index in 0..SPANS_PER_REQUEST {
                let (trace, number) = if interleaved {
                    (index % traces, index / traces)
                } else {
                    (index / SPANS_PER_TRACE, index % SPANS_PER_TRACE)
                };
                let mut id = [0xfe; 16];
                id[14..].copy_from_slice(&(trace as u16).to_le_bytes());
                spans.push(span(id, number, next(&mut random)));
            }
            let scope = InstrumentationScope { name: "io.shop.orders".to_owned(), ..InstrumentationScope::default() };
            let resource = Resource {
                attributes: vec![
                    text("service.name", "orders"),
                    text("service.version", "1.2.3"),
                    text("host.name", "node-17"),
                    text("k8s.pod.name", "orders-5f6d8c7b9-xk2lp"),
                ],
                ..Resource::default()
            };
            let data = TracesData {
                resource_spans: vec![ResourceSpans {
                    resource: Some(resource),
                    scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
                    ..ResourceSpans::default()
                }],
            };
            let message = data.encode_to_vec();
            let ids = (0..message.len() - 15)
                .filter(|&at| message[at..at + 14] == [0xfe; 14])
                .map(|at| (at, usize::from(message[at + 14]) | usize::from(message[at + 15]) << 8))
                .collect();
            messages.push((message, ids));
        }
        Self { messages, random }
    }

    /// Gives the request new trace ids.
    pub(crate) fn refresh(&mut self, index: usize) -> &[u8] {
        let (message, places) = &mut self.messages[index % REQUESTS];
        let seed = next(&mut self.random);
        for &(at, trace) in places.iter() {
            let mut state = seed ^ (trace as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            message[at..at + 8].copy_from_slice(&next(&mut state).to_le_bytes());
            message[at + 8..at + 16].copy_from_slice(&next(&mut state).to_le_bytes());
        }
        message
    }
}

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
