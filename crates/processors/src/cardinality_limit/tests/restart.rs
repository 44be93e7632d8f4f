//! What survives the process with `storage`.

use nyquist_core::component::ProcessorConfig;

use super::points as points_of;
use super::*;

const STORED: &str = "storage: place, rules: [{metrics: [c], labels: {u: 2}}]";

/// Flips bytes in all files of the log.
fn damage(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.iter_mut().skip(40).step_by(7).for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, bytes).unwrap();
    }
}

/// L33: a damaged snapshot does not stop a start; the limiter begins empty, and says so.
#[tokio::test]
async fn a_damaged_snapshot_is_counted_and_left() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::stored(&format!("{{{STORED}}}"), directory.path(), BEGIN).await;
    bench.step(&request(cumulative(users(&[("a", 1), ("b", 2)], at(0))))).await;
    bench.stop().await;
    assert_eq!(bench.own_with("snapshots", "written"), 1.0);
    damage(directory.path());
    let bench = Bench::stored(&format!("{{{STORED}}}"), directory.path(), BEGIN).await;
    assert_eq!(bench.own_with("snapshots", "unreadable"), 1.0, "L33");
    let step = bench.step(&request(cumulative(users(&[("z", 1), ("y", 2)], at(0))))).await;
    assert_eq!(values(&step), map(&[("u=z", 1.0), ("u=y", 2.0)]), "L33");
    bench.stop().await;
    let bench = Bench::stored(&format!("{{{STORED}}}"), directory.path(), BEGIN).await;
    assert_eq!(bench.own_with("snapshots", "restored"), 1.0, "L33: the next one is good again");
}

/// Guarantee: bytes of any content are a snapshot or none; never a panic, and what was read before the damage leaves
/// nothing behind.
#[tokio::test]
async fn cut_and_changed_snapshots_are_refused_whole() {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    let bench = Bench::new(&format!("{{{TWO_USERS}, default: {{max_series_per_metric: 5}}}}"));
    let points = (0..20).map(|index| point(&format!("u={index},m={}", index % 3), 1, at(0))).collect();
    bench.step(&request(cumulative(points))).await;
    let bytes = bench.limiter.snapshot(1 << 20).collect::<Vec<_>>().concat();
    for len in 0..bytes.len() {
        let mut fresh = Bench::new("{}");
        assert!(!fresh.limiter.restore(&bytes[..len]), "cut to {len}");
        assert_eq!(fresh.limiter.shared.series(), 0);
    }
    let mut random = SmallRng::seed_from_u64(3);
    for _ in 0..2000 {
        let mut bytes = bytes.clone();
        for _ in 0..random.random_range(1..4) {
            let place = random.random_range(0..bytes.len());
            bytes[place] = random.random();
        }
        let mut fresh = Bench::new("{}");
        if !fresh.limiter.restore(&bytes) {
            assert_eq!(fresh.limiter.shared.series(), 0);
        }
        fresh.step(&request(cumulative(users(&[("a", 1), ("b", 2)], at(0))))).await;
    }
    let mut whole = Bench::new("{}");
    assert!(whole.limiter.restore(&bytes));
    assert_eq!(whole.limiter.shared.series(), bench.limiter.shared.series());
}

/// Scenario: the processor as the pipeline runs it, twice. Guarantee: nothing is taken in before the storage is open, and
/// the second run finds the choice of the first.
#[tokio::test]
async fn the_processor_opens_and_closes_its_storage() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for export in 0..2 {
        let (sink, telemetry) = (Arc::new(Sink::default()), Telemetry::new());
        let mut extensions = Extensions::default();
        extensions.insert(&ComponentId::of("place"), Arc::new(Directory(directory.path().to_owned())));
        let clock = ManualClock::new(BEGIN + 15 * SECOND * export);
        let context = test_util::context(Signal::Metrics, Arc::clone(&sink) as _, &extensions, &telemetry, clock);
        let processor = config::<CardinalityLimitConfig>(&format!("{{{STORED}}}")).build(context).unwrap();
        let names: &[_] = if export == 0 { &["a", "b"] } else { &["z", "a", "b"] };
        let points = names.iter().map(|name| point(&format!("u={name}"), 1, at(export))).collect();
        let data = request(cumulative(points));
        let early = processor.consume(Batch::from_metrics(data.clone())).await;
        assert!(early.unwrap_err().is_retryable());
        processor.start(&test_util::host(&telemetry, None)).await.unwrap();
        processor.consume(Batch::from_metrics(data)).await.unwrap();
        processor.shutdown(tokio::time::Instant::now() + Duration::from_secs(60)).await;
        seen.push(sink.take().into_iter().flat_map(points_of).map(|point| point.attributes).collect::<Vec<_>>());
    }
    assert_eq!(seen, [vec!["u=a", "u=b"], vec!["u=a", "u=b", "u=other"]]);
}

#[test]
fn a_storage_that_is_not_there_is_named() {
    let (telemetry, extensions) = (Telemetry::new(), Extensions::default());
    let sink = Arc::new(Sink::default());
    let context = test_util::context(Signal::Metrics, sink as _, &extensions, &telemetry, ManualClock::new(BEGIN));
    let error = config::<CardinalityLimitConfig>("{storage: file_storage}").build(context).err().unwrap();
    assert!(format!("{error:?}").contains("file_storage"), "{error:?}");
}

/// Guarantee: parts of any size give the same snapshot.
#[tokio::test]
async fn a_snapshot_in_parts_is_the_snapshot() {
    let bench = Bench::new("{}");
    let points = (0..500).map(|index| point(&format!("u={index}"), 1, at(0))).collect();
    bench.step(&request(cumulative(points))).await;
    let parts: Vec<Vec<u8>> = bench.limiter.snapshot(100).collect();
    assert!(parts.len() > 50 && parts.iter().rev().skip(1).all(|part| part.len() == 100));
    let mut again = Bench::new("{}");
    assert!(again.limiter.restore(&parts.concat()));
    assert_eq!(again.limiter.shared.series(), 500);
}

/// Scenario: the process is away for longer than `idle_ttl`. Guarantee: nobody keeps a slot for it.
#[tokio::test]
async fn slots_that_would_have_been_idle_are_free() {
    let directory = tempfile::tempdir().unwrap();
    let yaml = format!("{{{STORED}, idle_ttl: 160s}}");
    let bench = Bench::stored(&yaml, directory.path(), BEGIN).await;
    bench.step(&request(cumulative(users(&[("a", 1), ("b", 2)], at(0))))).await;
    bench.stop().await;
    let later = BEGIN + 400 * SECOND;
    let bench = Bench::stored(&yaml, directory.path(), later).await;
    let new = |user: &str| NumberDataPoint { start_time_unix_nano: later + 1, ..point(user, 1, later + SECOND) };
    let step = bench.step(&request(cumulative(vec![new("u=y"), new("u=z")]))).await;
    assert_eq!(values(&step), map(&[("u=y", 1.0), ("u=z", 1.0)]));
}

/// Scenario: the limit is lower after the restart. Guarantee: it holds, the series of those that lost their slot end.
#[tokio::test]
async fn a_lower_limit_holds_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let limit = |limit| format!("{{storage: place, rules: [{{metrics: [c], labels: {{u: {limit}}}}}]}}");
    let bench = Bench::stored(&limit(3), directory.path(), BEGIN).await;
    let all = [("a", 1), ("b", 2), ("d", 3)];
    bench.step(&request(cumulative(users(&all, at(0))))).await;
    bench.stop().await;
    let bench = Bench::stored(&limit(1), directory.path(), at(0) + 1).await;
    let step = bench.step(&request(cumulative(users(&all, at(1))))).await;
    assert_eq!(step.iter().filter(|point| point.is_end).count(), 2, "{step:?}");
    let step = bench.step(&request(cumulative(users(&all, at(2))))).await;
    let own: Vec<&String> = values(&step).into_keys().collect::<Vec<_>>().leak().iter().collect();
    assert_eq!(own.len(), 2, "{own:?}");
    assert!(own.iter().any(|series| *series == "u=other"), "{own:?}");
}

/// Scenario: the process dies between two snapshots, and while one is written. Guarantee: the last whole one counts.
#[tokio::test]
async fn half_a_snapshot_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::stored(&format!("{{{STORED}}}"), directory.path(), BEGIN).await;
    bench.step(&request(cumulative(users(&[("a", 1), ("b", 2)], at(0))))).await;
    bench.stop().await;
    // The beginning of another one.
    let (log, _) = Log::open(&Options::new(directory.path().to_owned())).await.unwrap();
    let part = bench.limiter.snapshot(60).next().unwrap();
    log.append(1, 0, 0, vec![part.into()]).await.unwrap();
    log.close().await;
    let bench = Bench::stored(&format!("{{{STORED}}}"), directory.path(), BEGIN + 30 * SECOND).await;
    assert_eq!(bench.own_with("snapshots", "restored"), 1.0);
    let step = bench.step(&request(cumulative(users(&[("z", 5), ("a", 2), ("b", 2)], at(3))))).await;
    assert_eq!(values(&step), map(&[("u=a", 2.0), ("u=b", 2.0), ("u=other", 0.0)]));
    bench.stop().await;
}

/// What `kill -9` leaves: a copy of the directory while the log is open.
fn killed(directory: &Path) -> tempfile::TempDir {
    let left = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, left.path().join(path.file_name().unwrap())).unwrap();
    }
    left
}

/// Scenario: `kill -9` when the last snapshot is older than the last points. Guarantee: those that had slots in it have
/// them still, even if strangers are first.
#[tokio::test]
async fn after_a_kill_the_choice_is_that_of_the_last_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::stored(&format!("{{{STORED}}}"), directory.path(), BEGIN).await;
    bench.step(&request(cumulative(users(&[("a", 1), ("b", 2)], at(0))))).await;
    assert!(bench.place.as_ref().unwrap().save(&bench.limiter).await);
    bench.step(&request(cumulative(users(&[("a", 2), ("b", 3), ("z", 7)], at(1))))).await;
    let left = killed(directory.path());
    let bench = Bench::stored(&format!("{{{STORED}}}"), left.path(), at(1) + SECOND).await;
    let step = bench.step(&request(cumulative(users(&[("z", 9), ("y", 5), ("b", 4), ("a", 3)], at(2))))).await;
    assert_eq!(values(&step), map(&[("u=a", 3.0), ("u=b", 4.0), ("u=other", 0.0)]));
    let step = bench.step(&request(cumulative(users(&[("z", 10), ("y", 5)], at(3))))).await;
    assert_eq!(values(&step), map(&[("u=other", 1.0)]));
}

/// Scenario: a series loses its slot after the last snapshot, is counted with others, and that is reported; then
/// `kill -9`. Guarantee: it does not go on with its slot as if nothing had happened, as what it has grown by meanwhile
/// would count twice.
#[tokio::test]
async fn after_a_kill_a_series_that_had_lost_its_slot_counts_once() {
    let directory = tempfile::tempdir().unwrap();
    let yaml = "{storage: place, default: {max_series_per_metric: 1}}";
    let bench = Bench::stored(yaml, directory.path(), BEGIN).await;
    bench.step(&request(cumulative(users(&[("a", 10)], at(0))))).await;
    assert!(bench.place.as_ref().unwrap().save(&bench.limiter).await);
    bench.step(&request(cumulative(users(&[("b", 5)], at(1))))).await;
    bench.step(&request(cumulative(users(&[("a", 12)], at(2))))).await;
    let step = bench.step(&request(cumulative(users(&[("a", 15)], at(3))))).await;
    assert_eq!(values(&step), map(&[("u=other", 8.0)]));
    let left = killed(directory.path());
    let bench = Bench::stored(yaml, left.path(), at(3) + SECOND).await;
    let step = bench.step(&request(cumulative(users(&[("a", 20)], at(4))))).await;
    assert_eq!(values(&step), map(&[("u=other", 0.0)]));
    let step = bench.step(&request(cumulative(users(&[("a", 21)], at(5))))).await;
    assert_eq!(values(&step), map(&[("u=other", 1.0)]));
}

/// Scenario: a point that was on its way when the process ended comes after one that was counted. Guarantee: it is no
/// baseline, as what came between the two would count twice.
#[tokio::test]
async fn a_point_from_before_the_restart_is_no_baseline() {
    let directory = tempfile::tempdir().unwrap();
    let yaml = format!("{{{STORED}}}");
    let bench = Bench::stored(&yaml, directory.path(), BEGIN).await;
    bench.step(&request(cumulative(users(&[("a", 1), ("b", 2), ("c", 9)], at(1))))).await;
    bench.stop().await;
    let bench = Bench::stored(&yaml, directory.path(), at(1) + SECOND).await;
    bench.step(&request(cumulative(users(&[("c", 4)], at(0))))).await;
    assert_eq!(bench.own("rebaselined"), 1.0);
    let step = bench.step(&request(cumulative(users(&[("c", 10)], at(2))))).await;
    assert_eq!(values(&step), map(&[("u=other", 0.0)]));
    let step = bench.step(&request(cumulative(users(&[("c", 12)], at(3))))).await;
    assert_eq!(values(&step), map(&[("u=other", 2.0)]));
}

/// A storage with room for small snapshots only.
struct Small(PathBuf);

#[async_trait]
impl Storage for Small {
    async fn open(&self, _: &Owner) -> Result<(Log, Recovered), Error> {
        Log::open(&Options { max_bytes: 32 << 10, ..Options::new(self.0.clone()) }).await
    }
}

impl Component for Small {}

impl Extension for Small {
    fn storage(&self) -> Option<Arc<dyn Storage>> {
        Some(Arc::new(Self(self.0.clone())))
    }
}

/// Scenario: the storage is full. Guarantee: that is counted, metrics go on, and the last whole snapshot is the one that counts.
#[tokio::test]
async fn a_storage_that_fails_is_counted_and_holds_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut extensions = Extensions::default();
    extensions.insert(&ComponentId::of("place"), Arc::new(Small(directory.path().to_owned())));
    let yaml = "{storage: place, default: {max_series_per_metric: 5000, max_values_per_label: 5000}}";
    let mut bench = Bench::at(yaml, &extensions, BEGIN);
    let place = bench.place.clone().unwrap();
    place.open(&mut bench.limiter).await.unwrap();
    let some =
        |count: u64, time| request(cumulative((0..count).map(|index| point(&format!("u={index}"), 1, time)).collect()));
    bench.step(&some(2, at(0))).await;
    assert!(place.save(&bench.limiter).await);
    for export in 1..4 {
        assert_eq!(bench.step(&some(5000, at(export))).await.len(), 5000);
        assert!(!place.save(&bench.limiter).await);
    }
    assert_eq!(["written", "failed"].map(|result| bench.own_with("snapshots", result)), [1.0, 3.0]);
    bench.stop().await;
    let mut bench = Bench::at(yaml, &extensions, at(4));
    bench.place.clone().unwrap().open(&mut bench.limiter).await.unwrap();
    assert_eq!(bench.own_with("snapshots", "restored"), 1.0);
    assert_eq!(bench.limiter.shared.series(), 2);
    bench.stop().await;
}

/// What the README says a snapshot takes.
#[tokio::test]
async fn a_snapshot_takes_twelve_bytes_a_series_or_value() {
    let bench = Bench::new("{default: {max_series_per_metric: 100000, max_values_per_label: 100000}}");
    let points = (0..50_000).map(|index| point(&format!("m={},u={index}", index % 2), 1, at(0))).collect();
    bench.step(&request(cumulative(points))).await;
    let bytes: usize = bench.limiter.snapshot(1 << 20).map(|part| part.len()).sum();
    let each = bytes as f64 / 100_000.0;
    assert!((9.0..13.0).contains(&each), "{each} bytes each");
}

/// A snapshot with one metric, which has so many labels, and a series that carries values of the first 64.
fn snapshot_with_labels(count: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = Bench::new("{}").limiter.snapshot(usize::MAX).flatten().collect();
    assert_eq!(bytes.pop(), Some(2), "the end");
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.push(text.len() as u8);
        bytes.extend_from_slice(text.as_bytes());
    };
    bytes.push(1);
    bytes.extend_from_slice(&7u64.to_le_bytes());
    text(&mut bytes, "c");
    bytes.extend_from_slice(&0u64.to_le_bytes());
    text(&mut bytes, "");
    bytes.push(count);
    for label in 0..count {
        // One twice, so that it is tracked however many come before it.
        text(&mut bytes, &format!("label{}", label / 2));
        bytes.extend_from_slice(&[0, 0]);
    }
    bytes.push(1);
    bytes.extend_from_slice(&9u64.to_le_bytes());
    bytes.push(0);
    nyquist_core::wire::put_varint(&mut bytes, u64::MAX);
    bytes.push(1);
    bytes.extend_from_slice(&[0, 2]);
    bytes
}

/// Guarantee: a metric with more labels than are ever tracked is no snapshot's, and its limiter begins empty.
#[tokio::test]
async fn a_snapshot_with_too_many_labels_is_refused() {
    for (labels, is_snapshot) in [(64, true), (65, false), (100, false)] {
        let mut bench = Bench::new("{}");
        assert_eq!(bench.limiter.restore(&snapshot_with_labels(labels)), is_snapshot, "{labels} labels");
        assert_eq!(bench.limiter.shared.series(), usize::from(is_snapshot), "{labels} labels");
    }
}
