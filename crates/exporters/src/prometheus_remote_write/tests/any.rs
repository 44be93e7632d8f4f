//! Any metrics whatever: both versions can be read, obey the protocol, and say the same. (`Bench::request` checks it.)

use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use nyquist_core::proto::metrics::v1::exponential_histogram_data_point::Buckets;
use nyquist_core::proto::metrics::v1::metric::Data;
use nyquist_core::proto::metrics::v1::summary_data_point::ValueAtQuantile;
use nyquist_core::proto::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
    number_data_point,
};
use nyquist_core::proto::resource::v1::Resource;

use super::bench::Bench;
use super::dice::Dice;
use crate::testing::T;

const TEXTS: &[&str] = &[
    "",
    "_",
    "___",
    "a",
    "a.b",
    "a_b",
    "a..b",
    "1st",
    "é",
    "日本",
    "__name__",
    "le",
    "quantile",
    "job",
    "instance",
    "otel_scope_name",
    "service.name",
    "service.namespace",
    "service.instance.id",
    "trace_id",
    "foo:bar",
    "a-b/c",
    " ",
    "total",
    "x\u{0}y",
    "k8s.pod.name",
];

fn text(dice: &mut Dice) -> String {
    match dice.below(20) {
        0 => "long".repeat(dice.below(200) as usize),
        1 => dice.bits().to_string(),
        _ => dice.pick(TEXTS).to_owned(),
    }
}

fn double(dice: &mut Dice) -> f64 {
    let special = [0.0, -0.0, 1.0, 1.5, -7.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE];
    if dice.chance(10) { f64::from_bits(dice.bits()) } else { dice.pick(&special) }
}

fn time(dice: &mut Dice) -> u64 {
    let millis = (T as u64 + dice.below(4)) * 1_000_000;
    if dice.chance(5) { dice.pick(&[0, 1, u64::MAX, i64::MAX as u64]) } else { millis }
}

fn value(dice: &mut Dice) -> Option<AnyValue> {
    let value = match dice.below(10) {
        0 => return None,
        1 => Value::BoolValue(dice.chance(50)),
        2 => Value::IntValue(dice.bits() as i64),
        3 => Value::DoubleValue(double(dice)),
        4 => Value::BytesValue(dice.bits().to_le_bytes().to_vec()),
        5 => Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(Value::StringValue(text(dice))) }] }),
        _ => Value::StringValue(text(dice)),
    };
    Some(AnyValue { value: Some(value) })
}

fn attributes(dice: &mut Dice, most: u64) -> Vec<KeyValue> {
    dice.some(most, |dice| KeyValue { key: text(dice), value: value(dice), ..KeyValue::default() })
}

fn exemplars(dice: &mut Dice) -> Vec<Exemplar> {
    let most = if dice.chance(30) { 4 } else { 0 };
    dice.some(most, |dice| Exemplar {
        filtered_attributes: attributes(dice, 3),
        time_unix_nano: time(dice),
        trace_id: dice.pick(&[vec![], vec![1; 16], vec![0; 16], vec![2; 3]]),
        span_id: dice.pick(&[vec![], vec![1; 8], vec![2; 30]]),
        value: dice.chance(90).then(|| exemplar::Value::AsDouble(double(dice))),
    })
}

fn flags(dice: &mut Dice) -> u32 {
    u32::from(dice.chance(10))
}

fn numbers(dice: &mut Dice) -> Vec<NumberDataPoint> {
    dice.some(5, |dice| NumberDataPoint {
        attributes: attributes(dice, 4),
        start_time_unix_nano: time(dice),
        time_unix_nano: time(dice),
        exemplars: exemplars(dice),
        flags: flags(dice),
        value: match dice.below(10) {
            0 => None,
            1..4 => Some(number_data_point::Value::AsInt(dice.bits() as i64)),
            _ => Some(number_data_point::Value::AsDouble(double(dice))),
        },
    })
}

fn histograms(dice: &mut Dice) -> Vec<HistogramDataPoint> {
    dice.some(4, |dice| {
        let mut explicit_bounds = dice.some(6, double);
        if dice.chance(80) {
            explicit_bounds.sort_by(f64::total_cmp);
        }
        let mut bucket_counts = dice.some(8, |dice| dice.below(5));
        if dice.chance(80) {
            bucket_counts.resize(explicit_bounds.len() + 1, 1);
        }
        let all: u64 = bucket_counts.iter().sum();
        HistogramDataPoint {
            attributes: attributes(dice, 3),
            start_time_unix_nano: time(dice),
            time_unix_nano: time(dice),
            count: if dice.chance(90) { all } else { dice.bits() },
            sum: dice.chance(80).then(|| double(dice)),
            explicit_bounds,
            bucket_counts,
            exemplars: exemplars(dice),
            flags: flags(dice),
            ..HistogramDataPoint::default()
        }
    })
}

fn buckets(dice: &mut Dice) -> Option<Buckets> {
    let offset = if dice.chance(90) { dice.below(40) as i32 - 20 } else { dice.bits() as i32 };
    dice.chance(80).then(|| Buckets { offset, bucket_counts: dice.some(12, |dice| dice.below(4)) })
}

fn exponentials(dice: &mut Dice) -> Vec<ExponentialHistogramDataPoint> {
    dice.some(4, |dice| {
        let (positive, negative, zero_count) = (buckets(dice), buckets(dice), dice.below(3));
        let of =
            |buckets: &Option<Buckets>| buckets.as_ref().map_or(0, |buckets| buckets.bucket_counts.iter().sum::<u64>());
        let all = of(&positive) + of(&negative) + zero_count;
        ExponentialHistogramDataPoint {
            attributes: attributes(dice, 3),
            start_time_unix_nano: time(dice),
            time_unix_nano: time(dice),
            count: if dice.chance(90) { all } else { dice.bits() },
            sum: dice.chance(90).then(|| double(dice)),
            scale: if dice.chance(90) { dice.below(26) as i32 - 5 } else { dice.bits() as i32 },
            zero_count,
            zero_threshold: double(dice),
            positive,
            negative,
            exemplars: exemplars(dice),
            flags: flags(dice),
            ..ExponentialHistogramDataPoint::default()
        }
    })
}

fn summaries(dice: &mut Dice) -> Vec<SummaryDataPoint> {
    dice.some(3, |dice| SummaryDataPoint {
        attributes: attributes(dice, 3),
        start_time_unix_nano: time(dice),
        time_unix_nano: time(dice),
        count: dice.below(9),
        sum: double(dice),
        quantile_values: dice.some(4, |dice| ValueAtQuantile { quantile: double(dice), value: double(dice) }),
        flags: flags(dice),
    })
}

fn a_metric(dice: &mut Dice) -> Metric {
    let aggregation_temporality = if dice.chance(80) { 2 } else { dice.below(4) as i32 };
    let data = match dice.below(6) {
        0 => Data::Gauge(Gauge { data_points: numbers(dice) }),
        1 => Data::Sum(Sum { data_points: numbers(dice), aggregation_temporality, is_monotonic: dice.chance(70) }),
        2 | 3 => Data::Histogram(Histogram { data_points: histograms(dice), aggregation_temporality }),
        4 => Data::ExponentialHistogram(ExponentialHistogram {
            data_points: exponentials(dice),
            aggregation_temporality,
        }),
        _ => Data::Summary(Summary { data_points: summaries(dice) }),
    };
    Metric {
        name: text(dice),
        description: text(dice),
        unit: dice.pick(&["", "s", "By/s", "1", "%", "{x}", "°C"]).to_owned(),
        metadata: attributes(dice, 1),
        data: dice.chance(97).then_some(data),
    }
}

fn any_metrics(dice: &mut Dice) -> MetricsData {
    let scope = |dice: &mut Dice| ScopeMetrics {
        scope: dice.chance(80).then(|| InstrumentationScope {
            name: text(dice),
            version: text(dice),
            attributes: attributes(dice, 2),
            ..InstrumentationScope::default()
        }),
        metrics: dice.some(6, a_metric),
        schema_url: text(dice),
    };
    let resource = |dice: &mut Dice| ResourceMetrics {
        resource: dice.chance(90).then(|| Resource { attributes: attributes(dice, 6), ..Resource::default() }),
        scope_metrics: dice.some(3, scope),
        ..ResourceMetrics::default()
    };
    MetricsData { resource_metrics: dice.some(3, resource) }
}

fn any_config(dice: &mut Dice) -> String {
    let mut keys = Vec::from_iter(dice.chance(20).then_some("namespace: ns"));
    keys.extend(dice.chance(30).then_some("collapse_underscores: true"));
    keys.extend(dice.chance(30).then_some("disable_scope_info: true"));
    keys.extend(dice.chance(30).then_some("resource_to_telemetry_conversion: {enabled: true}"));
    keys.extend(dice.chance(30).then_some("external_labels: {region: eu, a_b: c, zone: z}"));
    keys.extend(dice.chance(30).then_some("send_metadata: true"));
    match dice.below(4) {
        0 => keys.extend([
            "protobuf_message: io.prometheus.write.v2.Request",
            "convert_explicit_histograms_to_nhcb: true",
            "translation_strategy: NoTranslation",
        ]),
        1 => keys.extend([
            "protobuf_message: io.prometheus.write.v2.Request",
            "convert_explicit_histograms_to_nhcb: true",
            "keep_classic_histograms: true",
            "translation_strategy: NoUTF8EscapingWithSuffixes",
        ]),
        2 => keys.push("add_metric_suffixes: false"),
        _ => {}
    }
    format!("{{{}}}", keys.join(", "))
}

#[test]
fn any_metrics_say_the_same_in_both_versions() {
    let (mut series, mut histograms) = (0, 0);
    for seed in 0..600 {
        let mut dice = Dice::new(seed);
        let config = any_config(&mut dice);
        println!("seed {seed}: {config}");
        let mut bench = Bench::new(&config);
        for _ in 0..3 {
            let request = bench.request(&any_metrics(&mut dice));
            series += request.timeseries.len();
            histograms += request.timeseries.iter().filter(|series| !series.histograms.is_empty()).count();
        }
    }
    assert!(series > 20_000 && histograms > 1000, "{series} series, {histograms} of them native histograms");
}
