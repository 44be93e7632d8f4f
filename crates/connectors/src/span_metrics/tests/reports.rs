//! When and how reports leave.

use nyquist_core::batch::DropReason;
use nyquist_core::component::{Component, Host};
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::Entry;
use tokio::time::Instant;

use super::*;

const DELTA: &str =
    "{aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA, exclude_dimensions: [collector.instance.id]}";

/// Changes: each report begins where the last one of the series ended, also after a pause; what has not
/// changed is not reported.
#[tokio::test]
async fn deltas() {
    let rig = Rig::new(DELTA);
    let minute = |number: u64| EPOCH + number * 60_000 * MILLI;
    rig.send(&of_shop(vec![span("a", 5), span("a", 7)]));
    let points = rig.points(MINUTE).await;
    assert_eq!(points.len(), 2, "no zeros: {points:#?}");
    for metric in [".calls", ".duration"] {
        let point = the_one(&points, metric);
        assert_eq!((point.count, point.start, point.time, point.is_delta), (2, minute(0), minute(1), true));
    }
    rig.send(&of_shop(vec![span("a", 1)]));
    let points = rig.points(MINUTE).await;
    let point = the_one(&points, ".duration");
    assert_eq!((point.count, point.sum, point.start, point.time), (1, 1.0, minute(1), minute(2)));
    assert!(rig.points(MINUTE).await.is_empty());
    assert_eq!(rig.gauge("series"), 0, "a silent series takes no room");
    rig.send(&of_shop(vec![span("a", 1)]));
    let points = rig.points(MINUTE).await;
    let point = the_one(&points, ".calls");
    assert_eq!((point.count, point.start, point.time), (1, minute(2), minute(4)), "no gap");
}

/// Of the silent series only so many times are remembered.
#[tokio::test]
async fn remembered_times() {
    let rig = Rig::new("{aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA, metric_timestamp_cache_size: 1}");
    rig.send(&of_shop(vec![span("a", 1), span("b", 1)]));
    rig.points(MINUTE).await;
    rig.points(MINUTE).await;
    rig.points(MINUTE).await;
    rig.send(&of_shop(vec![span("a", 1), span("b", 1)]));
    let points = rig.points(MINUTE).await;
    let mut starts: Vec<_> =
        counted(&points, ".calls").iter().map(|point| (point.start - EPOCH) / MILLI / 60_000).collect();
    starts.sort_unstable();
    assert_eq!(starts, [1, 3], "one goes on from its last report, the other begins anew");
}

/// Exponential deltas are as fine as their own durations allow.
#[tokio::test]
async fn exponential_deltas() {
    let yaml = "{aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA, histogram: {exponential: {max_size: 4}}}";
    let rig = Rig::new(yaml);
    rig.send(&of_shop(vec![span("a", 1), span("a", 1_000_000)]));
    let points = rig.points(MINUTE).await;
    let coarse = the_one(&points, ".duration").exponential.clone().unwrap().0;
    rig.send(&of_shop(vec![span("a", 100), span("a", 101)]));
    let points = rig.points(MINUTE).await;
    let (fine, _, _, counts) = the_one(&points, ".duration").exponential.clone().unwrap();
    assert!(coarse < 0 && fine > 5, "{coarse} {fine}");
    assert_eq!(counts.iter().sum::<u64>(), 2);
}

/// Scenario: the stage behind refuses for a while, then for good. Guarantee: a delta is offered until it
/// is taken, and arrives once; what is refused for good is booked as lost; spans go on being counted.
#[tokio::test(start_paused = true)]
async fn refusals() {
    let rig = Rig::new(DELTA);
    rig.send(&of_shop(vec![span("a", 1), span("a", 1)]));
    *rig.sink.refusals.lock() = vec![Refusal::retryable(None, "busy"), Refusal::retryable(None, "busy")];
    assert_eq!(counted(&rig.points(MINUTE).await, ".calls")[0].count, 2);
    assert_eq!(rig.counter("report_retries"), 2);
    rig.send(&of_shop(vec![span("a", 1)]));
    *rig.sink.refusals.lock() = vec![Refusal::permanent("no")];
    assert!(rig.points(MINUTE).await.is_empty());
    assert_eq!(rig.points.dropped_count(DropReason::Rejected), 2);
    rig.send(&of_shop(vec![span("a", 1)]));
    assert_eq!(counted(&rig.points(MINUTE).await, ".calls")[0].count, 1);
    let ledger = &rig.points;
    assert_eq!((ledger.count(Entry::Created), ledger.count(Entry::Emitted), ledger.held_count()), (6, 4, 0));
}

/// A report with many series leaves in parts, each series in one of them, with one time.
#[tokio::test]
async fn large_reports_leave_in_parts() {
    let rig = Rig::new("{aggregation_cardinality_limit: 0, events: {enabled: true, dimensions: [{name: e}]}}");
    for batch in 0..20 {
        let spans = (0..500).map(|number| {
            let mut span = span(&format!("{batch}-{number}-{}", "n".repeat(100)), 1);
            span.events = vec![Default::default()];
            span
        });
        rig.send(&of_shop(spans.collect()));
    }
    let reports = rig.report(MINUTE).await;
    assert!(reports.len() > 3, "{} parts", reports.len());
    assert!(reports.iter().all(|report| report.encoded_len() < 2 << 20));
    let points = points(&reports);
    for metric in [".calls", ".duration", ".events"] {
        let counted = counted(&points, metric);
        assert_eq!(counted.len(), 10_000, "{metric}");
        assert!(counted.iter().all(|point| point.count == 1 && point.time == EPOCH + 60_000 * MILLI));
    }
}

/// Scenario: the connector runs on its own, then is shut down. Guarantee: a report an interval, and a last
/// one with what came after it; the accounts balance.
#[tokio::test(start_paused = true)]
async fn reports_come_by_themselves() {
    let rig = Rig::new("{metrics_flush_interval: 15s, histogram: {disable: true}}");
    let (fatal, _faults) = tokio::sync::mpsc::unbounded_channel();
    let host = Host {
        runtimes: Runtimes::current(),
        clock: Arc::clone(&rig.clock) as Arc<dyn Clock>,
        telemetry: Arc::clone(&rig.telemetry),
        fatal,
    };
    rig.connector.start(&host).await.unwrap();
    rig.connector.consume(Batch::from_traces(of_shop(vec![span("a", 1)]))).await.unwrap();
    rig.clock.advance(Duration::from_secs(14));
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert!(rig.sink.reports.lock().is_empty());
    rig.clock.advance(Duration::from_secs(2));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.sink.reports.lock().len(), 1);
    rig.connector.consume(Batch::from_traces(of_shop(vec![span("a", 1)]))).await.unwrap();
    rig.clock.advance(Duration::from_secs(1));
    rig.connector.shutdown(Instant::now() + Duration::from_secs(5)).await;
    let reports = std::mem::take(&mut *rig.sink.reports.lock());
    assert_eq!(reports.len(), 2);
    assert_eq!(the_one(&points(&reports[1..]), ".calls").count, 2);
    assert_eq!((rig.spans.count(Entry::Accepted), rig.spans.count(Entry::Merged)), (2, 2));
    assert_eq!(rig.points.count(Entry::Created), rig.points.count(Entry::Emitted));
}

/// Scenario: the stage behind hangs while the gateway shuts down. Guarantee: the shutdown keeps its
/// deadline, and what was in hand is booked as lost.
#[tokio::test(start_paused = true)]
async fn a_shutdown_keeps_its_deadline() {
    let rig = Rig::new("{histogram: {disable: true}}");
    let busy = Refusal::retryable(Some(Duration::from_secs(3600)), "busy");
    *rig.sink.refusals.lock() = vec![busy.clone(), busy];
    let (fatal, _faults) = tokio::sync::mpsc::unbounded_channel();
    let host = Host {
        runtimes: Runtimes::current(),
        clock: Arc::clone(&rig.clock) as Arc<dyn Clock>,
        telemetry: Arc::clone(&rig.telemetry),
        fatal,
    };
    rig.connector.start(&host).await.unwrap();
    rig.connector.consume(Batch::from_traces(of_shop(vec![span("a", 1)]))).await.unwrap();
    rig.clock.advance(Duration::from_secs(1));
    let begin = Instant::now();
    rig.connector.shutdown(begin + Duration::from_secs(5)).await;
    assert!(begin.elapsed() <= Duration::from_secs(5));
    assert_eq!((rig.points.dropped_count(DropReason::Shutdown), rig.points.held_count()), (2, 0));
}

/// Scenario: four cores count while reports are taken, with few series and short lives, so that series end
/// and come again all the time. Guarantee: every span is in exactly one report.
#[tokio::test]
async fn cores_count_while_reports_are_taken() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    const CORES: usize = 4;
    const REQUESTS: usize = 300;
    let rig = Rig::new(
        "{aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA, aggregation_cardinality_limit: 20, \
         series_expiration: 1s, metrics_expiration: 1s, resource_metrics_cache_size: 2, metrics_flush_interval: 1s}",
    );
    let running = AtomicUsize::new(CORES);
    let mut calls = 0;
    let mut count = |reports: &[MetricsData]| {
        let points = points(reports);
        calls += points.iter().filter(|point| point.metric.ends_with(".calls")).map(|point| point.count).sum::<u64>();
        let durations = points.iter().filter(|point| point.metric.ends_with(".duration"));
        durations.map(|point| point.count).sum::<u64>()
    };
    let mut durations = 0;
    let (state, running) = (&*rig.connector.reporter.state, &running);
    let (reports, taken) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for core in 0..CORES {
            scope.spawn(move || {
                for number in 0..REQUESTS {
                    let service = format!("service-{}", (number / 40 + core) % 4);
                    let spans = (0..10).map(|index| span(&format!("name-{}", (number + index) % 30), 1)).collect();
                    let data = request(vec![resource_spans(vec![text("service.name", &service)], "lib", spans)]);
                    state.take_on(core, &data.encode_to_vec());
                }
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let clock = &rig.clock;
        scope.spawn(move || {
            let mut rest = 2;
            while rest > 0 {
                rest -= usize::from(running.load(Ordering::SeqCst) == 0);
                clock.advance(Duration::from_secs(1));
                let mut at = state.begin_report();
                while let Some(report) = state.next_report(&mut at) {
                    reports.send(report.bytes).unwrap();
                }
                state.expire(&at);
            }
        });
    });
    for bytes in taken {
        durations += count(&[MetricsData::decode(bytes.as_slice()).unwrap()]);
    }
    let sent = (CORES * REQUESTS * 10) as u64;
    assert_eq!((calls, durations), (sent, sent));
}
