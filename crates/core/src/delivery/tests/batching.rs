use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::*;
use crate::batch::Metadata;
use crate::component::Consumer;

async fn started(yaml: &str) -> (Arc<Backend>, Rig) {
    let backend = Backend::answering([]);
    let rig = Rig::start(&backend, queue(yaml), RetryConfig::default()).await;
    (backend, rig)
}

/// Case 63: three requests of 100 become one of 300, after 200 ms.
#[tokio::test(start_paused = true)]
async fn small_requests_are_merged_on_time() {
    let (backend, rig) = started("{batch: {}}").await;
    let begin = Instant::now();
    for name in ["a", "b", "c"] {
        rig.delivery.consume(batch(name, 100)).await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(rig.ledger.held_count(), 300, "what waits is held");
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 3.0);
    rig.settled().await;
    assert_eq!(backend.sizes(), [300]);
    let waited = backend.attempts.lock()[0].0 - begin;
    assert!((200..=203).contains(&waited.as_millis()), "{waited:?}");
    rig.delivery.consume(batch("d", 1)).await.unwrap();
    rig.settled().await;
    assert_eq!(backend.sizes(), [300, 1], "the timer is armed again");
}

/// Case 64: 25 leave as 10, 10, and 5 when their time has come.
#[tokio::test(start_paused = true)]
async fn a_large_request_is_split() {
    let (backend, rig) = started("{batch: {min_size: 10, max_size: 10}}").await;
    rig.delivery.consume(batch("a", 25)).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(backend.sizes(), [10, 10]);
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 1.0, "released with its last piece");
    rig.settled().await;
    assert_eq!(backend.sizes(), [10, 10, 5]);
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn size_sends_before_time() {
    let (backend, rig) = started("{batch: {min_size: 100, flush_timeout: 1h}}").await;
    for _ in 0..4 {
        rig.delivery.consume(batch("a", 40)).await.unwrap();
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(backend.sizes(), [120]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_does_not_wait_for_company() {
    let (backend, rig) = started("{queue_size: 2, batch: {flush_timeout: 1h}}").await;
    rig.delivery.consume(batch("a", 1)).await.unwrap();
    rig.delivery.consume(batch("b", 1)).await.unwrap();
    assert!(rig.delivery.consume(batch("c", 1)).await.is_err());
    rig.settled().await;
    assert_eq!(backend.sizes(), [2]);
    rig.delivery.consume(batch("c", 1)).await.unwrap();
}

/// Scenario: more senders than places wait for room (`block_on_overflow`), in front of a fan-out or not, while what they
/// sent is gathered. Guarantee: nothing waits for its time while somebody waits for its place; requests are as large as the
/// queue makes them, all the same.
#[tokio::test(start_paused = true)]
async fn whoever_waits_for_room_does_not_wait_for_company() {
    for is_reserved in [false, true] {
        let backend = Backend::answering([]);
        let config = queue("{queue_size: 10, block_on_overflow: true, batch: {flush_timeout: 1h}}");
        let rig = Rig::start(&backend, config, RetryConfig::default()).await;
        let begin = Instant::now();
        let send = async |index: usize| {
            let mut batch = batch(&index.to_string(), 1);
            if is_reserved {
                let permits = reserve(&rig.delivery, &batch).await.unwrap();
                // It takes a while until the fan-out comes with the batch.
                sleep(Duration::from_millis(10)).await;
                *batch.permits_mut() = permits;
            }
            rig.delivery.consume(batch).await.unwrap();
        };
        join_all((0..95).map(send)).await;
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        sleep(Duration::from_millis(20)).await;
        assert_eq!(backend.sizes().iter().sum::<usize>(), 90, "the last five have time");
        if !is_reserved {
            assert_eq!(backend.sizes(), [10; 9]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn peers_get_no_more_than_they_take() {
    let (backend, rig) = started("{sizer: bytes, queue_size: 100000000, batch: {min_size: 100000000}}").await;
    let size = batch("a", 20_000).size();
    for _ in 0..50 {
        rig.delivery.consume(batch("a", 20_000)).await.unwrap();
    }
    rig.settled().await;
    let sizes = backend.sizes();
    assert!(sizes.len() > 1);
    assert!(sizes.iter().all(|spans| spans * size / 20_000 <= 4 << 20), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 1_000_000);
}

/// Guarantee: without batching, too, no message passes what peers take; the request keeps its place until its last
/// piece is delivered.
#[tokio::test(start_paused = true)]
async fn what_peers_would_not_take_is_split_before_it_is_sent() {
    let (backend, rig) = started("{num_consumers: 1}").await;
    let large = batch("a", 1_000_000);
    let messages = large.size().div_ceil(4 << 20);
    rig.delivery.consume(large).await.unwrap();
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 1.0);
    rig.settled().await;
    let sizes = backend.sizes();
    assert!((messages..=messages + 1).contains(&sizes.len()), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 1_000_000);
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn partitions_are_not_mixed() {
    let (backend, rig) = started("{batch: {partition: {metadata_keys: [X-Tenant]}}}").await;
    for (index, tenant) in ["red", "blue", "red"].into_iter().enumerate() {
        let headers = vec![("x-tenant".to_owned(), tenant.to_owned())];
        let metadata = Arc::new(Metadata { headers });
        rig.delivery.consume(batch(&format!("{tenant}{index}"), 1).with_metadata(metadata)).await.unwrap();
    }
    rig.settled().await;
    let mut taken: Vec<Vec<String>> = backend.attempts.lock().iter().map(|(_, spans)| spans.clone()).collect();
    taken.sort();
    assert_eq!(taken, [vec!["blue1-0"], vec!["red0-0", "red2-0"]]);
}

/// Guarantee: all values of a header count, in their order; none is not the same as an empty one.
#[tokio::test(start_paused = true)]
async fn all_values_of_a_header_tell_partitions_apart() {
    let (backend, rig) = started("{batch: {partition: {metadata_keys: [X-Tenant]}}}").await;
    let values: [&[&str]; 6] = [&["a"], &["a", "b"], &["a", "c"], &["b", "a"], &[""], &[]];
    for round in 0..2 {
        for (index, values) in values.iter().enumerate() {
            let headers = values.iter().map(|value| ("x-tenant".to_owned(), (*value).to_owned())).collect();
            let metadata = Arc::new(Metadata { headers });
            rig.delivery.consume(batch(&format!("{index}.{round}"), 1).with_metadata(metadata)).await.unwrap();
        }
    }
    rig.settled().await;
    let mut taken: Vec<Vec<String>> = backend.attempts.lock().iter().map(|(_, spans)| spans.clone()).collect();
    taken.sort();
    let expected: Vec<Vec<String>> = (0..6).map(|index| vec![format!("{index}.0-0"), format!("{index}.1-0")]).collect();
    assert_eq!(taken, expected);
}

/// The caller of a merged request hears of its own part's fate.
#[tokio::test(start_paused = true)]
async fn all_who_wait_hear_the_outcome() {
    let refused = Outcome::Refused { code: Code::PermissionDenied, message: "no".to_owned() };
    let backend = Backend::answering([refused]);
    let config = queue("{wait_for_result: true, batch: {}}");
    let rig = Rig::start(&backend, config, RetryConfig::default()).await;
    let (first, second) = tokio::join!(rig.delivery.consume(batch("a", 1)), rig.delivery.consume(batch("b", 1)));
    assert_eq!(first.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(second.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(backend.sizes(), [2]);
}
