//! Tenants, told apart by `include_metadata_keys`: what is remembered of one has no effect on another, even if their
//! series have equal names and labels, and nothing of one is sent as the other.

use std::sync::Arc;
use std::time::Duration;

use nyquist_core::batch::{Batch, DropReason, Metadata};
use nyquist_core::clock::ManualClock;
use nyquist_core::component::Extensions;
use nyquist_core::proto::metrics::v1::{Metric, MetricsData};

use tokio::time::timeout;

use super::protocol::{Running, start_at};
use super::receiver::{Received, Receiver};
use crate::testing::*;

const WITH_HOST: [&str; 2] = ["h1", "h2"];

/// An exporter that tells tenants apart, and a clock that stands at `T`.
async fn start(receiver: &Receiver, more: &str) -> (Running, Arc<ManualClock>) {
    let clock = ManualClock::new(nanos(T));
    let config = format!("{{include_metadata_keys: [Tenant], timeout: 0, {more}}}");
    (start_at(receiver, &config, &Extensions::default(), clock.clone()).await, clock)
}

fn of(tenant: &str, data: MetricsData) -> Batch {
    let metadata = Metadata { headers: vec![("tenant".to_owned(), tenant.to_owned())] };
    Batch::from_metrics(data).with_metadata(Arc::new(metadata))
}

/// The lines that were sent as those of `tenant`.
fn lines(received: &[Received], tenant: &str) -> Vec<String> {
    let requests = received.iter().filter(|request| request.headers["tenant"] == tenant);
    requests.flat_map(|request| request.message().timeseries).flat_map(|series| series.lines()).collect()
}

/// Pushes one after the other, each delivered before the next one.
async fn push_all(running: &Running, pushes: Vec<Batch>, before: u64) {
    for (batch, accepted) in pushes.into_iter().zip(before + 1..) {
        running.push_batch(batch).await;
        running.settled(accepted).await;
    }
}

fn x(at: i64) -> Vec<Metric> {
    vec![gauge("x", "", vec![number(1.0, at, &[])])]
}

fn on_host(host: &str, at: i64) -> MetricsData {
    push_from(&[SHOP, &[("host.name", host)]].concat(), x(at))
}

/// Deltas of equal streams are added up for each tenant.
#[tokio::test]
async fn totals_are_of_one_tenant() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let (running, _) = start(&receiver, "delta: accumulate").await;
    let c = |tenant, value, at| of(tenant, push(vec![sum("c", "", true, DELTA, vec![int(value, at)])]));
    push_all(&running, vec![c("a", 5, T), c("b", 7, T + 1), c("a", 1, T + 2), c("b", 1, T + 2)], 0).await;
    let of = |tenant| lines(&receiver.received(), tenant);
    let series = r#"c_total{instance="i-1",job="shop/cart"}"#;
    assert_eq!(of("a"), [format!("{series} 5@{T}"), format!("{series} 6@{}", T + 2)]);
    assert_eq!(of("b"), [format!("{series} 7@{}", T + 1), format!("{series} 8@{}", T + 2)]);
}

fn target_info(received: &[Received], tenant: &str) -> Vec<String> {
    lines(received, tenant).into_iter().filter(|line| line.starts_with("target_info{")).collect()
}

fn target(host: &str, value: &str, at: i64) -> String {
    format!(r#"target_info{{host_name="{host}",instance="i-1",job="shop/cart"}} {value}@{at}"#)
}

/// Each tenant gets the `target_info` of its resources, and no stale marker because of another one's.
#[tokio::test]
async fn targets_are_of_one_tenant() {
    for [first, second] in [["h1", "h1"], WITH_HOST] {
        let receiver = Receiver::start(|_| (204, None, "")).await;
        let (running, _) = start(&receiver, "").await;
        let pushes = [("a", first, 0), ("b", second, 1), ("a", first, 2), ("b", second, 3)];
        let pushes = pushes.map(|(tenant, host, step)| of(tenant, on_host(host, T + step)));
        push_all(&running, pushes.into(), 0).await;
        assert_eq!(target_info(&receiver.received(), "a"), [target(first, "1", T)]);
        assert_eq!(target_info(&receiver.received(), "b"), [target(second, "1", T + 1)]);
    }
}

/// A resource falls silent: its series ends where it was, though it is another tenant who pushes.
#[tokio::test]
async fn a_silent_target_ends_at_its_tenant() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let (running, clock) = start(&receiver, "").await;
    push_all(&running, vec![of("a", on_host("h1", T)), of("c", on_host("h3", T))], 0).await;
    clock.advance(Duration::from_secs(301));
    let later = T + 301_000;
    push_all(&running, vec![of("b", on_host("h2", later))], 2).await;
    let is_there = |received: &[Received]| ["a", "c"].iter().all(|one| target_info(received, one).len() == 2);
    timeout(Duration::from_secs(20), receiver.wait_for(is_there)).await.expect("each has its end");
    let received = receiver.received();
    assert_eq!(target_info(&received, "a"), [target("h1", "1", T), target("h1", "stale", later)]);
    assert_eq!(target_info(&received, "b"), [target("h2", "1", later)]);
    assert_eq!(target_info(&received, "c"), [target("h3", "1", T), target("h3", "stale", later)]);
}

/// Scenario: nothing at all is pushed any more. Guarantee: `target_info` ends all the same, after five minutes.
#[tokio::test]
async fn a_silent_target_ends_without_another_push() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let (running, clock) = start(&receiver, "").await;
    push_all(&running, vec![of("a", on_host("h1", T))], 0).await;
    clock.advance(Duration::from_secs(301));
    // From here on waits end at once.
    tokio::time::pause();
    let has_ended = receiver.wait_for(|received| target_info(received, "a").len() == 2);
    timeout(Duration::from_secs(86_400), has_ended).await.unwrap();
    let ended = target("h1", "stale", T + 301_000);
    assert_eq!(target_info(&receiver.received(), "a"), [target("h1", "1", T), ended]);
}

/// What one tenant was sent does not make another one's samples old.
#[tokio::test]
async fn times_are_of_one_tenant() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let (running, _) = start(&receiver, "target_info: {enabled: false}, drop_out_of_order: {enabled: true}").await;
    let pushes = [("a", 10), ("b", 5), ("b", 6), ("a", 9)].map(|(tenant, step)| of(tenant, push(x(T + step))));
    push_all(&running, pushes.into(), 0).await;
    let of = |tenant| lines(&receiver.received(), tenant);
    let line = |step| format!(r#"x{{instance="i-1",job="shop/cart"}} 1@{}"#, T + step);
    assert_eq!((of("a"), of("b")), (vec![line(10)], vec![line(5), line(6)]));
    assert_eq!(running.own("dropped_points", &[("reason", "out_of_order")]), 1);
    assert_eq!(running.ledger.dropped_count(DropReason::Untranslatable), 1);
}

/// Each tenant is told type and help of its metrics, once.
#[tokio::test]
async fn metadata_is_of_one_tenant() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let more = "send_metadata: true, protobuf_message: prometheus.WriteRequest";
    let (running, _) = start(&receiver, more).await;
    let pushes = [("a", 0), ("b", 1), ("a", 2), ("b", 3)].map(|(tenant, step)| of(tenant, push(x(T + step))));
    push_all(&running, pushes.into(), 0).await;
    for tenant in ["a", "b"] {
        let received = receiver.received();
        let requests = received.iter().filter(|request| request.headers["tenant"] == tenant);
        let described: Vec<String> =
            requests.flat_map(|request| request.message().metadata).map(|entry| entry.family).collect();
        assert_eq!(described, ["x"], "{tenant}");
    }
}

/// Scenario: a client whose token changes with every push, a backend that fails now and then, many shards. Guarantee: its
/// samples arrive in order all the same.
#[tokio::test]
async fn a_series_stays_in_order_when_headers_change() {
    const PUSHES: i64 = 300;
    let receiver = Receiver::start(|n| (if n % 3 == 1 { 503 } else { 204 }, None, "")).await;
    let more = "max_batch_request_parallelism: 8, target_info: {enabled: false}, \
                retry_on_failure: {initial_interval: 1ms, max_interval: 2ms}";
    let (running, _) = start(&receiver, more).await;
    for step in 0..PUSHES {
        running.push_batch(of(&format!("token {step}"), push(x(T + step)))).await;
    }
    running.settled(PUSHES as u64).await;
    let received = receiver.received();
    let taken = received.iter().filter(|request| request.status == 204);
    let series = taken.flat_map(|request| request.message().timeseries);
    let times: Vec<i64> = series.flat_map(|series| series.samples).map(|sample| sample.timestamp - T).collect();
    assert_eq!(times, (0..PUSHES).collect::<Vec<_>>());
}
