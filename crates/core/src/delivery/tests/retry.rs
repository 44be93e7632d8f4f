use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::*;
use crate::batch::DropReason;
use crate::component::Consumer;
use crate::delivery::Backoff;
use crate::telemetry::Entry;

const NO_QUEUE: &str = "{enabled: false}";

/// Case 59: the first wait is 2.5 to 7.5 s, none exceeds 45 s; the base grows to its cap.
#[test]
fn waits_follow_the_formula() {
    for _ in 0..200 {
        let mut backoff = Backoff::new(&RetryConfig::default());
        let mut base = 5.0f64;
        for _ in 0..12 {
            let wait = backoff.next_wait(None).as_secs_f64();
            assert!(wait >= base * 0.5 - 1e-6 && wait <= base * 1.5 + 1e-6, "{wait} around {base}");
            base = (base * 1.5).min(30.0);
        }
    }
}

#[test]
fn multiplier_cap_and_jitter_are_the_configured_ones() {
    let exact = "initial_interval: 1s, multiplier: 2, max_interval: 5s";
    let mut backoff = Backoff::new(&retry(&format!("{{{exact}, randomization_factor: 0}}")));
    assert_eq!([(); 5].map(|()| backoff.next_wait(None).as_secs()), [1, 2, 4, 5, 5]);
    for _ in 0..200 {
        let mut backoff = Backoff::new(&retry(&format!("{{{exact}, randomization_factor: 0.1}}")));
        let wait = backoff.next_wait(None).as_secs_f64();
        assert!((0.9..=1.1).contains(&wait), "{wait}");
    }
}

#[test]
fn the_backend_may_ask_for_more_but_not_for_less() {
    let mut backoff = Backoff::new(&retry("{initial_interval: 5s, randomization_factor: 0}"));
    assert_eq!(backoff.next_wait(Some(Duration::from_secs(60))), Duration::from_secs(60));
    assert_eq!(backoff.next_wait(Some(Duration::from_secs(1))), Duration::from_millis(7500));
    assert_eq!(backoff.next_wait(Some(Duration::from_secs(86_400))), Duration::from_secs(3600), "nobody means a day");
}

#[test]
fn absurd_settings_do_not_panic() {
    let config =
        retry("{initial_interval: 2500000h, multiplier: 1.0e+300, max_interval: 2500000h, max_elapsed_time: 0}");
    let mut backoff = Backoff::new(&config);
    for _ in 0..5 {
        backoff.next_wait(None);
    }
}

/// Case 57: with the defaults a request is given up after 300 s.
#[tokio::test(start_paused = true)]
async fn a_long_outage_drops_after_five_minutes() {
    let backend = Backend::answering((0..1000).map(|_| down()));
    let rig = Rig::start(&backend, QueueConfig::default(), RetryConfig::default()).await;
    let begin = Instant::now();
    rig.delivery.consume(batch("a", 7)).await.unwrap();
    rig.settled().await;
    let gave_up = begin.elapsed().as_secs_f64();
    assert!((300.0..300.1).contains(&gave_up), "{gave_up}");
    assert_eq!(rig.ledger.dropped_count(DropReason::RetriesExhausted), 7);
    assert_eq!(rig.metric("otelcol_exporter_send_failed_spans"), 7.0, "counted once, not per attempt");
    let attempts = backend.attempts.lock();
    let waits: Vec<f64> = attempts.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64()).collect();
    assert!(waits.iter().all(|wait| *wait <= 45.1), "{waits:?}");
}

/// Case 58.
#[tokio::test(start_paused = true)]
async fn without_a_limit_nothing_is_ever_dropped() {
    let backend = Backend::answering((0..200).map(|_| down()));
    let rig = Rig::start(&backend, QueueConfig::default(), retry("{max_elapsed_time: 0}")).await;
    rig.delivery.consume(batch("a", 1)).await.unwrap();
    rig.settled().await;
    assert_eq!(backend.attempts.lock().len(), 201);
    assert_eq!(rig.ledger.count(Entry::Exported), 1);
}

/// Case 55 and 56: what the backend asks for is waited for.
#[tokio::test(start_paused = true)]
async fn a_delay_from_the_backend_is_kept() {
    let after = Some(Duration::from_secs(30));
    let busy = Outcome::Retry { code: Code::ResourceExhausted, after, message: "busy".to_owned() };
    let backend = Backend::answering([busy]);
    let rig = Rig::start(&backend, queue(NO_QUEUE), RetryConfig::default()).await;
    let begin = Instant::now();
    rig.delivery.consume(batch("a", 1)).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(30));
}

/// Scenario: a backend asks for a delay that ends a second after a request is given up. Guarantee: the request waits for
/// as long as it may, and one last attempt decides.
#[tokio::test(start_paused = true)]
async fn a_delay_beyond_the_limit_ends_with_it() {
    let later = |seconds| Outcome::Retry {
        code: Code::ResourceExhausted,
        after: Some(Duration::from_secs(seconds)),
        message: "busy".to_owned(),
    };
    for (answers, exported) in [(vec![later(301)], 1), (vec![later(301), later(1)], 0)] {
        let backend = Backend::answering(answers);
        let rig = Rig::start(&backend, QueueConfig::default(), RetryConfig::default()).await;
        let begin = Instant::now();
        rig.delivery.consume(batch("a", 1)).await.unwrap();
        rig.settled().await;
        assert!((300.0..300.1).contains(&begin.elapsed().as_secs_f64()), "{:?}", begin.elapsed());
        assert_eq!(backend.attempts.lock().len(), 2);
        assert_eq!(rig.ledger.count(Entry::Exported), exported);
        assert_eq!(rig.ledger.dropped_count(DropReason::RetriesExhausted), 1 - exported);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_tried_again() {
    let refused = Outcome::Refused { code: Code::InvalidArgument, message: "bad".to_owned() };
    let backend = Backend::answering([refused]);
    let rig = Rig::start(&backend, QueueConfig::default(), RetryConfig::default()).await;
    rig.delivery.consume(batch("a", 3)).await.unwrap();
    rig.settled().await;
    assert_eq!(backend.attempts.lock().len(), 1);
    assert_eq!(rig.ledger.dropped_count(DropReason::Rejected), 3);
    assert_eq!(rig.metric("otelcol_exporter_send_failed_spans"), 3.0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_ends_with_its_timeout() {
    let backend = Backend::hanging();
    let rig = Rig::start(&backend, queue(NO_QUEUE), retry("{enabled: false}")).await;
    let begin = Instant::now();
    let refusal = rig.delivery.consume(batch("a", 1)).await.unwrap_err();
    assert_eq!(begin.elapsed().as_secs(), 5);
    assert_eq!((refusal.code(), refusal.is_retryable()), (Code::DeadlineExceeded, true));
}

/// Peers have limits that nobody told us: what is too large is sent in halves.
#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_split() {
    let too_large = || Outcome::TooLarge { message: "larger than max".to_owned() };
    let backend = Backend::answering([too_large(), too_large()]);
    let rig = Rig::start(&backend, QueueConfig::default(), RetryConfig::default()).await;
    rig.delivery.consume(batch("a", 8)).await.unwrap();
    rig.settled().await;
    assert_eq!(backend.sizes(), [8, 4, 2, 2, 4]);
    assert_eq!(rig.ledger.count(Entry::Exported), 8);
    let backend = Backend::answering((0..9).map(|_| too_large()));
    let rig = Rig::start(&backend, QueueConfig::default(), RetryConfig::default()).await;
    rig.delivery.consume(batch("a", 1)).await.unwrap();
    rig.settled().await;
    assert_eq!(rig.ledger.dropped_count(DropReason::Rejected), 1, "one item cannot be split");
    assert_eq!(rig.metric("otelcol_exporter_in_flight_requests"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_of_an_outage() {
    let backend = Backend::answering([down()]);
    let rig = Rig::start(&backend, QueueConfig::default(), RetryConfig::default()).await;
    assert_eq!(rig.delivery.status().unwrap().failing_since, None);
    rig.delivery.consume(batch("a", 1)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let status = rig.delivery.status().unwrap();
    assert!(status.failing_since.is_some());
    assert_eq!(status.last_error.as_deref(), Some("down"));
    rig.settled().await;
    assert_eq!(rig.delivery.status().unwrap().failing_since, None);
}
