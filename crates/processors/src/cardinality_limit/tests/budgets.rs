use std::collections::BTreeSet;

use super::*;

/// Two methods, three statuses, and `users` users, users changing fastest.
fn requests(users: i64) -> Vec<NumberDataPoint> {
    let mut points = Vec::new();
    for index in 0..users {
        for shift in 0..6 {
            let user = (index * 7 + shift * 131) % users;
            let (method, status) = (shift % 2, shift / 2);
            points.push(point(&format!("method={method},status={status},user={user}"), 1, at(0)));
        }
    }
    points
}

fn values_of(points: &[Point], label: &str) -> BTreeSet<String> {
    let prefix = format!("{label}=");
    let value = |point: &Point| {
        point.attributes.split(',').find_map(|pair| pair.strip_prefix(&prefix)).unwrap_or("").to_owned()
    };
    points.iter().map(value).collect()
}

fn sum(points: &[Point]) -> f64 {
    points.iter().filter(|point| !point.is_end).map(|point| point.value).sum()
}

fn active_series(points: &[Point]) -> BTreeSet<String> {
    points.iter().filter(|point| !point.is_end).map(Point::series).collect()
}

#[tokio::test]
async fn the_label_that_multiplies_series_is_collapsed_and_the_others_stay() {
    let bench = Bench::new("{default: {max_series_per_metric: 10}}");
    let data = request(delta(requests(1000)));
    let first = bench.step(&data).await;
    assert_eq!(sum(&first), 6000.0, "L17");
    // Once everything has settled: ten series at the most.
    let mut again = requests(1000);
    again.iter_mut().for_each(|point| {
        point.start_time_unix_nano = at(0);
        point.time_unix_nano = at(1);
    });
    let step = bench.step(&request(delta(again))).await;
    let series = active_series(&step);
    assert!(series.len() <= 10, "L17: {series:?}");
    assert_eq!(values_of(&step, "method").len(), 2, "L17: {series:?}");
    assert_eq!(values_of(&step, "status").len(), 3, "L17: {series:?}");
    assert_eq!(sum(&step), 6000.0, "L17");
    assert!(step.iter().filter(|point| point.attributes.contains("user=other")).count() == 6, "L17: {series:?}");
    assert_eq!(bench.own("overflow_points"), 0.0, "L17");
}

#[tokio::test]
async fn with_the_guilty_label_protected_the_rest_overflows() {
    let bench = Bench::new("{default: {max_series_per_metric: 10}, protect_labels: [user]}");
    bench.step(&request(delta(requests(1000)))).await;
    let mut again = requests(1000);
    again.iter_mut().for_each(|point| point.time_unix_nano = at(1));
    let step = bench.step(&request(delta(again))).await;
    let series = active_series(&step);
    assert!(series.len() <= 11, "L18: {series:?}");
    assert!(series.contains("r=1/c{otel.metric.overflow=true}"), "L18: {series:?}");
    assert!(!values_of(&step, "user").contains("other"), "L18: {series:?}");
    assert_eq!(sum(&step), 6000.0, "L18");
}

#[tokio::test]
async fn with_all_labels_protected_the_remainder_is_one_series() {
    let bench = Bench::new("{default: {max_series_per_metric: 3}, protect_labels: [u]}");
    let points = (0..10).map(|index| point(&format!("u={index}"), 1, at(0))).collect();
    let step = bench.step(&request(delta(points))).await;
    assert_eq!(
        values(&step),
        map(&[("u=0", 1.0), ("u=1", 1.0), ("u=2", 1.0), ("otel.metric.overflow=true", 7.0)]),
        "L19"
    );
}

#[tokio::test]
async fn exactly_the_budget_does_not_overflow() {
    let bench = Bench::new("{default: {max_series_per_metric: 100}}");
    let points: Vec<_> = (0..100).map(|index| point(&format!("u={index}"), 1, at(0))).collect();
    for _ in 0..2 {
        let step = bench.step(&request(cumulative(points.clone()))).await;
        assert_eq!(step.len(), 100, "L20");
    }
    assert_eq!(bench.own("overflow_points") + bench.own("collapsed_points"), 0.0, "L20");
    assert_eq!(bench.own("series"), 100.0, "L20");
}

#[tokio::test]
async fn an_idle_value_gives_its_slot_to_a_new_one() {
    let bench = Bench::new(&format!("{{{TWO_USERS}, idle_ttl: 160s}}"));
    bench.step(&request(cumulative(users(&[("a", 1), ("b", 2)], at(0))))).await;
    for export in 1..20 {
        bench.pass_time(20);
        let step = bench.step(&request(cumulative(users(&[("b", 2)], at(2 * export))))).await;
        assert_eq!(values(&step), map(&[("u=b", 2.0)]), "L21");
    }
    let step = bench.step(&request(cumulative(users(&[("z", 5)], at(39))))).await;
    assert_eq!(values(&step), map(&[("u=z", 5.0)]), "L21: z is admitted as itself");
    // a has been counted as itself before: of what it brings now only the increments count.
    let step = bench.step(&request(cumulative(users(&[("a", 9)], at(40))))).await;
    assert_eq!(values(&step), map(&[("u=other", 0.0)]), "L21");
    let step = bench.step(&request(cumulative(users(&[("a", 11)], at(41))))).await;
    assert_eq!(values(&step), map(&[("u=other", 2.0)]), "L21");
}

#[tokio::test]
async fn a_series_that_loses_its_slot_is_flagged_as_ended() {
    let bench = Bench::new("{default: {max_series_per_metric: 2}}");
    bench.step(&request(cumulative(users(&[("a", 10), ("b", 20)], at(0))))).await;
    // The third user finds the budget full: the label is collapsed, and one series makes room.
    let step = bench.step(&request(cumulative(users(&[("c", 5)], at(1))))).await;
    assert_eq!(values(&step), map(&[("u=other", 5.0)]));
    let step = bench.step(&request(cumulative(users(&[("a", 11), ("b", 21)], at(2))))).await;
    let ended: Vec<&Point> = step.iter().filter(|point| point.is_end).collect();
    assert_eq!(ended.len(), 1, "{step:?}");
    let retired = ended[0].attributes.clone();
    let kept = if retired == "u=a" { ("u=b", 21.0) } else { ("u=a", 11.0) };
    // Its last value was its own: of it only what comes from now on is added.
    assert_eq!(values(&step), map(&[kept, ("u=other", 5.0)]));
    let (name, value) = if retired == "u=a" { ("a", 15) } else { ("b", 25) };
    let step = bench.step(&request(cumulative(users(&[(name, value)], at(3))))).await;
    assert_eq!(values(&step), map(&[("u=other", 9.0)]));
}

#[tokio::test]
async fn two_labels_that_multiply_are_both_collapsed_in_the_end() {
    let bench = Bench::new("{default: {max_series_per_metric: 20}}");
    let mut value = 0;
    for export in 0..30 {
        let points: Vec<_> = (0..200)
            .map(|index| {
                value += 1;
                let (user, url) = ((index * 7 + export * 13) % 400, (index * 11 + export * 3) % 300);
                NumberDataPoint {
                    start_time_unix_nano: at(export as u64) - SECOND,
                    ..point(&format!("m={},url={url},user={user}", index % 2), value, at(export as u64))
                }
            })
            .collect();
        let sent: f64 = points.iter().map(number).sum();
        bench.pass_time(10);
        let step = bench.step(&request(delta(points))).await;
        let received = sum(&step);
        assert_eq!(received, sent, "export {export}");
        if export > 0 {
            assert!(active_series(&step).len() <= 21, "{:?}", active_series(&step));
        }
    }
}

#[tokio::test]
async fn the_global_budget_holds_over_all_metrics() {
    let bench = Bench::new("{max_series: 50}");
    let metrics = |time| {
        let mut data = request(delta(Vec::new()));
        let points: Vec<_> = (0..20).map(|user| point(&format!("u={user}"), 1, time)).collect();
        let metric = |name| Metric { name: format!("m{name}"), data: Some(delta(points.clone())), ..Metric::default() };
        data.resource_metrics[0].scope_metrics[0].metrics = (0..10).map(metric).collect();
        data
    };
    assert_eq!(sum(&bench.step(&metrics(at(0))).await), 200.0);
    // In the first round series were seen that have made room since.
    let step = bench.step(&metrics(at(1))).await;
    assert_eq!(sum(&step), 200.0);
    let own = active_series(&step);
    let overflow = own.iter().filter(|series| series.contains("overflow")).count();
    assert!(own.len() - overflow <= 50 && overflow <= 10, "{own:?}");
}

/// Scenario: the label that multiplies series is the hundredth of its metric. Guarantee: what cannot be collapsed ends in the overflow
/// series, and nothing is lost.
#[tokio::test]
async fn labels_beyond_the_tracked_ones_overflow() {
    let bench = Bench::new("{default: {max_series_per_metric: 10}}");
    let mut total = 0.0;
    let fixed: String = (0..70).map(|label| format!("l{label}=x,")).collect();
    for export in 0..3 {
        let point = |user: u64| NumberDataPoint {
            start_time_unix_nano: at(export) - 1,
            ..point(&format!("{fixed}user={user}"), 1, at(export))
        };
        let step = bench.step(&request(delta((0..1000).map(point).collect()))).await;
        total += sum(&step);
        if export > 0 {
            let series = active_series(&step);
            assert!(series.len() <= 11 && series.contains("r=1/c{otel.metric.overflow=true}"), "{}", series.len());
            assert!(!values_of(&step, "user").contains("other"));
        }
    }
    bench.limiter.flush(true).await;
    assert_eq!(total + sum(&bench.emitted()), 3000.0);
}
