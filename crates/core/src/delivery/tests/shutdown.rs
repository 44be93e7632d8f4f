use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::*;
use crate::batch::DropReason;
use crate::component::Consumer;
use crate::telemetry::Entry;

fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Case 85: with the backend down each request gets one attempt, and what is lost is counted.
#[tokio::test(start_paused = true)]
async fn what_is_left_gets_one_attempt() {
    let backend = Backend::answering((0..1000).map(|_| down()));
    let rig = Rig::start(&backend, queue("{num_consumers: 2}"), RetryConfig::default()).await;
    for index in 0..10 {
        rig.delivery.consume(batch(&index.to_string(), 1)).await.unwrap();
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(backend.attempts.lock().len(), 2, "two wait for their second attempt");
    let begin = Instant::now();
    rig.delivery.shutdown(in_seconds(30)).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "no retry waits");
    assert_eq!(backend.attempts.lock().len(), 12);
    assert_eq!(rig.ledger.dropped_count(DropReason::Shutdown), 10);
    assert_eq!(rig.ledger.held_count(), 0);
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn what_can_be_delivered_is() {
    let backend = Backend::answering([]);
    let rig = Rig::start(&backend, queue("{num_consumers: 1, batch: {flush_timeout: 1h}}"), RetryConfig::default()).await;
    for _ in 0..5 {
        rig.delivery.consume(batch("a", 10)).await.unwrap();
    }
    rig.delivery.shutdown(in_seconds(30)).await;
    assert_eq!(rig.ledger.count(Entry::Exported), 50);
    assert!(rig.delivery.consume(batch("b", 1)).await.unwrap_err().is_retryable(), "intake has stopped");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_hanging_backend() {
    let backend = Backend::hanging();
    let rig = Rig::start(&backend, queue("{num_consumers: 1}"), RetryConfig::default()).await;
    for _ in 0..5 {
        rig.delivery.consume(batch("a", 1)).await.unwrap();
    }
    sleep(Duration::from_millis(1)).await;
    let begin = Instant::now();
    rig.delivery.shutdown(in_seconds(3)).await;
    assert!((3.0..3.1).contains(&begin.elapsed().as_secs_f64()), "{:?}", begin.elapsed());
    assert_eq!(rig.ledger.dropped_count(DropReason::Shutdown), 5);
    assert_eq!(rig.ledger.held_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_result_gets_one() {
    let backend = Backend::hanging();
    let rig = Rig::start(&backend, queue("{num_consumers: 1, wait_for_result: true}"), RetryConfig::default()).await;
    let delivery = Arc::clone(&rig.delivery);
    let waiting = tokio::spawn(async move { delivery.consume(batch("a", 1)).await });
    sleep(Duration::from_millis(1)).await;
    rig.delivery.shutdown(in_seconds(1)).await;
    assert!(waiting.await.unwrap().unwrap_err().is_retryable());
    assert_eq!(rig.ledger.dropped_count(DropReason::Shutdown), 0, "its sender still has it");
}
