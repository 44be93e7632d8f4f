//! Sums that can fall, and gauges that are summed.

use super::*;

/// Guarantee: once everything has been reported, what comes out adds up to what the senders last said, wherever each
/// stream is counted; over restarts, too.
#[tokio::test]
async fn last_values_add_up_to_what_was_said_last() {
    for seed in seeds() {
        for (index, limits) in LIMITS.iter().enumerate() {
            // What only drops or marks points does not add them up.
            if !limits.contains("drop_point") && !limits.contains("tag_only") {
                run(seed, limits, (seed as usize + index).is_multiple_of(2)).await;
            }
        }
    }
}

async fn run(seed: u64, limits: &str, as_gauge: bool) {
    let context = format!("seed {seed}, gauge {as_gauge}, {limits}");
    let yaml = format!("{{{limits}, gauge: sum}}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut bench = Bench::new(&yaml);
    let restarts_at = (seed & 1 == 1).then(|| random.random_range(5..35));
    let mut said: BTreeMap<String, i64> = BTreeMap::new();
    let mut shown: BTreeMap<String, f64> = BTreeMap::new();
    for export in 0..40 {
        let mut now = Vec::new();
        for index in 0..30 {
            // All of them in the end.
            if export < 38 && random.random_bool(0.4) {
                continue;
            }
            let labels = format!("m={},u={}", index % 2, index / 2);
            let value = random.random_range(-50..50);
            said.insert(labels.clone(), value);
            now.push(point(&labels, value, at(export)));
        }
        let data = if as_gauge { gauge(now) } else { up_down(now) };
        show(&mut shown, bench.step(&request(data)).await);
        if restarts_at == Some(export) {
            bench.limiter.flush(true).await;
            bench.emitted();
            let snapshot = bench.limiter.snapshot(1 << 20).collect::<Vec<_>>().concat();
            bench = Bench::at(&yaml, &Extensions::default(), at(export));
            assert!(bench.limiter.restore(&snapshot), "{context}");
            // What is not reported again is stale, as in a backend some minutes later.
            shown.clear();
        }
    }
    // What waits for a newer time does not wait for ever.
    for _ in 0..10 {
        bench.limiter.flush(false).await;
        show(&mut shown, bench.emitted());
    }
    let (said, shown): (i64, f64) = (said.values().sum(), shown.values().sum());
    assert_eq!(shown, said as f64, "{context}");
}

/// What a backend shows once `points` have come.
fn show(shown: &mut BTreeMap<String, f64>, points: Vec<Point>) {
    for point in points {
        if point.is_end {
            shown.remove(&point.attributes);
        } else {
            shown.insert(point.attributes, point.value);
        }
    }
}
