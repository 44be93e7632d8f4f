//! Which points are samples of one series.

use std::sync::Arc;

use prost::Message;

use crate::prometheus_mapping::{HashSeed, Point, Sink, Translator, Untranslatable};
use crate::testing::*;

#[derive(Default)]
struct Hashes(Vec<u64>);

impl Sink for Hashes {
    fn point(&mut self, point: &Point<'_>) {
        self.0.push(point.series());
    }

    fn dropped(&mut self, _: Untranslatable, _: &[u8], _: usize) {}
}

/// The series of each point of `metrics`.
fn series(metrics: Vec<nyquist_core::proto::metrics::v1::Metric>) -> Vec<u64> {
    let mut hashes = Hashes::default();
    Translator::new(Arc::default(), HashSeed::default()).translate(&push(metrics).encode_to_vec(), &mut hashes);
    hashes.0
}

/// E39: one series, one time, two values. Both are points; which one is sent is the exporters'
/// to decide, by this hash.
#[test]
fn labels_tell_series_apart() {
    let points = vec![number(1.0, T, &[("a", "b")]), number(2.0, T, &[("a", "b")]), number(2.0, T, &[("a", "c")])];
    let [first, second, other] = series(vec![gauge("x", "", points)]).try_into().unwrap();
    assert_eq!(first, second);
    assert_ne!(first, other);
}

/// `x` of numbers and native histograms, `x_count` and `x_sum` of classic histograms and summaries.
#[test]
fn kinds_tell_series_apart() {
    let mut classic = histogram(histogram_point());
    (classic.name, classic.unit) = ("x".to_owned(), String::new());
    let mut native = exponentials(exponential(0, 0, &[1]));
    native.name = "x".to_owned();
    let [number, native, classic, summary] =
        series(vec![labelled(&[]), native, classic, summary()]).try_into().unwrap();
    assert_eq!((number, classic), (native, summary));
    assert_ne!(number, classic);
}
