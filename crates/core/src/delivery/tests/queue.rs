use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::batch::{DropReason, Metadata, Patience, Permits};
use crate::component::Consumer;
use crate::telemetry::Entry;

async fn two_slots(more: &str) -> (Arc<Backend>, Rig) {
    let backend = Backend::hanging();
    let config = queue(&format!("{{queue_size: 2, num_consumers: 1, {more}}}"));
    let rig = Rig::start(&backend, config, retry("{enabled: false}")).await;
    (backend, rig)
}

/// Case 60: what is in flight keeps its place.
#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once() {
    let (backend, rig) = two_slots("").await;
    rig.delivery.consume(batch("a", 1)).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.metric("otelcol_exporter_in_flight_requests"), 1.0);
    rig.delivery.consume(batch("b", 1)).await.unwrap();
    let refusal = rig.delivery.consume(batch("c", 5)).await.unwrap_err();
    assert_eq!(refusal.message(), "sending queue is full");
    assert!(refusal.is_retryable());
    assert_eq!(rig.metric("otelcol_exporter_enqueue_failed_spans"), 5.0);
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 2.0);
    assert_eq!(rig.metric("otelcol_exporter_queue_capacity"), 2.0);
    assert_eq!(rig.ledger.held_count(), 2);
    backend.let_through(2);
    rig.settled().await;
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
    rig.delivery.consume(batch("d", 1)).await.unwrap();
}

/// Case 61.
#[tokio::test(start_paused = true)]
async fn block_on_overflow_waits_for_room() {
    let (backend, rig) = two_slots("block_on_overflow: true").await;
    rig.delivery.consume(batch("a", 1)).await.unwrap();
    rig.delivery.consume(batch("b", 1)).await.unwrap();
    let third = rig.delivery.consume(batch("c", 1));
    tokio::pin!(third);
    assert!(timeout(Duration::from_secs(1), &mut third).await.is_err());
    backend.let_through(1);
    third.await.unwrap();
}

/// Case 61: the wait ends when its caller's deadline passes, or the caller goes; the room that was held meanwhile is
/// given back, and what is reserved is waited for no longer than what is sent.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_room_longer_than_the_caller() {
    for is_reserved in [false, true] {
        let (backend, rig) = two_slots("block_on_overflow: true").await;
        rig.delivery.consume(batch("a", 1)).await.unwrap();
        rig.delivery.consume(batch("b", 1)).await.unwrap();
        let call = || async {
            let batch = batch("c", 3);
            match is_reserved {
                true => reserve(&rig.delivery, &batch).await.map(|_| ()),
                false => rig.delivery.consume(batch).await,
            }
        };
        let begun = Instant::now();
        let (_caller, patience) = Patience::new(Some(begun + Duration::from_millis(700)));
        let refusal = patience.of(call()).await.unwrap_err();
        assert!((700..=701).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        assert_eq!((refusal.code(), refusal.is_retryable()), (Code::DeadlineExceeded, true), "{refusal}");

        let (caller, patience) = Patience::new(None);
        let waiting = patience.of(call());
        tokio::pin!(waiting);
        assert!(timeout(Duration::from_secs(2), &mut waiting).await.is_err(), "it waits while the caller does");
        drop(caller);
        assert_eq!(waiting.await.unwrap_err().code(), Code::Cancelled);
        assert_eq!(rig.metric("otelcol_exporter_enqueue_failed_spans"), 6.0);

        // Nobody is in the way of who waits on.
        let patient = call();
        tokio::pin!(patient);
        assert!(timeout(Duration::from_secs(1), &mut patient).await.is_err());
        backend.let_through(1);
        patient.await.unwrap();
    }
}

/// Guarantee: without a queue nothing is tried longer than its sender waits.
#[tokio::test(start_paused = true)]
async fn nobody_tries_longer_than_the_caller() {
    let backend = Backend::answering(std::iter::repeat_n(down(), 1000));
    let rig = Rig::start(&backend, queue("{enabled: false}"), retry("{max_elapsed_time: 0}")).await;
    let begun = Instant::now();
    let (_caller, patience) = Patience::new(Some(begun + Duration::from_secs(60)));
    let refusal = patience.of(rig.delivery.consume(batch("a", 1))).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert!(refusal.is_retryable() && refusal.message().contains("down"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn on_full_drop_acknowledges_and_counts() {
    let (_backend, rig) = two_slots("on_full: drop").await;
    for name in ["a", "b"] {
        rig.delivery.consume(batch(name, 1)).await.unwrap();
    }
    let mut permits = Permits::default();
    rig.delivery.reserve(&batch("c", 5), &mut permits).await.unwrap();
    rig.delivery.consume(batch("c", 5)).await.unwrap();
    assert_eq!(rig.ledger.dropped_count(DropReason::QueueFull), 5);
    assert_eq!(rig.ledger.count(Entry::Accepted), 7);
    assert_eq!(rig.ledger.held_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn reserved_room_is_used_or_given_back() {
    let (_backend, rig) = two_slots("").await;
    let mut ours = batch("a", 1);
    let mut permits = Permits::default();
    rig.delivery.reserve(&ours, &mut permits).await.unwrap();
    rig.delivery.consume(batch("b", 1)).await.unwrap();
    assert!(rig.delivery.consume(batch("c", 1)).await.is_err(), "the room is reserved");
    assert!(rig.delivery.reserve(&batch("c", 1), &mut Permits::default()).await.is_err());
    *ours.permits_mut() = permits;
    rig.delivery.consume(ours).await.unwrap();
    assert_eq!(rig.ledger.count(Entry::Accepted), 2);

    let (_backend, rig) = two_slots("").await;
    let mut permits = Permits::default();
    rig.delivery.reserve(&batch("a", 1), &mut permits).await.unwrap();
    rig.delivery.reserve(&batch("a", 1), &mut permits).await.unwrap();
    assert!(rig.delivery.consume(batch("b", 1)).await.is_err());
    drop(permits);
    rig.delivery.consume(batch("b", 1)).await.unwrap();
}

/// Scenario: a fan-out leads to the queue twice, and there is one place left; `block_on_overflow`. Guarantee: it waits for
/// both places, without holding one; where there will never be two, it is told so.
#[tokio::test(start_paused = true)]
async fn two_places_are_waited_for_together() {
    let (backend, rig) = two_slots("block_on_overflow: true").await;
    rig.delivery.consume(batch("a", 1)).await.unwrap();
    let ask = async |count: usize, ours: &Batch| -> Result<Permits, Refusal> {
        loop {
            let mut permits = Permits::reserving();
            let mut asked = Ok(());
            for _ in 0..count {
                if asked.is_ok() {
                    asked = rig.delivery.reserve(ours, &mut permits).await;
                }
            }
            let Err(no_room) = asked else { return Ok(permits) };
            drop(permits);
            no_room.wait().await?;
        }
    };
    let ours = batch("b", 1);
    let asking = ask(2, &ours);
    tokio::pin!(asking);
    assert!(timeout(Duration::from_secs(1), &mut asking).await.is_err());
    rig.delivery.consume(batch("c", 1)).await.unwrap();
    backend.let_through(1);
    assert!(timeout(Duration::from_secs(1), &mut asking).await.is_err());
    backend.let_through(1);
    drop(asking.await.unwrap());
    let refusal = ask(3, &ours).await.unwrap_err();
    assert!(!refusal.is_retryable() && refusal.message().contains("3 requests do not fit"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn bytes_are_bounded_whatever_the_sizer() {
    let backend = Backend::hanging();
    let size = batch("a", 10).size() as u64;
    let config = QueueConfig { max_bytes: crate::config::ByteSize(2 * size), ..QueueConfig::default() };
    let rig = Rig::start(&backend, config, RetryConfig::default()).await;
    rig.delivery.consume(batch("a", 10)).await.unwrap();
    rig.delivery.consume(batch("a", 10)).await.unwrap();
    assert_eq!(rig.delivery.consume(batch("a", 10)).await.unwrap_err().message(), "sending queue is full");
    let refusal = rig.delivery.consume(batch("a", 100)).await.unwrap_err();
    assert!(!refusal.is_retryable() && refusal.message().starts_with("element size too large"), "{refusal}");
}

/// What is kept of the clients' headers waits in memory, too.
#[tokio::test(start_paused = true)]
async fn kept_headers_count_as_bytes() {
    let backend = Backend::hanging();
    let headers = || vec![("x-tenant".to_owned(), "y".repeat(1000))];
    let with_headers = || batch("a", 1).with_metadata(Arc::new(Metadata { headers: headers() }));
    let size = batch("a", 1).size() as u64;
    let config = QueueConfig { max_bytes: crate::config::ByteSize(2 * (size + 1100)), ..QueueConfig::default() };
    let rig = Rig::start(&backend, config, RetryConfig::default()).await;
    rig.delivery.consume(with_headers()).await.unwrap();
    rig.delivery.consume(with_headers()).await.unwrap();
    assert_eq!(rig.delivery.consume(with_headers()).await.unwrap_err().message(), "sending queue is full");
    rig.delivery.consume(batch("a", 1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_sizer_counts_items() {
    let backend = Backend::hanging();
    let rig = Rig::start(&backend, queue("{sizer: items, queue_size: 10}"), RetryConfig::default()).await;
    rig.delivery.consume(batch("a", 7)).await.unwrap();
    assert!(rig.delivery.consume(batch("a", 4)).await.unwrap_err().is_retryable());
    assert!(!rig.delivery.consume(batch("a", 11)).await.unwrap_err().is_retryable());
    rig.delivery.consume(batch("a", 3)).await.unwrap();
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 10.0);
}

#[tokio::test(start_paused = true)]
async fn the_sizer_counts_bytes() {
    let backend = Backend::hanging();
    let size = batch("a", 1).size();
    let config = queue(&format!("{{sizer: bytes, queue_size: {}, max_bytes: 1B}}", 3 * size));
    let rig = Rig::start(&backend, config, RetryConfig::default()).await;
    for _ in 0..3 {
        rig.delivery.consume(batch("a", 1)).await.unwrap();
    }
    assert!(rig.delivery.consume(batch("a", 1)).await.unwrap_err().is_retryable());
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 3.0 * size as f64);
    assert!(!rig.delivery.consume(batch("a", 100)).await.unwrap_err().is_retryable(), "it will never fit");
}

#[tokio::test(start_paused = true)]
async fn num_consumers_requests_are_on_their_way() {
    let backend = Backend::hanging();
    let rig = Rig::start(&backend, queue("{num_consumers: 3}"), RetryConfig::default()).await;
    for _ in 0..9 {
        rig.delivery.consume(batch("a", 1)).await.unwrap();
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(backend.attempts.lock().len(), 3);
    backend.let_through(2);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(backend.attempts.lock().len(), 5);
}

/// Case 45: the backend's code reaches the sender.
#[tokio::test(start_paused = true)]
async fn wait_for_result_answers_with_the_outcome() {
    let refused = Outcome::Refused { code: Code::InvalidArgument, message: "bad".to_owned() };
    let backend = Backend::answering([refused]);
    let rig = Rig::start(&backend, queue("{wait_for_result: true}"), RetryConfig::default()).await;
    let refusal = rig.delivery.consume(batch("a", 2)).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.is_retryable()), (Code::InvalidArgument, false));
    assert_eq!(rig.ledger.count(Entry::Accepted), 0);
    assert_eq!(rig.ledger.dropped_count(DropReason::Rejected), 0, "the sender still has it");
    rig.delivery.consume(batch("b", 2)).await.unwrap();
    assert_eq!(rig.ledger.count(Entry::Exported), 2);
    assert_eq!(rig.ledger.held_count(), 0);
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn an_empty_batch_is_nothing_to_send() {
    let backend = Backend::answering([]);
    let rig = Rig::start(&backend, QueueConfig::default(), RetryConfig::default()).await;
    rig.delivery.consume(batch("a", 0)).await.unwrap();
    yield_now().await;
    assert!(backend.attempts.lock().is_empty());
}

/// A panic in an exporter loses one request, not the queue, and is booked as what it is; whoever waits for the answer gets
/// one that is not to be tried again.
#[tokio::test(start_paused = true)]
async fn a_panic_frees_its_place() {
    let backend = Backend::answering([]);
    let rig = Rig::start(&backend, queue("{num_consumers: 1}"), RetryConfig::default()).await;
    let lying = Batch::from_wire(Signal::Traces, bytes::Bytes::from_static(b"\xff"), 1);
    rig.delivery.consume(lying).await.unwrap();
    rig.delivery.consume(batch("a", 1)).await.unwrap();
    let begin = Instant::now();
    rig.settled().await;
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(*backend.taken.lock(), ["a-0"]);
    assert_eq!(rig.metric("otelcol_exporter_in_flight_requests"), 0.0);
    assert_eq!(rig.ledger.dropped_count(DropReason::InternalError), 1);

    let backend = Arc::new(Backend { panics_at: Some("a"), ..Backend::default() });
    let rig = Rig::start(&backend, queue("{wait_for_result: true}"), RetryConfig::default()).await;
    let refusal = rig.delivery.consume(batch("a", 1)).await.unwrap_err();
    assert!(!refusal.is_retryable() && refusal.message().contains("bug"), "{refusal}");
}
