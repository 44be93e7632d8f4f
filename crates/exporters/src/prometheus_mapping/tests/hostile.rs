//! What leaves the mapping is what Prometheus takes, whatever came in: one point that it refuses would
//! take its neighbours down.

use std::sync::Arc;
use std::time::Duration;

use nyquist_core::proto::metrics::v1::exponential_histogram_data_point::Buckets;
use nyquist_core::proto::metrics::v1::metric::Data;
use proptest::proptest;
use prost::Message;

use crate::prometheus_mapping::*;
use crate::testing::*;

/// Fails for points that Prometheus refuses.
struct Prometheus;

impl Sink for Prometheus {
    fn point(&mut self, point: &Point<'_>) {
        assert_ne!(point.time, 0);
        let labels: Vec<&[u8]> = decoded_labels(point.labels.encoded()).map(|(name, _)| name).collect();
        assert!(labels.is_sorted_by(|left, right| left < right), "labels out of order or repeated");
        assert!(decoded_labels(point.labels.encoded()).all(|(name, value)| !name.is_empty() && !value.is_empty()));
        match point.value {
            PointValue::Native(histogram) => validate(histogram),
            PointValue::Histogram(histogram) => {
                assert!(histogram.bounds.is_sorted_by(|left, right| left < right));
                assert!(histogram.bounds.iter().all(|bound| *bound < f64::INFINITY));
            }
            PointValue::Number(_) | PointValue::Summary(_) => {}
        }
    }

    fn dropped(&mut self, _: Untranslatable, _: &[u8], _: usize) {}
}

/// The checks of Prometheus' `Histogram.Validate`.
fn validate(histogram: &NativeHistogram) {
    let side = |spans: &Spans| {
        let length: u64 = spans.spans.iter().map(|(_, length)| u64::from(*length)).sum();
        assert_eq!(length, spans.deltas.len() as u64);
        assert!(spans.spans.iter().skip(1).all(|(gap, _)| *gap >= 0));
        let end: i64 = spans.spans.iter().map(|(offset, length)| i64::from(*offset) + i64::from(*length)).sum();
        assert!(end - 1 <= i64::from(i32::MAX));
        let (mut count, mut all) = (0i64, 0u64);
        for delta in &spans.deltas {
            count += delta;
            assert!(count >= 0);
            all += count as u64;
        }
        (all, end)
    };
    let ((positive, end), (negative, _)) = (side(&histogram.positive), side(&histogram.negative));
    if histogram.schema == CUSTOM_BUCKETS {
        assert!(histogram.custom_bounds.is_sorted_by(|left, right| left < right));
        assert!(histogram.custom_bounds.last().is_none_or(|last| *last < f64::INFINITY));
        assert!(end <= histogram.custom_bounds.len() as i64 + 1 && histogram.negative.spans.is_empty());
        assert_eq!((histogram.zero_count, histogram.zero_threshold.to_bits()), (0, 0));
    } else {
        assert!((-4..=8).contains(&histogram.schema) && histogram.custom_bounds.is_empty());
        assert!(histogram.zero_threshold >= 0.0);
    }
    let all = positive + negative + histogram.zero_count;
    let adds_up = if histogram.sum.is_nan() { all <= histogram.count } else { all == histogram.count };
    assert!(adds_up, "{histogram:?}");
}

/// A message with every kind of metric, in both temporalities.
fn every_kind() -> Vec<u8> {
    let mut native = exponential(20, -5, &[1, 0, 3, 0, 0, 0, 7]);
    (native.zero_count, native.count) = (2, 15);
    native.negative = Some(Buckets { offset: 3, bucket_counts: vec![1, 1] });
    native.start_time_unix_nano = nanos(T - 10);
    let mut metrics = Vec::new();
    for temporality in [CUMULATIVE, DELTA] {
        let mut native = exponentials(native.clone());
        let mut classic = histogram(histogram_point());
        if let (Some(Data::ExponentialHistogram(native)), Some(Data::Histogram(classic))) =
            (&mut native.data, &mut classic.data)
        {
            (native.aggregation_temporality, classic.aggregation_temporality) = (temporality, temporality);
        }
        metrics.extend([native, classic, sum("s", "By", true, temporality, vec![int(3, T)])]);
    }
    metrics.extend([summary(), labelled(&[("a.b", "c"), ("é", "d")])]);
    push_from(&[("service.name", "cart"), ("host.name", "h")], metrics).encode_to_vec()
}

fn settings() -> Vec<Settings> {
    let usual = Settings { needs_time: true, ..Settings::default() };
    let utf8 = Settings { strategy: Strategy::NoTranslation, accept_delta: true, ..usual.clone() };
    vec![
        Settings { custom_buckets: CustomBuckets::Beside, accept_delta: true, ..usual.clone() },
        Settings { custom_buckets: CustomBuckets::Instead, collapse_underscores: true, ..usual.clone() },
        Settings { resource_labels: ResourceLabels::all(false), ..utf8 },
        usual,
    ]
}

fn translate_twice(message: &[u8]) {
    for settings in settings() {
        let accumulator = settings.accept_delta.then(|| Accumulator::new(1 << 20, Duration::from_secs(60)));
        let stale_tracker = Some(StaleTracker::new(1 << 20, Duration::from_secs(60)));
        let mut streams = Streams { accumulator, stale_tracker };
        let mut translator = Translator::new(Arc::new(settings), HashSeed::default());
        for seconds in [0, 1, 100] {
            let now = Duration::from_secs(seconds);
            translator.translate(message, &mut streams.sink(&mut Prometheus, now));
            streams.sweep(now, T, &mut Prometheus);
        }
    }
}

#[test]
fn the_message_is_good_as_it_is() {
    translate_twice(&every_kind());
}

proptest! {
    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        translate_twice(&bytes);
    }

    #[test]
    fn changed_messages(cuts: Vec<(usize, u8)>) {
        for mut message in [every_kind(), include_bytes!("../../../testdata/python.metrics.pb").to_vec()] {
            for &(at, byte) in &cuts {
                let at = at % message.len();
                message[at] = byte;
            }
            translate_twice(&message);
        }
    }
}
