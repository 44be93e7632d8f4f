use super::*;

/// Sends `count` users in batches of 10,000, each with value 1 at `time`.
async fn send_users(bench: &Bench, count: u64, time: u64, make: impl Fn(Vec<NumberDataPoint>) -> Data) -> Vec<Point> {
    let mut emitted = Vec::new();
    for first in (0..count).step_by(10_000) {
        let points = (first..count.min(first + 10_000)).map(|user| point(&format!("u={user}"), 1, time)).collect();
        bench.send(&request(make(points))).await;
        emitted.extend(bench.emitted());
    }
    bench.limiter.flush(false).await;
    emitted.extend(bench.emitted());
    emitted
}

/// How many hostile values. `examples/cardinality_limit_hostile.rs` does the same with ten million.
const USERS: u64 = 200_000;

/// L15: with a label limit of two, all other values are one series, and nothing of it is lost.
#[tokio::test]
async fn hostile_values_stay_within_budget_and_memory() {
    for (name, make) in [("cumulative", cumulative as fn(_) -> _), ("delta", delta)] {
        let bench = Bench::new(&format!("{{{TWO_USERS}}}"));
        let step = send_users(&bench, USERS, at(0), make).await;
        assert_eq!((values(&step).len(), values(&step)["u=other"]), (3, USERS as f64 - 2.0), "L15: {name}");
        assert_eq!(bench.own("rebaselined"), 0.0, "L15: {name}");
        let limit = 256.0 * 1024.0 * 1024.0;
        assert!(bench.own("state_bytes") <= limit, "L15: {name}: {}", bench.own("state_bytes"));
        let used = ["memory", "series"].map(|scope| bench.own_with("budget_used_ratio", &format!("\"{scope}\"")));
        assert_eq!(used, [bench.own("state_bytes") / limit, 3.0 / 1e6], "L15: {name}");
    }
}

/// L16: where memory is short, sums fall short by what the counter says, and never count anything twice; a restart keeps
/// who has the slots.
#[tokio::test]
async fn with_little_memory_sums_fall_short_by_what_the_counter_says() {
    let directory = tempfile::tempdir().unwrap();
    let yaml = format!("{{{TWO_USERS}, memory_limit_mib: 4, storage: place}}");
    let bench = Bench::stored(&yaml, directory.path(), BEGIN).await;
    let limit = 4.0 * 1024.0 * 1024.0;
    let sum = |points: &[Point]| values(points).get("u=other").copied();
    let first = sum(&send_users(&bench, USERS, at(0), cumulative).await).unwrap();
    assert_eq!(first + bench.own("rebaselined"), USERS as f64 - 2.0, "L16");
    assert!(bench.own("state_bytes") <= limit, "L16: {}", bench.own("state_bytes"));
    // The same values again: nothing has grown, so nothing may be added.
    let second = sum(&send_users(&bench, USERS, at(1), cumulative).await).unwrap();
    assert_eq!(second, first, "L16");
    assert!(bench.own("state_bytes") <= limit, "L16: {}", bench.own("state_bytes"));
    assert!(bench.own("rebaselined") > 0.0 && bench.own("evictions") > 0.0, "L16");
    bench.stop().await;

    let bench = Bench::stored(&yaml, directory.path(), at(1) + 1).await;
    let step = bench.step(&request(cumulative(users(&[("stranger", 5), ("0", 2), ("1", 3)], at(2))))).await;
    assert_eq!(values(&step), map(&[("u=0", 2.0), ("u=1", 3.0), ("u=other", 0.0)]), "L16");
    bench.stop().await;
}

#[tokio::test]
async fn hostile_names_keys_and_resources_stay_within_memory_and_nothing_is_lost_silently() {
    let bench = Bench::new("{memory_limit_mib: 2, default: {max_series_per_metric: 50}}");
    for round in 0..40u64 {
        let mut data = MetricsData::default();
        for index in 0..250u64 {
            let id = round * 250 + index;
            let labels = format!("key{id}={id},other{}={id}", id % 90);
            let mut one = of(&format!("host-{id}-{}", "x".repeat(200)), delta(vec![point(&labels, 1, at(round))]));
            one.resource_metrics[0].scope_metrics[0].metrics[0].name = format!("metric{}", id % 700);
            data.resource_metrics.extend(one.resource_metrics);
        }
        bench.step(&data).await;
        assert!(bench.own("state_bytes") <= 2.0 * 1024.0 * 1024.0, "{}", bench.own("state_bytes"));
    }
}

#[tokio::test]
async fn foreign_bytes_do_not_panic() {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    let mut random = SmallRng::seed_from_u64(7);
    let valid = request(cumulative(users(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)], at(0)))).encode_to_vec();
    let bench = Bench::new("{rules: [{metrics: ['*'], labels: {u: 1}}]}");
    for _ in 0..5000 {
        let mut bytes = valid.clone();
        for _ in 0..random.random_range(1..6) {
            let place = random.random_range(0..bytes.len());
            bytes[place] = random.random();
        }
        let batch = Batch::from_wire(Signal::Metrics, bytes.into(), 4);
        bench.limiter.consume(batch).await.unwrap();
    }
    bench.limiter.flush(true).await;
}

/// Guarantee: what is booked is what the state takes, with what waits to be emitted.
#[tokio::test]
async fn what_is_booked_is_what_is_there() {
    let bench = Bench::new("{rules: [{metrics: [c], labels: {u: 0}}]}");
    let limiter = &bench.limiter;
    for batch in 0..5u64 {
        for round in 0..5 {
            let mut data = MetricsData::default();
            for id in 0..1000 {
                let points = users(&[("a", 1)], at(batch));
                data.resource_metrics.extend(of(&format!("{round}-{id}"), cumulative(points)).resource_metrics);
            }
            bench.send(&data).await;
            assert_eq!(limiter.shared.used(), limiter.shards.bytes());
        }
        assert_eq!((0..limiter.shards.len()).map(|index| limiter.shards.queued(index)).sum::<usize>(), 5000);
        limiter.flush(false).await;
        let emitted = bench.emitted();
        assert_eq!((emitted.len(), emitted.iter().map(|point| point.value).sum()), (5000, 5000.0));
    }
    let before = limiter.shared.used();
    limiter.shared.starve();
    limiter.flush(false).await;
    assert_eq!(limiter.shared.used(), limiter.shards.bytes());
    assert!(limiter.shared.used() < before, "what nobody waits for is given back");
}
