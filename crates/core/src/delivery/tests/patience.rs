//! Whoever waits for the disk waits no longer than the client.

use super::durable::{Place, place, start, until};
use super::*;
use crate::batch::Patience;
use crate::component::Consumer;

/// Scenario: the storage is full, `block_on_overflow`; one client has a deadline, another goes. Guarantee: both waits
/// end, nothing of either is stored then or later; what was stored before is delivered.
#[tokio::test]
async fn nobody_waits_for_the_disk_longer_than_the_client() {
    let small = Place { max_bytes: 2000, ..place() };
    let backend = Backend::hanging();
    let rig = start(&backend, &small, "{block_on_overflow: true}").await;
    let in_time = || Patience::new(Some(Instant::now() + Duration::from_millis(500)));
    let mut stored = 0;
    let refusal = loop {
        let (_caller, patience) = in_time();
        match patience.of(rig.delivery.consume(batch(&format!("stored{stored}"), 2))).await {
            Ok(()) => stored += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(stored > 4);
    assert_eq!((refusal.code(), refusal.is_retryable()), (Code::DeadlineExceeded, true), "{refusal}");
    let (caller, patience) = Patience::new(None);
    let waiting = Arc::clone(&rig.delivery);
    let waiting = tokio::spawn(patience.of(async move { waiting.consume(batch("gone", 2)).await }));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    drop(caller);
    assert_eq!(waiting.await.unwrap().unwrap_err().code(), Code::Cancelled);
    assert_eq!(rig.metric("otelcol_exporter_enqueue_failed_spans"), 4.0);
    backend.let_through(stored + 2);
    until("all is delivered", || rig.ledger.held_count() == 0).await;
    let taken = super::durable::taken(&backend);
    assert_eq!(taken.len(), 2 * stored);
    assert!(taken.iter().all(|name| name.starts_with("stored")), "{taken:?}");
}
