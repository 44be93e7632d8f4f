//! Overload: refusals tell when to come back, and between two gateways they lose nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use prost::Message;
use support::otlp::{SpanKey, attribute, span_keys, trace, traces_request};
use support::otlp_client::{self, DEADLINE_EXCEEDED, OK, TRACES, UNAVAILABLE};
use support::{Backend, Behaviour, Gateway, eventually, http};

const PROTOBUF: &str = "application/x-protobuf";

fn config(protocols: &str, processors: &str, list: &str, exporter: &str) -> String {
    format!(
        "
receivers: {{otlp: {{protocols: {{{protocols}}}}}}}
processors: {{{processors}}}
exporters:
  {exporter}
service:
  telemetry:
    metrics:
      readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: @METRICS@}}}}}}}}]
  pipelines:
    traces: {{receivers: [otlp], processors: [{list}], exporters: [otlp]}}
"
    )
}

const BOTH: &str = "grpc: {endpoint: '127.0.0.1:@GRPC@'}, http: {endpoint: '127.0.0.1:@HTTP@'}";

const PATIENT: &str = "retry_on_failure: {initial_interval: 50ms, max_interval: 500ms, max_elapsed_time: 0}";

/// The configuration of the first gateway of a chain, which sends to `second` over gRPC or HTTP.
fn first(second: &Gateway, over_http: bool) -> String {
    let exporter = if over_http {
        format!("otlp_http: {{endpoint: 'http://127.0.0.1:{}', {PATIENT}}}", second.http_port)
    } else {
        format!("otlp: {{endpoint: '127.0.0.1:{}', tls: {{insecure: true}}, {PATIENT}}}", second.grpc_port)
    };
    let config = config(BOTH, "", "", &exporter);
    if over_http { config.replace("exporters: [otlp]", "exporters: [otlp_http]") } else { config }
}

fn wait_for_all(backend: &Backend, sent: &HashSet<SpanKey>) {
    eventually("all that was acknowledged arrives", || {
        let arrived = backend.spans();
        match sent.iter().filter(|key| !arrived.contains_key(*key)).count() {
            0 => Ok(()),
            missing => Err(missing),
        }
    });
}

fn assert_nothing_dropped(gateway: &Gateway) {
    assert_eq!(gateway.metrics().sum("nyquist_ledger_dropped_items", &[]), 0.0);
}

/// Scenario: two gateways in a chain; the backend of the second is slow and its queue two requests long, so
/// that it refuses most of what comes, over gRPC and over HTTP. Guarantee: all that the first one
/// acknowledged arrives, and neither counts a loss.
#[test]
fn an_overloaded_second_gateway_loses_nothing() {
    for over_http in [false, true] {
        let backend = Backend::start();
        backend.behave(Behaviour::Slow(Duration::from_millis(50)));
        let exporter = format!(
            "otlp: {{endpoint: '127.0.0.1:{}', tls: {{insecure: true}}, sending_queue: {{queue_size: 2, num_consumers: 1}}}}",
            backend.port
        );
        let second = Gateway::start(&config(BOTH, "", "", &exporter));
        let first = Gateway::start(&first(&second, over_http));
        let mut client = first.client();
        let mut sent = HashSet::new();
        for number in 0..30 {
            let request = traces_request("overload", trace(number, 4));
            client.traces_with_retry(&request);
            sent.extend(span_keys(&request));
        }
        wait_for_all(&backend, &sent);
        let refused = second.metrics().sum("otelcol_receiver_refused_spans", &[]);
        assert!(refused > 0.0, "the second gateway was overloaded (over HTTP: {over_http})");
        assert_nothing_dropped(&first);
        assert_nothing_dropped(&second);
    }
}

/// Scenario: the second of two gateways allows each client few requests a second, and answers the others with
/// `RESOURCE_EXHAUSTED` and RetryInfo, over HTTP with 429 and Retry-After. Guarantee: the first one waits as long as it is told, and all
/// that it acknowledged arrives, each span once.
#[test]
fn resource_exhausted_between_gateways_loses_nothing() {
    for over_http in [false, true] {
        let backend = Backend::start();
        let exporter = format!("otlp: {{endpoint: '127.0.0.1:{}', tls: {{insecure: true}}}}", backend.port);
        let limits = "client_limits: [{per: client.address, requests_per_second: 4, burst: 500ms}]";
        let second =
            config(BOTH, "", "", &exporter).replace("otlp: {protocols", &format!("otlp: {{{limits}, protocols"));
        let second = Gateway::start(&second);
        let first = Gateway::start(&first(&second, over_http));
        let mut client = first.client();
        let mut sent = HashSet::new();
        for number in 0..12 {
            let request = traces_request("overload", trace(number, 4));
            client.traces_with_retry(&request);
            sent.extend(span_keys(&request));
        }
        wait_for_all(&backend, &sent);
        assert_eq!(backend.span_count(), sent.len(), "each once (over HTTP: {over_http})");
        let refused = second.metrics().sum("nyquist_receiver_limited_requests", &[("limit", "requests_per_second")]);
        assert!(refused > 0.0, "the second gateway refused some (over HTTP: {over_http})");
        assert_nothing_dropped(&first);
    }
}

/// Scenario: the first gateway takes larger requests than the second, which refuses them: RESOURCE_EXHAUSTED
/// without RetryInfo over gRPC, 400 over HTTP, as the Collector does. Guarantee: they are split, and
/// everything arrives once.
#[test]
fn a_request_too_large_for_the_second_gateway_is_split() {
    for over_http in [false, true] {
        let backend = Backend::start();
        let exporter = format!("otlp: {{endpoint: '127.0.0.1:{}', tls: {{insecure: true}}}}", backend.port);
        let limited = "grpc: {endpoint: '127.0.0.1:@GRPC@', max_recv_msg_size_mib: 1}, \
                       http: {endpoint: '127.0.0.1:@HTTP@', max_request_body_size: 1048576}";
        let second = Gateway::start(&config(limited, "", "", &exporter));
        let first = Gateway::start(&first(&second, over_http));
        let mut spans = trace(1, 3000);
        for span in &mut spans {
            span.attributes.push(attribute("filler", &"x".repeat(1000)));
        }
        let request = traces_request("overload", spans);
        assert!(request.encoded_len() > 2 << 20, "larger than the second gateway takes");
        let outcome = first.client().traces(&request);
        assert_eq!(outcome.status, OK, "{outcome:?}");
        let sent: HashSet<SpanKey> = span_keys(&request).into_iter().collect();
        wait_for_all(&backend, &sent);
        assert_eq!(backend.span_count(), sent.len(), "each once (over HTTP: {over_http})");
        assert_nothing_dropped(&first);
    }
}

/// Scenario: memory use is above the limit. Guarantee: the refusal is retryable and says when to come back,
/// over gRPC (RetryInfo) and HTTP (Retry-After).
#[test]
fn the_memory_limiter_says_when_to_come_back() {
    let backend = Backend::start();
    let exporter = format!("otlp: {{endpoint: '127.0.0.1:{}', tls: {{insecure: true}}}}", backend.port);
    // Any process takes more than a mebibyte.
    let limiter = "memory_limiter: {check_interval: 100ms, limit_mib: 1}";
    let gateway = Gateway::start(&config(BOTH, limiter, "memory_limiter", &exporter));
    let request = traces_request("overload", trace(1, 3));
    let mut client = gateway.client();
    eventually("memory is measured", || {
        let outcome = client.traces(&request);
        if outcome.status == UNAVAILABLE { Ok(()) } else { Err(outcome) }
    });
    let outcome = client.traces(&request);
    assert_eq!((outcome.status, outcome.has_details), (UNAVAILABLE, true), "{outcome:?}");
    assert!(outcome.message.contains("memory"), "{outcome:?}");
    let answer = http::post(gateway.http_port, "/v1/traces", PROTOBUF, "", request.encode_to_vec()).unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    let seconds = answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds >= 1), "{:?}", answer.headers);
    assert_eq!(gateway.metrics().sum("nyquist_memory_limiter_refusing", &[]), 1.0);
}

/// Scenario: memory use is above the limit, and a client announces a large body of which it sends nothing.
/// Guarantee: it is refused all the same, so the body was not waited for; no item was decoded to refuse it;
/// and the component says what is wrong.
#[test]
fn what_is_refused_for_memory_is_not_read() {
    let backend = Backend::start();
    let exporter = format!("otlp: {{endpoint: '127.0.0.1:{}', tls: {{insecure: true}}}}", backend.port);
    let limiter = "memory_limiter: {check_interval: 100ms, limit_mib: 1}";
    let config = config(BOTH, limiter, "memory_limiter", &exporter)
        .replace("exporters:\n", "extensions: {health_check: {endpoint: '127.0.0.1:@HEALTH@'}}\nexporters:\n")
        .replace("service:", "service:\n  extensions: [health_check]");
    let gateway = Gateway::start(&config);
    eventually("the limiter refuses", || {
        let status = http::get(gateway.health_port, "/status?pipeline=traces&verbose")?.json();
        let error = status["components"]["processor:memory_limiter"]["error"].as_str().unwrap_or_default();
        if error.contains("high memory usage") { Ok(()) } else { Err(status.to_string()) }
    });
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.http_port)).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let head =
        format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\ncontent-length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("otelcol_processor_memory_limiter_refused_spans", &[]), 0.0);
    assert!(metrics.sum("otelcol_receiver_requests", &[("outcome", "refused")]) >= 1.0);
}

/// Scenario: memory use is above the limit, and Prometheus announces a large remote write request of which it sends
/// nothing. Guarantee: it is refused unread, with 503 and Retry-After, at which senders keep their data.
#[test]
fn remote_write_is_refused_for_memory_unread() {
    let config = "
receivers: {prometheus_remote_write: {endpoint: '127.0.0.1:@GRPC@'}}
processors: {memory_limiter: {check_interval: 100ms, limit_mib: 1}}
exporters: {nop: }
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    metrics: {receivers: [prometheus_remote_write], processors: [memory_limiter], exporters: [nop]}
";
    let gateway = Gateway::start(config);
    eventually("the limiter refuses", || match gateway.metrics().sum("nyquist_memory_limiter_refusing", &[]) {
        1.0 => Ok(()),
        other => Err(other),
    });
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.grpc_port)).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\ncontent-encoding: snappy\r\n\
         content-length: 1000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..count]);
    }
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(answer.starts_with("http/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    let metrics = gateway.metrics();
    assert!(metrics.sum("otelcol_receiver_requests", &[("outcome", "refused")]) >= 1.0);
}

/// One call over gRPC by a client that waits for `patience` and then goes. It says so if `deadline` is set
/// (`grpc-timeout`), and goes without a word if not: `None`.
fn call_within(
    port: u16,
    deadline: &[(&str, &str)],
    patience: Duration,
    message: &[u8],
) -> Option<otlp_client::Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let call = async {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            otlp_client::call_over(stream, TRACES, deadline, otlp_client::frame(false, message)).await.unwrap()
        };
        tokio::time::timeout(patience, call).await.ok()
    })
}

/// Sends a request over HTTP/1.1, and goes after `patience` without waiting for an answer.
fn post_and_go(port: u16, patience: Duration, message: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {}\r\n\r\n",
        message.len()
    );
    stream.write_all(&[head.as_bytes(), message].concat()).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    let answer = stream.read(&mut [0; 1]);
    assert!(answer.is_err(), "nobody answers: {answer:?}");
}

/// Scenario: the sink is down, its queue full (in memory, and on disk), `block_on_overflow: true`. One client has a deadline
/// (`grpc-timeout`); one goes without a word over gRPC, one over HTTP; all send the same again, as clients do. Guarantee:
/// the first is told `DEADLINE_EXCEEDED`, to be tried again; no copy waits when its client has gone, so none of them
/// is stored; when the sink is back it gets what was acknowledged, once, and there is room.
#[test]
fn nobody_waits_for_room_longer_than_the_client() {
    for queue in ["", "storage: file_storage/queue, "] {
        let mut backend = Backend::stopped();
        let exporter = format!(
            "otlp: {{endpoint: '127.0.0.1:{}', tls: {{insecure: true}}, {PATIENT}, \
             sending_queue: {{{queue}queue_size: 1, num_consumers: 1, block_on_overflow: true}}}}",
            backend.port
        );
        let config = "
extensions: {file_storage/queue: {directory: '@DIR@/queue', create_directory: true}}"
            .to_owned()
            + &config(BOTH, "", "", &exporter).replace("service:", "service:\n  extensions: [file_storage/queue]");
        let gateway = Gateway::start(&config);
        let request = |number| traces_request("overload", trace(number, 4));
        let message = |number| request(number).encode_to_vec();
        let mut client = gateway.client();
        assert_eq!(client.traces(&request(0)).status, OK);

        for _ in 0..3 {
            let patience = Duration::from_secs(60);
            let outcome = call_within(gateway.grpc_port, &[("grpc-timeout", "300m")], patience, &message(1));
            let outcome = outcome.expect("an answer when the deadline has passed");
            assert_eq!((outcome.status, outcome.has_details), (DEADLINE_EXCEEDED, true), "{outcome:?}");
        }
        let refused = || gateway.metrics().sum("otelcol_receiver_refused_spans", &[]);
        assert_eq!(refused(), 3.0 * 4.0);
        for over_http in [false, true] {
            let before = refused();
            // Those whose request was not even read count for nothing.
            eventually("copies are given up when their clients have gone", || {
                let patience = Duration::from_millis(300);
                if over_http {
                    post_and_go(gateway.http_port, patience, &message(2));
                } else {
                    assert!(call_within(gateway.grpc_port, &[], patience, &message(2)).is_none(), "nobody answers");
                }
                if refused() >= before + 3.0 * 4.0 { Ok(()) } else { Err(refused()) }
            });
        }
        backend.restart();
        assert_eq!(client.traces(&request(3)).status, OK, "there is room again");
        let sent: HashSet<SpanKey> = [0, 3].into_iter().flat_map(|number| span_keys(&request(number))).collect();
        wait_for_all(&backend, &sent);
        eventually("nothing is held any more", || match gateway.metrics().account("exporter/otlp", "traces").held {
            0.0 => Ok(()),
            held => Err(held),
        });
        assert_eq!(backend.span_count(), sent.len(), "what was acknowledged, once: {queue}");
        assert_nothing_dropped(&gateway);
    }
}
