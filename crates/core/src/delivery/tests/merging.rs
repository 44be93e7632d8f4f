//! Requests that wait together, sent as one.

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::*;
use crate::batch::{DropReason, Metadata};
use crate::component::Consumer;
use crate::telemetry::Entry;

fn merging(up_to: usize) -> Backend {
    Backend { merges_up_to: up_to, ..Backend::default() }
}

async fn started(backend: Backend, yaml: &str) -> (Arc<Backend>, Rig) {
    let backend = Arc::new(backend);
    let rig = Rig::start(&backend, queue(yaml), RetryConfig::default()).await;
    (backend, rig)
}

/// All that came before a consumer had its turn goes at once, in order, and nothing waits for more.
#[tokio::test(start_paused = true)]
async fn what_came_together_goes_together() {
    let (backend, rig) = started(merging(1 << 20), "{}").await;
    let begin = Instant::now();
    for name in ["a", "b", "c"] {
        rig.delivery.consume(batch(name, 2)).await.unwrap();
    }
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 3.0);
    rig.settled().await;
    rig.delivery.consume(batch("d", 2)).await.unwrap();
    rig.settled().await;
    assert_eq!(backend.sizes(), [6, 2]);
    assert_eq!(*backend.taken.lock(), ["a-0", "a-1", "b-0", "b-1", "c-0", "c-1", "d-0", "d-1"]);
    assert_eq!(backend.attempts.lock()[0].0, begin, "at once");
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
}

/// Requests do not grow beyond the bound; what is larger by itself goes alone; and as many are on their way as there
/// are consumers.
#[tokio::test(start_paused = true)]
async fn requests_stay_within_the_bound() {
    let size = batch("a", 10).size();
    let backend = Backend { gate: Some(Semaphore::new(0)), ..merging(size * 3) };
    let (backend, rig) = started(backend, "{num_consumers: 2}").await;
    for spans in [10, 10, 10, 10, 50, 10, 10] {
        rig.delivery.consume(batch("a", spans)).await.unwrap();
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(backend.sizes(), [30, 10]);
    assert_eq!(rig.metric("otelcol_exporter_in_flight_requests"), 2.0);
    // What has come meanwhile goes with what waited.
    rig.delivery.consume(batch("b", 10)).await.unwrap();
    backend.let_through(10);
    rig.settled().await;
    assert_eq!(backend.sizes(), [30, 10, 50, 30]);
}

#[tokio::test(start_paused = true)]
async fn clients_whose_headers_matter_are_not_mixed() {
    let (backend, rig) = started(Backend { reads: Some("x-tenant"), ..merging(1 << 20) }, "{}").await;
    for (index, tenant) in ["red", "red", "blue", "red"].into_iter().enumerate() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = vec![header("x-tenant", tenant), header("x-other", &index.to_string())];
        let metadata = Arc::new(Metadata { headers });
        rig.delivery.consume(batch(tenant, 1).with_metadata(metadata)).await.unwrap();
    }
    rig.settled().await;
    assert_eq!(backend.sizes(), [2, 1, 1]);
}

/// Guarantee: what is refused together is sent one by one, once, so that only what is bad is dropped; and each sender
/// hears of its own.
#[tokio::test(start_paused = true)]
async fn a_bad_one_takes_no_other_down() {
    for waits in [false, true] {
        let backend = Backend { poison: Some("bad"), ..merging(batch("bad", 10).size() * 4) };
        let (backend, rig) = started(backend, &format!("{{num_consumers: 1, wait_for_result: {waits}}}")).await;
        let answers = join_all(["a", "bad", "b", "c", "d"].map(|name| rig.delivery.consume(batch(name, 10)))).await;
        rig.settled().await;
        assert_eq!(backend.sizes(), [40, 10, 10, 10, 10, 10], "four as one, each of them, and the last");
        let taken: Vec<String> = backend.taken.lock().iter().filter(|name| name.ends_with("-0")).cloned().collect();
        assert_eq!(taken, ["a-0", "b-0", "c-0", "d-0"]);
        let codes: Vec<Option<Code>> =
            answers.into_iter().map(|answer| answer.err().map(|refusal| refusal.code())).collect();
        assert_eq!(codes, [None, waits.then_some(Code::InvalidArgument), None, None, None]);
        assert_eq!(
            (rig.ledger.count(Entry::Accepted), rig.ledger.count(Entry::Exported)),
            (if waits { 40 } else { 50 }, 40)
        );
        assert_eq!(rig.ledger.dropped_count(DropReason::Rejected), if waits { 0 } else { 10 });
        assert_eq!(rig.metric("otelcol_exporter_send_failed_spans"), 10.0);
        assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
        assert_eq!(rig.metric("otelcol_exporter_in_flight_requests"), 0.0);
    }
}

/// What only failed for now, is tried again as one.
#[tokio::test(start_paused = true)]
async fn an_outage_does_not_part_them() {
    let (backend, rig) = started(Backend { answers: Mutex::new([down()].into()), ..merging(1 << 20) }, "{}").await;
    for name in ["a", "b"] {
        rig.delivery.consume(batch(name, 2)).await.unwrap();
    }
    rig.settled().await;
    assert_eq!(backend.sizes(), [4, 4]);
}

/// A shutdown that cuts in between leaves nothing unaccounted for, and those that wait hear of it.
#[tokio::test(start_paused = true)]
async fn a_shutdown_may_come_between_the_parts() {
    for waits in [false, true] {
        let gate = Some(Semaphore::new(2));
        let backend = Backend { poison: Some("bad"), gate, ..merging(1 << 20) };
        let (backend, rig) = started(backend, &format!("{{num_consumers: 1, wait_for_result: {waits}}}")).await;
        let consumed = join_all(["a", "bad", "b"].map(|name| rig.delivery.consume(batch(name, 10))));
        let shutdown = async {
            sleep(Duration::from_secs(1)).await;
            rig.delivery.shutdown(Instant::now() + Duration::from_secs(1)).await;
        };
        let (answers, ()) = futures_util::future::join(consumed, shutdown).await;
        assert_eq!(backend.sizes(), [30, 10, 10], "all, the first, and the bad one, which hangs");
        let are_ok: Vec<bool> = answers.iter().map(Result::is_ok).collect();
        assert_eq!(are_ok, [true, !waits, !waits]);
        assert_eq!(rig.ledger.count(Entry::Exported), 10);
        assert_eq!(rig.ledger.dropped_count(DropReason::Shutdown), if waits { 0 } else { 20 });
        assert_eq!(rig.ledger.held_count(), 0);
        assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
    }
}

/// Guarantee: where a request that was made of several is taken in part, those who wait are told of all that is lost, none
/// of more than it sent; and so is the ledger.
#[tokio::test(start_paused = true)]
async fn what_was_taken_in_part_is_shared_out() {
    let partly = || Outcome::Partly { rejected: 5, message: "too old".to_owned() };
    for more in ["", ", batch: {}"] {
        let backend = Backend { answers: Mutex::new([partly()].into()), ..merging(1 << 20) };
        let (backend, rig) = started(backend, &format!("{{wait_for_result: true{more}}}")).await;
        let answers = join_all(["a", "b", "c"].map(|name| rig.delivery.take(batch(name, 2)))).await;
        assert_eq!(backend.sizes(), [6]);
        let lost: Vec<usize> = answers.into_iter().map(|answer| answer.unwrap().items()).collect();
        assert_eq!(lost, [2, 2, 1]);
        assert_eq!((rig.ledger.count(Entry::Exported), rig.ledger.dropped_count(DropReason::PartlyRejected)), (1, 5));
    }
    // A request that had to be cut.
    let too_large = Outcome::TooLarge { message: "too large".to_owned() };
    let backend = Backend { answers: Mutex::new([too_large, partly(), partly()].into()), ..Backend::default() };
    let (backend, rig) = started(backend, "{wait_for_result: true}").await;
    let lost = rig.delivery.take(batch("a", 20)).await.unwrap();
    assert_eq!((backend.sizes(), lost), (vec![20, 10, 10], crate::delivery::Lost::of(DropReason::PartlyRejected, 10)));
}

/// `batch` says how large requests are, where it is there.
#[tokio::test(start_paused = true)]
async fn batching_has_the_last_word() {
    let (backend, rig) = started(merging(1 << 20), "{batch: {min_size: 10, max_size: 10}}").await;
    for _ in 0..3 {
        rig.delivery.consume(batch("a", 10)).await.unwrap();
    }
    rig.settled().await;
    assert_eq!(backend.sizes(), [10, 10, 10]);
}

/// Guarantee: at the shutdown what waits is sent, and a request that is not sent in time is accounted for.
#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_nothing_behind() {
    for hangs in [false, true] {
        let gate = hangs.then(|| Semaphore::new(1));
        let (backend, rig) = started(Backend { gate, ..merging(batch("a", 1).size() * 2) }, "{num_consumers: 1}").await;
        for _ in 0..7 {
            rig.delivery.consume(batch("a", 1)).await.unwrap();
        }
        rig.delivery.shutdown(Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(rig.ledger.held_count(), 0);
        assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
        assert_eq!(rig.metric("otelcol_exporter_in_flight_requests"), 0.0);
        assert_eq!(backend.taken.lock().len(), if hangs { 2 } else { 7 });
    }
}
