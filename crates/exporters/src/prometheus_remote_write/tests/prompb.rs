//! Remote write 1.0 as a receiver reads it, and as text; 2.0 is in `prompb_v2`.

use std::fmt::Write;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    pub(super) metadata: Vec<MetricMetadata>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MetricMetadata {
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(string, tag = "2")]
    pub(super) metric_family_name: String,
    #[prost(string, tag = "4")]
    pub(super) help: String,
    #[prost(string, tag = "5")]
    pub(super) unit: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub(super) samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub(super) exemplars: Vec<Exemplar>,
    #[prost(message, repeated, tag = "4")]
    pub(super) histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Label {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Sample {
    #[prost(double, tag = "1")]
    pub(super) value: f64,
    #[prost(int64, tag = "2")]
    pub(super) timestamp: i64,
    /// 2.0 only.
    #[prost(int64, tag = "3")]
    pub(super) start_timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<Label>,
    #[prost(double, tag = "2")]
    pub(super) value: f64,
    #[prost(int64, tag = "3")]
    pub(super) timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Histogram {
    #[prost(uint64, tag = "1")]
    pub(super) count: u64,
    #[prost(double, tag = "3")]
    pub(super) sum: f64,
    #[prost(sint32, tag = "4")]
    pub(super) schema: i32,
    #[prost(double, tag = "5")]
    pub(super) zero_threshold: f64,
    #[prost(uint64, tag = "6")]
    pub(super) zero_count: u64,
    #[prost(message, repeated, tag = "8")]
    pub(super) negative_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "9")]
    pub(super) negative_deltas: Vec<i64>,
    #[prost(message, repeated, tag = "11")]
    pub(super) positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    pub(super) positive_deltas: Vec<i64>,
    #[prost(int32, tag = "14")]
    pub(super) reset_hint: i32,
    #[prost(int64, tag = "15")]
    pub(super) timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    pub(super) custom_values: Vec<f64>,
    /// 2.0 only.
    #[prost(int64, tag = "17")]
    pub(super) start_timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BucketSpan {
    #[prost(sint32, tag = "1")]
    pub(super) offset: i32,
    #[prost(uint32, tag = "2")]
    pub(super) length: u32,
}

/// A series without its name: `{a="b",c="d"}`.
pub(super) fn labels(labels: &[Label]) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .filter(|label| label.name != "__name__")
        .map(|label| format!("{}={:?}", label.name, label.value))
        .collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

impl TimeSeries {
    pub(super) fn name(&self) -> &str {
        self.labels.iter().find(|label| label.name == "__name__").map_or("", |label| label.value.as_str())
    }

    /// `name{labels} value@time`, one line a sample; exemplars after ` #`. Checks what the protocol
    /// demands of labels.
    pub(super) fn lines(&self) -> Vec<String> {
        let names: Vec<&str> = self.labels.iter().map(|label| label.name.as_str()).collect();
        assert!(names.is_sorted_by(|left, right| left < right), "labels out of order or repeated: {names:?}");
        assert!(self.labels.iter().all(|label| !label.name.is_empty() && !label.value.is_empty()));
        assert!(self.samples.is_empty() != self.histograms.is_empty(), "either samples or histograms");
        let head = format!("{}{}", self.name(), labels(&self.labels));
        let mut lines: Vec<String> = self
            .samples
            .iter()
            .map(|sample| {
                let value = match sample.value.to_bits() {
                    crate::prometheus_mapping::STALE_NAN_BITS => "stale".to_owned(),
                    _ => sample.value.to_string(),
                };
                format!("{head} {value}@{}", sample.timestamp)
            })
            .collect();
        lines.extend(self.histograms.iter().map(|histogram| format!("{head} {}", histogram.text())));
        if let Some(last) = lines.last_mut() {
            for exemplar in &self.exemplars {
                let _ = write!(last, " # {}@{}{}", exemplar.value, exemplar.timestamp, labels(&exemplar.labels));
            }
        }
        lines
    }
}

impl Histogram {
    fn text(&self) -> String {
        let sum = match self.sum.to_bits() {
            crate::prometheus_mapping::STALE_NAN_BITS => "stale".to_owned(),
            _ => self.sum.to_string(),
        };
        let mut buckets = Vec::new();
        let (mut index, mut count) = (0, 0);
        let mut deltas = self.positive_deltas.iter();
        for span in &self.positive_spans {
            index += span.offset;
            for _ in 0..span.length {
                count += deltas.next().copied().unwrap_or_default();
                if count != 0 {
                    buckets.push(format!("{index}:{count}"));
                }
                index += 1;
            }
        }
        assert_eq!(self.reset_hint, 0);
        let custom = match self.custom_values.as_slice() {
            [] => String::new(),
            values => format!(" custom={values:?}"),
        };
        format!(
            "schema={} zt={:e} zero={} count={} sum={sum} {{{}}}{custom}@{}",
            self.schema,
            self.zero_threshold,
            self.zero_count,
            self.count,
            buckets.join(","),
            self.timestamp
        )
    }
}
