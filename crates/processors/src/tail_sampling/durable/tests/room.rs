//! What the log holds, and what happens when it is full.

use super::*;

/// Scenario: one trace of many spans stays undecided for an hour while others come and go. Guarantee: it is
/// written anew, the log stays small, and after a crash it is whole and decided at its time.
#[tokio::test]
async fn a_long_trace_does_not_hold_the_log() {
    long_trace("").await;
}

/// The same, where its spans lie in blocks that are compressed.
#[tokio::test]
async fn a_compressed_trace_that_holds_the_log_back_is_written_anew() {
    for codec in ["lz4", "zstd"] {
        long_trace(&format!("compression: {codec}, compression_delay: 0s,")).await;
    }
}

async fn long_trace(compression: &str) {
    let yaml = &format!(
        "{{decision_wait: 1h, span_limit: 40, memory_limit_mib: 64, num_shards: 2, storage: file_storage, {compression} \
         rules: [{{name: all, sampling_percentage: 100}}]}}"
    );
    let disk = FaultyDisk::new(2);
    // It counts as full, and is cut into segments of 256 KiB.
    let options = options(Fsync::None, 4 << 20);
    let clock = ManualClock::new(EPOCH);
    let long = id_of(1);
    let mut life = Life::begin(&disk, &options, &clock, yaml).await;
    life.insert(vec![span(long), error(long)]).await.unwrap();
    let mut delivered = 0;
    for number in 0..300 {
        let short = id_of(100 + number);
        life.insert((0..40).map(|_| large_span(short, 2000)).collect()).await.unwrap();
        if number == 150 {
            life.insert(vec![span(long)]).await.unwrap();
        }
        clock.advance(Duration::from_secs(10));
        life.decide();
        delivered += life.deliver().await.values().sum::<usize>();
        life.keeper.tick().await;
        assert!(life.durable.log.usage().bytes < 7 << 19, "{:?}", life.durable.log.usage());
    }
    assert_eq!(delivered, 300 * 40, "a span limit decides at once");
    assert!(life.durable.metrics.anew.get() >= 3);
    life.crash(&disk, false).await;

    let life = Life::begin(&disk, &options, &clock, yaml).await;
    assert_eq!(life.restored, 3, "every span of it, once");
    clock.advance(Duration::from_secs(599));
    life.decide();
    assert_eq!(life.deliver().await, BTreeMap::new());
    clock.advance(Duration::from_secs(1));
    life.decide();
    assert_eq!(life.deliver().await, BTreeMap::from([(long, 3)]), "an hour after its first span");
}

/// Scenario: the storage has no room. Guarantee: a typed refusal; or, if memory is enough, the request is
/// taken, counted, and the status says so until there is room again.
#[tokio::test]
async fn a_full_storage_refuses_or_memory_is_enough() {
    let clock = ManualClock::new(EPOCH);
    let id = rejected();
    let spans = || vec![large_span(id, 30_000)];
    let limits = options(Fsync::None, 64 << 10);
    let life = Life::begin(&FaultyDisk::new(3), &limits, &clock, RULES).await;
    life.insert(spans()).await.unwrap();
    life.insert(spans()).await.unwrap();
    let refusal = life.insert(spans()).await.unwrap_err();
    assert!(refusal.is_retryable() && refusal.retry_delay().is_some());
    assert!(refusal.message().contains("storage is full"), "{}", refusal.message());
    assert!(life.durable.room(&Life::batch(spans())).is_err());
    assert!(life.durable.status().is_none());
    let too_large = life.insert(vec![large_span([0; 16], 100_000)]).await.unwrap_err();
    assert!(!too_large.is_retryable());

    let disk = FaultyDisk::new(4);
    let mut life = Life::begin(&disk, &limits, &clock, &format!("{RULES}storage_full: memory")).await;
    for _ in 0..4 {
        life.durable.room(&Life::batch(spans())).unwrap();
        life.insert(spans()).await.unwrap();
    }
    assert_eq!(life.durable.metrics.memory_only.get(), 2);
    assert!(life.durable.status().unwrap().last_error.unwrap().contains("storage is full"));
    clock.advance(Duration::from_secs(10));
    life.decide();
    life.keeper.tick().await;
    // Releases are not waited for.
    life.durable.log.sync().await.unwrap();
    life.insert(spans()).await.unwrap();
    assert!(life.durable.status().is_none());
    assert_eq!(life.durable.metrics.memory_only.get(), 2);
}

/// Scenario: two samplers have a storage. Guarantee: the gauge shows what both take, without one that is gone.
#[test]
fn the_bytes_of_all_storages_add_up() {
    let telemetry = Telemetry::new();
    let (one, other) = (Metrics::new(&telemetry), Metrics::new(&telemetry));
    one.bytes.set(1000);
    other.bytes.set(10);
    let shown = || telemetry.gauge("otelcol_processor_tail_sampling_storage_bytes", "", &[]).get();
    assert_eq!(shown(), 1010);
    drop(one);
    assert_eq!(shown(), 10);
}
