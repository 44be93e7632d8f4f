//! Gauges in the modes that show one of the values that came, or their mean; sums are in `last_values`.

use super::*;

/// Guarantee, whatever the limits: of streams that all report at once the largest (smallest) value comes out, and
/// nothing that nobody said; means are between the two.
#[tokio::test]
async fn extremes_come_through_whatever_the_limits() {
    for seed in seeds() {
        for (index, limits) in LIMITS.iter().enumerate() {
            // What only drops points does not show them.
            if !limits.contains("drop_point") {
                let mode = ["last", "max", "min", "avg"][(seed as usize + index) % 4];
                all_at_once(seed, limits, mode).await;
            }
        }
    }
}

async fn all_at_once(seed: u64, limits: &str, mode: &str) {
    let context = format!("seed {seed}, gauge {mode}, {limits}");
    let bench = Bench::seeded(&format!("{{{limits}, gauge: {mode}}}"), &Extensions::default(), BEGIN, seed);
    let mut random = SmallRng::seed_from_u64(seed);
    for export in 0..30 {
        let is_whole = export % 5 == 4;
        let streams: Vec<usize> = (0..30).filter(|_| is_whole || random.random_bool(0.6)).collect();
        let said: Vec<i64> = streams.iter().map(|_| random.random_range(-50..50)).collect();
        let one =
            |(stream, value): (&usize, &i64)| point(&format!("m={},u={}", stream % 2, stream / 2), *value, at(export));
        let points = streams.iter().zip(&said).map(one).collect();
        if is_whole {
            // What waits is reported first.
            for _ in 0..10 {
                bench.limiter.flush(false).await;
            }
            bench.emitted();
        }
        bench.send(&request(gauge(points))).await;
        for _ in 0..10 {
            bench.limiter.flush(false).await;
        }
        let shown: Vec<f64> = bench.emitted().iter().filter(|point| !point.is_end).map(|point| point.value).collect();
        let (least, most) = (*said.iter().min().unwrap() as f64, *said.iter().max().unwrap() as f64);
        let (shown_least, shown_most) = (
            shown.iter().copied().fold(f64::INFINITY, f64::min),
            shown.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        );
        if !is_whole {
            continue;
        }
        let context = format!("{context}, export {export}: {said:?} and {shown:?}");
        match mode {
            "avg" => assert!(least <= shown_least && shown_most <= most, "{context}"),
            "min" => assert_eq!(shown_least, least, "{context}"),
            _ => assert_eq!(shown_most, most, "{context}"),
        }
        assert!(mode == "avg" || shown.iter().all(|shown| said.contains(&(*shown as i64))), "{context}");
    }
}
