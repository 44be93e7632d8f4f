//! Metrics that share a name: what is sent of them, and what is counted.

use super::bench::{check, check_with};
use crate::testing::*;

/// A histogram in both its forms under one name, as while a source moves from one to the other: both are sent.
#[test]
fn classic_and_native() {
    let mut native = exponentials(exponential(0, 0, &[4]));
    (native.name, native.unit) = ("h".to_owned(), "s".to_owned());
    for metrics in [vec![histogram(histogram_point()), native.clone()], vec![native, histogram(histogram_point())]] {
        let bench = check(
            "classic and native",
            &push(metrics),
            &[
                r#"h_seconds_bucket{%B,le="0.5"} 1@%T"#,
                r#"h_seconds_bucket{%B,le="1"} 3@%T"#,
                r#"h_seconds_bucket{%B,le="+Inf"} 6@%T"#,
                "h_seconds_count{%B} 6@%T",
                "h_seconds_sum{%B} 9@%T",
                "h_seconds{%B} schema=0 zt=1e-128 zero=0 count=4 sum=9 {1:4}@%T",
            ],
        );
        assert_eq!((bench.counted("duplicate_points"), bench.counted("dropped_points")), (0, 0));
    }
}

/// Metrics of one name and several types: what does not share a series is sent, of what does the last one, and the
/// other is counted.
#[test]
fn types_that_clash() {
    let x = |value: f64| gauge("x", "", vec![number(value, T, &[])]);
    let quantiles =
        [r#"x{%B,quantile="0.5"} 1@%T"#, r#"x{%B,quantile="0.99"} 2@%T"#, "x_count{%B} 4@%T", "x_sum{%B} 3@%T"];
    let bench = check("gauge and summary", &push(vec![x(7.0), summary()]), &[&["x{%B} 7@%T"], &quantiles[..]].concat());
    assert_eq!((bench.counted("duplicate_points"), bench.dropped("type_conflict")), (0, 0));

    let counter = sum("x", "", true, CUMULATIVE, vec![int(7, T)]);
    let total = gauge("x.total", "", vec![number(1.0, T, &[])]);
    let bench = check("counter and gauge", &push(vec![counter, total]), &["x_total{%B} 1@%T"]);
    assert_eq!((bench.counted("duplicate_points"), bench.dropped("type_conflict")), (0, 1));

    let mut classic = histogram(histogram_point());
    (classic.name, classic.unit) = ("x".to_owned(), String::new());
    let bench = check("histogram and summary", &push(vec![classic, summary()]), &quantiles);
    assert_eq!(bench.dropped("type_conflict"), 1);

    let mut native = exponentials(exponential(0, 0, &[4]));
    native.name = "x".to_owned();
    let bench = check("native histogram and gauge", &push(vec![native, x(7.0)]), &["x{%B} 7@%T"]);
    assert_eq!(bench.dropped("type_conflict"), 1);
}

/// Metrics of other names whose series are those of a histogram or summary: its own are sent, in one request and in
/// all that follow, and the others are counted. With other labels they are other series, and are sent.
#[test]
fn series_of_other_metrics() {
    let mut classic = histogram(histogram_point());
    (classic.name, classic.unit) = ("x".to_owned(), String::new());
    let one = |name: &str, labels: &[(&str, &str)]| gauge(name, "", vec![number(9.0, T, labels)]);
    let of_histogram = [
        r#"x_bucket{%B,le="0.5"} 1@%T"#,
        r#"x_bucket{%B,le="1"} 3@%T"#,
        r#"x_bucket{%B,le="+Inf"} 6@%T"#,
        "x_count{%B} 6@%T",
        "x_sum{%B} 9@%T",
    ];
    let of_summary =
        [r#"x{%B,quantile="0.5"} 1@%T"#, r#"x{%B,quantile="0.99"} 2@%T"#, "x_count{%B} 4@%T", "x_sum{%B} 3@%T"];
    let cases = [
        (&classic, one("x.count", &[]), &of_histogram[..], ""),
        (&classic, one("x_sum", &[]), &of_histogram, ""),
        (&classic, one("x.bucket", &[("le", "1")]), &of_histogram, ""),
        (&summary(), one("x.count", &[]), &of_summary, ""),
        (&summary(), one("x", &[("quantile", "0.5")]), &of_summary, ""),
        (&classic, one("x.count", &[("a", "b")]), &of_histogram, r#"x_count{a="b",%B} 9@%T"#),
        (&classic, one("x.bucket", &[]), &of_histogram, "x_bucket{%B} 9@%T"),
        (&classic, one("x", &[("quantile", "0.5")]), &of_histogram, r#"x{%B,quantile="0.5"} 9@%T"#),
        (&summary(), one("x.bucket", &[("le", "1")]), &of_summary, r#"x_bucket{%B,le="1"} 9@%T"#),
        (&summary(), one("x.total", &[]), &of_summary, "x_total{%B} 9@%T"),
    ];
    for (grouped, other, lines, kept) in cases {
        let case = format!("{} beside {:?}", other.name, grouped.data);
        let expected: Vec<&str> = lines.iter().copied().chain(Some(kept).filter(|kept| !kept.is_empty())).collect();
        let lost = usize::from(kept.is_empty());
        for metrics in [[grouped.clone(), other.clone()], [other.clone(), grouped.clone()]] {
            let mut bench = check(&case, &push(metrics.into()), &expected);
            assert_eq!((bench.dropped("type_conflict"), bench.untranslatable), (lost as u64, lost), "{case}");
            // Alone, later: still the histogram's, until that is gone.
            assert_eq!(bench.lines(&push(vec![other.clone()])).len(), 1 - lost, "{case}");
            bench.now += std::time::Duration::from_secs(300);
            assert_eq!(bench.lines(&push(vec![other.clone()])).len(), 1, "{case}");
        }
    }
}

/// Bounds and quantiles as Prometheus 3 writes them when it scrapes.
#[test]
fn bounds_as_scraped() {
    let mut point = histogram_point();
    (point.explicit_bounds, point.bucket_counts) = (vec![1.0, 1e6], vec![1, 2, 3]);
    let expected = [
        r#"h_seconds_bucket{%B,le="1.0"} 1@%T"#,
        r#"h_seconds_bucket{%B,le="1e+06"} 3@%T"#,
        r#"h_seconds_bucket{%B,le="+Inf"} 6@%T"#,
        "h_seconds_count{%B} 6@%T",
        "h_seconds_sum{%B} 9@%T",
    ];
    check_with("le_format: openmetrics", "bounds", &push(vec![histogram(point)]), &expected);
}
