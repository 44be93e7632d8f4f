//! Random spans on several cores, with reports, refusals and pauses in between, against a model that adds
//! up the decoded spans.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// What a span is counted by, and its duration in milliseconds.
#[derive(Debug, Clone)]
struct Made {
    service: u8,
    name: u8,
    is_failed: bool,
    zone: Option<u8>,
    millis: u64,
    core: usize,
}

fn made() -> impl Strategy<Value = Made> {
    (0..3u8, 0..4u8, any::<bool>(), prop::option::of(0..3u8), 0..3000u64, 0..3usize).prop_map(
        |(service, name, is_failed, zone, millis, core)| Made { service, name, is_failed, zone, millis, core },
    )
}

#[derive(Debug, Clone)]
enum Step {
    Spans(Vec<Made>),
    Report { minutes: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(made(), 1..20).prop_map(Step::Spans),
        2 => (1..4u64).prop_map(|minutes| Step::Report { minutes }),
    ]
}

type Key = (Option<String>, Option<String>, Option<String>, Option<String>);

fn key(point: &Point) -> Key {
    let attribute = |key: &str| point.attribute(key).map(str::to_owned);
    (attribute("service.name"), attribute("span.name"), attribute("status.code"), attribute("zone"))
}

#[derive(Debug, Default, Clone, PartialEq)]
struct Total {
    calls: u64,
    count: u64,
    sum: f64,
    buckets: Vec<u64>,
}

const BOUNDS: [u64; 3] = [10, 100, 1000];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever is sent, on whichever cores, with whichever reports in between and with a limit of series
    /// or without: what is reported in total is what was sent, for each series that never overflowed;
    /// and with overflow series, in sum. No cumulative value falls but with a new start; windows of deltas
    /// do not overlap.
    #[test]
    fn reports_add_up(
        steps in prop::collection::vec(step(), 1..25),
        is_delta in any::<bool>(),
        limit in prop_oneof![Just(0), 1..8usize],
        expiry in prop_oneof![Just(0), 1..4u64],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(check(steps, is_delta, limit, expiry))?;
    }
}

async fn check(steps: Vec<Step>, is_delta: bool, limit: usize, expiry: u64) -> Result<(), TestCaseError> {
    let temporality = if is_delta { "DELTA" } else { "CUMULATIVE" };
    let rig = Rig::new(&format!(
        "{{aggregation_temporality: AGGREGATION_TEMPORALITY_{temporality}, aggregation_cardinality_limit: {limit}, \
         series_expiration: {expiry}m, metrics_expiration: {expiry}m, dimensions: [{{name: zone}}], \
         exclude_dimensions: [collector.instance.id], histogram: {{explicit: {{buckets: [10ms, 100ms, 1s]}}}}}}"
    ));
    let mut expected: HashMap<Key, Total> = HashMap::new();
    // Overflow series of two services differ in their resource alone.
    let mut series: HashMap<(String, Option<String>, Key), Vec<Point>> = HashMap::new();
    let steps = steps.into_iter().chain([Step::Report { minutes: 1 }]);
    for step in steps {
        match step {
            Step::Spans(all) => {
                for one in all {
                    send(&rig, &mut expected, &one);
                }
            }
            Step::Report { minutes } => {
                for point in rig.points(MINUTE * minutes as u32).await {
                    let service = point.resource.get("service.name").cloned();
                    series.entry((point.metric.clone(), service, key(&point))).or_default().push(point);
                }
            }
        }
    }
    let mut found: HashMap<Key, Total> = HashMap::new();
    for ((metric, _, key), points) in &series {
        let total = found.entry(key.clone()).or_default();
        let increase = increase(points)?;
        if metric.ends_with(".calls") {
            total.calls += increase.count;
        } else {
            total.count += increase.count;
            total.sum += increase.sum;
            total.buckets.resize(BOUNDS.len() + 1, 0);
            total.buckets.iter_mut().zip(&increase.buckets).for_each(|(own, more)| *own += more);
        }
    }
    if limit == 0 {
        prop_assert_eq!(&found, &expected);
    }
    let sum = |totals: &HashMap<Key, Total>| {
        totals
            .values()
            .fold((0, 0, 0.0), |(calls, count, sum), one| (calls + one.calls, count + one.count, sum + one.sum))
    };
    prop_assert_eq!(sum(&found), sum(&expected));
    for (key, total) in &expected {
        if let Some(own) = found.get(key) {
            prop_assert!(own.calls <= total.calls && own.count == own.calls, "{:?}: {:?} of {:?}", key, own, total);
        }
    }
    Ok(())
}

fn send(rig: &Rig, expected: &mut HashMap<Key, Total>, one: &Made) {
    let mut made = span(&format!("name-{}", one.name), one.millis);
    if one.is_failed {
        made = failed(made);
    }
    made.attributes.extend(one.zone.map(|zone| text("zone", &format!("zone-{zone}"))));
    let service = format!("service-{}", one.service);
    let data = request(vec![resource_spans(vec![text("service.name", &service)], "lib", vec![made])]);
    rig.connector.reporter.state.take_on(one.core, &data.encode_to_vec());
    let status = if one.is_failed { "STATUS_CODE_ERROR" } else { "STATUS_CODE_UNSET" };
    let key = (
        Some(service),
        Some(format!("name-{}", one.name)),
        Some(status.to_owned()),
        one.zone.map(|zone| format!("zone-{zone}")),
    );
    let total = expected.entry(key).or_default();
    total.calls += 1;
    total.count += 1;
    total.sum += one.millis as f64;
    total.buckets.resize(BOUNDS.len() + 1, 0);
    total.buckets[BOUNDS.iter().filter(|bound| one.millis > **bound).count()] += 1;
}

/// By how much a series has grown over its points, in the order in which they came.
fn increase(points: &[Point]) -> Result<Total, TestCaseError> {
    let mut total = Total { buckets: vec![0; points[0].buckets.len()], ..Total::default() };
    let mut last: Option<&Point> = None;
    for point in points {
        prop_assert!(point.start <= point.time);
        let base = match last {
            Some(last) if !point.is_delta && last.start == point.start => {
                prop_assert!(last.time < point.time && last.count <= point.count);
                Some(last)
            }
            Some(last) => {
                prop_assert!(last.time <= point.start, "{:?} then {:?}", last, point);
                None
            }
            None => None,
        };
        if !point.is_delta && base.is_none() {
            prop_assert!(point.count == 0 && point.time == point.start, "a new series begins with a zero: {:?}", point);
        }
        total.count += point.count - base.map_or(0, |base| base.count);
        total.sum += point.sum - base.map_or(0.0, |base| base.sum);
        for (index, bucket) in point.buckets.iter().enumerate() {
            total.buckets[index] += bucket - base.map_or(0, |base| base.buckets[index]);
        }
        last = Some(point);
    }
    Ok(total)
}
