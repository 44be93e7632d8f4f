//! The mapping: names by the reference, the table of cases, and what holds for any input.

mod hostile;
pub(crate) mod lines;
mod names;
mod series;
mod table;

use std::sync::Arc;

use super::labels::Source;
use super::*;

const RULES: LabelRules = LabelRules { escape: true, collapse_underscores: false };

#[test]
fn bounds_have_no_exponent() {
    for (bound, expected) in [(0.005, "0.005"), (1.0, "1"), (1e7, "10000000"), (f64::INFINITY, "+Inf"), (-2.5, "-2.5")]
    {
        let mut text = Vec::new();
        put_decimal(&mut text, bound);
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}

#[test]
fn values_are_text() {
    use nyquist_core::proto::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value};
    use prost::Message;
    let any = |value| AnyValue { value: Some(value) };
    let nested = Value::KvlistValue(KeyValueList {
        values: vec![
            KeyValue { key: "z".into(), value: Some(any(Value::IntValue(-1))), ..Default::default() },
            KeyValue {
                key: "a".into(),
                value: Some(any(Value::ArrayValue(ArrayValue {
                    values: vec![
                        any(Value::StringValue("q\"".into())),
                        any(Value::BoolValue(false)),
                        AnyValue::default(),
                    ],
                }))),
                ..Default::default()
            },
        ],
    });
    let cases = [
        (Value::StringValue("as is".into()), "as is"),
        (Value::BoolValue(true), "true"),
        (Value::IntValue(-7), "-7"),
        (Value::DoubleValue(0.1), "0.1"),
        (Value::DoubleValue(1e21), "1e+21"),
        (Value::DoubleValue(1.5e-7), "1.5e-7"),
        (Value::DoubleValue(3.0), "3"),
        (Value::BytesValue(vec![1, 2, 3]), "AQID"),
        (nested, r#"{"a":["q\"",false,null],"z":-1}"#),
    ];
    for (value, expected) in cases {
        let bytes = any(value).encode_to_vec();
        let mut text = Vec::new();
        values::put_value(&mut text, &nyquist_core::wire::AnyValue::new(&bytes));
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}

#[test]
fn labels_are_sorted_and_where_the_extra_ones_go_is_known() {
    use nyquist_core::wire::AnyValue;
    let mut base = labels::BaseLabels::default();
    let given = base.begin();
    for (name, value) in [("job", "j"), ("instance", "i")] {
        given.push(b"", name.as_bytes(), &AnyValue::String(value.as_bytes()), Source::Given, RULES);
    }
    base.seal();
    let mut own = labels::Labels::default();
    for (name, value) in [("zone", "z"), ("A", "a"), ("kind", "k"), ("le", "mine"), ("__name__", "mine")] {
        own.push_attribute(name.as_bytes(), &AnyValue::String(value.as_bytes()), RULES);
    }
    own.sort_and_join();
    let mut merged = PointLabels::default();
    let overwritten = merged.merge(&base, &own, b"le").overwritten;
    assert_eq!(overwritten, 2);
    let names = |piece: &[u8]| -> Vec<String> {
        let labels = nyquist_core::wire::Attributes::new(piece, 1);
        labels.map(|label| String::from_utf8(label.key.to_vec()).unwrap()).collect()
    };
    let [before, middle, after] = merged.pieces();
    assert_eq!(names(before), ["A"]);
    assert_eq!(names(middle), ["instance", "job", "kind"]);
    assert_eq!(names(after), ["zone"]);
}

/// Scenario: more resources than may be remembered. Guarantee: the series of those that were not heard of for longest end,
/// and it is told how many.
#[test]
fn forgotten_targets_end() {
    use crate::testing::{T, gauge, number, push_from};
    let mut bench = lines::Bench::new(Settings::default());
    bench.target_info = TargetInfo::new("", &HashSeed::default()).within(1000);
    let from = |n: i64| {
        let instance = n.to_string();
        let resource = [("service.name", "cart"), ("service.instance.id", &instance), ("host.name", "h")];
        push_from(&resource, vec![gauge("g", "", vec![number(1.0, T + n, &[])])])
    };
    let mut live = std::collections::BTreeSet::new();
    for n in 0..10 {
        for line in bench.lines(&from(n)).iter().filter(|line| line.starts_with("target_info")) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let was_new =
                if value.starts_with("stale@") { live.remove(series) } else { live.insert(series.to_owned()) };
            assert!(was_new, "{line}");
        }
    }
    assert!((1..6).contains(&live.len()), "{live:?}");
    assert_eq!(bench.lost.targets, 10 - live.len());
    assert!(live.iter().all(|series| !series.contains("instance=\"0\"")), "{live:?}");
}

/// Merged buckets must hold exactly what went in, whatever gaps there are.
#[test]
fn scaling_down_loses_nothing() {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for _ in 0..2000 {
        let (scale, offset) = (next(20) as i32 - 4, next(400) as i32 - 200);
        let counts: Vec<u64> = (0..next(60)).map(|_| if next(3) == 0 { next(50) } else { 0 }).collect();
        let reduction = (scale - 8).max(0);
        let mut expected = std::collections::BTreeMap::new();
        for (index, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            *expected.entry(((offset + index as i32) >> reduction) + 1).or_insert(0i64) += count as i64;
        }
        let native = native(scale, offset, &counts);
        assert_eq!(native.schema, scale.min(8));
        assert_eq!(buckets(&native.positive), expected, "scale {scale} offset {offset} {counts:?}");
    }
}

#[test]
fn exponential_histograms_of_the_specification() {
    /// Scale, offset, counts, and the buckets they should become.
    type Case<'a> = (i32, i32, &'a [u64], &'a [(i32, i64)]);
    let cases: [Case<'_>; 4] = [
        (3, 3, &[10, 0, 0, 20, 5, 2], &[(4, 10), (7, 20), (8, 5), (9, 2)]),
        (9, 0, &[0, 0, 3, 5], &[(2, 8)]),
        (9, 0, &[0, 0, 0, 0, 3, 5], &[(3, 8)]),
        (9, -2, &[1, 2, 3, 4], &[(0, 3), (1, 7)]),
    ];
    for (scale, offset, counts, expected) in cases {
        assert_eq!(buckets(&native(scale, offset, counts).positive), expected.iter().copied().collect());
    }
    let filled = native(3, 3, &[10, 0, 0, 20, 5, 2]);
    assert_eq!(filled.positive.spans, [(4, 6)]);
    assert_eq!(filled.positive.deltas, [10, -10, 0, 20, -15, -3]);
}

/// Buckets with a count, by index.
fn buckets(spans: &Spans) -> std::collections::BTreeMap<i32, i64> {
    let (mut index, mut count) = (0, 0);
    let mut deltas = spans.deltas.iter();
    let mut found = std::collections::BTreeMap::new();
    for &(offset, length) in &spans.spans {
        index += offset;
        for _ in 0..length {
            count += deltas.next().unwrap();
            if count > 0 {
                found.insert(index, count);
            }
            index += 1;
        }
    }
    assert_eq!(deltas.next(), None);
    found
}

fn native(scale: i32, offset: i32, counts: &[u64]) -> NativeHistogram {
    use nyquist_core::proto::metrics::v1::{ExponentialHistogramDataPoint, exponential_histogram_data_point::Buckets};
    use prost::Message;
    let point = ExponentialHistogramDataPoint {
        scale,
        count: counts.iter().sum(),
        sum: Some(1.0),
        positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
        ..Default::default()
    };
    let bytes = point.encode_to_vec();
    let (_, histogram) = points::exponential(&bytes, |_| {});
    let mut native = NativeHistogram::default();
    native.fill(&histogram).unwrap();
    native
}

/// The remembered layout of labels gives the very bytes that the long way gives, for any mix of
/// keys, empty values and scopes.
#[test]
fn layouts_change_nothing() {
    use nyquist_core::proto::metrics::v1::{
        Gauge, Metric, MetricsData, NumberDataPoint, metric::Data, number_data_point,
    };
    use prost::Message;
    #[derive(Default)]
    struct Collect(Vec<(Vec<u8>, [usize; 2], u64)>, LostLabels);
    impl Sink for Collect {
        fn point(&mut self, point: &Point<'_>) {
            let [start, middle, _] = point.labels.pieces();
            self.0.push((point.labels.encoded().to_vec(), [start.len(), middle.len()], point.hash));
        }
        fn dropped(&mut self, _: Untranslatable, _: &[u8], _: usize) {}
        fn labels_lost(&mut self, _: &[u8], lost: LostLabels) {
            self.1.unnamable += lost.unnamable;
            self.1.overwritten += lost.overwritten;
            self.1.joined += lost.joined;
        }
    }
    const KEYS: [&str; 9] = ["a.b", "a_b", "http.route", "Zone", "job", "é", "1st", "__name__", "x"];
    let key = proptest::sample::select(&KEYS[..]);
    let attribute = (key, proptest::sample::select(&["", "v", "w"][..]));
    let point = proptest::collection::vec(attribute, 0..5);
    let scopes = proptest::collection::vec((0..2usize, proptest::collection::vec(point, 1..8)), 1..4);
    proptest::proptest!(|(scopes in scopes)| {
        let seed = HashSeed::default();
        let settings: Arc<Settings> = Arc::default();
        let mut one_for_all = Translator::new(Arc::clone(&settings), seed.clone());
        let (mut short, mut long) = (Collect::default(), Collect::default());
        for (scope, points) in scopes {
            let data_points: Vec<NumberDataPoint> = points.iter().map(|attributes| NumberDataPoint {
                attributes: crate::testing::attributes(attributes),
                value: Some(number_data_point::Value::AsInt(1)),
                ..Default::default()
            }).collect();
            let push = |data_points: Vec<NumberDataPoint>| -> MetricsData {
                let metric = Metric { name: "m".into(), data: Some(Data::Gauge(Gauge { data_points })), ..Default::default() };
                crate::testing::push_from(&[("service.name", ["one", "two"][scope])], vec![metric])
            };
            one_for_all.translate(&push(data_points.clone()).encode_to_vec(), &mut short);
            for point in data_points {
                // A new translator has nothing to remember.
                let mut fresh = Translator::new(Arc::clone(&settings), seed.clone());
                fresh.translate(&push(vec![point]).encode_to_vec(), &mut long);
            }
        }
        proptest::prop_assert_eq!(&short.0, &long.0);
        proptest::prop_assert_eq!(short.1, long.1);
    });
}
