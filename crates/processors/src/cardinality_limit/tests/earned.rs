//! Slots that are earned: `keep: top_k`, `min_sightings`, and buckets of `hash_label`.

use std::collections::BTreeSet;

use super::*;

fn one(label: &str, value: i64, export: u64) -> NumberDataPoint {
    NumberDataPoint { start_time_unix_nano: at(export) - SECOND, ..point(&format!("u={label}"), value, at(export)) }
}

/// L24: x and y keep their slots against 500 one-shots; z, which comes late and is heavy, takes y's.
#[tokio::test]
async fn heavy_hitters_keep_their_slots_and_take_those_of_lighter_ones() {
    for is_delta in [true, false] {
        let bench = Bench::new(&format!("{{{TWO_USERS}, keep: top_k, idle_ttl: 1000h}}"));
        let make = |points| if is_delta { delta(points) } else { cumulative(points) };
        let mut export = 0;
        let mut values: BTreeMap<String, i64> = BTreeMap::new();
        let mut next = |label: &str, export: u64| {
            let value = values.entry(label.to_owned()).or_default();
            *value += 1;
            bench.pass_time(10);
            if is_delta { one(label, 1, export) } else { point(&format!("u={label}"), *value, at(export)) }
        };
        for round in 0..1000 {
            let mut points = vec![next("x", export)];
            if round % 10 != 9 {
                points.push(next("y", export));
            }
            bench.step(&request(make(points))).await;
            export += 1;
        }
        for shot in 0..500 {
            let step = bench.step(&request(make(vec![next(&format!("shot{shot}"), export)]))).await;
            assert!(step.iter().all(|point| point.attributes == "u=other"), "L24: {step:?}");
            export += 1;
        }
        let step = bench.step(&request(make(vec![next("x", export), next("y", export)]))).await;
        assert_eq!(active(&step), ["u=x", "u=y"].map(str::to_owned).into(), "L24");
        export += 1;
        let mut took_over_at = 0;
        for round in 1..=5000 {
            let step = bench.step(&request(make(vec![next("z", export)]))).await;
            export += 1;
            if active(&step).contains("u=z") {
                took_over_at = round;
                break;
            }
        }
        // Half as much again as the 901 of y, and not a third more than that.
        assert!((1352..1800).contains(&took_over_at), "L24: {took_over_at}");
        assert_eq!(bench.own_with("evictions", "replaced"), 1.0, "L24");
        // y's last value was its own; what comes now is added to the others.
        let first = bench.step(&request(make(vec![next("y", export)]))).await;
        let before = other(&first);
        let second = bench.step(&request(make(vec![next("y", export + 1)]))).await;
        if is_delta {
            assert_eq!((before, other(&second)), (1.0, 1.0), "L24");
        } else {
            assert!(first.iter().any(|point| point.attributes == "u=y" && point.is_end), "L24: {first:?}");
            assert_eq!(other(&second) - before, 1.0, "L24");
        }
        let step = bench.step(&request(make(vec![next("x", export + 2), next("z", export + 2)]))).await;
        assert_eq!(active(&step), ["u=x", "u=z"].map(str::to_owned).into(), "L24");
    }
}

fn active(points: &[Point]) -> BTreeSet<String> {
    points.iter().filter(|point| !point.is_end).map(|point| point.attributes.clone()).collect()
}

fn total(points: &[Point]) -> f64 {
    points.iter().filter(|point| !point.is_end).map(|point| point.value).sum()
}

fn other(points: &[Point]) -> f64 {
    points.iter().filter(|point| point.attributes == "u=other" && !point.is_end).map(|point| point.value).sum()
}

/// Guarantee: however often values change places, no more than a tenth of the slots do so in a quarter of
/// `idle_ttl`.
#[tokio::test]
async fn slots_change_hands_slowly() {
    let bench = Bench::new("{rules: [{metrics: [c], labels: {u: {max: 20, keep: top_k}}}], idle_ttl: 1600s}");
    for export in 0..400 {
        // Those that have the slots are soon gone, and others come for much longer.
        let generation = i64::from(export >= 50);
        let points = (0..40).map(|user| one(&format!("{}", user + 40 * generation), 1, export)).collect();
        bench.step(&request(delta(points))).await;
    }
    assert_eq!(bench.own_with("evictions", "replaced"), 2.0);
    for _ in 0..5 {
        bench.pass_time(100);
        bench.limiter.flush(false).await;
    }
    for export in 500..700 {
        let points = (0..40).map(|user| one(&format!("again{user}"), 1, export)).collect();
        bench.step(&request(delta(points))).await;
    }
    assert_eq!(bench.own_with("evictions", "replaced"), 4.0);
}

/// L25: a thousand one-shot values take no slot, so there is one for the value that comes again.
#[tokio::test]
async fn one_shot_values_take_no_slots() {
    let bench = Bench::new(&format!("{{{TWO_USERS}, min_sightings: 2, idle_ttl: 1000h}}"));
    for shot in 0..1000 {
        bench.pass_time(10);
        let step = bench.step(&request(cumulative(vec![point(&format!("u=shot{shot}"), 1, at(shot))]))).await;
        assert_eq!(values(&step), map(&[("u=other", shot as f64 + 1.0)]), "L25");
    }
    bench.step(&request(cumulative(vec![point("u=v", 1, at(1000))]))).await;
    let step = bench.step(&request(cumulative(vec![point("u=v", 5, at(1001))]))).await;
    assert_eq!(values(&step), map(&[("u=v", 4.0)]), "L25: admitted, with what came since");
    assert_eq!(step[0].start, at(1000), "L25: it begins where it was counted last");
}

/// L29: what is over the limit goes to 64 buckets, the same ones in every process.
#[tokio::test]
async fn hashed_values_go_to_the_same_buckets_in_every_process() {
    let yaml = "{rules: [{metrics: [c], labels: {u: 0}}], on_exceed: hash_label, hash_buckets: 64}";
    let data = request(delta((0..5000).map(|user| one(&user.to_string(), user, 0)).collect()));
    let step = Bench::new(yaml).step(&data).await;
    let again = Bench::new(yaml).step(&data).await;
    assert_eq!(values(&step), values(&again), "L29");
    assert_eq!(values(&step).len(), 64, "L29");
    assert!(values(&step).keys().all(|series| series.starts_with("u=other-")), "L29");
    assert_eq!(values(&step).values().sum::<f64>(), (0..5000).sum::<i64>() as f64, "L29");
    // Written down, so that no version ever moves a value to another bucket.
    let buckets: Vec<String> =
        ["a", "b", "user-1", "ünïcode"].map(|user| Bench::new(yaml).bucket_of(user)).into_iter().collect::<Vec<_>>();
    assert_eq!(buckets, BUCKETS, "L29");
}

const BUCKETS: [&str; 4] = ["other-47", "other-39", "other-35", "other-46"];

impl Bench {
    fn bucket_of(&self, value: &str) -> String {
        let value = nyquist_core::wire::AnyValue::String(value.as_bytes());
        String::from_utf8(self.limiter.shared.replacement_of(&value).into_owned()).unwrap()
    }
}

/// Guarantee: with a series budget, the label that multiplies series is spread over buckets and the others stay.
#[tokio::test]
async fn the_guilty_label_is_hashed_when_the_series_budget_is_used_up() {
    let bench = Bench::new("{default: {max_series_per_metric: 50}, on_exceed: hash_label, hash_buckets: 8}");
    let data = |time| {
        let user = |index: i64| NumberDataPoint {
            start_time_unix_nano: time - 1,
            ..point(&format!("m={},u={index}", index % 2), 1, time)
        };
        request(delta((0..1000).map(user).collect()))
    };
    assert_eq!(total(&bench.step(&data(at(0))).await), 1000.0);
    let step = bench.step(&data(at(1))).await;
    assert_eq!(total(&step), 1000.0);
    assert!(active(&step).len() <= 50, "{:?}", active(&step));
    let hashed: BTreeSet<&str> =
        step.iter().filter_map(|point| point.attributes.split_once("u=other-")).map(|(_, bucket)| bucket).collect();
    assert_eq!(hashed.len(), 8);
    assert_eq!(bench.own("overflow_points"), 0.0);
}

/// Scenario: the buckets of a label are more than the series budget. Guarantee: it holds, the overflow series takes the rest, nothing is lost.
#[tokio::test]
async fn buckets_that_do_not_fit_overflow() {
    let bench = Bench::new("{default: {max_series_per_metric: 10}, on_exceed: hash_label, hash_buckets: 64}");
    let mut sum = 0.0;
    for export in 0..3 {
        let points = (0..1000).map(|user| one(&user.to_string(), 1, export)).collect();
        let step = bench.step(&request(delta(points))).await;
        sum += total(&step);
        if export > 0 {
            let series = active(&step);
            assert!(series.len() <= 11 && series.contains("otel.metric.overflow=true"), "{series:?}");
            assert!(series.iter().any(|series| series.starts_with("u=other-")), "{series:?}");
        }
    }
    bench.limiter.flush(true).await;
    assert_eq!(sum + total(&bench.emitted()), 3000.0);
}
