//! Budgets of tenants and of resources.

use std::collections::BTreeSet;

use nyquist_core::batch::Metadata;

use super::*;

const BY_RESOURCE: &str = "tenant_from: 'resource[\"r\"]'";

fn series(points: &[Point]) -> BTreeSet<String> {
    points.iter().filter(|point| !point.is_end).map(Point::series).collect()
}

fn some(from: i64, to: i64) -> Data {
    some_at(0, from, to)
}

fn some_at(export: u64, from: i64, to: i64) -> Data {
    delta((from..to).map(|user| point(&format!("u={user}"), 1, at(export))).collect())
}

/// L30, and the same with budgets of their own.
#[tokio::test]
async fn each_tenant_has_its_own_budgets() {
    let bench = Bench::new(&format!("{{{TWO_USERS}, {BY_RESOURCE}}}"));
    let first = bench.step(&of("1", some(0, 3))).await;
    let second = bench.step(&of("2", some(10, 13))).await;
    let expected = |resource: &str, users: [&str; 2]| -> BTreeSet<String> {
        let users = users.into_iter().chain(["other"]);
        users.map(|user| format!("r={resource}/c{{u={user}}}")).collect()
    };
    assert_eq!(series(&first), expected("1", ["0", "1"]));
    assert_eq!(series(&second), expected("2", ["10", "11"]));
    assert_eq!(bench.own("tenants"), 2.0);
    assert_eq!(bench.own_with("tenant_series", "tenant=\"1\""), 3.0);

    // Without tenants the second resource finds the values of the first one.
    let bench = Bench::new(&format!("{{{TWO_USERS}}}"));
    bench.step(&of("1", some(0, 2))).await;
    assert_eq!(series(&bench.step(&of("2", some(10, 13))).await), ["r=2/c{u=other}".to_owned()].into());
}

#[tokio::test]
async fn each_resource_can_have_its_own_budgets() {
    let bench = Bench::new("{default: {max_series_per_metric: 3}, per_resource: true}");
    for resource in ["1", "2", "3"] {
        assert_eq!(series(&bench.step(&of(resource, some(0, 3))).await).len(), 3, "L20 for each");
    }
    assert_eq!(bench.own("overflow_points") + bench.own("collapsed_points"), 0.0);
}

/// Guarantee: a tenant's series are limited over all its metrics, and another one does not notice.
#[tokio::test]
async fn a_tenants_series_are_limited_over_all_its_metrics() {
    let bench = Bench::new(&format!("{{{BY_RESOURCE}, max_series_per_tenant: 10}}"));
    let metrics = |resource| {
        let mut data = of(resource, some(0, 0));
        let metric = |name| Metric { name: format!("m{name}"), data: Some(some(0, 4)), ..Metric::default() };
        data.resource_metrics[0].scope_metrics[0].metrics = (0..5).map(metric).collect();
        data
    };
    for resource in ["1", "2"] {
        let step = bench.step(&metrics(resource)).await;
        assert_eq!(step.iter().map(|point| point.value).sum::<f64>(), 20.0);
        let own = bench.own_with("tenant_series", &format!("tenant=\"{resource}\""));
        assert!(own <= 10.0, "{resource}: {own}");
    }
}

/// Guarantee: who comes when all places for tenants are taken shares one budget with the others, nothing is lost, and a
/// place is free again once its tenant is idle.
#[tokio::test]
async fn tenants_beyond_the_limit_share_one_budget() {
    let bench = Bench::new(&format!("{{{TWO_USERS}, {BY_RESOURCE}, max_tenants: 2, idle_ttl: 160s}}"));
    for resource in ["1", "2", "3", "4"] {
        let step = bench.step(&of(resource, some(0, 3))).await;
        assert_eq!(step.iter().map(|point| point.value).sum::<f64>(), 3.0);
    }
    assert_eq!(bench.own("tenants"), 2.0);
    // The values 0 and 1 of tenant 3 are those of tenant 4 too; of others there are none.
    let step = bench.step(&of("4", some_at(1, 5, 7))).await;
    assert_eq!(series(&step), ["r=4/c{u=other}".to_owned()].into());
    for _ in 0..8 {
        bench.pass_time(50);
        bench.limiter.flush(false).await;
    }
    bench.step(&of("5", some(0, 1))).await;
    assert_eq!(bench.own_with("tenant_series", "tenant=\"5\""), 1.0);
}

/// Guarantee: a tenant that is known by a header is limited by it, and what is reported for it goes on with it.
#[tokio::test]
async fn a_tenant_can_be_a_header_which_stays_with_its_data() {
    let bench = Bench::new("{rules: [{metrics: [c], labels: {u: 1}}], tenant_from: 'metadata[\"X-Tenant\"]'}");
    for (tenant, value) in [("acme", 1), ("umbrella", 10)] {
        let metadata = Metadata { headers: vec![("x-tenant".to_owned(), tenant.to_owned())] };
        let points = ["a", "b", "d"].map(|user| point(&format!("u={user}"), value, at(0))).to_vec();
        let mut batch = Batch::from_metrics(request(delta(points)));
        let batch = Batch::from_wire(Signal::Metrics, batch.wire().clone(), 3).with_metadata(Arc::new(metadata));
        bench.limiter.consume(batch).await.unwrap();
    }
    bench.sink.take();
    bench.limiter.flush(false).await;
    let mut seen = BTreeMap::new();
    for batch in bench.sink.take() {
        let tenant = batch.metadata().headers.first().map(|(_, tenant)| tenant.clone()).unwrap_or_default();
        for point in points(batch) {
            assert!(seen.insert((tenant.clone(), point.series()), point.value).is_none());
        }
    }
    let expected = [("acme", 2.0), ("umbrella", 20.0)];
    assert_eq!(seen, expected.map(|(tenant, value)| ((tenant.to_owned(), "r=1/c{u=other}".to_owned()), value)).into());
}
