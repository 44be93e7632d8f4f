//! Two backends, one of which goes away: the other keeps receiving, and in the end both have
//! everything exactly once. 10 s of outage; 60 s with NYQUIST_LONG=1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::otlp::{SpanKey, span_keys, trace, traces_request};
use support::{Backend, Behaviour, Gateway, OtlpClient, eventually, long_run};

const CONFIG: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
exporters:
  otlp/steady:
    endpoint: 127.0.0.1:@STEADY@
    tls: {insecure: true}
  otlp_http/flaky:
    endpoint: http://127.0.0.1:@FLAKY@
    retry_on_failure: {initial_interval: 100ms, max_interval: 1s, max_elapsed_time: 0}
    sending_queue: {sizer: items, queue_size: @QUEUE@}
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    traces: {receivers: [otlp], exporters: [otlp/steady, otlp_http/flaky]}
";

fn start(steady: &Backend, flaky: &Backend, queue_size: usize) -> Gateway {
    let config = CONFIG.replace("@STEADY@", &steady.port.to_string()).replace("@FLAKY@", &flaky.port.to_string());
    Gateway::start(&config.replace("@QUEUE@", &queue_size.to_string()))
}

/// Sends small traces until `stop`, as SDKs do: a refused request is sent again until it is
/// accepted. Gives the keys of all accepted spans.
fn traffic(port: u16, worker: u64, pause: Duration, stop: &AtomicBool) -> HashSet<SpanKey> {
    let mut client = OtlpClient::connect(port);
    let mut accepted = HashSet::new();
    let mut number = worker * 1_000_000_000;
    while !stop.load(Ordering::Relaxed) {
        let spans = (0..10).flat_map(|index| trace(number + index, 3)).collect();
        let request = traces_request("fan-out", spans);
        client.traces_with_retry(&request);
        accepted.extend(span_keys(&request));
        number += 10;
        std::thread::sleep(pause);
    }
    accepted
}

/// (missing, doubled, never sent)
fn compare(sent: &HashSet<SpanKey>, arrived: &HashMap<SpanKey, usize>) -> (usize, usize, usize) {
    let missing = sent.iter().filter(|key| !arrived.contains_key(*key)).count();
    let doubled = arrived.values().filter(|count| **count > 1).count();
    let unknown = arrived.keys().filter(|key| !sent.contains(*key)).count();
    (missing, doubled, unknown)
}

fn wait_until_complete(name: &str, backend: &Backend, sent: &HashSet<SpanKey>) {
    eventually(&format!("{name} has every span"), || match compare(sent, &backend.spans()) {
        (0, _, _) => Ok(()),
        incomplete => Err(incomplete),
    });
    assert_eq!(compare(sent, &backend.spans()), (0, 0, 0), "{name}: (missing, doubled, never sent)");
}

/// The queue of the stopped backend is large enough: its outage is invisible to the client and to
/// the other backend.
#[test]
fn an_outage_of_one_backend_does_not_touch_the_other() {
    let outage = Duration::from_secs(if long_run() { 60 } else { 10 });
    let steady = Backend::start();
    let mut flaky = Backend::start();
    let gateway = start(&steady, &flaky, 1_000_000);
    let stop = AtomicBool::new(false);
    let sent: HashSet<SpanKey> = std::thread::scope(|scope| {
        let (port, stop) = (gateway.grpc_port, &stop);
        let send = |worker| scope.spawn(move || traffic(port, worker, Duration::from_millis(20), stop));
        let workers = [send(0), send(1)];
        eventually("both receive", || match (steady.span_count(), flaky.span_count()) {
            (500.., 500..) => Ok(()),
            few => Err(few),
        });
        flaky.stop();
        let at_stop = flaky.span_count();
        let began = Instant::now();
        while began.elapsed() < outage {
            let before = steady.span_count();
            // A share of a second without a span would mean that the outage reaches the other branch.
            support::eventually_within(Duration::from_secs(2), "the steady backend keeps receiving", || {
                let now = steady.span_count();
                if now > before { Ok(()) } else { Err(now) }
            });
        }
        assert_eq!(flaky.span_count(), at_stop, "the stopped backend got nothing");
        flaky.restart();
        eventually("the restarted backend receives", || {
            let now = flaky.span_count();
            if now > at_stop { Ok(()) } else { Err(now) }
        });
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    wait_until_complete("the steady backend", &steady, &sent);
    wait_until_complete("the flaky backend", &flaky, &sent);
}

/// The queue of the refusing backend is small: the client is refused, sends again, and still
/// neither backend gets anything twice. This is what reserving before committing is for.
#[test]
fn a_full_queue_refuses_before_anything_is_committed() {
    let steady = Backend::start();
    let flaky = Backend::start();
    flaky.behave(Behaviour::Unavailable);
    let gateway = start(&steady, &flaky, 300);
    let mut client = gateway.client();
    let mut accepted = HashSet::new();
    // Fill the queue until the gateway refuses.
    let refused = (0..1000).find_map(|number| {
        let request = traces_request("fan-out", trace(number, 10));
        let outcome = client.traces(&request);
        if outcome.status != support::otlp_client::OK {
            return Some((request, outcome));
        }
        accepted.extend(span_keys(&request));
        None
    });
    let (request, outcome) = refused.expect("a queue of 300 spans refuses within 10,000");
    assert_eq!(outcome.status, support::otlp_client::UNAVAILABLE, "{outcome:?}");
    assert!(outcome.has_details, "the refusal says when to come back (RetryInfo): {outcome:?}");
    eventually("the steady backend has what was accepted, and nothing of what was refused", || {
        let comparison = compare(&accepted, &steady.spans());
        if comparison == (0, 0, 0) { Ok(()) } else { Err(comparison) }
    });
    flaky.behave(Behaviour::Accept);
    client.traces_with_retry(&request);
    accepted.extend(span_keys(&request));
    wait_until_complete("the steady backend", &steady, &accepted);
    wait_until_complete("the flaky backend", &flaky, &accepted);
}
