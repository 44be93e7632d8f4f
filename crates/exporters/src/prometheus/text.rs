//! The page: Prometheus' text format 0.0.4, and OpenMetrics 1.0.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>. Names outside of the
//! classic alphabet are written in quotes, as Prometheus 3 reads them, or escaped for scrapers that
//! do not ask for them.

use super::escape::{is_plain_label, is_plain_name};
use super::negotiate::Format;
use super::store::{FamilyInfo, Series, Snapshot, StoredExemplar};
use crate::prometheus_mapping::{Kind, MetricType, OwnedValue, decoded_labels, put_decimal};

/// The whole page. Its names are escaped unless the format has any.
pub(super) fn render(format: Format, snapshot: &Snapshot) -> Vec<u8> {
    let Snapshot { series, families, renamed } = snapshot;
    let mut page = Page { out: Vec::with_capacity(series.len() * 128), format, name: "" };
    let mut before: Option<&Series> = None;
    for one in series {
        let name = renamed.shown(&one.family.name);
        let is_new = name != page.name || before.is_none();
        // Text has one form of a histogram: the one with buckets, which comes first.
        if one.is_native && !is_new && before.is_some_and(|before| before.labels == one.labels) {
            continue;
        }
        before = Some(one);
        if is_new {
            page.name = name;
            page.head(one, families.get(name));
        }
        page.series(one);
    }
    if format.is_open_metrics() {
        page.out.extend_from_slice(b"# EOF\n");
    }
    page.out
}

struct Page<'a> {
    out: Vec<u8>,
    format: Format,
    /// Of the current metric.
    name: &'a str,
}

/// The label that tells the series of a point apart, and an exemplar for it.
#[derive(Default, Clone, Copy)]
struct Extra<'a> {
    label: Option<(&'static str, f64)>,
    exemplar: Option<&'a StoredExemplar>,
}

impl Page<'_> {
    fn head(&mut self, series: &Series, info: Option<&FamilyInfo>) {
        let family = &series.family;
        let metric_type = info.map_or(family.sample_type(), |info| info.metric_type);
        // In OpenMetrics a counter's family goes without the suffix of its samples.
        let stripped = self
            .name
            .strip_suffix("_total")
            .filter(|_| metric_type == MetricType::Counter && self.format.is_open_metrics());
        let is_unsuffixed_counter =
            metric_type == MetricType::Counter && self.format.is_open_metrics() && stripped.is_none();
        let type_name = match metric_type {
            _ if is_unsuffixed_counter => "unknown",
            MetricType::Unknown if !self.format.is_open_metrics() => "untyped",
            // Their samples would have to look otherwise than these do.
            MetricType::Info | MetricType::StateSet => "gauge",
            other => other.name(),
        };
        let name = stripped.unwrap_or(self.name);
        if let Some(help) = info.map(|info| &*info.help).filter(|help| !help.is_empty()) {
            self.out.extend_from_slice(b"# HELP ");
            self.name(name, "");
            self.out.push(b' ');
            self.escaped(help.as_bytes(), self.format.is_open_metrics());
            self.out.push(b'\n');
        }
        self.out.extend_from_slice(b"# TYPE ");
        self.name(name, "");
        self.out.push(b' ');
        self.out.extend_from_slice(type_name.as_bytes());
        self.out.push(b'\n');
        let has_unit = !family.unit.is_empty() && name.ends_with(&family.unit);
        if self.format.is_open_metrics() && has_unit {
            self.out.extend_from_slice(b"# UNIT ");
            self.name(name, "");
            self.out.push(b' ');
            self.out.extend_from_slice(family.unit.as_bytes());
            self.out.push(b'\n');
        }
    }

    fn series(&mut self, series: &Series) {
        match &series.value {
            OwnedValue::Number { value, .. } => {
                let exemplar = series.exemplars.last().filter(|_| series.family.kind == Kind::Counter);
                self.sample(series, "", Extra { exemplar, label: None }, |out| put_float(out, *value));
            }
            OwnedValue::Histogram { count, sum, bounds, counts } => {
                let (mut running, mut below) = (0u64, f64::NEG_INFINITY);
                for (&bound, &count) in bounds.iter().zip(counts) {
                    running = running.saturating_add(count);
                    if bound != f64::INFINITY {
                        self.bucket(series, below, bound, running);
                        below = bound;
                    }
                }
                self.bucket(series, below, f64::INFINITY, *count);
                self.sum_and_count(series, *sum, *count);
            }
            OwnedValue::Native(histogram) => {
                self.bucket(series, f64::NEG_INFINITY, f64::INFINITY, histogram.count);
                self.sum_and_count(series, Some(histogram.sum), histogram.count);
            }
            OwnedValue::Summary { count, sum, quantiles } => {
                for &(quantile, value) in quantiles {
                    let extra = Extra { label: Some(("quantile", quantile)), exemplar: None };
                    self.sample(series, "", extra, |out| put_float(out, value));
                }
                self.sum_and_count(series, Some(*sum), *count);
            }
        }
    }

    fn bucket(&mut self, series: &Series, below: f64, bound: f64, count: u64) {
        let exemplar = series.exemplar(below, bound);
        let extra = Extra { label: Some(("le", bound)), exemplar };
        self.sample(series, "_bucket", extra, |out| put_integer(out, count));
    }

    fn sum_and_count(&mut self, series: &Series, sum: Option<f64>, count: u64) {
        if let Some(sum) = sum {
            self.sample(series, "_sum", Extra::default(), |out| put_float(out, sum));
        }
        self.sample(series, "_count", Extra::default(), |out| put_integer(out, count));
    }

    fn sample(&mut self, series: &Series, suffix: &str, extra: Extra<'_>, value: impl FnOnce(&mut Vec<u8>)) {
        let name = self.name;
        let is_quoted = self.format.utf8_names && !is_plain_name(name);
        if !is_quoted {
            self.name(name, suffix);
        }
        let mut separator = b'{';
        if is_quoted {
            self.out.push(b'{');
            self.name(name, suffix);
            separator = b',';
        }
        // `le` and `quantile` go last, where people look for them.
        for (name, text) in decoded_labels(&series.labels) {
            self.out.push(separator);
            self.label_name(name);
            self.out.extend_from_slice(b"=\"");
            self.escaped(text, true);
            self.out.push(b'"');
            separator = b',';
        }
        if let Some((name, bound)) = extra.label {
            self.out.push(separator);
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(b"=\"");
            self.bound(bound);
            self.out.push(b'"');
            separator = b',';
        }
        if separator == b',' {
            self.out.push(b'}');
        }
        self.out.push(b' ');
        value(&mut self.out);
        if self.format.timestamps {
            self.out.push(b' ');
            self.time(series.time);
        }
        if let Some(exemplar) = extra.exemplar.filter(|_| self.format.is_open_metrics()) {
            self.exemplar(exemplar);
        }
        self.out.push(b'\n');
    }

    fn exemplar(&mut self, exemplar: &StoredExemplar) {
        self.out.extend_from_slice(b" # {");
        for (index, (name, text)) in decoded_labels(&exemplar.labels).enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.label_name(name);
            self.out.extend_from_slice(b"=\"");
            self.escaped(text, true);
            self.out.push(b'"');
        }
        self.out.extend_from_slice(b"} ");
        put_float(&mut self.out, exemplar.value);
        self.out.push(b' ');
        self.time(exemplar.time);
    }

    /// Milliseconds in the text format, seconds in OpenMetrics.
    fn time(&mut self, millis: i64) {
        if self.format.is_open_metrics() {
            put_decimal(&mut self.out, millis as f64 / 1000.0);
        } else {
            self.out.extend_from_slice(millis.to_string().as_bytes());
        }
    }

    /// OpenMetrics wants a fraction: `1.0`.
    fn bound(&mut self, bound: f64) {
        put_decimal(&mut self.out, bound);
        if self.format.is_open_metrics() && bound.is_finite() && bound.fract() == 0.0 {
            self.out.extend_from_slice(b".0");
        }
    }

    fn name(&mut self, name: &str, suffix: &str) {
        if self.format.utf8_names && !is_plain_name(name) {
            self.out.push(b'"');
            self.escaped(name.as_bytes(), true);
            self.out.extend_from_slice(suffix.as_bytes());
            self.out.push(b'"');
        } else {
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(suffix.as_bytes());
        }
    }

    fn label_name(&mut self, name: &[u8]) {
        if self.format.utf8_names && !is_plain_label(name) {
            self.out.push(b'"');
            self.escaped(name, true);
            self.out.push(b'"');
        } else {
            self.out.extend_from_slice(name);
        }
    }

    fn escaped(&mut self, text: &[u8], with_quotes: bool) {
        for &letter in text {
            match letter {
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                b'"' if with_quotes => self.out.extend_from_slice(b"\\\""),
                _ => self.out.push(letter),
            }
        }
    }
}

fn put_integer(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(value.to_string().as_bytes());
}

/// A value: with an exponent where it would be long otherwise.
fn put_float(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    if value.is_finite() && magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        out.extend_from_slice(format!("{value:e}").as_bytes());
    } else {
        put_decimal(out, value);
    }
}
