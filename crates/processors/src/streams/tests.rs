//! Both processors, one behind the other.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, Metric, NumberDataPoint};
use proptest::prelude::*;

use super::testing::*;
use crate::cumulative_to_delta::CumulativeToDeltaConfig;
use crate::delta_to_cumulative::DeltaToCumulativeConfig;

/// The deltas of one report, for a few streams of each kind.
#[derive(Debug, Clone)]
struct Reported {
    ints: Vec<Option<i64>>,
    doubles: Vec<Option<u32>>,
    histograms: Vec<Option<Vec<u64>>>,
    exponentials: Vec<Option<(i32, i32, Vec<u64>)>>,
}

fn reported() -> impl Strategy<Value = Reported> {
    let maybe = prop::option::weighted(0.8, 0..1000i64);
    let buckets = prop::option::weighted(0.8, prop::collection::vec(0..100u64, 4));
    let powers = (-2..8i32, -20..20i32, prop::collection::vec(0..100u64, 1..12));
    (
        prop::collection::vec(maybe, 3),
        prop::collection::vec(prop::option::weighted(0.8, any::<u32>()), 2),
        prop::collection::vec(buckets, 2),
        prop::collection::vec(prop::option::weighted(0.8, powers), 2),
    )
        .prop_map(|(ints, doubles, histograms, exponentials)| Reported { ints, doubles, histograms, exponentials })
}

/// The deltas as metrics; window `index` ends at second `index + 2`. The windows of a stream may have gaps.
fn metrics(reported: &Reported, index: u64) -> Vec<Metric> {
    let (start, time) = (index + 1, index + 2);
    let stream = |number: usize| vec![text("stream", &number.to_string())];
    let ints = reported.ints.iter().enumerate().filter_map(|(number, value)| {
        Some(NumberDataPoint { attributes: stream(number), ..int(start, time, (*value)?) })
    });
    let doubles = reported.doubles.iter().enumerate().filter_map(|(at, value)| {
        // Halves add up without rounding.
        let value = Number::AsDouble(f64::from((*value)?) / 2.0);
        Some(NumberDataPoint { attributes: stream(at), ..number(start, time, value) })
    });
    let histograms = reported.histograms.iter().enumerate().filter_map(|(number, value)| {
        Some(HistogramDataPoint { attributes: stream(number), ..buckets(start, time, value.as_ref()?) })
    });
    let exponentials = reported.exponentials.iter().enumerate().filter_map(|(number, value)| {
        let (scale, offset, counts) = value.as_ref()?;
        let mut point = powers(start, time, *scale, *offset, counts);
        point.attributes = stream(number);
        Some(point)
    });
    let all = [
        sum("ints", DELTA, ints.collect()),
        sum("doubles", DELTA, doubles.collect()),
        histogram("histograms", DELTA, histograms.collect()),
        exponential("exponentials", DELTA, exponentials.collect()),
    ];
    all.into_iter().filter(|metric| points(metric) > 0).collect()
}

fn points(metric: &Metric) -> usize {
    match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => sum.data_points.len(),
        Data::Histogram(histogram) => histogram.data_points.len(),
        Data::ExponentialHistogram(histogram) => histogram.data_points.len(),
        _ => 0,
    }
}

/// What counts of a metric: without start times, which close gaps, and with exponential buckets at the
/// coarsest scale of their streams, by bucket.
fn essence(metrics: &[Metric]) -> Vec<String> {
    let mut found = Vec::new();
    for metric in metrics {
        let name = &metric.name;
        match metric.data.as_ref().unwrap() {
            Data::Sum(sum) => {
                for point in &sum.data_points {
                    let value = read(Some(point.clone())).unwrap().2;
                    found.push(format!("{name} {:?} {} {value}", point.attributes, point.time_unix_nano));
                }
            }
            Data::Histogram(histogram) => {
                for point in &histogram.data_points {
                    found.push(format!(
                        "{name} {:?} {} {} {:?} {:?} {:?}",
                        point.attributes,
                        point.time_unix_nano,
                        point.count,
                        point.sum,
                        point.bucket_counts,
                        point.explicit_bounds
                    ));
                }
            }
            Data::ExponentialHistogram(histogram) => {
                for point in &histogram.data_points {
                    // Coarser than all scales of the streams: what is left of the buckets' places.
                    let mut coarse = std::collections::BTreeMap::new();
                    let side = point.positive.clone().unwrap_or_default();
                    for (at, count) in side.bucket_counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                        *coarse.entry((side.offset + at as i32) >> (point.scale + 3)).or_insert(0) += count;
                    }
                    found.push(format!(
                        "{name} {:?} {} {} {:?} {coarse:?}",
                        point.attributes, point.time_unix_nano, point.count, point.sum
                    ));
                }
            }
            other => panic!("{other:?}"),
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Deltas that are added up and then subtracted again are the deltas that came, point for point, also
    /// when batches are refused on the way and sent again.
    #[test]
    fn there_and_back(reports in prop::collection::vec((reported(), 0..3usize, 0..3usize), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let there = Rig::new::<DeltaToCumulativeConfig>("{}");
            let back = Rig::new::<CumulativeToDeltaConfig>("initial_value: auto");
            for (index, (reported, there_refuses, back_refuses)) in reports.iter().enumerate() {
                let deltas = metrics(reported, index as u64);
                there.sink.refuse.store(*there_refuses, std::sync::atomic::Ordering::SeqCst);
                for _ in 0..if deltas.is_empty() { 0 } else { *there_refuses } {
                    there.try_send(deltas.clone()).await.unwrap_err();
                }
                let totals = there.send(deltas.clone()).await;
                back.sink.refuse.store(*back_refuses, std::sync::atomic::Ordering::SeqCst);
                for _ in 0..if totals.is_empty() { 0 } else { *back_refuses } {
                    back.try_send(totals.clone()).await.unwrap_err();
                }
                let again = back.send(totals).await;
                prop_assert_eq!(essence(&again), essence(&deltas));
            }
            Ok(())
        })?;
    }

    /// Bytes that are no metrics do no harm.
    #[test]
    fn hostile_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
        use prost::Message;
        let all = Reported {
            ints: vec![Some(1)],
            doubles: vec![Some(2)],
            histograms: vec![Some(vec![1, 2, 3, 4])],
            exponentials: vec![Some((1, 2, vec![3, 4]))],
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let there = Rig::new::<DeltaToCumulativeConfig>("{}");
            let back = Rig::new::<CumulativeToDeltaConfig>("initial_value: keep");
            for index in 0..3 {
                let mut data = request(metrics(&all, index));
                if index == 2 {
                    data.resource_metrics.extend(request(metrics(&all, 5)).resource_metrics);
                }
                let mut bytes = data.encode_to_vec();
                for (place, byte) in &changes {
                    let place = place.index(bytes.len());
                    bytes[place] = *byte;
                }
                bytes.truncate(cut.index(bytes.len() + 1).max(bytes.len() / 2));
                for rig in [&there, &back] {
                    let batch = nyquist_core::batch::Batch::from_wire(nyquist_core::batch::Signal::Metrics, bytes.clone().into(), 20);
                    rig.processor.consume(batch).await.unwrap();
                    rig.sink.take();
                }
            }
        });
    }
}
