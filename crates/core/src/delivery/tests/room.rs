//! The queue on disk when there is no room for more.

use tokio::time::{Instant, sleep, timeout};

use super::durable::{Place, place, soon, start, taken, until};
use super::*;
use crate::batch::DropReason;
use crate::component::Consumer;
use crate::storage::faulty::{Faults, FaultyDisk};
use crate::telemetry::Entry;

/// Consumes until somebody waits for the disk; returns how many did not.
async fn fill(rig: &Rig) -> usize {
    let log = || rig.delivery.inner.state.lock().store.as_ref().unwrap().log.clone();
    for taken in 0..50 {
        while timeout(Duration::from_millis(100), rig.delivery.consume(batch("a", 2))).await.is_err() {
            if log().check_room(100).is_err() {
                assert!(taken > 4, "{taken}");
                return taken;
            }
        }
    }
    panic!("the storage is never full")
}

/// Scenario: the storage is full; `block_on_overflow`. Guarantee: whoever comes, with or without a fan-out before
/// it, waits until something has left the disk; a shutdown ends the wait.
#[tokio::test]
async fn block_on_overflow_waits_for_the_disk() {
    let small = Place { max_bytes: 2000, ..place() };
    let backend = Backend::hanging();
    let rig = start(&backend, &small, "{block_on_overflow: true}").await;
    let taken = fill(&rig).await;
    let waiting = Arc::clone(&rig.delivery);
    let waiting = tokio::spawn(async move { waiting.consume(batch("b", 2)).await });
    let asking = Arc::clone(&rig.delivery);
    let asking = tokio::spawn(async move { reserve(&asking, &batch("c", 2)).await });
    sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished() && !asking.is_finished());
    backend.let_through(taken);
    waiting.await.unwrap().unwrap();
    asking.await.unwrap().unwrap();
    assert_eq!(rig.metric("otelcol_exporter_enqueue_failed_spans"), 0.0);
    backend.let_through(1);
    until("all is delivered", || rig.ledger.held_count() == 0).await;

    let rig = {
        rig.delivery.shutdown(soon()).await;
        start(&Backend::hanging(), &small, "{block_on_overflow: true}").await
    };
    fill(&rig).await;
    let waiting = Arc::clone(&rig.delivery);
    let waiting = tokio::spawn(async move { waiting.consume(batch("b", 2)).await });
    sleep(Duration::from_millis(50)).await;
    rig.delivery.shutdown(Instant::now()).await;
    assert!(waiting.await.unwrap().unwrap_err().is_retryable());
}

/// Scenario: a process finds the storage full, and somebody waits for the disk before anything has been read back.
/// Guarantee: what is read back then is not gathered for an hour, but sent.
#[tokio::test]
async fn whoever_waits_for_the_disk_does_not_wait_for_company() {
    let small = Place { max_bytes: 2000, ..place() };
    let config = "{block_on_overflow: true, batch: {flush_timeout: 1h}}";
    let rig = start(&Backend::hanging(), &small, "{block_on_overflow: true}").await;
    fill(&rig).await;
    rig.delivery.shutdown(Instant::now()).await;
    let rig = start(&Backend::answering([]), &small, config).await;
    let sent = timeout(Duration::from_secs(60), rig.delivery.consume(batch("b", 2))).await;
    sent.expect("nobody waits for the time of others").unwrap();
}

/// Scenario: more requests than the storage has segments are tried for ever, one in each; many times as many as the
/// storage has room for come and go meanwhile. Guarantee: these are taken and delivered, the stubborn ones are there
/// after a restart.
#[tokio::test]
async fn stubborn_requests_do_not_fill_the_disk() {
    const STUBBORN: usize = 18;
    let small = Place { max_bytes: 64 << 10, ..place() };
    let backend = Arc::new(Backend { stubborn: Some("stubborn"), ..Backend::default() });
    let rig = start(&backend, &small, "{num_consumers: 20}").await;
    let big = "x".repeat(300);
    for index in 0..STUBBORN {
        rig.delivery.consume(batch(&format!("stubborn{index}"), 1)).await.unwrap();
        for filler in 0..40 {
            let name = format!("{index}.{filler}.{big}");
            until("there is room", || rig.ledger.held_count() < index as i64 + 10).await;
            rig.delivery.consume(batch(&name, 1)).await.unwrap();
        }
    }
    until("the others are delivered", || rig.ledger.held_count() == STUBBORN as i64).await;
    rig.delivery.shutdown(soon()).await;
    assert_eq!(taken(&backend).len(), STUBBORN * 40);

    let backend = Backend::answering([]);
    let rig = start(&backend, &small, "{num_consumers: 1}").await;
    until("the stubborn ones are delivered", || rig.ledger.held_count() == 0).await;
    assert_eq!(taken(&backend), (0..STUBBORN).map(|index| format!("stubborn{index}-0")).collect::<Vec<_>>());
}

/// Guarantee: what is on disk from before counts against the queue's bounds.
#[tokio::test]
async fn the_bounds_count_what_is_on_disk() {
    for config in ["{queue_size: 4}", "{sizer: items, queue_size: 12}", "{sizer: bytes, queue_size: 200}"] {
        let place = place();
        let backend = Backend::hanging();
        let rig = start(&backend, &place, config).await;
        let mut taken = 0;
        while rig.delivery.consume(batch("a", 3)).await.is_ok() {
            taken += 1;
        }
        assert!((3..12).contains(&taken), "{config}: {taken}");
        rig.delivery.shutdown(Instant::now()).await;
        let backend = Backend::hanging();
        let rig = start(&backend, &place, config).await;
        let refusal = rig.delivery.consume(batch("a", 3)).await.unwrap_err();
        assert!(refusal.is_retryable() && refusal.message() == "sending queue is full", "{refusal}");
        backend.let_through(taken);
        until("the queue is empty", || rig.metric("otelcol_exporter_queue_size") == 0.0).await;
        rig.delivery.consume(batch("a", 3)).await.unwrap();
        rig.delivery.shutdown(Instant::now()).await;
    }
}

/// Scenario: disk full; the storage's limit. Guarantee: refused so that it may be retried, counted as not
/// enqueued; a fan-out hears of it before it commits; with `on_full: drop` the limit drops and counts.
#[tokio::test]
async fn a_full_disk_refuses() {
    let place = place();
    let backend = Backend::hanging();
    let rig = start(&backend, &place, "{}").await;
    place.disk.set_faults(Faults { no_space: 100, ..Faults::default() });
    let refusal = rig.delivery.consume(batch("a", 2)).await.unwrap_err();
    assert!(refusal.is_retryable() && refusal.message().contains("no space left"), "{refusal}");
    let refusal = reserve(&rig.delivery, &batch("a", 2)).await.unwrap_err();
    assert!(refusal.message().contains("no space left"), "{refusal}");
    assert_eq!(rig.ledger.count(Entry::Accepted), 0);
    assert_eq!(rig.metric("otelcol_exporter_enqueue_failed_spans"), 4.0);
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
    place.disk.set_faults(Faults::default());
    rig.delivery.consume(batch("a", 2)).await.unwrap();
    rig.delivery.shutdown(Instant::now()).await;

    let small = Place { disk: FaultyDisk::new(1), max_bytes: 1000, ..place };
    let rig = start(&backend, &small, "{}").await;
    let mut refusal = None;
    for _ in 0..50 {
        refusal = rig.delivery.consume(batch("a", 2)).await.err();
        if refusal.is_some() {
            break;
        }
    }
    let refusal = refusal.expect("the limit is reached");
    assert!(refusal.is_retryable() && refusal.message().contains("max_size"), "{refusal}");
    rig.delivery.shutdown(Instant::now()).await;
    let rig = start(&backend, &small, "{on_full: drop}").await;
    rig.delivery.consume(batch("a", 2)).await.unwrap();
    assert_eq!(rig.ledger.dropped_count(DropReason::QueueFull), 2);
    rig.delivery.shutdown(Instant::now()).await;
}
