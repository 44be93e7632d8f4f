//! What a million counters take in `delta_to_cumulative` and `cumulative_to_delta`: by the allocator, and by their own
//! account, which `memory_limit_mib` bounds. A program of its own, because it counts for the whole of it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod counting;

use std::sync::Arc;

use async_trait::async_trait;
use counting::held;
use nyquist_core::batch::{Batch, Refusal, Signal};
use nyquist_core::clock::ManualClock;
use nyquist_core::component::{Component, Consumer, Extensions, ProcessorConfig, ProcessorContext};
use nyquist_core::config::{ComponentId, Validate, from_str};
use nyquist_core::proto::common::v1::{AnyValue, KeyValue, any_value};
use nyquist_core::proto::metrics::v1::metric::Data;
use nyquist_core::proto::metrics::v1::{
    Metric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, number_data_point,
};
use nyquist_core::telemetry::{Ledger, Telemetry};
use nyquist_processors::cumulative_to_delta::CumulativeToDeltaConfig;
use nyquist_processors::delta_to_cumulative::DeltaToCumulativeConfig;
use serde::de::DeserializeOwned;

const COUNTERS: i64 = 1_000_000;
const BATCH: i64 = 10_000;
const MIB: f64 = (1 << 20) as f64;

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

/// One point of each of these counters.
fn batch(temporality: i32, numbers: std::ops::Range<i64>) -> Batch {
    let point = |number| NumberDataPoint {
        attributes: vec![KeyValue {
            key: "number".to_owned(),
            value: Some(AnyValue { value: Some(any_value::Value::IntValue(number)) }),
            ..KeyValue::default()
        }],
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        value: Some(number_data_point::Value::AsInt(1)),
        ..NumberDataPoint::default()
    };
    let sum =
        Sum { data_points: numbers.map(point).collect(), aggregation_temporality: temporality, is_monotonic: true };
    let metric = Metric { name: "c".to_owned(), data: Some(Data::Sum(sum)), ..Metric::default() };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
    Batch::from_metrics(MetricsData { resource_metrics })
}

/// MiB by the allocator, and by its own account.
async fn measured<C>(temporality: i32, name: &str) -> (f64, f64)
where
    C: ProcessorConfig + DeserializeOwned + Validate,
{
    let telemetry = Telemetry::new();
    let (config, _) = from_str::<C>("{max_streams: 0, memory_limit_mib: 1024}").map_err(|_| "a mistake").unwrap();
    let context = ProcessorContext {
        id: ComponentId::of(name),
        pipeline: ComponentId::of("metrics"),
        signal: Signal::Metrics,
        next: Arc::new(Nowhere),
        ledger: Ledger::detached(),
        extensions: &Extensions::default(),
        telemetry: Arc::clone(&telemetry),
        clock: ManualClock::new(0),
    };
    let processor = config.build(context).unwrap();
    let before = held();
    for first in (0..COUNTERS).step_by(BATCH as usize) {
        processor.consume(batch(temporality, first..first + BATCH)).await.unwrap();
    }
    let held = held() - before;
    let gauge = |what: &str| {
        let start = format!("otelcol_{}_{what}{{", name.replace('_', ""));
        let page = telemetry.render("");
        let line = page.lines().find(|line| line.starts_with(&start)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(gauge("streams_tracked"), COUNTERS as f64);
    let (held, accounted) = (held as f64 / MIB, gauge("state_bytes") / MIB);
    println!("{name}: a million counters take {held:.0} MiB, and {accounted:.0} MiB by their own account");
    (held, accounted)
}

/// What `memory_limit_mib` says about a million counters holds, and the account is near the truth: tables grow by doubling, so that what is
/// allocated for a stream varies by half around what is accounted for it.
#[tokio::test]
async fn a_million_counters_take_what_the_settings_say() {
    const DELTA: i32 = 1;
    const CUMULATIVE: i32 = 2;
    let results = [
        measured::<DeltaToCumulativeConfig>(DELTA, "delta_to_cumulative").await,
        measured::<CumulativeToDeltaConfig>(CUMULATIVE, "cumulative_to_delta").await,
    ];
    for ((held, accounted), advised) in results.into_iter().zip([120.0, 100.0]) {
        assert!((accounted - advised).abs() < 0.1 * advised, "{accounted} MiB accounted for, not {advised}");
        assert!((0.7..1.4).contains(&(held / accounted)), "{held} MiB, {accounted} accounted for");
    }
}
