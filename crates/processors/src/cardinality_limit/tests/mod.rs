//! Tests of the limiter. The names of the cases are those of the test plan, L1 to L34: those that are sums and gauges in
//! steps are rows of `table`, the others are in the file of what they are about; L34 is tests/cardinality_limit.rs of
//! the gateway.

mod budgets;
mod distributions;
mod earned;
mod flushing;
mod hostile;
mod model;
mod report;
mod restart;
mod settings;
mod skew;
mod sums;
mod table;
mod tenants;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, Signal};
use nyquist_core::clock::{Clock, ManualClock};
use nyquist_core::component::{Component, Extension, Extensions};
use nyquist_core::config::ComponentId;
use nyquist_core::proto::common::v1::{AnyValue, KeyValue, any_value};
use nyquist_core::proto::metrics::v1::metric::Data;
use nyquist_core::proto::metrics::v1::{
    AggregationTemporality, Gauge, Metric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    number_data_point,
};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::storage::{Error, Log, Options, Owner, Recovered, Storage};
use nyquist_core::telemetry::{Entry, Ledger, Telemetry};
use prost::Message;

use super::config::CardinalityLimitConfig;
use super::hash::Hashes;
use super::limiter::Limiter;
use super::place::Place;
use crate::test_util::{self, Sink, config};

/// When the limiter under test begins.
const BEGIN: u64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
/// When the streams begin, unless a test says otherwise.
const START: u64 = BEGIN + SECOND;

/// The time of export number `n`.
fn at(n: u64) -> u64 {
    START + (1 + n) * 10 * SECOND
}

struct Bench {
    limiter: Limiter,
    place: Option<Arc<Place>>,
    sink: Arc<Sink>,
    clock: Arc<ManualClock>,
    telemetry: Arc<Telemetry>,
    ledger: Ledger,
    accepted: std::sync::atomic::AtomicUsize,
}

impl Bench {
    fn new(yaml: &str) -> Self {
        Self::at(yaml, &Extensions::default(), BEGIN)
    }

    /// One that begins at `begin`.
    fn at(yaml: &str, extensions: &Extensions, begin: u64) -> Self {
        Self::seeded(yaml, extensions, begin, 1)
    }

    /// One whose hashes come from `seed`.
    fn seeded(yaml: &str, extensions: &Extensions, begin: u64, seed: u64) -> Self {
        let (sink, clock, telemetry) = (Arc::new(Sink::default()), ManualClock::new(begin), Telemetry::new());
        let time = Arc::clone(&clock) as Arc<dyn Clock>;
        let context = test_util::context(Signal::Metrics, Arc::clone(&sink) as _, extensions, &telemetry, time);
        let ledger = context.ledger.clone();
        let config = config::<CardinalityLimitConfig>(yaml);
        let place = Place::find(&config, &context).unwrap().map(Arc::new);
        // Far from 0 and from all ones, of which the hash function makes one value of all.
        let hashes = Hashes::new([seed ^ 0x9e37_79b9_7f4a_7c15, seed ^ 0xd1b5_4a32_d192_ed03]);
        let limiter = config.limiter(context, hashes).unwrap();
        Self { limiter, place, sink, clock, telemetry, ledger, accepted: Default::default() }
    }

    /// One with the storage in `directory`, which takes over what is there.
    async fn stored(yaml: &str, directory: &Path, begin: u64) -> Self {
        Self::stored_and_seeded(yaml, directory, begin, 1).await
    }

    async fn stored_and_seeded(yaml: &str, directory: &Path, begin: u64, seed: u64) -> Self {
        let mut extensions = Extensions::default();
        extensions.insert(&ComponentId::of("place"), Arc::new(Directory(directory.to_owned())));
        let mut bench = Self::seeded(yaml, &extensions, begin, seed);
        bench.place.clone().unwrap().open(&mut bench.limiter).await.unwrap();
        bench
    }

    /// Ends it as a shutdown does.
    async fn stop(&self) {
        self.limiter.flush(true).await;
        if let Some(place) = &self.place {
            place.close(&self.limiter, tokio::time::Instant::now() + Duration::from_secs(60)).await;
        }
    }

    /// Sends `data` as one batch.
    async fn send(&self, data: &MetricsData) {
        let mut batch = Batch::from_metrics(data.clone());
        let (items, bytes) = (batch.items(), batch.wire().clone());
        self.limiter.consume(Batch::from_wire(Signal::Metrics, bytes, items)).await.unwrap();
        self.accepted.fetch_add(items, std::sync::atomic::Ordering::SeqCst);
    }

    /// What has been emitted since it was last asked. Also checks that the ledger balances.
    fn emitted(&self) -> Vec<Point> {
        let points: Vec<Point> = self.sink.take().into_iter().flat_map(points).collect();
        self.ledger.add(Entry::Emitted, points.len());
        let count = |entry| self.ledger.count(entry) as i64;
        let accepted = self.accepted.load(std::sync::atomic::Ordering::SeqCst) as i64;
        let dropped: u64 =
            nyquist_core::batch::DropReason::ALL.map(|reason| self.ledger.dropped_count(reason)).iter().sum();
        assert_eq!(
            accepted + count(Entry::Created),
            count(Entry::Emitted) + count(Entry::Merged) + dropped as i64 + self.ledger.held_count(),
            "the ledger does not balance"
        );
        points
    }

    /// Sends `data`, flushes, and returns what was emitted.
    async fn step(&self, data: &MetricsData) -> Vec<Point> {
        self.send(data).await;
        self.limiter.flush(false).await;
        self.emitted()
    }

    /// The value of one of the limiter's own metrics, summed over its labels.
    fn own(&self, name: &str) -> f64 {
        self.own_with(name, "")
    }

    /// The same of those with the label `pair`, as `key="value"`.
    fn own_with(&self, name: &str, pair: &str) -> f64 {
        let name = format!("otelcol_processor_cardinality_limit_{name}{{");
        let text = self.telemetry.render("");
        let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        text.lines().filter(|line| line.starts_with(&name) && line.contains(pair)).map(value).sum()
    }

    fn pass_time(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// A storage extension.
#[derive(Clone)]
struct Directory(PathBuf);

#[async_trait]
impl Storage for Directory {
    async fn open(&self, owner: &Owner) -> Result<(Log, Recovered), Error> {
        assert_eq!(owner.directory_name(), "processor_cardinality~5flimit__metrics");
        Log::open(&Options::new(self.0.clone())).await
    }
}

impl Component for Directory {}

impl Extension for Directory {
    fn storage(&self) -> Option<Arc<dyn Storage>> {
        Some(Arc::new(self.clone()))
    }
}

/// An emitted point.
#[derive(Debug, Clone, PartialEq)]
struct Point {
    resource: String,
    metric: String,
    /// `key=value`, sorted, with commas.
    attributes: String,
    start: u64,
    time: u64,
    is_end: bool,
    /// Of sums and gauges.
    value: f64,
    data: Data,
}

impl Point {
    fn series(&self) -> String {
        format!("{}/{}{{{}}}", self.resource, self.metric, self.attributes)
    }
}

fn labels(attributes: &[KeyValue]) -> String {
    let mut labels: Vec<String> = attributes
        .iter()
        .map(|pair| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(any_value::Value::StringValue(text)) => format!("{}={text}", pair.key),
            Some(any_value::Value::BoolValue(flag)) => format!("{}={flag}", pair.key),
            other => format!("{}={other:?}", pair.key),
        })
        .collect();
    labels.sort();
    labels.join(",")
}

fn points(mut batch: Batch) -> Vec<Point> {
    let items = batch.items();
    let mut points = Vec::new();
    for resource in &batch.metrics_mut().unwrap().resource_metrics {
        let resource_labels = labels(&resource.resource.clone().unwrap_or_default().attributes);
        assert!(!resource.scope_metrics.is_empty());
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            let mut push = |attributes: &[KeyValue], start, time, flags: u32, value, data| {
                points.push(Point {
                    resource: resource_labels.clone(),
                    metric: metric.name.clone(),
                    attributes: labels(attributes),
                    start,
                    time,
                    is_end: flags & 1 != 0,
                    value,
                    data,
                });
            };
            macro_rules! each {
                ($Kind:ident, $data:expr, $value:expr) => {{
                    let mut shell = $data.clone();
                    shell.data_points.clear();
                    for point in &$data.data_points {
                        let mut data = shell.clone();
                        data.data_points = vec![point.clone()];
                        let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
                        push(&point.attributes, start, time, point.flags, $value(point), Data::$Kind(data));
                    }
                }};
            }
            match metric.data.as_ref().unwrap() {
                Data::Gauge(data) => each!(Gauge, data, number),
                Data::Sum(data) => each!(Sum, data, number),
                Data::Histogram(data) => each!(Histogram, data, |_| 0.0),
                Data::ExponentialHistogram(data) => each!(ExponentialHistogram, data, |_| 0.0),
                Data::Summary(data) => each!(Summary, data, |_| 0.0),
            }
        }
    }
    assert_eq!(points.len(), items, "the batch claims another number of items");
    points
}

fn number(point: &NumberDataPoint) -> f64 {
    match point.value {
        Some(number_data_point::Value::AsInt(value)) => value as f64,
        Some(number_data_point::Value::AsDouble(value)) => value,
        None => f64::NAN,
    }
}

/// `a=1,b=2` as attributes: texts, but for `true`.
fn attributes(text: &str) -> Vec<KeyValue> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap();
        let value = match value {
            "true" => any_value::Value::BoolValue(true),
            text => any_value::Value::StringValue(text.to_owned()),
        };
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    };
    text.split(',').filter(|pair| !pair.is_empty()).map(pair).collect()
}

/// A point with an integer value, which began at [`START`].
fn point(labels: &str, value: i64, time: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: START,
        time_unix_nano: time,
        value: Some(number_data_point::Value::AsInt(value)),
        ..NumberDataPoint::default()
    }
}

/// A flag that the series has ended.
fn end(labels: &str, time: u64) -> NumberDataPoint {
    NumberDataPoint { value: None, flags: 1, ..point(labels, 0, time) }
}

fn cumulative(points: Vec<NumberDataPoint>) -> Data {
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    Data::Sum(Sum { data_points: points, aggregation_temporality, is_monotonic: true })
}

fn delta(points: Vec<NumberDataPoint>) -> Data {
    let aggregation_temporality = AggregationTemporality::Delta as i32;
    Data::Sum(Sum { data_points: points, aggregation_temporality, is_monotonic: true })
}

fn up_down(points: Vec<NumberDataPoint>) -> Data {
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    Data::Sum(Sum { data_points: points, aggregation_temporality, is_monotonic: false })
}

fn gauge(points: Vec<NumberDataPoint>) -> Data {
    Data::Gauge(Gauge { data_points: points })
}

/// A request with the metric `c` of the resource `r=<resource>`.
fn of(resource: &str, data: Data) -> MetricsData {
    let metric = Metric { name: "c".to_owned(), unit: "1".to_owned(), data: Some(data), ..Metric::default() };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let resource = Resource { attributes: attributes(&format!("r={resource}")), ..Resource::default() };
    MetricsData {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics,
            schema_url: "schema".to_owned(),
        }],
    }
}

fn request(data: Data) -> MetricsData {
    of("1", data)
}

/// Attributes and values of emitted sums and gauges.
fn values(points: &[Point]) -> BTreeMap<String, f64> {
    points.iter().filter(|point| !point.is_end).map(|point| (point.attributes.clone(), point.value)).collect()
}

fn map(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs.iter().map(|(labels, value)| ((*labels).to_owned(), *value)).collect()
}

/// The series named by `u=<name>` with values, as cumulative points at `time`.
fn users(values: &[(&str, i64)], time: u64) -> Vec<NumberDataPoint> {
    values.iter().map(|(user, value)| point(&format!("u={user}"), *value, time)).collect()
}

/// A limit of two values for the label `u`.
const TWO_USERS: &str = "rules: [{metrics: [c], labels: {u: 2}}]";

#[tokio::test]
async fn a_batch_within_the_limits_passes_as_the_same_bytes() {
    let bench = Bench::new(&format!("{{{TWO_USERS}}}"));
    let bytes: bytes::Bytes = request(cumulative(users(&[("a", 1), ("b", 2)], at(0)))).encode_to_vec().into();
    bench.limiter.consume(Batch::from_wire(Signal::Metrics, bytes.clone(), 2)).await.unwrap();
    let passed = bench.sink.take().remove(0).into_wire();
    assert_eq!(passed.as_ptr(), bytes.as_ptr());
}
