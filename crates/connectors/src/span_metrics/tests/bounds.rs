//! Limits and expiry: memory is bounded, and nothing is lost by it.

use super::*;

fn total(points: &[Point], metric: &str) -> u64 {
    counted(points, metric).iter().map(|point| point.count).sum()
}

fn is_overflow(point: &Point) -> bool {
    point.attribute("otel.metric.overflow") == Some("bool true")
}

/// Scenario: a service with more span names than its limit. Guarantee: the first ones have series, the
/// rest is in one overflow series, the sum is exact, and a name that has a series keeps it.
#[tokio::test]
async fn the_cardinality_limit() {
    let rig = Rig::new("aggregation_cardinality_limit: 3");
    for _ in 0..2 {
        rig.send(&of_shop((0..10).map(|number| span(&format!("name-{number}"), 1)).collect()));
    }
    let points = rig.points(MINUTE).await;
    for metric in [".calls", ".duration"] {
        assert_eq!(total(&points, metric), 20);
        let counted = counted(&points, metric);
        assert_eq!(counted.len(), 4);
        let overflow: Vec<_> = counted.iter().filter(|point| is_overflow(point)).collect();
        assert_eq!((overflow.len(), overflow[0].count), (1, 14));
        let keys: Vec<_> = overflow[0].attributes.keys().collect();
        assert_eq!(keys, ["collector.instance.id", "otel.metric.overflow"]);
        assert!(counted.iter().filter(|point| !is_overflow(point)).all(|point| point.count == 2));
    }
    assert_eq!(rig.counter("overflow_spans"), 14);
    // Another resource has its own limit.
    rig.send(&request(vec![resource_spans(vec![text("service.name", "cart")], "lib", vec![span("x", 1)])]));
    let points = rig.points(MINUTE).await;
    assert!(points.iter().any(|point| point.attribute("service.name") == Some("cart")));
    assert_eq!(total(&points, ".calls"), 21);
    let rig = Rig::new("aggregation_cardinality_limit: 0");
    rig.send(&of_shop((0..3000).map(|number| span(&format!("name-{number}"), 1)).collect()));
    assert_eq!(counted(&rig.points(MINUTE).await, ".calls").len(), 3000);
}

/// Scenario: more resources than there is room for, then some of them go silent. Guarantee: the surplus is
/// counted without a resource, exactly; and when others have been silent for two reports, newcomers get
/// their room.
#[tokio::test]
async fn the_resource_limit() {
    let rig = Rig::new("{resource_metrics_cache_size: 2, metrics_flush_interval: 60s}");
    let of = |name: &str| resource_spans(vec![text("service.name", name)], "lib", vec![span("a", 1)]);
    rig.send(&request(vec![of("one"), of("two"), of("three"), of("four")]));
    let points = rig.points(MINUTE).await;
    let calls = counted(&points, ".calls");
    assert_eq!((calls.len(), total(&points, ".calls")), (3, 4));
    let surplus = calls.iter().find(|point| is_overflow(point)).unwrap();
    assert_eq!((surplus.count, surplus.resource.len()), (2, 0));
    for _ in 0..3 {
        rig.send(&request(vec![of("two"), of("three")]));
        rig.points(MINUTE).await;
    }
    let without = Rig::new("{resource_metrics_cache_size: 1, add_resource_attributes: false}");
    without.send(&request(vec![of("one"), of("two"), of("three")]));
    let points = without.points(MINUTE).await;
    let surplus: Vec<_> = counted(&points, ".calls").into_iter().filter(|point| is_overflow(point)).collect();
    assert_eq!((surplus.len(), surplus[0].count, surplus[0].attribute("service.name")), (1, 2, None));
    rig.send(&request(vec![of("two"), of("three")]));
    let points = rig.points(MINUTE).await;
    let services: Vec<_> =
        counted(&points, ".calls").iter().filter_map(|point| point.attribute("service.name")).collect();
    assert!(services.contains(&"two") && services.contains(&"three") && !services.contains(&"one"), "{services:?}");
}

/// Scenario: every span has a name of its own, a kilobyte long. Guarantee: state stays within its limit,
/// and every span is counted.
#[tokio::test]
async fn the_memory_limit() {
    let rig = Rig::new("{memory_limit_mib: 1, aggregation_cardinality_limit: 0}");
    let filler = "x".repeat(1000);
    for batch in 0..200 {
        rig.send(&of_shop((0..100).map(|number| span(&format!("{batch}-{number}-{filler}"), 1)).collect()));
    }
    let long = "y".repeat(100_000);
    rig.send(&of_shop(vec![span(&long, 1)]));
    let points = rig.points(MINUTE).await;
    assert_eq!((total(&points, ".calls"), total(&points, ".duration")), (20_001, 20_001));
    let bytes = rig.gauge("state_bytes");
    // The overflow series itself comes on top.
    assert!((500_000..1_100_000).contains(&bytes), "{bytes}");
    assert!(points.iter().all(|point| point.attribute("span.name").is_none_or(|name| name.len() < 2000)));
}

/// Scenario: a series goes silent while its service goes on; then it comes again. Guarantee: it is
/// reported until it expires, and begins anew afterwards, at zero and with a new start.
#[tokio::test]
async fn series_expire() {
    let rig = Rig::new("{series_expiration: 3m, metrics_expiration: 0s}");
    rig.send(&of_shop(vec![span("old", 1)]));
    let mut seen = Vec::new();
    for _ in 0..6 {
        rig.send(&of_shop(vec![span("new", 1)]));
        let points = rig.points(MINUTE).await;
        seen.push(points.iter().any(|point| point.attribute("span.name") == Some("old")));
    }
    assert_eq!(seen, [true, true, true, true, false, false], "the last seen at one minute, gone after the fourth");
    assert_eq!(rig.counter("expired_series"), 1);
    rig.send(&of_shop(vec![span("old", 1)]));
    let points = rig.points(MINUTE).await;
    let old: Vec<_> = points
        .iter()
        .filter(|point| point.metric.ends_with(".calls") && point.attribute("span.name") == Some("old"))
        .map(|point| (point.count, point.start))
        .collect();
    let start = EPOCH + 6 * 60_000 * MILLI;
    assert_eq!(old, [(0, start), (1, start)]);
}

/// A resource without spans is forgotten as a whole; with expiry switched off nothing is.
#[tokio::test]
async fn resources_expire() {
    let rig = Rig::new("{metrics_expiration: 2m, series_expiration: 0s}");
    rig.send(&of_shop(vec![span("a", 1), span("b", 1)]));
    let mut sizes = Vec::new();
    for _ in 0..4 {
        sizes.push(counted(&rig.points(MINUTE).await, ".calls").len());
    }
    assert_eq!(sizes, [2, 2, 2, 0]);
    assert_eq!(rig.gauge("resources"), 0);
    let rig = Rig::new("{metrics_expiration: 0s, series_expiration: 0s}");
    rig.send(&of_shop(vec![span("a", 1)]));
    rig.points(MINUTE).await;
    assert_eq!(counted(&rig.points(Duration::from_secs(86400 * 30)).await, ".calls").len(), 1);
    assert_eq!(counted(&rig.points(MINUTE).await, ".calls").len(), 1);
}

/// Bytes that are no spans do no harm: the ingress check keeps them out, and the connector survives them
/// anyway.
#[tokio::test]
async fn hostile_bytes() {
    use rand::{RngExt, SeedableRng};
    let yaml = "{dimensions: [{name: a}, {glob: 'k*'}], events: {enabled: true, dimensions: [{name: e}]}, exemplars: {enabled: true}}";
    let rig = Rig::new(yaml);
    let mut one = span("a", 1);
    one.attributes = vec![text("a", "1"), text("kk", "2")];
    one.trace_state = "ot=th:8".to_owned();
    one.events = vec![opentelemetry_proto::tonic::trace::v1::span::Event {
        attributes: vec![text("e", "3")],
        ..Default::default()
    }];
    let bytes = of_shop(vec![one.clone(), failed(one)]).encode_to_vec();
    let mut random = rand::rngs::StdRng::seed_from_u64(1);
    for _ in 0..20_000 {
        let mut bytes = bytes.clone();
        for _ in 0..random.random_range(1..6) {
            let place = random.random_range(0..bytes.len());
            bytes[place] = random.random();
        }
        bytes.truncate(random.random_range(0..=bytes.len()));
        rig.connector.reporter.state.take(&bytes);
    }
    // Ids of strings may be broken, so the report is only looked at as messages.
    rig.clock.advance(MINUTE);
    let mut at = rig.connector.reporter.state.begin_report();
    let mut reported = 0;
    while let Some(report) = rig.connector.reporter.state.next_report(&mut at) {
        reported += report.points;
    }
    assert!(reported > 0);
}
