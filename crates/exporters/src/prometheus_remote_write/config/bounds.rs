//! `le_format`: how bounds and quantiles are written.

use serde::Deserialize;

use crate::prometheus_mapping::put_decimal;

/// How the values of `le` and `quantile` are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeFormat {
    /// `1`, as Prometheus writes what it takes in over OTLP.
    #[default]
    Plain,
    /// `1.0`, as Prometheus 3 writes what it scrapes.
    OpenMetrics,
}

impl LeFormat {
    /// Appends `value`.
    pub(in super::super) fn put(self, out: &mut Vec<u8>, value: f64) {
        match self {
            Self::Plain => put_decimal(out, value),
            Self::OpenMetrics => put_open_metrics(out, value),
        }
    }
}

/// As Go's `FormatFloat(value, 'g', -1, 64)`, with `.0` where that has neither point nor exponent:
/// Prometheus' `labels.FormatOpenMetricsFloat`.
fn put_open_metrics(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    if !value.is_finite() || magnitude == 0.0 || (1e-4..1e6).contains(&magnitude) {
        let begin = out.len();
        put_decimal(out, value);
        if value.is_finite() && !out.get(begin..).is_some_and(|text| text.contains(&b'.')) {
            out.extend_from_slice(b".0");
        }
        return;
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    // At least two digits.
    out.extend_from_slice(format!("{digits}e{sign}{exponent:0>2}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Go's `strconv.FormatFloat` and Prometheus' `labels.FormatOpenMetricsFloat`.
    #[test]
    fn bounds_in_both_formats() {
        let cases = [
            (1.0, "1", "1.0"),
            (0.0, "0", "0.0"),
            (-1.0, "-1", "-1.0"),
            (0.005, "0.005", "0.005"),
            (0.5, "0.5", "0.5"),
            (2.5, "2.5", "2.5"),
            (1000.0, "1000", "1000.0"),
            (999_999.0, "999999", "999999.0"),
            (123_456.75, "123456.75", "123456.75"),
            (1e6, "1000000", "1e+06"),
            (1.5e6, "1500000", "1.5e+06"),
            (10_000_000.0, "10000000", "1e+07"),
            (1_234_567.25, "1234567.25", "1.23456725e+06"),
            (0.0001, "0.0001", "0.0001"),
            (0.000_01, "0.00001", "1e-05"),
            (0.000_025, "0.000025", "2.5e-05"),
            (1e100, &format!("1{}", "0".repeat(100)), "1e+100"),
            (-2e7, "-20000000", "-2e+07"),
            (f64::INFINITY, "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf"),
            (f64::NAN, "NaN", "NaN"),
        ];
        for (value, plain, open_metrics) in cases {
            for (format, expected) in [(LeFormat::Plain, plain), (LeFormat::OpenMetrics, open_metrics)] {
                let mut out = Vec::new();
                format.put(&mut out, value);
                assert_eq!(String::from_utf8(out).unwrap(), expected, "{format:?}");
            }
        }
    }
}
