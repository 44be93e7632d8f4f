//! Requests that wait together, sent as one.

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::*;
use crate::batch::Metadata;
use crate::component::Consumer;

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

/// Guarantee: each sender hears of the request that its own was a part of.
#[tokio::test(start_paused = true)]
async fn who_waits_hears_of_its_own_request() {
    let refused = Outcome::Refused { code: Code::PermissionDenied, message: "no".to_owned() };
    let size = batch("a", 10).size();
    let backend = Backend { answers: Mutex::new([refused].into()), ..merging(size * 2) };
    let (backend, rig) = started(backend, "{wait_for_result: true}").await;
    let answers = join_all(["a", "b", "c"].map(|name| rig.delivery.consume(batch(name, 10)))).await;
    let codes: Vec<Option<Code>> =
        answers.into_iter().map(|answer| answer.err().map(|refusal| refusal.code())).collect();
    assert_eq!(codes, [Some(Code::PermissionDenied), Some(Code::PermissionDenied), None]);
    assert_eq!(backend.sizes(), [20, 10]);
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
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
