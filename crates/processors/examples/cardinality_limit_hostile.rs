//! Ten million values of one label, each of which reports twice: what the limiter's state takes, as it accounts for it and
//! as the process shows it, and what of the sums is missing. Fails if memory is not bounded, or the books do not balance.
//!
//!     cargo run --release -p nyquist-processors --example cardinality_limit_hostile [-- values]

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "an example: it prints what it measures, and its own failures are bugs"
)]

#[path = "../benches/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use common::resident;
use nyquist_core::batch::{Batch, Refusal, Signal};
use nyquist_core::clock::{Clock, SystemClock};
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

/// Memory limits in MiB.
const LIMITS: [usize; 2] = [256, 64];
/// Values that have a slot of their own.
const SLOTS: i64 = 100;
/// Points of a batch.
const BATCH: i64 = 10_000;
/// What batches and the allocator may take beside the state, in bytes.
const SLACK: usize = 64 << 20;

/// Remembers the newest value of the collapsed series.
#[derive(Default)]
struct Backend(AtomicI64);

impl Component for Backend {}

#[async_trait]
impl Consumer for Backend {
    async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        let data = batch.metrics_mut().expect("metrics");
        let metrics = data.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
        for metric in metrics.flat_map(|scope| &scope.metrics) {
            let Some(Data::Sum(sum)) = &metric.data else { continue };
            for point in &sum.data_points {
                let value = point.attributes.first().and_then(|pair| pair.value.as_ref());
                let is_other = value.is_some_and(|value| *value == text("other".to_owned()));
                if let (true, Some(number_data_point::Value::AsInt(value))) = (is_other, point.value) {
                    let before = self.0.swap(value, Ordering::SeqCst);
                    assert!(value >= before, "the sum fell from {before} to {value}");
                }
            }
        }
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse().expect("a number"));
    let values: usize = numbers.next().unwrap_or(10_000_000);
    let Some(mebibytes) = numbers.next() else {
        // Each in a process of its own, so that none uses memory that another one has left.
        let program = std::env::current_exe().expect("its own path");
        for mebibytes in LIMITS {
            let arguments = [values.to_string(), mebibytes.to_string()];
            let status = std::process::Command::new(&program).args(arguments).status().expect("it runs");
            assert!(status.success(), "with {mebibytes} MiB it failed");
        }
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(values as i64, mebibytes));
}

async fn measure(values: i64, mebibytes: usize) {
    let (telemetry, backend, extensions) = (Telemetry::new(), Arc::new(Backend::default()), Extensions::default());
    let yaml = format!("{{memory_limit_mib: {mebibytes}, default: {{max_values_per_label: {SLOTS}}}}}");
    let (config, _) = from_str::<CardinalityLimitConfig>(&yaml).expect("a configuration");
    let clock = Arc::new(SystemClock::default());
    let context = ProcessorContext {
        id: ComponentId::of("cardinality_limit"),
        pipeline: ComponentId::of("metrics"),
        signal: Signal::Metrics,
        next: Arc::clone(&backend) as _,
        ledger: Ledger::detached(),
        extensions: &extensions,
        telemetry: Arc::clone(&telemetry),
        clock: Arc::clone(&clock) as _,
    };
    let before = resident();
    let limit = config.build(context).expect("it builds");
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    let runtimes = nyquist_core::runtime::Runtimes::current();
    let host = Host { runtimes, clock: Arc::clone(&clock) as _, telemetry: Arc::clone(&telemetry), fatal };
    limit.start(&host).await.expect("it starts");
    let start = clock.unix_nanos() + 1;
    let mut most = 0;
    for export in 1..=2 {
        for first in (0..values).step_by(BATCH as usize) {
            let points = (first..values.min(first + BATCH)).map(|user| point(user, export, start)).collect();
            limit.consume(request(points)).await.expect("nobody refuses");
            most = most.max(resident());
        }
    }
    limit.shutdown(tokio::time::Instant::now()).await;
    let own = |name: &str| {
        let name = format!("otelcol_processor_cardinality_limit_{name}{{");
        let text = telemetry.render("");
        let lines = text.lines().filter(|line| line.starts_with(&name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as i64
    };
    let (sum, rebaselined, accounted) = (backend.0.load(Ordering::SeqCst), own("rebaselined"), own("state_bytes"));
    let resident = most.saturating_sub(before);
    println!(
        "{values} values twice, {mebibytes} MiB: {accounted} bytes accounted, {resident} resident at the most; \
         of {} that came the collapsed series has {sum}, and {rebaselined} points set only a baseline",
        2 * (values - SLOTS),
    );
    // Each point is worth one.
    assert_eq!(sum + rebaselined, 2 * (values - SLOTS), "something is missing, or counted twice");
    assert!(accounted <= (mebibytes << 20) as i64, "more than the limit is accounted");
    assert!(resident <= (mebibytes << 20) + SLACK, "more than the limit is resident");
}

fn point(user: i64, export: i64, start: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: vec![KeyValue {
            key: "user".to_owned(),
            value: Some(text(user.to_string())),
            ..KeyValue::default()
        }],
        start_time_unix_nano: start,
        time_unix_nano: start + export as u64 * 10_000_000_000,
        value: Some(number_data_point::Value::AsInt(export)),
        ..NumberDataPoint::default()
    }
}

fn text(text: String) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(text)) }
}

fn request(data_points: Vec<NumberDataPoint>) -> Batch {
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    let data = Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true });
    let metric = Metric { name: "requests".to_owned(), data: Some(data), ..Metric::default() };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
    Batch::from_metrics(MetricsData { resource_metrics })
}
