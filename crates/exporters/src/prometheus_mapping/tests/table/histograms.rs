//! The cases of histograms: classic, native, with custom buckets.

use nyquist_core::proto::metrics::v1::{ExponentialHistogramDataPoint, HistogramDataPoint};

use super::*;
use crate::prometheus_mapping::CustomBuckets;

/// A histogram of the point of most cases.
fn changed(change: impl FnOnce(&mut HistogramDataPoint)) -> MetricsData {
    let mut point = histogram_point();
    change(&mut point);
    one(histogram(point))
}

pub(super) fn histograms() -> Vec<Case> {
    let bounds = |bounds: &[f64], counts: &[u64]| {
        let (bounds, counts) = (bounds.to_vec(), counts.to_vec());
        changed(|point| (point.explicit_bounds, point.bucket_counts) = (bounds, counts))
    };
    const IDS: &str = r#"span_id="0102030405060708",trace_id="0102030405060708090a0b0c0d0e0f10""#;
    let with_exemplar = |labels: &[(&str, &str)]| changed(|point| point.exemplars = vec![an_exemplar(0.7, labels)]);
    let exemplified = |exemplar: &str| -> Vec<&'static str> {
        let line: &'static str = format!(r#"h_seconds_bucket{{%B,le="1"}} 3@%T # 0.7@%T{{{exemplar}}}"#).leak();
        H.into_iter().map(|known| if known.contains(r#"le="1""#) { line } else { known }).collect()
    };
    let mut counted = int(7, T);
    counted.exemplars = vec![an_exemplar(1.0, &[])];
    let on_counter: &'static str = format!("c_total{{%B}} 7@%T start=%S # 1@%T{{{IDS}}}").leak();
    let stale: Vec<&'static str> =
        H.iter().map(|line| &*format!("{} stale@%T", line.rsplit_once(' ').unwrap().0).leak()).collect();
    vec![
        case("E16", changed(|_| {}), &H),
        case("E17", changed(|point| point.sum = None), &H[..4]),
        case("E18", bounds(&[0.5, 1.0, f64::INFINITY], &[1, 2, 3, 0]), &H),
        case("E18: twice", bounds(&[0.5, 1.0, f64::INFINITY, f64::INFINITY], &[1, 2, 1, 1, 1]), &H),
        case("a repeated bound", bounds(&[0.5, 1.0, 1.0], &[1, 2, 0, 3]), &H),
        case("a falling bound", bounds(&[1.0, 0.5], &[1, 2, 3]), &[]).losing("bounds", "h", 1),
        case("no number for a bound", bounds(&[f64::NAN], &[1, 2]), &[]).losing("bounds", "h", 1),
        case(
            "E19",
            changed(|point| {
                (point.explicit_bounds, point.bucket_counts, point.count, point.sum) = (vec![], vec![], 4, None);
            }),
            &[r#"h_seconds_bucket{%B,le="+Inf"} 4@%T"#, "h_seconds_count{%B} 4@%T"],
        ),
        case("E20", changed(|point| point.flags = 1), &stale),
        case(
            "E21",
            with_exemplar(&[("user.id", "7"), ("trace_id", "fake")]),
            &exemplified(&format!(r#"{IDS},user_id="7""#)),
        )
        .losing_exemplars(|lost| lost.overwritten = 1),
        case(
            "an exemplar's labels that share a name",
            with_exemplar(&[("user.id", "7"), ("user_id", "8")]),
            &exemplified(&format!(r#"{IDS},user_id="7;8""#)),
        )
        .losing_exemplars(|lost| lost.joined = 1),
        case("E22", with_exemplar(&[("long", &"x".repeat(100))]), &exemplified(IDS))
            .losing_exemplars(|lost| lost.too_long = 1),
        case("an exemplar's label without a name", with_exemplar(&[("", "x")]), &exemplified(IDS))
            .losing_exemplars(|lost| lost.unnamable = 1),
        case("E21: on counters", one(sum("c", "", true, CUMULATIVE, vec![counted.clone()])), &[on_counter]),
        case("E21: not on gauges", one(gauge("g", "", vec![counted])), &["g{%B} 7@%T"])
            .losing_exemplars(|lost| lost.exemplars = 1),
        case("E42", changed(|point| point.attributes = attributes(&[("le", "x")])), &H).losing_labels(0, 1, 0),
    ]
}

pub(super) fn native_histograms() -> Vec<Case> {
    let e = |scale: i32, offset: i32, counts: &[u64]| one(exponentials(exponential(scale, offset, counts)));
    let changed = |change: fn(&mut ExponentialHistogramDataPoint)| {
        let mut point = exponential(3, 0, &[1]);
        change(&mut point);
        one(exponentials(point))
    };
    vec![
        case(
            "E23",
            e(3, 3, &[10, 0, 0, 20, 5, 2]),
            &["e{%B} schema=3 zt=1e-128 zero=0 count=37 sum=9 {4:10,7:20,8:5,9:2}@%T"],
        ),
        case("E24", e(9, 0, &[0, 0, 3, 5]), &["e{%B} schema=8 zt=1e-128 zero=0 count=8 sum=9 {2:8}@%T"]),
        case("E25", e(9, 0, &[0, 0, 0, 0, 3, 5]), &["e{%B} schema=8 zt=1e-128 zero=0 count=8 sum=9 {3:8}@%T"]),
        case("E26", e(9, -2, &[1, 2, 3, 4]), &["e{%B} schema=8 zt=1e-128 zero=0 count=10 sum=9 {0:3,1:7}@%T"]),
        case("E27", e(-5, 0, &[1]), &[]).losing("scale", "e", 1),
        case("E28", changed(|point| point.sum = None), &[]).losing("no_sum", "e", 1),
        case(
            "E29",
            changed(|point| (point.sum, point.flags) = (None, 1)),
            &["e{%B} schema=0 zt=1e-128 zero=0 count=0 sum=stale {}@%T"],
        ),
        case(
            "zero and negative buckets",
            changed(|point| {
                (point.zero_count, point.zero_threshold, point.count) = (2, 0.25, 8);
                point.negative.clone_from(&point.positive);
                point.negative.as_mut().unwrap().bucket_counts = vec![0, 5];
            }),
            &["e{%B} schema=3 zt=2.5e-1 zero=2 count=8 sum=9 {1:1} negative={2:5}@%T"],
        ),
        case("does not add up", changed(|point| point.count = 7), &[]).losing("count", "e", 1),
        case(
            "observations of NaN are in no bucket",
            changed(|point| (point.count, point.sum) = (7, Some(f64::NAN))),
            &["e{%B} schema=3 zt=1e-128 zero=0 count=7 sum=NaN {1:1}@%T"],
        ),
        case("beyond all numbers", e(0, i32::MAX, &[1]), &[]).losing("value", "e", 1),
    ]
}

pub(super) fn custom_buckets() -> Vec<Case> {
    let custom = |settings: &mut Settings| settings.custom_buckets = CustomBuckets::Instead;
    let beside = |settings: &mut Settings| settings.custom_buckets = CustomBuckets::Beside;
    const NATIVE: &str = "h_seconds schema=-53 zt=0e0 zero=0 count=6 sum=9 {0:1,1:2,2:3} bounds=[0.5, 1.0]@%T";
    let native: &'static str = NATIVE.replacen("h_seconds", "h_seconds{%B}", 1).leak();
    let both: Vec<&'static str> = H.into_iter().chain([native]).collect();
    vec![
        case(
            "E30",
            changed(|point| {
                point.explicit_bounds = vec![-2.0, -1.0, 0.0, 1.0, 2.0];
                (point.bucket_counts, point.count) = (vec![10, 0, 0, 20, 5, 2], 37);
            }),
            &["h_seconds{%B} schema=-53 zt=0e0 zero=0 count=37 sum=9 {0:10,3:20,4:5,5:2} \
               bounds=[-2.0, -1.0, 0.0, 1.0, 2.0]@%T"],
        )
        .with(custom),
        case("E30: classic ones remain", changed(|_| {}), &both).with(beside),
        case(
            "E30, ended",
            changed(|point| point.flags = 1),
            &["h_seconds{%B} schema=-53 zt=0e0 zero=0 count=0 sum=stale {}@%T"],
        )
        .with(custom),
        case("no sum: stays classic", changed(|point| point.sum = None), &H[..4]).with(custom),
        case("what no bucket has is in the last one", changed(|point| point.bucket_counts = vec![1, 2, 1]), &[native])
            .with(custom),
        case(
            "no buckets",
            changed(|point| (point.explicit_bounds, point.bucket_counts) = (vec![], vec![])),
            &["h_seconds{%B} schema=-53 zt=0e0 zero=0 count=6 sum=9 {0:6}@%T"],
        )
        .with(custom),
        case(
            "a bound of +Inf",
            changed(|point| {
                point.explicit_bounds.push(f64::INFINITY);
                point.bucket_counts.push(0);
            }),
            &[native],
        )
        .with(custom),
    ]
}
