//! Remote write 1.0 as a receiver reads it, and as text; 2.0 is in `prompb_v2`.

use std::fmt::Write;

pub(super) use super::messages::*;

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
