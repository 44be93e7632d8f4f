use std::sync::atomic::Ordering;

use nyquist_core::batch::DropReason;
use nyquist_core::component::ProcessorConfig;
use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn a_batch_that_is_refused_and_comes_again_is_added_once() {
    let bench = Bench::new(&format!("{{{TWO_USERS}}}"));
    let data = request(delta(users(&[("a", 1), ("b", 2), ("c", 5)], at(0))));
    bench.sink.refuse.store(1, Ordering::SeqCst);
    let mut batch = Batch::from_metrics(data.clone());
    let bytes = batch.wire().clone();
    let refused = bench.limiter.consume(Batch::from_wire(Signal::Metrics, bytes, 3)).await;
    assert!(refused.unwrap_err().is_retryable());
    assert_eq!(bench.ledger.held_count(), 0);
    let step = bench.step(&data).await;
    assert_eq!(values(&step), map(&[("u=a", 1.0), ("u=b", 2.0), ("u=other", 5.0)]));
}

#[tokio::test(start_paused = true)]
async fn a_refused_flush_is_held_and_offered_again() {
    let bench = Bench::new(&format!("{{{TWO_USERS}}}"));
    bench.send(&request(delta(users(&[("a", 1), ("b", 2), ("c", 5)], at(0))))).await;
    assert_eq!(bench.ledger.held_count(), 1);
    bench.sink.refuse.store(3, Ordering::SeqCst);
    bench.limiter.flush(false).await;
    assert_eq!(values(&bench.emitted())["u=other"], 5.0);
    assert_eq!(bench.ledger.held_count(), 0);
    assert_eq!(bench.ledger.count(Entry::Merged), 1);
    assert_eq!(bench.ledger.count(Entry::Created), 1);
}

#[tokio::test(start_paused = true)]
async fn shutdown_flushes_what_is_held_or_says_what_is_lost() {
    for (refusals, lost) in [(0, 0), (usize::MAX, 1)] {
        let (sink, telemetry) = (Arc::new(Sink::default()), Telemetry::new());
        let (extensions, clock) = (Extensions::default(), ManualClock::new(BEGIN));
        let context = test_util::context(Signal::Metrics, Arc::clone(&sink) as _, &extensions, &telemetry, clock);
        let ledger = context.ledger.clone();
        let processor = config::<CardinalityLimitConfig>("{rules: [{metrics: [c], labels: {u: 0}}]}").build(context);
        let processor = processor.unwrap();
        processor.start(&test_util::host(&telemetry, None)).await.unwrap();
        tokio::task::yield_now().await;
        let data = request(delta(users(&[("a", 1), ("b", 2)], at(0))));
        processor.consume(Batch::from_metrics(data)).await.unwrap();
        assert_eq!(ledger.held_count(), 2);
        sink.refuse.store(refusals, Ordering::SeqCst);
        processor.shutdown(Instant::now() + Duration::from_secs(3)).await;
        assert_eq!(ledger.held_count(), 0);
        assert_eq!(ledger.dropped_count(DropReason::Shutdown), lost);
        let emitted: Vec<Point> = sink.take().into_iter().flat_map(points).collect();
        assert_eq!(emitted.len() as u64, 1 - lost);
    }
}
