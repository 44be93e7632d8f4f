//! OTLP requests as bytes: built once as templates, then only the trace ids are written anew.
//!
//! A span has 10 attributes and about 410 bytes; a request has 500 spans, that is 50 traces of 10
//! spans. What class a trace belongs to is fixed in its template, so that the mix is exact.

use std::time::{SystemTime, UNIX_EPOCH};

pub const SPANS_PER_TRACE: usize = 10;
pub const SPANS_PER_REQUEST: usize = 500;
pub const POINTS_PER_REQUEST: usize = 500;

/// gRPC's: a flag and a length.
const PREFIX: usize = 5;

/// Shares of traces, in percent; the rest is ordinary.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    pub important: f64,
    pub errors: f64,
    pub slow: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Class {
    Important,
    Error,
    Slow,
    Ordinary,
}

/// A request without its ids, behind gRPC's length prefix.
pub struct Template {
    bytes: Vec<u8>,
    /// Where the ids of each trace stand.
    traces: Vec<[usize; SPANS_PER_TRACE]>,
    pub items: usize,
}

impl Template {
    /// The request with trace ids that no other `sequence` gives.
    pub fn request(&self, sequence: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (slot, offsets) in self.traces.iter().enumerate() {
            let number = sequence * 1_000 + slot as u64;
            let id = [mix(number).to_be_bytes(), mix(number ^ 0x5555_5555_5555_5555).to_be_bytes()].concat();
            for offset in offsets {
                bytes[*offset..*offset + 16].copy_from_slice(&id);
            }
        }
        bytes
    }

    /// Bytes of the message.
    pub fn len(&self) -> usize {
        self.bytes.len() - PREFIX
    }
}

/// Trace requests: `count` templates in which `mix` holds over all of them together.
pub fn traces(count: usize, mix: Mix) -> Vec<Template> {
    let traces_per_request = SPANS_PER_REQUEST / SPANS_PER_TRACE;
    let total = count * traces_per_request;
    let share = |percent: f64| (total as f64 * percent / 100.0).round() as usize;
    let mut classes = vec![Class::Important; share(mix.important)];
    classes.resize(classes.len() + share(mix.errors), Class::Error);
    classes.resize(classes.len() + share(mix.slow), Class::Slow);
    classes.resize(total, Class::Ordinary);
    // A fixed stride spreads them: total and stride have no common divisor.
    let spread = |slot: usize| classes[slot * 7919 % total];
    let template = |index: usize| {
        let first = index * traces_per_request;
        trace_template(index, &(first..first + traces_per_request).map(spread).collect::<Vec<_>>())
    };
    (0..count).map(template).collect()
}

fn trace_template(index: usize, classes: &[Class]) -> Template {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let mut spans = Vec::new();
    let mut traces = Vec::new();
    for (slot, class) in classes.iter().enumerate() {
        let mut offsets = [0; SPANS_PER_TRACE];
        for (position, offset) in offsets.iter_mut().enumerate() {
            let span = span(index * 100 + slot, position, *class, now);
            let header = header(2, span.len());
            spans.extend_from_slice(&header);
            // trace_id is the span's first field: tag and length, then the id.
            *offset = spans.len() + 2;
            spans.extend_from_slice(&span);
        }
        traces.push(offsets);
    }
    let scope = delimited(1, &[delimited(1, b"io.opentelemetry.http"), delimited(2, b"2.11.0")].concat());
    let resource = delimited(1, &resource(index));
    let scope_header = header(2, scope.len() + spans.len());
    let request_header = header(1, resource.len() + scope_header.len() + scope.len() + spans.len());
    let before_spans = [vec![0; PREFIX], request_header, resource, scope_header, scope].concat();
    for offset in traces.iter_mut().flatten() {
        *offset += before_spans.len();
    }
    let bytes = framed([before_spans, spans].concat());
    Template { bytes, traces, items: classes.len() * SPANS_PER_TRACE }
}

fn span(seed: usize, position: usize, class: Class, now: u64) -> Vec<u8> {
    let is_root = position == 0;
    let duration =
        if class == Class::Slow && is_root { 2_500_000_000 } else { 40_000_000 - position as u64 * 3_000_000 };
    let user =
        if class == Class::Important && is_root { "vip-user-000001".to_owned() } else { format!("user-{seed:010}") };
    let mut span = Vec::with_capacity(420);
    span.extend(delimited(1, &[0; 16]));
    span.extend(delimited(2, &(position as u64 + 1).to_be_bytes()));
    if !is_root {
        span.extend(delimited(4, &(position as u64).to_be_bytes()));
    }
    span.extend(delimited(5, format!("GET /api/v1/products/{}", position % 10).as_bytes()));
    span.extend([6 << 3, if is_root { 2 } else { 3 }]);
    span.extend(fixed64(7, now - duration));
    span.extend(fixed64(8, now));
    let status_code = if class == Class::Error && position == 3 { 500 } else { 200 };
    span.extend(text_attribute("http.request.method", "GET"));
    span.extend(text_attribute("url.path", "/api/v1/products/123456"));
    span.extend(text_attribute("http.route", "/api/v1/products/{id}"));
    span.extend(number_attribute("http.response.status_code", status_code));
    span.extend(text_attribute("server.address", "shop.example.com"));
    span.extend(number_attribute("server.port", 8443));
    span.extend(text_attribute("client.address", "10.11.12.13"));
    span.extend(text_attribute("user.id", &user));
    span.extend(text_attribute("network.protocol.version", "1.1"));
    span.extend(text_attribute("thread.name", "http-nio-8443-exec-7"));
    if class == Class::Error && position == 3 {
        span.extend(delimited(15, &[delimited(2, b"upstream failed"), vec![3 << 3, 2]].concat()));
    }
    span
}

fn resource(index: usize) -> Vec<u8> {
    let instance = format!("checkout-7d9f8b6c5-{index:05}");
    let pairs = [
        ("service.name", "checkout"),
        ("service.namespace", "shop"),
        ("service.version", "1.42.0"),
        ("service.instance.id", &instance),
        ("telemetry.sdk.language", "java"),
        ("telemetry.sdk.name", "opentelemetry"),
        ("telemetry.sdk.version", "1.50.0"),
        ("deployment.environment.name", "production"),
    ];
    pairs.iter().flat_map(|(key, value)| delimited(1, &key_value(key, &delimited(1, value.as_bytes())))).collect()
}

/// Metric requests: one cumulative sum with 500 points of 5 attributes.
pub fn metrics(count: usize) -> Vec<Template> {
    (0..count).map(metric_template).collect()
}

fn metric_template(index: usize) -> Template {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let point = |number: usize| {
        let attribute = |key: &str, value: &str| delimited(7, &key_value(key, &delimited(1, value.as_bytes())));
        let mut point = Vec::new();
        point.extend(fixed64(2, now - 60_000_000_000));
        point.extend(fixed64(3, now));
        point.extend(fixed64(6, number as u64));
        point.extend(attribute("http.request.method", "GET"));
        point.extend(attribute("http.route", &format!("/api/v1/products/{}", number % 50)));
        point.extend(attribute("server.address", "shop.example.com"));
        point.extend(attribute("http.response.status_code", if number.is_multiple_of(7) { "500" } else { "200" }));
        point.extend(attribute("region", &format!("region-{}", number / 50)));
        delimited(1, &point)
    };
    let mut sum: Vec<u8> = (0..POINTS_PER_REQUEST).flat_map(point).collect();
    sum.extend([2 << 3, 2, 3 << 3, 1]);
    let metric = [delimited(1, b"http.server.requests"), delimited(3, b"1"), delimited(7, &sum)].concat();
    let scope_metrics = delimited(2, &delimited(2, &metric));
    let message = delimited(1, &[delimited(1, &resource(index)), scope_metrics].concat());
    let bytes = framed([vec![0; PREFIX], message].concat());
    Template { bytes, traces: Vec::new(), items: POINTS_PER_REQUEST }
}

/// Writes the length into the room that was left for gRPC's prefix.
fn framed(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = (bytes.len() - PREFIX) as u32;
    bytes[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn text_attribute(key: &str, value: &str) -> Vec<u8> {
    delimited(9, &key_value(key, &delimited(1, value.as_bytes())))
}

fn number_attribute(key: &str, value: u64) -> Vec<u8> {
    let mut number = vec![3 << 3];
    varint(value, &mut number);
    delimited(9, &key_value(key, &number))
}

fn key_value(key: &str, value: &[u8]) -> Vec<u8> {
    [delimited(1, key.as_bytes()), delimited(2, value)].concat()
}

fn fixed64(field: u8, value: u64) -> Vec<u8> {
    [&[field << 3 | 1][..], &value.to_le_bytes()].concat()
}

fn delimited(field: u8, content: &[u8]) -> Vec<u8> {
    [&header(field, content.len())[..], content].concat()
}

fn header(field: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    varint(length as u64, &mut bytes);
    bytes
}

fn varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// splitmix64's finalizer: a bijection that makes counters look random, as trace ids are.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
