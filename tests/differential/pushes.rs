//! Metrics of every kind, with odd names, labels, resources, scopes and buckets.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::support::otlp::attribute;

pub(crate) const DELTA: i32 = 1;
pub(crate) const CUMULATIVE: i32 = 2;

/// When points were made, in nanoseconds since the epoch: one second in, one minute after the start.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) start: u64,
    pub(crate) now: u64,
}

impl Times {
    /// Later by so many seconds.
    pub(crate) fn after(self, seconds: u64) -> Self {
        Self { now: self.now + seconds * 1_000_000_000, ..self }
    }
}

/// What a test sends in one piece.
pub(crate) fn request(resources: Vec<ResourceMetrics>) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest { resource_metrics: resources }
}

/// Metrics of a resource, without a scope.
pub(crate) fn of(resource: &[(&str, &str)], metrics: Vec<Metric>) -> ResourceMetrics {
    scoped(resource, InstrumentationScope::default(), "", metrics)
}

/// The resource of most metrics.
pub(crate) const CART: &[(&str, &str)] =
    &[("service.namespace", "shop"), ("service.name", "cart"), ("service.instance.id", "i-1"), ("host.name", "h1")];

fn scoped(
    resource: &[(&str, &str)],
    scope: InstrumentationScope,
    schema_url: &str,
    metrics: Vec<Metric>,
) -> ResourceMetrics {
    let attributes = resource.iter().map(|(key, value)| attribute(key, value)).collect();
    ResourceMetrics {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: schema_url.to_owned() }],
        ..ResourceMetrics::default()
    }
}

fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: format!("What {name} is"),
        data: Some(data),
        ..Metric::default()
    }
}

pub(crate) fn number(times: Times, value: f64, labels: &[(&str, &str)]) -> NumberDataPoint {
    NumberDataPoint {
        attributes: labels.iter().map(|(key, value)| attribute(key, value)).collect(),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

pub(crate) fn gauge(name: &str, unit: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    metric(name, unit, Data::Gauge(Gauge { data_points }))
}

pub(crate) fn sum(name: &str, unit: &str, monotonic: bool, temporality: i32, points: Vec<NumberDataPoint>) -> Metric {
    let sum = Sum { data_points: points, aggregation_temporality: temporality, is_monotonic: monotonic };
    metric(name, unit, Data::Sum(sum))
}

pub(crate) fn histogram(name: &str, temporality: i32, data_points: Vec<HistogramDataPoint>) -> Metric {
    metric(name, "s", Data::Histogram(Histogram { data_points, aggregation_temporality: temporality }))
}

pub(crate) fn histogram_point(times: Times, bounds: &[f64], counts: &[u64]) -> HistogramDataPoint {
    HistogramDataPoint {
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count: counts.iter().sum(),
        sum: Some(12.5),
        explicit_bounds: bounds.to_vec(),
        bucket_counts: counts.to_vec(),
        ..HistogramDataPoint::default()
    }
}

pub(crate) fn exponential(name: &str, temporality: i32, data_points: Vec<ExponentialHistogramDataPoint>) -> Metric {
    let data = ExponentialHistogram { data_points, aggregation_temporality: temporality };
    metric(name, "By", Data::ExponentialHistogram(data))
}

/// Of positive and negative buckets with their offsets, and a zero count.
pub(crate) fn exponential_point(
    times: Times,
    scale: i32,
    positive: (i32, &[u64]),
    negative: (i32, &[u64]),
    zero_count: u64,
) -> ExponentialHistogramDataPoint {
    let buckets = |(offset, counts): (i32, &[u64])| Some(Buckets { offset, bucket_counts: counts.to_vec() });
    ExponentialHistogramDataPoint {
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        scale,
        zero_count,
        count: zero_count + positive.1.iter().sum::<u64>() + negative.1.iter().sum::<u64>(),
        sum: Some(99.5),
        positive: buckets(positive),
        negative: buckets(negative),
        ..ExponentialHistogramDataPoint::default()
    }
}

fn summary(name: &str, times: Times, quantiles: &[(f64, f64)], flags: u32) -> Metric {
    let quantile_values = quantiles.iter().map(|&(quantile, value)| ValueAtQuantile { quantile, value }).collect();
    let point = SummaryDataPoint {
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count: 7,
        sum: 3.25,
        quantile_values,
        flags,
        ..SummaryDataPoint::default()
    };
    metric(name, "ms", Data::Summary(Summary { data_points: vec![point] }))
}

pub(crate) fn exemplar(times: Times, value: f64, labels: &[(&str, &str)]) -> Exemplar {
    Exemplar {
        filtered_attributes: labels.iter().map(|(key, value)| attribute(key, value)).collect(),
        time_unix_nano: times.now,
        trace_id: (1..=16).collect(),
        span_id: (1..=8).collect(),
        value: Some(exemplar::Value::AsDouble(value)),
    }
}

/// Everything that both ways should bring to the same series and values.
pub(crate) fn common(times: Times, seed: u64) -> ExportMetricsServiceRequest {
    let other = [("service.name", "basket"), ("telemetry.sdk.name", "opentelemetry"), ("a.b", "1"), ("a_b", "2")];
    let scope = InstrumentationScope {
        name: "lib.http".to_owned(),
        version: "1.2".to_owned(),
        attributes: vec![attribute("team", "x"), attribute("short.name", "y")],
        ..InstrumentationScope::default()
    };
    let nobody = vec![gauge("nobody", "", vec![number(times, 1.0, &[("a", "b")])])];
    let only_instance = vec![gauge("only.instance", "", vec![number(times, 1.0, &[])])];
    let mut first: Vec<Metric> = numbers(times);
    first.extend(histograms(times));
    first.extend(exponentials(times, seed));
    first.push(summary("request.latency", times, &[(0.0, -1.0), (0.5, 1.5), (0.999, f64::NAN), (1.0, 2e9)], 0));
    first.push(summary("no.quantiles", times, &[], 0));
    first.push(summary("ended.summary", times, &[(0.5, 1.0)], 1));
    request(vec![
        of(CART, first),
        of(&other, vec![sum("visits", "1", true, CUMULATIVE, vec![number(times, 3.0, &[("job", "mine"), ("x", "")])])]),
        scoped(CART, scope, "https://example.org/schema", vec![gauge("scoped", "", vec![number(times, 1.0, &[])])]),
        of(&[], nobody),
        of(&[("service.instance.id", "i-9"), ("service.namespace", "shop"), ("os", "linux")], only_instance),
    ])
}

fn numbers(times: Times) -> Vec<Metric> {
    let mut int = number(times, 0.0, &[]);
    int.value = Some(number_data_point::Value::AsInt(9_007_199_254_740_993));
    let mut typed = number(times, 1.0, &[]);
    let array = ArrayValue { values: vec![any(Value::IntValue(1)), any(Value::StringValue("a\"b".to_owned()))] };
    for (key, value) in [
        ("int", Value::IntValue(-7)),
        ("double", Value::DoubleValue(1e21)),
        ("small", Value::DoubleValue(1.5e-7)),
        ("bool", Value::BoolValue(true)),
        ("bytes", Value::BytesValue(vec![0, 1, 254])),
        ("array", Value::ArrayValue(array)),
    ] {
        typed.attributes.push(KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() });
    }
    let mut ended = number(times, 5.0, &[]);
    ended.flags = 1;
    let mut exemplified = number(times, 8.0, &[]);
    exemplified.exemplars = vec![exemplar(times, 2.0, &[("user", "7")]), exemplar(times.after(1), 1.0, &[])];
    let odd = [
        ("http.request.method", "GET"),
        ("1st", "v"),
        ("_under", "u"),
        ("a..b", "w"),
        ("naïve", "n"),
        ("colon:ed", "c"),
        ("CamelCase", "x"),
        ("text", "quote \" slash \\ line\nend 日本 🙂"),
    ];
    vec![
        gauge("mem.util", "1", vec![number(times, 0.5, &[("cpu", "0")]), number(times, -0.25, &[("cpu", "1")])]),
        gauge(
            "odd.values",
            "",
            vec![
                number(times, f64::INFINITY, &[("v", "inf")]),
                number(times, f64::NEG_INFINITY, &[("v", "neg")]),
                number(times, f64::NAN, &[("v", "nan")]),
                number(times, -0.0, &[("v", "minus zero")]),
                number(times, 5e-324, &[("v", "tiny")]),
            ],
        ),
        gauge("big.int", "By", vec![int]),
        gauge("odd.labels", "", vec![number(times, 1.0, &odd)]),
        gauge("gauge.exemplar", "", vec![exemplified.clone()]),
        gauge("colliding", "", vec![number(times, 1.0, &[("foo.bar", "a"), ("foo_bar", "b"), ("foo-bar", "c")])]),
        gauge("typed.labels", "", vec![typed]),
        gauge("ended.gauge", "", vec![ended]),
        gauge("5xx.ratio", "%", vec![number(times, 1.0, &[])]),
        gauge("system.memory..usage_", "KiBy", vec![number(times, 1.0, &[])]),
        gauge("job:rate:5m", "{req}/s", vec![number(times, 1.0, &[])]),
        gauge("temperature", "°C", vec![number(times, 21.5, &[])]),
        gauge("speed", "m/s", vec![number(times, 3.0, &[])]),
        gauge("überall.größe", "By", vec![number(times, 3.0, &[])]),
        sum(
            "http.requests",
            "{request}",
            true,
            CUMULATIVE,
            vec![number(times, 7.0, &[]), number(times, 8.0, &[("le", "x")])],
        ),
        sum("exemplified", "", true, CUMULATIVE, vec![exemplified]),
        sum("requests.total.count", "", true, CUMULATIVE, vec![number(times, 1.0, &[])]),
        sum("system.cpu.time", "s", true, CUMULATIVE, vec![number(times, 1.25, &[])]),
        sum("queue.size", "{item}", false, CUMULATIVE, vec![number(times, -3.0, &[])]),
        sum("delta.sum", "By", true, DELTA, vec![number(times, 5.0, &[("a", "b")])]),
        sum("delta.updown", "", false, DELTA, vec![number(times, -2.0, &[])]),
    ]
}

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn histograms(times: Times) -> Vec<Metric> {
    let bounds = [0.005, 0.5, 1.0, 1e7];
    let plain = histogram_point(times, &bounds, &[1, 0, 2, 3, 4]);
    let mut exemplified = plain.clone();
    exemplified.exemplars =
        vec![exemplar(times, 0.001, &[]), exemplar(times, 0.7, &[("user", "7")]), exemplar(times.after(1), 1e9, &[])];
    let mut ended = plain.clone();
    ended.flags = 1;
    let mut labelled = plain.clone();
    labelled.attributes = vec![attribute("Zone", "z"), attribute("zone", "y")];
    vec![
        histogram("request.duration", CUMULATIVE, vec![plain, labelled]),
        histogram(
            "negative.bounds",
            CUMULATIVE,
            vec![histogram_point(times, &[-2.0, -1.0, 0.0, 1.0, 2.0], &[10, 0, 0, 20, 5, 2])],
        ),
        histogram("no.buckets", CUMULATIVE, vec![histogram_point(times, &[], &[4])]),
        histogram("empty.histogram", CUMULATIVE, vec![histogram_point(times, &bounds, &[0; 5])]),
        histogram("exemplified.duration", CUMULATIVE, vec![exemplified]),
        histogram("ended.duration", CUMULATIVE, vec![ended]),
        histogram("delta.duration", DELTA, vec![histogram_point(times, &bounds, &[1, 0, 2, 3, 4])]),
    ]
}

/// A generator of numbers: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Counts of buckets, mostly none.
    fn counts(&mut self) -> Vec<u64> {
        let len = self.below(80);
        (0..len).map(|_| if self.below(3) == 0 { self.below(50) } else { 0 }).collect()
    }
}

fn exponentials(times: Times, seed: u64) -> Vec<Metric> {
    let point = |scale, positive: (i32, &[u64]), negative: (i32, &[u64]), zero| {
        exponential_point(times, scale, positive, negative, zero)
    };
    let mut ended = point(3, (0, &[1]), (0, &[]), 0);
    ended.flags = 1;
    let mut exemplified = point(3, (0, &[1, 2]), (0, &[]), 0);
    exemplified.exemplars = vec![exemplar(times, 1.05, &[("user", "7")])];
    let mut random = Random(seed);
    let many = (0..200).map(|index| {
        let scale = random.below(25) as i32 - 4;
        let (positive, negative) = (random.counts(), random.counts());
        let offset = |random: &mut Random| random.below(400) as i32 - 200;
        let (above, below) = (offset(&mut random), offset(&mut random));
        let mut point = point(scale, (above, &positive), (below, &negative), random.below(3));
        point.attributes = vec![attribute("n", &index.to_string())];
        point
    });
    let many = many.collect();
    vec![
        exponential("bytes.sent", CUMULATIVE, vec![point(3, (3, &[10, 0, 0, 20, 5, 2]), (0, &[]), 0)]),
        exponential("down.scaled", CUMULATIVE, vec![point(9, (0, &[0, 0, 3, 5]), (-2, &[1, 2, 3, 4]), 0)]),
        exponential("high.scale", CUMULATIVE, vec![point(20, (-1_000_000, &[1; 300]), (500, &[2; 10]), 0)]),
        exponential("both.signs", CUMULATIVE, vec![point(0, (-3, &[1, 2, 3]), (2, &[4, 0, 0, 0, 5]), 6)]),
        exponential("only.zeros", CUMULATIVE, vec![point(0, (0, &[]), (0, &[]), 6)]),
        exponential(
            "nothing.yet",
            CUMULATIVE,
            vec![ExponentialHistogramDataPoint { sum: Some(0.0), ..point(20, (0, &[]), (0, &[]), 0) }],
        ),
        exponential("ended.exponential", CUMULATIVE, vec![ended]),
        exponential("exemplified.bytes", CUMULATIVE, vec![exemplified]),
        exponential("delta.bytes", DELTA, vec![point(4, (-2, &[1, 2, 3]), (1, &[4]), 1)]),
        exponential("many", CUMULATIVE, many),
    ]
}
