//! SIGTERM: intake stops, everything that was acknowledged is delivered, the exit code is 0.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::HashSet;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::otlp::{SpanKey, span_keys, trace, traces_request};
use support::otlp_client::{OK, TRACES};
use support::{Backend, Behaviour, Gateway, OtlpClient, eventually};

fn config(backend_port: u16, processors: &str, list: &str) -> String {
    format!(
        "
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:@GRPC@}}}}}}}}
processors:
{processors}
exporters:
  otlp:
    endpoint: 127.0.0.1:{backend_port}
    tls: {{insecure: true}}
    retry_on_failure: {{initial_interval: 100ms, max_interval: 500ms}}
service:
  telemetry:
    metrics:
      readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: @METRICS@}}}}}}}}]
  pipelines:
    traces: {{receivers: [otlp], processors: [{list}], exporters: [otlp]}}
"
    )
}

const KEEP_ALL: &str = "
  tail_sampling:
    decision_wait: 60s
    policies: [{name: all, type: always_sample}]
";

/// Sends `count` traces of 5 spans, all of which must be accepted; gives their keys.
fn send(gateway: &Gateway, count: u64) -> HashSet<SpanKey> {
    let mut client = gateway.client();
    let mut sent = HashSet::new();
    for number in 0..count {
        let request = traces_request("shutdown", trace(number, 5));
        let outcome = client.traces(&request);
        assert_eq!(outcome.status, OK, "{outcome:?}");
        sent.extend(span_keys(&request));
    }
    sent
}

fn assert_exactly_once(backend: &Backend, sent: &HashSet<SpanKey>) {
    let arrived = backend.spans();
    let missing = sent.iter().filter(|key| !arrived.contains_key(*key)).count();
    let doubled = arrived.values().filter(|count| **count > 1).count();
    assert_eq!((missing, doubled, arrived.len()), (0, 0, sent.len()), "(missing, doubled, distinct) spans");
}

/// Traces that wait for their decision are decided and delivered before the process ends, long
/// before `decision_wait` is over.
#[test]
fn buffered_traces_are_decided_and_delivered() {
    let backend = Backend::start();
    let gateway = Gateway::start(&config(backend.port, KEEP_ALL, "tail_sampling"));
    let sent = send(&gateway, 200);
    assert_eq!(backend.span_count(), 0, "nothing is decided yet");
    let started = Instant::now();
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(started.elapsed() < Duration::from_secs(30), "took {:?}", started.elapsed());
    assert_exactly_once(&backend, &sent);
}

/// SIGHUP, at which the Collector reads its configuration again, ends nothing here and loses nothing: it says what to do.
#[test]
fn a_hang_up_changes_nothing() {
    let backend = Backend::start();
    let gateway = Gateway::start(&config(backend.port, KEEP_ALL, "tail_sampling"));
    let sent = send(&gateway, 20);
    gateway.process.signal("HUP");
    eventually("it is answered in the log", || {
        let output = gateway.process.output();
        if output.contains("restart the gateway for it to read it again") { Ok(()) } else { Err(output) }
    });
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert_exactly_once(&backend, &sent);
}

/// A queue that a slow backend has not emptied yet is drained.
#[test]
fn the_queue_is_drained_to_a_slow_backend() {
    let backend = Backend::start();
    backend.behave(Behaviour::Slow(Duration::from_millis(100)));
    let gateway = Gateway::start(&config(backend.port, "  {}", ""));
    let sent = send(&gateway, 100);
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert_exactly_once(&backend, &sent);
}

/// A signal in the middle of traffic: everything that was acknowledged arrives; what was not
/// acknowledged may.
#[test]
fn nothing_acknowledged_is_lost_when_traffic_goes_on() {
    let backend = Backend::start();
    let gateway = Gateway::start(&config(backend.port, KEEP_ALL, "tail_sampling"));
    let port = gateway.grpc_port;
    let acknowledged = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for worker in 0..3_u64 {
            let acknowledged = &acknowledged;
            scope.spawn(move || {
                let mut client = OtlpClient::connect(port);
                for number in 0.. {
                    let request = traces_request("shutdown", trace(worker * 1_000_000 + number, 5));
                    let message = prost::Message::encode_to_vec(&request);
                    // A refusal or a broken connection: the gateway has left.
                    match client.call(TRACES, &message) {
                        Ok(outcome) if outcome.status == OK => acknowledged.lock().unwrap().extend(span_keys(&request)),
                        _ => return,
                    }
                }
            });
        }
        eventually("traffic flows", || match acknowledged.lock().unwrap().len() {
            few @ 0..2000 => Err(few),
            _ => Ok(()),
        });
        let ended = gateway.terminate();
        assert_eq!(ended.code, Some(0), "{}", ended.output);
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    let arrived = backend.spans();
    let missing = acknowledged.iter().filter(|key| !arrived.contains_key(*key)).count();
    assert_eq!(missing, 0, "of {} acknowledged spans", acknowledged.len());
}

/// A frozen client (a connection that never answers, a request that stops half-way) neither delays the
/// end by the whole drain timeout nor eats the time that delivery needs.
#[test]
fn frozen_clients_do_not_hold_up_the_drain() {
    let backend = Backend::start();
    backend.behave(Behaviour::Slow(Duration::from_millis(100)));
    let gateway = Gateway::start(&config(backend.port, KEEP_ALL, "tail_sampling"));
    let beginnings: [&[u8]; 2] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    ];
    let frozen = beginnings.map(|beginning| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", gateway.grpc_port)).unwrap();
        stream.write_all(beginning).unwrap();
        stream
    });
    let sent = send(&gateway, 100);
    let started = Instant::now();
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(started.elapsed() < Duration::from_secs(15), "took {:?}:\n{}", started.elapsed(), ended.output);
    assert_exactly_once(&backend, &sent);
    drop(frozen);
}

/// With the backend away the process does not hang, and says what it lost.
#[test]
fn an_unreachable_backend_does_not_keep_the_process() {
    let backend = Backend::stopped();
    let gateway = Gateway::start(&config(backend.port, "  {}", ""));
    let sent = send(&gateway, 10);
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(3), "data was left behind, and the exit code says so:\n{}", ended.output);
    let tells = ended.output.lines().any(|line| line.contains("otlp") && line.contains(&sent.len().to_string()));
    assert!(tells, "the log names the exporter and the {} spans that are lost:\n{}", sent.len(), ended.output);
    let sums_up =
        |line: &str| ["exporter/otlp", "lost", &sent.len().to_string()].iter().all(|part| line.contains(part));
    assert!(ended.output.lines().any(sums_up), "the summary names the account:\n{}", ended.output);
}

/// A backend that hangs cannot hold the process beyond `--drain-timeout`; what it did not take is
/// counted, and the exit code tells that from a failure.
#[test]
fn the_drain_timeout_ends_the_wait_for_a_hanging_backend() {
    let backend = Backend::start();
    backend.behave(Behaviour::Hang);
    let gateway = Gateway::start_with_args(&config(backend.port, "  {}", ""), &["--drain-timeout", "1s"]);
    let sent = send(&gateway, 10);
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(3), "{}", ended.output);
    assert!(ended.output.contains("drain_timeout=1s"), "{}", ended.output);
    let lost = format!("items={}", sent.len());
    assert!(
        ended.output.lines().any(|line| line.contains("exporter/otlp") && line.contains(&lost)),
        "{}",
        ended.output
    );
}

/// What a queue on disk still holds is not lost: the summary says so, and the exit code is 0.
#[test]
fn what_stays_on_disk_is_told_and_not_counted_as_lost() {
    let backend = Backend::stopped();
    let config = config(backend.port, "  {}", "")
        .replace(
            "exporters:\n",
            "extensions: {file_storage: {directory: '@DIR@/queue', create_directory: true}}\nexporters:\n",
        )
        .replace("    retry_on_failure", "    sending_queue: {storage: file_storage}\n    retry_on_failure")
        .replace("  telemetry:", "  extensions: [file_storage]\n  telemetry:");
    let gateway = Gateway::start(&config);
    let sent = send(&gateway, 10);
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    let kept = format!("items={}", sent.len());
    let tells = |line: &str| line.contains("kept on disk") && line.contains("exporter/otlp") && line.contains(&kept);
    assert!(ended.output.lines().any(tells), "{}", ended.output);
}
