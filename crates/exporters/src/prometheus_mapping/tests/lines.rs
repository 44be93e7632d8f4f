//! What the mapping makes of pushes, as lines: `name{labels} value@time`, with ` start=` and
//! exemplars behind it. A histogram or summary is spread over its series as an encoder does it.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use nyquist_core::proto::metrics::v1::MetricsData;
use prost::Message;

use crate::prometheus_mapping::*;
use crate::testing::T;

/// Translates pushes with one state, as an exporter does.
pub(crate) struct Bench {
    translator: Translator,
    pub(crate) target_info: TargetInfo,
    pub(crate) streams: Streams,
    has_target_info: bool,
    pub(crate) now: Duration,
    pub(crate) lost: Lost,
}

/// What was lost on the way.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Lost {
    /// Reason, metric and points.
    pub(crate) points: Vec<(&'static str, String, usize)>,
    pub(crate) labels: LostLabels,
    pub(crate) exemplars: LostExemplars,
    pub(crate) targets: usize,
}

impl Bench {
    pub(crate) fn new(settings: Settings) -> Self {
        let seed = HashSeed::default();
        Self {
            target_info: TargetInfo::new(&settings.namespace, &seed),
            has_target_info: settings.target_info,
            translator: Translator::new(Arc::new(settings), seed),
            streams: Streams::default(),
            now: Duration::from_secs(1000),
            lost: Lost::default(),
        }
    }

    /// The lines of a push, sorted.
    pub(crate) fn lines(&mut self, push: &MetricsData) -> Vec<String> {
        let mut sink = Lines { lines: Vec::new(), lost: &mut self.lost, targets: Vec::new() };
        self.translator.translate(&push.encode_to_vec(), &mut self.streams.sink(&mut sink, self.now));
        if self.has_target_info {
            for target in std::mem::take(&mut sink.targets) {
                self.target_info.note(&target.view(), self.now);
            }
            self.target_info.emit(self.now, T, &mut sink);
        }
        self.streams.sweep(self.now, T, &mut sink);
        let mut lines = sink.lines;
        lines.sort();
        lines
    }
}

struct Lines<'a> {
    lines: Vec<String>,
    lost: &'a mut Lost,
    targets: Vec<OwnedTarget>,
}

impl Sink for Lines<'_> {
    fn point(&mut self, point: &Point<'_>) {
        let number = |value: f64| match point.is_stale {
            true => "stale".to_owned(),
            false => value.to_string(),
        };
        match point.value {
            PointValue::Number(value) => {
                assert_eq!(value.to_bits() == STALE_NAN_BITS, point.is_stale);
                self.push(point, Suffix::None, None, &number(value), every());
            }
            PointValue::Histogram(Histogram { count, sum, bounds, counts }) => {
                if let Some(sum) = sum {
                    self.push(point, Suffix::Sum, None, &number(sum), none());
                }
                self.push(point, Suffix::Count, None, &number(count as f64), none());
                let (mut all, mut below) = (0, f64::NEG_INFINITY);
                for (&bound, count) in bounds.iter().zip(counts) {
                    assert!(bound > below && bound < f64::INFINITY, "{bounds:?}");
                    all += count;
                    self.push(point, Suffix::Bucket, Some(("le", bound)), &number(all as f64), (below, bound));
                    below = bound;
                }
                let rest = (below, f64::INFINITY);
                self.push(point, Suffix::Bucket, Some(("le", f64::INFINITY)), &number(count as f64), rest);
            }
            PointValue::Native(histogram) => {
                let text = native(histogram);
                self.push(point, Suffix::None, None, &text, every());
            }
            PointValue::Summary(Summary { count, sum, quantiles }) => {
                self.push(point, Suffix::Sum, None, &number(sum), none());
                self.push(point, Suffix::Count, None, &number(count as f64), none());
                for &(quantile, value) in quantiles {
                    self.push(point, Suffix::None, Some(("quantile", quantile)), &number(value), none());
                }
            }
        }
    }

    fn dropped(&mut self, reason: Untranslatable, metric: &[u8], points: usize) {
        self.lost.points.push((reason.name(), String::from_utf8_lossy(metric).into_owned(), points));
    }

    fn labels_lost(&mut self, _: &[u8], lost: LostLabels) {
        self.lost.labels.unnamable += lost.unnamable;
        self.lost.labels.overwritten += lost.overwritten;
        self.lost.labels.joined += lost.joined;
    }

    fn exemplars_lost(&mut self, _: &[u8], lost: LostExemplars) {
        self.lost.exemplars.exemplars += lost.exemplars;
        self.lost.exemplars.unnamable += lost.unnamable;
        self.lost.exemplars.too_long += lost.too_long;
        self.lost.exemplars.overwritten += lost.overwritten;
        self.lost.exemplars.joined += lost.joined;
    }

    fn targets_forgotten(&mut self, targets: usize) {
        self.lost.targets += targets;
    }

    fn target(&mut self, target: &Target<'_>) {
        self.targets.push(target.into());
    }
}

/// Values of exemplars: above the first and up to the second.
type Between = (f64, f64);

fn every() -> Between {
    (f64::NEG_INFINITY, f64::INFINITY)
}

fn none() -> Between {
    (f64::INFINITY, f64::INFINITY)
}

impl Lines<'_> {
    fn push(&mut self, point: &Point<'_>, suffix: Suffix, extra: Option<(&str, f64)>, value: &str, between: Between) {
        let mut extra_label = Vec::new();
        if let Some((name, number)) = extra {
            let mut text = Vec::new();
            put_decimal(&mut text, number);
            put_label(&mut extra_label, name.as_bytes(), &text);
        }
        let [start, middle, end] = point.labels.pieces();
        let encoded = [start, point.family.name_label(suffix), middle, &extra_label, end].concat();
        let all: Vec<(String, String)> =
            decoded_labels(&encoded).map(|(name, value)| (text(name), text(value))).collect();
        assert!(all.is_sorted_by(|left, right| left.0 < right.0), "out of order or repeated: {all:?}");
        assert!(all.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{all:?}");
        let name = all.iter().find(|(name, _)| name == "__name__").map_or("", |(_, value)| value.as_str());
        let mut line = format!("{name}{} {value}@{}", braces(&all), point.time);
        if point.start != 0 {
            let _ = write!(line, " start={}", point.start);
        }
        let is_between = |value: f64| value <= between.1 && (value > between.0 || between.0 == f64::NEG_INFINITY);
        for exemplar in point.exemplars.items().iter().filter(|exemplar| is_between(exemplar.value)) {
            let labels: Vec<(String, String)> = decoded_labels(point.exemplars.labels(exemplar))
                .map(|(name, value)| (text(name), text(value)))
                .collect();
            assert!(labels.is_sorted(), "{labels:?}");
            let _ = write!(line, " # {}@{}{}", exemplar.value, exemplar.time, braces(&labels));
        }
        self.lines.push(line);
    }
}

fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).unwrap().to_owned()
}

fn braces(labels: &[(String, String)]) -> String {
    let pairs = labels.iter().filter(|(name, _)| name != "__name__").map(|(name, value)| format!("{name}={value:?}"));
    let pairs: Vec<String> = pairs.collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

fn native(histogram: &NativeHistogram) -> String {
    let NativeHistogram { schema, zero_threshold, zero_count, count, sum, positive, negative, custom_bounds } =
        histogram;
    let sum = if sum.to_bits() == STALE_NAN_BITS { "stale".to_owned() } else { sum.to_string() };
    let side = |spans: &Spans| {
        let counts: Vec<String> = spans.buckets().map(|(number, count)| format!("{number}:{count}")).collect();
        format!("{{{}}}", counts.join(","))
    };
    let mut text = format!("schema={schema} zt={zero_threshold:e} zero={zero_count} count={count} sum={sum} ");
    text.push_str(&side(positive));
    if !negative.spans.is_empty() {
        let _ = write!(text, " negative={}", side(negative));
    }
    if !custom_bounds.is_empty() {
        let _ = write!(text, " bounds={custom_bounds:?}");
    }
    text
}
