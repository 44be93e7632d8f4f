//! What the limiter's state takes under hostile senders: by the allocator, and by the limiter's own account
//! (`state_bytes`), which `memory_limit_mib` bounds. A program of its own, because it counts for the whole of it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod counting;

use std::sync::Arc;

use async_trait::async_trait;
use counting::held;
use nyquist_core::batch::{Batch, Metadata, Refusal, Signal};
use nyquist_core::clock::{Clock, ManualClock};
use nyquist_core::component::{Component, Consumer, Extensions, Host, Processor, ProcessorConfig, ProcessorContext};
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::proto::common::v1::{AnyValue, KeyValue, any_value};
use nyquist_core::proto::metrics::v1::exponential_histogram_data_point::Buckets;
use nyquist_core::proto::metrics::v1::metric::Data;
use nyquist_core::proto::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Histogram, HistogramDataPoint, Metric, MetricsData,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, number_data_point,
};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::{Ledger, Telemetry};
use nyquist_processors::cardinality_limit::CardinalityLimitConfig;

const MIB: f64 = (1 << 20) as f64;
/// The memory limit of every case, in MiB.
const LIMIT: f64 = 8.0;
const BATCHES: u64 = 20;
/// Points of a batch.
const POINTS: u64 = 2000;
/// Nanoseconds.
const START: u64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
const CUMULATIVE: i32 = 2;

struct Nowhere;

impl Component for Nowhere {}

#[async_trait]
impl Consumer for Nowhere {
    async fn consume(&self, _: Batch) -> Result<(), Refusal> {
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What a hostile sender varies.
struct Case {
    name: &'static str,
    /// The limiter's configuration, but for the memory limit.
    config: &'static str,
    /// A metric with its resource, for each number.
    make: fn(u64) -> ResourceMetrics,
}

const CASES: [Case; 13] = [
    Case {
        name: "series that pass",
        config: "default: {max_series_per_metric: 1000000, max_values_per_label: 1000000}",
        make: |n| one(sum(&[("u", &text(n))], n)),
    },
    Case {
        name: "collapsed sums",
        config: "rules: [{metrics: ['*'], labels: {u: 0}}]",
        make: |n| one(sum(&[("u", &text(n))], n)),
    },
    Case {
        name: "collapsed histograms",
        config: "rules: [{metrics: ['*'], labels: {u: 0}}]",
        make: |n| one(histogram(n, 10)),
    },
    Case {
        name: "histograms with a thousand bounds",
        config: "rules: [{metrics: ['*'], labels: {u: 0}}]",
        make: |n| one(histogram(n, 1000)),
    },
    Case {
        name: "histograms with bounds of their own",
        config: "max_series: 100000",
        make: |n| named(&format!("m{n}"), histogram(n, 30)),
    },
    Case {
        name: "exponential histograms",
        config: "rules: [{metrics: ['*'], labels: {u: 0}}]",
        make: |n| one(exponential(n)),
    },
    Case {
        name: "names of metrics",
        config: "max_series: 1000000",
        make: |n| named(&format!("{n}{}", "m".repeat(300)), sum(&[("u", "1")], n)),
    },
    Case {
        name: "names of labels",
        config: "max_series: 1000000",
        make: |n| named(&format!("m{}", n % 900), sum(&[(&format!("{n}{}", "k".repeat(300)), "1")], n)),
    },
    Case {
        name: "values of many labels, long ones",
        config: "",
        make: |n| named(&format!("m{}", n % 50), sum(&[("a", &long(n)), ("b", &long(n * 7)), ("d", &text(n % 3))], n)),
    },
    Case {
        name: "resources",
        config: "rules: [{metrics: ['*'], labels: {u: 0}}], per_resource: true",
        make: |n| of_resource(&long(n), sum(&[("u", &text(n))], n)),
    },
    Case {
        name: "tenants that earn slots",
        config: "tenant_from: 'resource[\"r\"]', max_tenants: 1000000, keep: top_k, min_sightings: 2, default: {max_values_per_label: 3}",
        make: |n| of_resource(&long(n / 10), sum(&[("u", &text(n))], n)),
    },
    Case {
        name: "exemplars",
        config: "rules: [{metrics: ['*'], labels: {u: 0}}]",
        make: |n| named(&format!("m{n}"), exemplified(n)),
    },
    Case {
        name: "overflow series",
        config: "on_exceed: overflow_series, default: {max_series_per_metric: 1}",
        make: |n| of_resource(&long(n / 4), sum(&[("u", &text(n))], n)),
    },
];

fn text(n: u64) -> String {
    format!("value-{n}")
}

fn long(n: u64) -> String {
    format!("{n}-{}", "x".repeat(200))
}

fn attributes(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    let value = |value: &str| Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    let pair =
        |(key, text): &(&str, &str)| KeyValue { key: (*key).to_owned(), value: value(text), ..KeyValue::default() };
    pairs.iter().map(pair).collect()
}

/// When point `n` was made.
fn time(n: u64) -> u64 {
    START + (2 + n / POINTS) * 10 * SECOND
}

fn number(labels: &[(&str, &str)], n: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: START + SECOND,
        time_unix_nano: time(n),
        value: Some(number_data_point::Value::AsInt(1)),
        ..NumberDataPoint::default()
    }
}

fn sum_of(point: NumberDataPoint) -> Data {
    Data::Sum(Sum { data_points: vec![point], aggregation_temporality: CUMULATIVE, is_monotonic: true })
}

fn sum(labels: &[(&str, &str)], n: u64) -> Data {
    sum_of(number(labels, n))
}

fn exemplified(n: u64) -> Data {
    let exemplar = |index| Exemplar {
        filtered_attributes: attributes(&[("path", &long(index))]),
        time_unix_nano: time(n) + index,
        trace_id: vec![7; 16],
        ..Exemplar::default()
    };
    sum_of(NumberDataPoint { exemplars: (0..4).map(exemplar).collect(), ..number(&[("u", &text(n))], n) })
}

fn histogram(n: u64, bounds: usize) -> Data {
    let point = HistogramDataPoint {
        attributes: attributes(&[("u", &text(n))]),
        start_time_unix_nano: START + SECOND,
        time_unix_nano: time(n),
        count: bounds as u64 + 1,
        sum: Some(1.0),
        explicit_bounds: (0..bounds)
            .map(|bound| bound as f64 + if bounds == 30 { n as f64 / 1e6 } else { 0.0 })
            .collect(),
        bucket_counts: vec![1; bounds + 1],
        ..HistogramDataPoint::default()
    };
    Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: CUMULATIVE })
}

fn exponential(n: u64) -> Data {
    let point = ExponentialHistogramDataPoint {
        attributes: attributes(&[("u", &text(n))]),
        start_time_unix_nano: START + SECOND,
        time_unix_nano: time(n),
        count: 160,
        sum: Some(1.0),
        scale: 5,
        positive: Some(Buckets { offset: n as i32 % 1000, bucket_counts: vec![1; 80] }),
        negative: Some(Buckets { offset: -(n as i32 % 1000), bucket_counts: vec![1; 80] }),
        ..ExponentialHistogramDataPoint::default()
    };
    Data::ExponentialHistogram(ExponentialHistogram { data_points: vec![point], aggregation_temporality: CUMULATIVE })
}

fn resource_metrics(resource: &str, metric: &str, data: Data) -> ResourceMetrics {
    let metric = Metric { name: metric.to_owned(), data: Some(data), ..Metric::default() };
    ResourceMetrics {
        resource: Some(Resource { attributes: attributes(&[("r", resource)]), ..Resource::default() }),
        scope_metrics: vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }],
        ..ResourceMetrics::default()
    }
}

fn one(data: Data) -> ResourceMetrics {
    resource_metrics("1", "requests", data)
}

fn named(metric: &str, data: Data) -> ResourceMetrics {
    resource_metrics("1", metric, data)
}

fn of_resource(resource: &str, data: Data) -> ResourceMetrics {
    resource_metrics(resource, "requests", data)
}

/// What is in use at one time, in MiB.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    held: f64,
    accounted: f64,
}

/// A limiter on its own, which is told when to flush by the clock of tokio.
struct Rig {
    processor: Arc<dyn Processor>,
    telemetry: Arc<Telemetry>,
    before: isize,
}

impl Rig {
    async fn start(config: &str) -> Self {
        let telemetry = Telemetry::new();
        let text = format!("{{{config}, memory_limit_mib: {LIMIT}}}").replace("{, ", "{");
        let (config, _) = from_str::<CardinalityLimitConfig>(&text).map_err(|problems| problems.to_string()).unwrap();
        let clock = ManualClock::new(START) as Arc<dyn Clock>;
        let before = held();
        let context = ProcessorContext {
            id: ComponentId::of("cardinality_limit"),
            pipeline: ComponentId::of("metrics"),
            signal: Signal::Metrics,
            next: Arc::new(Nowhere),
            ledger: Ledger::detached(),
            extensions: &Extensions::default(),
            telemetry: Arc::clone(&telemetry),
            clock: Arc::clone(&clock),
        };
        let processor = config.build(context).unwrap();
        let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
        let host = Host { runtimes: Runtimes::current(), clock, telemetry: Arc::clone(&telemetry), fatal };
        processor.start(&host).await.unwrap();
        Self { processor, telemetry, before }
    }

    async fn send(&self, resource_metrics: Vec<ResourceMetrics>) {
        let batch = Batch::from_metrics(MetricsData { resource_metrics }).with_metadata(Arc::new(Metadata::default()));
        self.processor.consume(batch).await.unwrap();
    }

    /// What is in use after a flush.
    async fn taken(&self) -> Taken {
        tokio::time::sleep(std::time::Duration::from_secs(11)).await;
        let held = (held() - self.before) as f64 / MIB;
        let page = self.telemetry.render("");
        let line = page.lines().find(|line| line.starts_with("otelcol_processor_cardinality_limit_state_bytes{"));
        let accounted = line.unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap() / MIB;
        Taken { held, accounted }
    }
}

/// Guarantee: whatever a sender varies, the account stays below the limit, and what is allocated near the account.
#[tokio::test(start_paused = true)]
async fn what_is_accounted_for_is_what_is_allocated() {
    let mut wrong = Vec::new();
    for Case { name, config, make } in CASES {
        let rig = Rig::start(config).await;
        let (mut most, mut last) = (Taken::default(), Taken::default());
        for batch in 0..BATCHES {
            rig.send((batch * POINTS..(batch + 1) * POINTS).map(make).collect()).await;
            last = rig.taken().await;
            most.held = most.held.max(last.held);
            most.accounted = most.accounted.max(last.accounted);
        }
        let ratio = last.held / last.accounted;
        println!(
            "{name}: {:.1} MiB allocated, {:.1} accounted for ({ratio:.2}); at the most {:.1} and {:.1}",
            last.held, last.accounted, most.held, most.accounted
        );
        if most.accounted > LIMIT || most.held > 1.1 * LIMIT || !(0.8..1.1).contains(&ratio) {
            wrong.push(name);
        }
    }
    assert_eq!(wrong, [""; 0], "see above");
}
