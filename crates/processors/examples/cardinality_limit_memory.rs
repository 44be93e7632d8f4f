//! What the limiter's state takes per live series: as it accounts for it, and as the process shows it.
//!
//!     cargo run --release -p nyquist-processors --example cardinality_limit_memory [-- series [case]]
//!
//! First series that pass, over 500 metrics and in one metric; then streams that are all collapsed into one series.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "an example: it prints what it measures, and its own failures are bugs"
)]

#[path = "../benches/common/mod.rs"]
mod common;

use std::sync::Arc;

use async_trait::async_trait;
use common::resident;
use nyquist_core::batch::{Batch, Refusal, Signal};
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{Component, Consumer, Extensions, Host, ProcessorConfig, ProcessorContext};
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::proto::common::v1::{AnyValue, KeyValue, any_value};
use nyquist_core::proto::metrics::v1::metric::Data;
use nyquist_core::proto::metrics::v1::{
    AggregationTemporality, Metric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, number_data_point,
};
use nyquist_core::telemetry::{Ledger, Telemetry};
use nyquist_processors::cardinality_limit::CardinalityLimitConfig;

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

const CASES: [(&str, usize, &str); 3] = [
    (
        "series that pass, 500 metrics",
        500,
        "{default: {max_series_per_metric: 1000000, max_values_per_label: 1000000}, max_series: 2000000}",
    ),
    (
        "series that pass, one metric",
        1,
        "{default: {max_series_per_metric: 2000000, max_values_per_label: 2000}, protect_labels: [u], max_series: 2000000}",
    ),
    ("streams collapsed into one", 1, "{rules: [{metrics: ['*'], labels: {u: 0}}], memory_limit_mib: 1024}"),
];

fn main() {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse().expect("a number"));
    let series: usize = numbers.next().unwrap_or(1_000_000);
    let Some(case) = numbers.next() else {
        // Each in a process of its own, so that none uses memory that another one has left.
        let program = std::env::current_exe().expect("its own path");
        for case in 0..CASES.len() {
            let arguments = [series.to_string(), case.to_string()];
            let status = std::process::Command::new(&program).args(arguments).status().expect("it runs");
            assert!(status.success(), "case {case} failed");
        }
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (name, metrics, yaml) = CASES[case];
    runtime.block_on(measure(name, metrics, yaml, series));
}

async fn measure(name: &str, metrics: usize, yaml: &str, series: usize) {
    let telemetry = Telemetry::new();
    let extensions = Extensions::default();
    let (config, _) = from_str::<CardinalityLimitConfig>(yaml).expect("a configuration");
    let context = ProcessorContext {
        id: ComponentId::of("cardinality_limit"),
        pipeline: ComponentId::of("metrics"),
        signal: Signal::Metrics,
        next: Arc::new(Nowhere),
        ledger: Ledger::detached(),
        extensions: &extensions,
        telemetry: Arc::clone(&telemetry),
        clock: Arc::new(SystemClock::default()),
    };
    let before = resident();
    let limit = config.build(context).expect("it builds");
    let mut first = 0;
    while first < series {
        let count = 10_000.min(series - first);
        limit.consume(request(first, count, metrics)).await.expect("nobody refuses");
        first += count;
    }
    let each = |bytes: f64| bytes / series as f64;
    let resident = resident().saturating_sub(before) as f64;
    // Its last flush publishes what it accounts for.
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    let runtimes = nyquist_core::runtime::Runtimes::current();
    let clock = Arc::new(SystemClock::default());
    limit.start(&Host { runtimes, clock, telemetry: Arc::clone(&telemetry), fatal }).await.expect("it starts");
    limit.shutdown(tokio::time::Instant::now()).await;
    let accounted = telemetry
        .render("")
        .lines()
        .find(|line| line.starts_with("otelcol_processor_cardinality_limit_state_bytes{"))
        .and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    println!(
        "{name}: {series} series, {:.1} bytes each accounted, {:.1} resident",
        each(accounted.unwrap_or_default()),
        each(resident)
    );
}

fn request(first: usize, count: usize, metrics: usize) -> Batch {
    let text = |text: String| Some(AnyValue { value: Some(any_value::Value::StringValue(text)) });
    let per_metric = count.div_ceil(metrics);
    let metrics = (0..metrics).map(|metric| {
        let point = |index: usize| NumberDataPoint {
            attributes: vec![KeyValue {
                key: "u".to_owned(),
                value: text(format!("value-{index}")),
                ..KeyValue::default()
            }],
            start_time_unix_nano: 1,
            time_unix_nano: 2_000_000_000,
            value: Some(number_data_point::Value::AsInt(index as i64)),
            ..NumberDataPoint::default()
        };
        let from = first + metric * per_metric;
        let data_points = (from..(from + per_metric).min(first + count)).map(point).collect();
        let aggregation_temporality = AggregationTemporality::Cumulative as i32;
        let data = Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true });
        Metric { name: format!("requests.{metric}"), data: Some(data), ..Metric::default() }
    });
    let scope_metrics = vec![ScopeMetrics { metrics: metrics.collect(), ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
    Batch::from_metrics(MetricsData { resource_metrics })
}
