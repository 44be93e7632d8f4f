//! Hostile requests get the answer that the design names; the process stays up and its memory bounded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use support::http;
use support::otlp::{attribute, trace, traces_request};
use support::otlp_client::{INVALID_ARGUMENT, LOGS, METRICS, OK, RESOURCE_EXHAUSTED, TRACES, UNIMPLEMENTED, frame};
use support::{Backend, Gateway, OtlpClient, eventually};

const MEBIBYTE: usize = 1 << 20;
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

const CONFIG: &str = "
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}, http: {endpoint: 127.0.0.1:@HTTP@}}}
processors:
  tail_sampling:
    decision_wait: 1s
    policies: [{name: all, type: always_sample}]
exporters: {otlp: {endpoint: 127.0.0.1:@BACKEND@, tls: {insecure: true}}}
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    traces: {receivers: [otlp], processors: [tail_sampling], exporters: [otlp]}
    metrics: {receivers: [otlp], exporters: [otlp]}
";

struct Victim {
    backend: Backend,
    gateway: Gateway,
    client: OtlpClient,
}

impl Victim {
    fn start() -> Self {
        let backend = Backend::start();
        let gateway = Gateway::start(&CONFIG.replace("@BACKEND@", &backend.port.to_string()));
        let client = gateway.client();
        Self { backend, gateway, client }
    }

    /// The gRPC status of a traces request with these bytes.
    fn grpc(&mut self, message: &[u8]) -> i32 {
        self.client.call(TRACES, message).expect("a status, not a broken connection").status
    }

    /// The HTTP status of the same.
    fn http(&self, kind: &str, encoding: &str, body: impl Into<Bytes>) -> u16 {
        http::post(self.gateway.http_port, "/v1/traces", kind, encoding, body).expect("an answer").status
    }

    /// Whatever was done to it: it lives, stayed small, and a good request still goes through.
    fn assert_unharmed(mut self, spans_so_far: usize) {
        self.gateway.assert_alive();
        let request = traces_request("hostile", trace(u64::from(u32::MAX), 3));
        let outcome = self.client.traces(&request);
        assert_eq!(outcome.status, OK, "{outcome:?}");
        eventually("a good trace goes through", || match self.backend.span_count() {
            count if count == spans_so_far + 3 => Ok(()),
            other => Err(other),
        });
        let (_, peak) = self.gateway.process.resident();
        let allowed = 400 * MEBIBYTE as u64;
        assert!(peak < allowed, "{} MiB at the peak", peak >> 20);
    }
}

fn good() -> Vec<u8> {
    traces_request("hostile", trace(1, 5)).encode_to_vec()
}

/// An attribute whose value is an array in an array, `depth` levels down.
fn nested(depth: usize) -> Vec<u8> {
    // Built from the inside out as bytes: a model this deep would overflow the test's own stack.
    let mut value = AnyValue { value: Some(Value::BoolValue(true)) }.encode_to_vec();
    for _ in 0..depth {
        value = delimited(5, &delimited(1, &value)); // AnyValue.array_value { values }
    }
    let attribute = [delimited(1, b"deep"), delimited(2, &value)].concat();
    let mut span = Span { attributes: Vec::new(), ..trace(2, 1).remove(0) }.encode_to_vec();
    span.extend(delimited(9, &attribute));
    delimited(1, &delimited(2, &delimited(2, &span)))
}

fn delimited(field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

fn gzip(content: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for part in content {
        encoder.write_all(&part).unwrap();
    }
    encoder.finish().unwrap()
}

fn zstd(content: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    for part in content {
        encoder.write_all(&part).unwrap();
    }
    encoder.finish().unwrap()
}

/// 1 GiB of zeros.
fn bomb() -> impl Iterator<Item = Vec<u8>> {
    (0..1024).map(|_| vec![0; MEBIBYTE])
}

/// Bytes that are not the message: INVALID_ARGUMENT / 400, wherever they break off.
#[test]
fn truncated_and_garbled_requests_are_invalid() {
    let mut victim = Victim::start();
    let whole = good();
    let mut accepted = 0;
    for length in (1..whole.len()).step_by(7) {
        let cut = &whole[..length];
        // A cut between two fields is a valid, shorter message.
        let valid = ExportTraceServiceRequest::decode(cut).is_ok();
        let expected = if valid { (OK, 200) } else { (INVALID_ARGUMENT, 400) };
        assert_eq!((victim.grpc(cut), victim.http(PROTOBUF, "", cut.to_vec())), expected, "cut at {length}");
        accepted += usize::from(valid);
    }
    assert_eq!(accepted, 0, "one resource: no cut of it is valid");
    for garbage in [&[0xff; 64][..], b"GET / HTTP/1.1\r\n\r\n", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]] {
        assert_eq!((victim.grpc(garbage), victim.http(PROTOBUF, "", garbage.to_vec())), (INVALID_ARGUMENT, 400));
    }
    victim.assert_unharmed(0);
}

/// A known field with another wire type, in the request, the span and an attribute.
#[test]
fn wrong_wire_types_are_invalid() {
    let mut victim = Victim::start();
    let as_number = |field: u8| vec![field << 3, 1];
    let in_span = |field: &[u8]| delimited(1, &delimited(2, &delimited(2, field)));
    let cases = [
        as_number(1),
        in_span(&as_number(1)),                                     // trace_id as a number
        in_span(&delimited(7, &[0; 8])),                            // start_time_unix_nano as bytes
        in_span(&as_number(9)),                                     // attributes as a number
        in_span(&delimited(9, &as_number(1))),                      // key as a number
        in_span(&delimited(5, &[0xc3, 0x28])),                      // a name that is not UTF-8
        in_span(&delimited(9, &delimited(2, &[0x0b, 0x0b, 0x0b]))), // groups that never end
    ];
    for (number, case) in cases.into_iter().enumerate() {
        assert!(ExportTraceServiceRequest::decode(case.as_slice()).is_err(), "case {number}: prost takes it");
        let answers = (victim.grpc(&case), victim.http(PROTOBUF, "", case.clone()));
        assert_eq!(answers, (INVALID_ARGUMENT, 400), "case {number}: {case:x?}");
    }
    victim.assert_unharmed(0);
}

/// Nesting: a reasonable depth passes, an absurd one is invalid and cheap.
#[test]
fn deep_nesting_is_invalid() {
    let mut victim = Victim::start();
    assert_eq!(victim.grpc(&nested(8)), OK);
    for depth in [40, 1_000, 100_000] {
        let message = nested(depth);
        assert_eq!(victim.grpc(&message), INVALID_ARGUMENT, "depth {depth}");
        assert_eq!(victim.http(PROTOBUF, "", message), 400, "depth {depth}");
    }
    let json = |depth: usize| {
        let open = r#"{"arrayValue":{"values":["#.repeat(depth);
        let close = "]}}".repeat(depth);
        let value = format!(r#"{open}{{"boolValue":true}}{close}"#);
        format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"n","attributes":[{{"key":"k","value":{value}}}]}}]}}]}}]}}"#
        )
    };
    assert_eq!(victim.http(JSON, "", json(8)), 200);
    for depth in [40, 1_000, 100_000] {
        assert_eq!(victim.http(JSON, "", json(depth)), 400, "depth {depth}");
    }
    victim.assert_unharmed(2);
}

/// A gzip or zstd bomb is cut off at the size limit: RESOURCE_EXHAUSTED / 400, and memory is not spent.
#[test]
fn decompression_bombs_are_cut_off() {
    let mut victim = Victim::start();
    let bombs = [("gzip", gzip(bomb())), ("zstd", zstd(bomb()))];
    for (encoding, bomb) in bombs {
        assert!(bomb.len() < 2 * MEBIBYTE, "{encoding}: {} bytes", bomb.len());
        for _ in 0..3 {
            let outcome = victim.client.call_compressed(TRACES, encoding, &bomb).expect("a status");
            assert_eq!(outcome.status, RESOURCE_EXHAUSTED, "{encoding}: {outcome:?}");
            let status = victim.http(PROTOBUF, encoding, bomb.clone());
            assert!(status == 400 || status == 413, "{encoding}: {status}");
        }
    }
    let broken = gzip(std::iter::once(good()));
    let broken = &broken[..broken.len() / 2];
    assert_eq!(victim.http(PROTOBUF, "gzip", broken.to_vec()), 400, "gzip that breaks off");
    let outcome = victim.client.call_compressed(TRACES, "gzip", broken).expect("a status");
    assert_ne!(outcome.status, OK, "{outcome:?}");
    assert_eq!(victim.http(PROTOBUF, "br", good()), 400, "an encoding that is not offered");
    let outcome = victim.client.call_compressed(TRACES, "br", &good()).expect("a status");
    assert_eq!(outcome.status, UNIMPLEMENTED, "{outcome:?}");
    victim.assert_unharmed(0);
}

/// A zero or short id: that span alone is rejected, and the answer says so.
#[test]
fn spans_with_invalid_ids_are_rejected_alone() {
    let mut victim = Victim::start();
    let mut spans = trace(10, 6);
    spans[0].trace_id = vec![0; 16];
    spans[1].span_id = vec![0; 8];
    spans[2].trace_id = vec![1; 15];
    spans[3].span_id = Vec::new();
    let outcome = victim.client.traces(&traces_request("hostile", spans));
    assert_eq!(outcome.status, OK, "{outcome:?}");
    let (rejected, message) = outcome.rejected_spans();
    assert_eq!(rejected, 4, "{message}");
    assert!(message.contains("id"), "{message:?} says why");
    let dropped = eventually("two spans arrive", || match victim.backend.span_count() {
        2 => Ok(victim.gateway.metrics().sum("nyquist_ledger_dropped_items", &[("reason", "invalid_id")])),
        other => Err(other),
    });
    assert_eq!(dropped, 4.0, "counted under the reason invalid_id");
    let json = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0102","spanId":"eee19b7ec3c1b174"}]}]}]}"#;
    assert_eq!(victim.http(JSON, "", json), 400, "JSON with an id of the wrong length");
    victim.assert_unharmed(2);
}

/// Giant attributes: over the limit RESOURCE_EXHAUSTED / 400, under it they pass.
#[test]
fn giant_attributes_meet_the_size_limit() {
    let mut victim = Victim::start();
    let with_attribute = |number: u64, bytes: usize| {
        let mut spans = trace(number, 1);
        spans[0].attributes.push(attribute("giant", &"x".repeat(bytes)));
        traces_request("hostile", spans).encode_to_vec()
    };
    for _ in 0..5 {
        assert_eq!(victim.grpc(&with_attribute(20, 20 * MEBIBYTE)), RESOURCE_EXHAUSTED);
        let status = victim.http(PROTOBUF, "", with_attribute(20, 20 * MEBIBYTE));
        assert!(status == 400 || status == 413, "{status}");
    }
    assert_eq!(victim.grpc(&with_attribute(21, 3 * MEBIBYTE)), OK);
    assert_eq!(victim.http(PROTOBUF, "", with_attribute(22, 3 * MEBIBYTE)), 200);
    eventually("both arrive", || match victim.backend.span_count() {
        2 => Ok(()),
        other => Err(other),
    });
    victim.assert_unharmed(2);
}

/// Many attributes, many spans of one trace, many resources: bounded work, no harm.
#[test]
fn wide_requests_pass_or_are_refused() {
    let mut victim = Victim::start();
    let mut spans = trace(30, 1);
    spans[0].attributes = (0..50_000).map(|index| attribute(&format!("k{index}"), "v")).collect();
    assert_eq!(victim.client.traces(&traces_request("hostile", spans)).status, OK);
    let mut one = traces_request("hostile", trace(31, 1));
    let resource = one.resource_spans.remove(0);
    one.resource_spans = (0..10_000)
        .map(|index| {
            let mut resource = resource.clone();
            resource.resource.as_mut().unwrap().attributes.push(attribute("pod", &index.to_string()));
            resource.scope_spans[0].spans[0].span_id = (index as u64 + 1).to_be_bytes().to_vec();
            resource
        })
        .collect();
    assert_eq!(victim.client.traces(&one).status, OK);
    let value = AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: vec![AnyValue::default(); 100_000] })) };
    let mut spans = trace(32, 1);
    spans[0].attributes = vec![KeyValue { key: "array".to_owned(), value: Some(value), ..KeyValue::default() }];
    assert_eq!(victim.client.traces(&traces_request("hostile", spans)).status, OK);
    eventually("everything arrives", || match victim.backend.span_count() {
        10_002 => Ok(()),
        other => Err(other),
    });
    victim.assert_unharmed(10_002);
}

/// The protocol itself: methods, content types, paths, gRPC frames that lie, bytes that are not HTTP.
#[test]
fn protocol_abuse_is_answered_or_cut_off() {
    let mut victim = Victim::start();
    let port = victim.gateway.http_port;
    let answer = http::get(port, "/v1/traces").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (405, "405 method not allowed, supported: [POST]"));
    let answer = http::post(port, "/v1/traces", "text/plain", "", good()).unwrap();
    let expected = "415 unsupported media type, supported: [application/json, application/x-protobuf]";
    assert_eq!((answer.status, answer.text().as_str()), (415, expected));
    assert_eq!(http::post(port, "/v2/traces", PROTOBUF, "", good()).unwrap().status, 404);
    assert_eq!(http::post(port, "/v1/logs", PROTOBUF, "", "").unwrap().status, 404, "no logs pipeline");
    assert_eq!(http::post(port, "/v1/traces", PROTOBUF, "", "").unwrap().status, 200, "nothing is fine");
    assert_eq!(victim.http(JSON, "", "{\"resourceSpans\":[]}"), 200);
    for broken in ["{", "[]", "{\"resourceSpans\":1}", "nul", "\u{0}"] {
        assert_eq!(victim.http(JSON, "", broken), 400, "{broken:?}");
    }

    assert_eq!(victim.client.call(LOGS, &[]).unwrap().status, UNIMPLEMENTED, "no logs pipeline");
    assert_eq!(victim.client.call("/no.such.Service/Export", &[]).unwrap().status, UNIMPLEMENTED);
    assert_eq!(victim.client.call(METRICS, &[0xff]).unwrap().status, INVALID_ARGUMENT);
    // A frame that announces 4 GiB, one that announces more than follows, and half a header.
    let lies = [vec![0, 0xff, 0xff, 0xff, 0xff, 1], frame(false, &good())[..50].to_vec(), vec![0, 0]];
    for lie in lies {
        let answer = victim.client.call_raw(TRACES, "", Bytes::from(lie.clone()));
        let refused = answer.as_ref().map_or(true, |outcome| outcome.status != OK);
        assert!(refused, "{lie:x?}: {answer:?}");
    }

    for port in [victim.gateway.grpc_port, victim.gateway.http_port] {
        for noise in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff",
            &[0; 64],
        ] {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            stream.write_all(noise).unwrap();
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = [0; 1024];
            // Closed, reset or an error answer: anything but a hang of the process.
            let _ = stream.read(&mut answer);
        }
    }
    victim.assert_unharmed(0);
}

/// Connections that open and say nothing, or start a request and stop, do not keep others out.
#[test]
fn idle_and_half_open_connections_do_not_block_others() {
    let victim = Victim::start();
    let mut idle = Vec::new();
    for number in 0..200 {
        let port = if number % 2 == 0 { victim.gateway.grpc_port } else { victim.gateway.http_port };
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let beginning: &[u8] = match number % 4 {
            0 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            1 => b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 1000\r\n\r\nabc",
            _ => b"",
        };
        stream.write_all(beginning).unwrap();
        idle.push(stream);
    }
    victim.assert_unharmed(0);
    drop(idle);
}
