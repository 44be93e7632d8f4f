//! The ledger on :8888 balances after a run with refusals and a restarted backend.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::time::Duration;

use support::metrics::Samples;
use support::otlp::{attribute, sum_request, trace, traces_request};
use support::otlp_client::OK;
use support::{Backend, Behaviour, Gateway, eventually, unix_nanos};

const CONFIG: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
processors:
  tail_sampling:
    decision_wait: 1s
    policies: [{name: half, type: probabilistic, probabilistic: {sampling_percentage: 50}}]
  cardinality_limit:
    flush_interval: 1s
    default: {max_values_per_label: 10}
exporters:
  otlp/restarted:
    endpoint: 127.0.0.1:@RESTARTED@
    tls: {insecure: true}
    retry_on_failure: {initial_interval: 100ms, max_interval: 500ms, max_elapsed_time: 0}
    sending_queue: {sizer: items, queue_size: 2000}
  otlp/picky:
    endpoint: 127.0.0.1:@PICKY@
    tls: {insecure: true}
    retry_on_failure: {initial_interval: 100ms, max_interval: 500ms}
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    traces: {receivers: [otlp], processors: [tail_sampling], exporters: [otlp/restarted, otlp/picky]}
    traces/all: {receivers: [otlp], exporters: [otlp/picky]}
    metrics: {receivers: [otlp], processors: [cardinality_limit], exporters: [otlp/restarted]}
";

/// Waits until no account holds anything and all balance.
fn wait_until_settled(gateway: &Gateway) -> Samples {
    eventually("the ledger is settled", || {
        let samples = gateway.metrics();
        let open: Vec<_> =
            samples.ledger().into_iter().filter(|account| account.held != 0.0 || account.difference() != 0.0).collect();
        if open.is_empty() { Ok(samples) } else { Err(open) }
    })
}

/// Outage, retryable and permanent refusals, a full queue, sampling and collapsing: afterwards every
/// account balances, and the totals are those that the client and the backends counted themselves.
#[test]
fn the_ledger_balances_after_refusals_and_a_restart() {
    let mut restarted = Backend::start();
    let picky = Backend::start();
    let config = CONFIG.replace("@RESTARTED@", &restarted.port.to_string()).replace("@PICKY@", &picky.port.to_string());
    let gateway = Gateway::start(&config);
    let mut client = gateway.client();
    let (mut spans, mut refusals) = (0_usize, 0_usize);
    let mut number = 0_u64;
    let mut send = |count: u64| {
        for _ in 0..count {
            let traces = (0..20).flat_map(|index| trace(number + index, 5)).collect();
            refusals += client.traces_with_retry(&traces_request("ledger", traces));
            spans += 100;
            number += 20;
        }
        refusals
    };

    send(20);
    wait_until_settled(&gateway);
    restarted.stop();
    send(20);
    picky.behave(Behaviour::Unavailable);
    send(10);
    picky.behave(Behaviour::Invalid);
    let refused_before = picky.refused();
    eventually("the picky backend refuses for good", || {
        let refused = picky.refused();
        if refused > refused_before { Ok(()) } else { Err(refused) }
    });
    send(5);
    picky.behave(Behaviour::Accept);
    restarted.restart();
    send(20);

    let start = unix_nanos();
    let mut points = 0_usize;
    let mut metrics = gateway.client();
    for round in 1..=3 {
        let users =
            (0..200).map(|user| (vec![attribute("user.id", &format!("user-{user}"))], round)).collect::<Vec<_>>();
        let outcome = metrics.metrics(&sum_request("ledger", "logins", start, &users));
        assert_eq!(outcome.status, OK, "{outcome:?}");
        points += users.len();
    }

    let samples = wait_until_settled(&gateway);
    for account in samples.ledger() {
        assert_eq!(account.difference(), 0.0, "{account:?}");
    }
    let sampled = samples.account("pipeline/traces", "traces");
    let all = samples.account("pipeline/traces/all", "traces");
    let metrics = samples.account("pipeline/metrics", "metrics");
    assert_eq!(sampled.accepted, spans as f64, "what the client was told is accepted: {sampled:?}");
    assert_eq!(all.accepted, spans as f64, "{all:?}");
    assert_eq!(metrics.accepted, points as f64, "{metrics:?}");
    assert!(sampled.sampled_out > 0.0, "{sampled:?}");

    let to_restarted = samples.account("exporter/otlp/restarted", "traces");
    let to_picky = samples.account("exporter/otlp/picky", "traces");
    assert_eq!(to_restarted.accepted, sampled.emitted, "{to_restarted:?} {sampled:?}");
    assert_eq!(to_picky.accepted, sampled.emitted + all.emitted, "{to_picky:?}");
    assert_eq!(to_restarted.exported, restarted.span_count() as f64, "what the backend counts: {to_restarted:?}");
    assert_eq!(to_picky.exported, picky.span_count() as f64, "{to_picky:?}");
    assert_eq!(to_restarted.dropped, 0.0, "an outage within the queue loses nothing: {to_restarted:?}");
    assert!(to_picky.dropped > 0.0, "refused for good is dropped, and counted: {to_picky:?}");
}

/// While a backend is away the account shows what is held, and what is refused is not accepted.
#[test]
fn what_is_held_and_refused_is_visible() {
    let restarted = Backend::start();
    let picky = Backend::start();
    restarted.behave(Behaviour::Unavailable);
    picky.behave(Behaviour::Slow(Duration::ZERO));
    let config = CONFIG
        .replace("@RESTARTED@", &restarted.port.to_string())
        .replace("@PICKY@", &picky.port.to_string())
        .replace("sampling_percentage: 50", "sampling_percentage: 100");
    let gateway = Gateway::start(&config);
    let mut client = gateway.client();
    for number in 0..50 {
        let outcome = client.traces(&traces_request("ledger", trace(number, 20)));
        assert_eq!(outcome.status, OK, "{outcome:?}");
    }
    eventually("the exporter holds 1,000 spans", || {
        let samples = gateway.metrics();
        let account = samples.account("exporter/otlp/restarted", "traces");
        if account.held == 1000.0 && account.difference() == 0.0 { Ok(()) } else { Err(account) }
    });
    restarted.behave(Behaviour::Accept);
    let samples = wait_until_settled(&gateway);
    assert_eq!(samples.account("exporter/otlp/restarted", "traces").exported, 1000.0);
}
