use std::sync::atomic::Ordering;

use nyquist_core::batch::{DropReason, Refusal};
use nyquist_core::component::{Consumer, ProcessorConfig};
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

/// A stage behind that never answers.
#[derive(Default)]
struct Silent {
    was_asked: tokio::sync::Notify,
}

impl Component for Silent {}

#[async_trait]
impl Consumer for Silent {
    async fn consume(&self, _: Batch) -> Result<(), Refusal> {
        self.was_asked.notify_one();
        std::future::pending().await
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Guarantee: however long the stage behind takes, a shutdown ends by its deadline; it says what is lost, and writes down
/// who has slots.
#[tokio::test]
async fn a_shutdown_ends_by_its_deadline_whatever_the_stage_behind_does() {
    let directory = tempfile::tempdir().unwrap();
    let mut extensions = Extensions::default();
    extensions.insert(&ComponentId::of("place"), Arc::new(Directory(directory.path().to_owned())));
    for is_flushing in [false, true] {
        let (telemetry, silent) = (Telemetry::new(), Arc::new(Silent::default()));
        let next = Arc::clone(&silent) as _;
        let context = test_util::context(Signal::Metrics, next, &extensions, &telemetry, ManualClock::new(BEGIN));
        let ledger = context.ledger.clone();
        // What others of the pipeline hold.
        ledger.held(7);
        let interval = if is_flushing { "1s" } else { "1h" };
        let yaml =
            format!("{{storage: place, flush_interval: {interval}, rules: [{{metrics: ['*'], labels: {{u: 0}}}}]}}");
        let processor = config::<CardinalityLimitConfig>(&yaml).build(context);
        let processor = processor.unwrap();
        processor.start(&test_util::host(&telemetry, None)).await.unwrap();
        tokio::task::yield_now().await;
        for metric in ["c", "d", "e"] {
            let mut data = request(delta(users(&[("a", 1), ("b", 2)], at(0))));
            metric.clone_into(&mut data.resource_metrics[0].scope_metrics[0].metrics[0].name);
            processor.consume(Batch::from_metrics(data)).await.unwrap();
        }
        if is_flushing {
            silent.was_asked.notified().await;
        }
        let deadline = Instant::now() + Duration::from_millis(100);
        let is_over = tokio::time::timeout(Duration::from_secs(60), processor.shutdown(deadline)).await.is_ok();
        assert!(is_over, "flushing {is_flushing}");
        assert_eq!((ledger.held_count(), ledger.dropped_count(DropReason::Shutdown)), (7, 6), "flushing {is_flushing}");
        let page = telemetry.render("");
        let is_written = |line: &&str| line.contains("limit_snapshots{") && line.contains("\"written\"");
        let written = page.lines().find(is_written).unwrap();
        assert!(!written.ends_with(" 0"), "flushing {is_flushing}: {written}");
    }
}
