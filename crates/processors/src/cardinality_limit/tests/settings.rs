use super::*;
use crate::test_util::errors;

fn distinct_users(count: i64) -> Vec<NumberDataPoint> {
    (0..count).map(|index| point(&format!("u={index}"), 1, at(0))).collect()
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_counts() {
    let bench = Bench::new(&format!("{{{TWO_USERS}, dry_run: true}}"));
    let data = request(cumulative(distinct_users(10_000)));
    let step = bench.step(&data).await;
    assert_eq!(step.len(), 10_000, "L26");
    assert_eq!(bench.own("would_collapse_points"), 9_998.0, "L26");
}

/// Guarantee: a dry run tells what the limits would do, label by label, and what each collapse would save; and the bytes
/// that go on are those that came.
#[tokio::test]
async fn a_dry_run_tells_what_the_limits_would_do() {
    let yaml = "{default: {max_series_per_metric: 10}, dry_run: true}";
    let (dry, wet) = (Bench::new(yaml), Bench::new(&yaml.replace("true", "false")));
    for export in 0..3 {
        let points: Vec<_> = (0..6000_i64)
            .map(|index| {
                let labels = format!("method={},status={},user={}", index % 2, index / 2 % 3, index * 7 / 6 % 1000);
                NumberDataPoint { start_time_unix_nano: at(export) - 1, ..point(&labels, 1, at(export)) }
            })
            .collect();
        let data = request(delta(points));
        let step = dry.step(&data).await;
        assert_eq!(step.len(), 6000);
        wet.step(&data).await;
    }
    for bench in [&dry, &wet] {
        let label = |metric: &str, label: &str| bench.own_with(metric, &format!("label=\"{label}\""));
        let near = |value: f64, expected: f64| (value - expected).abs() <= 0.15 * expected;
        assert!(near(bench.own("wanted_series"), 6000.0), "{}", bench.own("wanted_series"));
        assert!(near(label("wanted_series_without", "user"), 6.0), "{}", label("wanted_series_without", "user"));
        assert!(near(label("wanted_series_without", "method"), 3000.0), "{}", label("wanted_series_without", "method"));
        assert!(near(label("wanted_label_values", "user"), 1000.0), "{}", label("wanted_label_values", "user"));
        assert!(bench.own("series") <= 10.0, "{}", bench.own("series"));
    }
    let collapsed = |bench: &Bench| bench.own_with("collapsed_points", "label=\"user\"");
    assert_eq!(collapsed(&dry), collapsed(&wet));
    assert_eq!(dry.own("would_collapse_points"), collapsed(&dry));
    assert_eq!(dry.own_with("collapsed_points", "action=\"dry_run\""), collapsed(&dry));
    assert_eq!((wet.own("would_collapse_points"), dry.ledger.held_count()), (0.0, 0));
}

/// L31: steady growth below the limits is seen, and nothing is done.
#[tokio::test]
async fn steady_growth_is_reported() {
    let bench = Bench::new("{default: {max_values_per_label: 10000, max_series_per_metric: 10000}}");
    for minute in 0..10 {
        let points = (0..100).map(|user| point(&format!("u={minute}-{user}"), 1, at(minute))).collect();
        let step = bench.step(&request(cumulative(points))).await;
        assert_eq!(step.len(), 100, "L31");
        assert_eq!(bench.own("new_series"), 100.0 * (minute + 1) as f64, "L31");
        assert_eq!(bench.own_with("new_label_values", "label=\"u\""), 100.0 * (minute + 1) as f64, "L31");
    }
    assert_eq!(bench.own("collapsed_points"), 0.0, "L31");
}

#[tokio::test]
async fn tag_only_marks_and_changes_nothing_else() {
    let bench = Bench::new(&format!("{{{TWO_USERS}, on_exceed: tag_only}}"));
    let step = bench.step(&request(cumulative(distinct_users(4)))).await;
    let series: Vec<&str> = step.iter().map(|point| point.attributes.as_str()).collect();
    let marked = ["otel.metric.overflow=true,u=2", "otel.metric.overflow=true,u=3"];
    assert_eq!(series, [&["u=0", "u=1"], &marked[..]].concat(), "L27");
    assert!(step.iter().all(|point| point.value == 1.0 && point.start == START), "L27");
    assert_eq!(bench.own("tagged_points"), 2.0, "L27");
    assert_eq!(bench.own_with("collapsed_points", "action=\"tag_only\",label=\"*\""), 2.0, "L27");
}

#[tokio::test]
async fn drop_point_drops_and_counts() {
    let bench = Bench::new(&format!("{{{TWO_USERS}, on_exceed: drop_point}}"));
    let step = bench.step(&request(cumulative(distinct_users(5)))).await;
    assert_eq!(values(&step), map(&[("u=0", 1.0), ("u=1", 1.0)]));
    assert_eq!(bench.ledger.dropped_count(nyquist_core::batch::DropReason::OverLimit), 3);
    assert_eq!(bench.own_with("collapsed_points", "action=\"drop_point\",label=\"*\""), 3.0);
}

#[tokio::test]
async fn overflow_series_takes_the_surplus_without_touching_labels() {
    let bench = Bench::new(&format!("{{{TWO_USERS}, on_exceed: overflow_series}}"));
    let step = bench.step(&request(cumulative(distinct_users(5)))).await;
    assert_eq!(values(&step), map(&[("u=0", 1.0), ("u=1", 1.0), ("otel.metric.overflow=true", 3.0)]));
    assert_eq!(bench.own("overflow_points"), 3.0);
}

#[test]
fn errors_say_what_to_write() {
    let cases = [
        ("{max_series: 0}", "max_series: must be greater than zero"),
        ("{idle_ttl: 10ms}", "idle_ttl: must be at least 1s"),
        ("{flush_interval: 0s}", "flush_interval: must be greater than zero"),
        ("{on_exceed: hash_label, replacement: \"\"}", "replacement: must not be empty with `on_exceed: hash_label`"),
        ("{hash_buckets: 0}", "hash_buckets: must be between 1 and 65536"),
        ("{keep: last_seen}", "keep: unknown value \"last_seen\": accepted are"),
        ("{min_sightings: 0}", "min_sightings: must be between 1 and 15"),
        ("{min_sightings: 16}", "min_sightings: must be between 1 and 15"),
        ("{tenant_from: tenant}", "tenant_from: \"tenant\" names no tenant: write resource[\"key\"]"),
        ("{tenant_from: 'resource[\"t\"]', max_tenants: 0}", "max_tenants: must be greater than zero"),
        ("{max_series_per_tenant: 5}", "max_series_per_tenant: needs `tenant_from`"),
        ("{up_down_counter: max}", "up_down_counter: unknown value \"max\": accepted"),
        ("{rules: [{labels: {a: 1}}]}", "rules[0].metrics: must name at least one metric"),
        ("{rules: [{metrics: [a], labels: {b: {max: 1, keep: new}}}]}", "unknown value \"new\": accepted are"),
        ("{rules: [{metrics: [a], labels: {b: -1}}]}", "cannot be negative"),
        ("{on_exceed: explode}", "unknown value \"explode\": accepted are"),
    ];
    for (yaml, expected) in cases {
        let errors = errors::<CardinalityLimitConfig>(yaml);
        assert!(errors.len() == 1 && errors[0].contains(expected), "{yaml}: {errors:?}");
    }
}

#[test]
fn the_whole_proposed_configuration_loads() {
    let config: CardinalityLimitConfig = config(
        "{dry_run: false, max_series: 1000000, memory_limit_mib: 256,
          default: {max_series_per_metric: 2000, max_values_per_label: 500},
          rules: [{metrics: ['http.server.*'], max_series_per_metric: 20000,
                   labels: {http.url: 0, user.id: {max: 50}, k8s.pod.uid: 2000}}],
          protect_labels: [service.name, le], on_exceed: collapse_label, replacement: other, keep: first_seen,
          min_sightings: 1, idle_ttl: 1h, flush_interval: 10s, gauge: last, up_down_counter: sum,
          report: {top_n: 20, sample_values: 3}}",
    );
    assert_eq!(config.rules[0].labels["user.id"].max, 50);
    assert_eq!(CardinalityLimitConfig::default().default.max_series_per_metric, 2000);
}

/// Guarantee: the first rule that matches a metric's name counts, and what it does not say is as in `default`.
#[tokio::test]
async fn the_first_rule_that_matches_counts() {
    let yaml = "{default: {max_values_per_label: 4}, rules: [
        {metrics: ['http.server.*'], labels: {u: 1}},
        {metrics: ['http.*', 'rpc.?'], max_values_per_label: 2},
        {metrics: [db], max_series_per_metric: 3}]}";
    let cases = [
        ("http.server.duration", 1),
        ("http.server", 2),
        ("http.client.duration", 2),
        ("rpc.a", 2),
        ("rpc.ab", 4),
        ("xhttp.server.duration", 4),
        // Of three series one is for the others.
        ("db", 2),
        ("db.more", 4),
    ];
    let bench = Bench::new(yaml);
    for (name, kept) in cases {
        let mut last = Vec::new();
        for export in 0..2 {
            let mut points = distinct_users(20);
            points.iter_mut().for_each(|point| {
                (point.start_time_unix_nano, point.time_unix_nano) = (at(export) - 1, at(export));
            });
            let mut data = request(delta(points));
            data.resource_metrics[0].scope_metrics[0].metrics[0].name = name.to_owned();
            last = bench.step(&data).await;
        }
        let series = values(&last);
        assert_eq!((series.len(), series["u=other"]), (kept + 1, 20.0 - kept as f64), "{name}: {series:?}");
    }
}
