//! Pages in, points out.

use nyquist_core::proto::metrics::v1::MetricsData;

use super::round::Tally;
use super::*;
use crate::prometheus::config::RelabelConfig;
use crate::prometheus::exposition::Format;
use crate::shown::{points, scopes};

/// The time of scrape `n`, in milliseconds.
const fn at(n: i64) -> i64 {
    1_700_000_000_000 + n * 15_000
}

/// A target that is scraped by hand.
struct Rig {
    settings: Settings,
    series: Series,
}

/// What one scrape gave.
struct Scraped {
    data: MetricsData,
    tally: Tally,
    /// Metric and reason of its bad samples, and how many.
    bad: Vec<(String, &'static str, usize)>,
    error: Option<String>,
}

impl Rig {
    fn new() -> Self {
        let labels = [("instance", "shop:8080"), ("job", "shop")].into_iter().collect();
        Self {
            settings: Settings { labels, scheme: "http".to_owned(), ..Settings::default() },
            series: Series::default(),
        }
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut rig = Self::new();
        change(&mut rig.settings);
        rig
    }

    /// Scrapes `page`; what it gives is delivered.
    fn scrape(&mut self, n: i64, page: &str) -> Scraped {
        let scraped = self.undelivered(n, page);
        self.series.delivered();
        scraped
    }

    fn undelivered(&mut self, n: i64, page: &str) -> Scraped {
        let is_open = page.ends_with("# EOF\n");
        let mut round = Round::new(&self.settings, &mut self.series, at(n));
        let mut parser = Parser::new(page, if is_open { Format::OpenMetrics } else { Format::Text });
        let mut labels = Labels::default();
        let mut error = None;
        loop {
            let step = match parser.next(&mut labels) {
                Ok(None) => break,
                Ok(Some(entry)) => round.take(entry, &mut labels),
                Err(error) => Err(error.to_string()),
            };
            if step.is_err() {
                error = step.err();
                break;
            }
        }
        if error.is_some() {
            round = round.failed();
        }
        let tally = round.tally();
        let (data, count, bad) = round.finish();
        assert_eq!(points(&data).len(), count);
        let all: usize = bad.named().iter().map(|named| named.samples).sum();
        assert_eq!(bad.total(), all as u64);
        let bad = bad.named().iter().map(|named| (named.metric.clone(), named.reason, named.samples)).collect();
        Scraped { data, tally, bad, error }
    }

    fn points(&mut self, n: i64, page: &str) -> Vec<String> {
        let scraped = self.scrape(n, page);
        assert_eq!(scraped.error, None);
        points(&scraped.data)
    }
}

const SHOP: &str =
    "service.name=shop,service.instance.id=shop:8080,server.address=shop,server.port=8080,url.scheme=http | ";

/// `lines`, each of the shop's resource.
fn of_shop(lines: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = lines.iter().map(|line| format!("{SHOP}{line}")).collect();
    lines.sort();
    lines
}

fn rules(yaml: &str) -> Arc<[RelabelConfig]> {
    let rules: Vec<RelabelConfig> = serde_json::from_str(yaml).expect("rules");
    rules.into()
}

#[test]
fn every_type_becomes_its_otlp_metric() {
    let page = "# TYPE visits counter\nvisits{page=\"a\"} 3\n\
                # TYPE temperature gauge\ntemperature -1.5\n\
                plain 7\n\
                # TYPE latency_seconds histogram\n\
                latency_seconds_bucket{le=\"0.5\"} 1\nlatency_seconds_bucket{le=\"1\"} 3\n\
                latency_seconds_bucket{le=\"+Inf\"} 6\nlatency_seconds_sum 9\nlatency_seconds_count 6\n\
                # TYPE size summary\nsize{quantile=\"0.99\"} 2\nsize{quantile=\"0.5\"} 1\nsize_sum 3\nsize_count 4\n";
    let expected = of_shop(&[
        "counter visits{page=a} 3 from 1700000000000 @1700000000000",
        "gauge temperature{} -1.5 @1700000000000",
        "gauge plain{} 7 @1700000000000",
        "histogram latency_seconds{} [0.5, 1.0] [1, 2, 3] count=6 sum=Some(9.0) from 1700000000000 @1700000000000",
        "summary size{} 0.5=1,0.99=2 count=4 sum=3 from 1700000000000 @1700000000000",
    ]);
    assert_eq!(Rig::new().points(0, page), expected);
}

#[test]
fn openmetrics_brings_units_start_times_and_exemplars() {
    let page = "# TYPE foo_seconds counter\n# UNIT foo_seconds seconds\n# HELP foo_seconds Time.\n\
                foo_seconds_total 17 # {trace_id=\"000102030405060708090a0b0c0d0e0f\",span_id=\"0001020304050607\",k=\"v\"} 0.5 1699999999.5\n\
                foo_seconds_created 1699999000.5\n\
                # TYPE h histogram\nh_bucket{le=\"1.0\"} 2 # {trace_id=\"ab\"} 0.7\nh_bucket{le=\"+Inf\"} 2\nh_count 2\nh_sum 1\nh_created 1699999001\n\
                # TYPE build info\nbuild_info{version=\"1\"} 1\n\
                # TYPE state stateset\nstate{state=\"on\"} 1\n\
                # TYPE gh gaugehistogram\ngh_bucket{le=\"+Inf\"} 2\ngh_gcount 2\n# EOF\n";
    let expected = of_shop(&[
        "counter foo_seconds_total[s]{} 17 # 000102030405060708090a0b0c0d0e0f 0001020304050607 k=v 0.5@1699999999500 from 1699999000500 @1700000000000",
        "histogram h{} [1.0] [2, 0] count=2 sum=Some(1.0) # 000000000000000000000000000000ab   0.7@1700000000000 from 1699999001000 @1700000000000",
        "sum build_info{version=1} 1 @1700000000000",
        "sum state{state=on} 1 @1700000000000",
        "gauge gh_bucket{le=+Inf} 2 @1700000000000",
        "gauge gh_gcount{} 2 @1700000000000",
    ]);
    assert_eq!(Rig::new().points(0, page), expected);
}

#[test]
fn a_counter_starts_where_it_was_first_seen_and_again_where_it_fell() {
    let mut rig = Rig::new();
    let page = |value: u64| format!("# TYPE c counter\nc {value}\n");
    for (n, value, start) in [(0, 5, 0), (1, 9, 0), (2, 9, 0), (3, 2, 3), (4, 8, 3)] {
        let expected = of_shop(&[&format!("counter c{{}} {value} from {} @{}", at(start), at(n))]);
        assert_eq!(rig.points(n, &page(value)), expected);
    }
}

#[test]
fn a_histogram_starts_again_where_its_count_or_sum_fell() {
    let mut rig = Rig::new();
    let page = |count: u64, sum: f64| {
        format!(
            "# TYPE h histogram\nh_bucket{{le=\"1\"}} {count}\nh_bucket{{le=\"+Inf\"}} {count}\nh_count {count}\nh_sum {sum}\n"
        )
    };
    for (n, count, sum, start) in [(0, 5, 5.0, 0), (1, 6, 5.5, 0), (2, 2, 9.0, 2), (3, 3, 1.0, 3)] {
        let lines = rig.points(n, &page(count, sum));
        assert!(lines[0].contains(&format!("from {} ", at(start))), "{n}: {lines:?}");
    }
}

#[test]
fn a_series_that_is_gone_ends_once() {
    let mut rig = Rig::new();
    rig.points(0, "# TYPE c counter\nc{a=\"1\"} 5\nc{a=\"2\"} 5\nplain 1\n");
    let expected = of_shop(&[
        "counter c{a=1} 6 from 1700000000000 @1700000015000",
        "counter c{a=2} ended from 1700000000000 @1700000015000",
        "gauge plain{} ended @1700000015000",
    ]);
    assert_eq!(rig.points(1, "# TYPE c counter\nc{a=\"1\"} 6\n"), expected);
    assert_eq!(rig.points(2, "# TYPE c counter\nc{a=\"1\"} 6\n").len(), 1);
    assert_eq!(rig.series.len(), 1);
}

#[test]
fn bounds_and_quantiles_end_with_their_series() {
    let mut rig = Rig::new();
    let page = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"2\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_count 1\n\
                # TYPE s summary\ns{quantile=\"0.5\"} 1\ns_count 1\n";
    rig.points(0, page);
    let expected = of_shop(&[
        "histogram h{} ended [1.0, 2.0] from 1700000000000 @1700000015000",
        "summary s{} ended 0.5=0 from 1700000000000 @1700000015000",
    ]);
    assert_eq!(rig.points(1, ""), expected);
}

#[test]
fn an_end_that_was_not_delivered_is_said_again() {
    let mut rig = Rig::new();
    rig.points(0, "a 1\nb 1\n");
    assert_eq!(points(&rig.undelivered(1, "a 1\n").data).len(), 2);
    let expected = of_shop(&["gauge a{} 1 @1700000030000", "gauge b{} ended @1700000030000"]);
    assert_eq!(rig.points(2, "a 1\n"), expected);
}

#[test]
fn a_page_with_a_bad_line_fails_as_a_whole_and_ends_what_was_there() {
    let mut rig = Rig::new();
    rig.points(0, "a 1\n");
    let scraped = rig.scrape(1, "a 2\nnew 1\nbroken{\n");
    assert!(scraped.error.is_some_and(|error| error.starts_with("line 3: ")));
    assert_eq!(points(&scraped.data), of_shop(&["gauge a{} ended @1700000015000"]));
    assert_eq!(rig.series.len(), 0);
}

#[test]
fn samples_with_their_own_time_keep_it_and_do_not_end() {
    let mut rig = Rig::with(|settings| settings.honor_timestamps = true);
    assert_eq!(rig.points(0, "a 1 1699999999000\n"), of_shop(&["gauge a{} 1 @1699999999000"]));
    assert_eq!(rig.points(1, ""), of_shop(&[]));
    let mut rig = Rig::with(|settings| (settings.honor_timestamps, settings.track_timestamps) = (true, true));
    rig.points(0, "a 1 1699999999000\n");
    assert_eq!(rig.points(1, ""), of_shop(&["gauge a{} ended @1700000015000"]));
    let mut rig = Rig::new();
    assert_eq!(rig.points(0, "a 1 1699999999000\n"), of_shop(&["gauge a{} 1 @1700000000000"]));
}

#[test]
fn labels_of_the_target_win_unless_those_of_samples_are_honored() {
    let page = "a{job=\"x\",zone=\"mine\"} 1\n";
    let zone = |settings: &mut Settings| settings.labels.set("zone", "eu");
    let expected = of_shop(&["gauge a{exported_job=x,exported_zone=mine,zone=eu} 1 @1700000000000"]);
    assert_eq!(Rig::with(zone).points(0, page), expected);
    let mut rig = Rig::with(|settings| {
        zone(settings);
        settings.honor_labels = true;
    });
    let own = "service.name=x,service.instance.id=shop:8080,server.address=shop,server.port=8080,url.scheme=http";
    assert_eq!(rig.points(0, page), [format!("{own} | gauge a{{zone=mine}} 1 @1700000000000")]);
}

#[test]
fn target_info_and_scope_labels_describe_resource_and_scope() {
    let page = "target_info{os=\"linux\"} 1\n\
                a{otel_scope_name=\"lib\",otel_scope_version=\"1.2\",otel_scope_schema_url=\"u\",otel_scope_team=\"x\",b=\"c\"} 1\n\
                d 2\n";
    let mut rig = Rig::new();
    let scraped = rig.scrape(0, page);
    let lines = points(&scraped.data);
    assert!(lines.iter().all(|line| line.contains(",os=linux | ")), "{lines:?}");
    assert!(lines[0].ends_with("gauge a{b=c} 1 @1700000000000"), "{lines:?}");
    let own = format!("{SCOPE} {}  ", env!("CARGO_PKG_VERSION"));
    assert_eq!(scopes(&scraped.data), ["lib 1.2 u team=x".to_owned(), own]);
}

#[test]
fn limits_fail_the_scrape() {
    let page = "a{long_name=\"long value\"} 1\nb 1\n";
    let limited = |limits: Limits| Rig::with(|settings| settings.limits = limits).scrape(0, page).error;
    let none = Limits::default();
    assert_eq!(limited(Limits { samples: 2, labels: 4, label_name: 9, label_value: 10 }), None);
    let cases = [
        (Limits { samples: 1, ..none }, "sample limit exceeded: there are more than 1 samples (sample_limit)"),
        (Limits { labels: 3, ..none }, "label_limit exceeded: a has 4 labels, and the limit is 3"),
        (
            Limits { label_name: 8, ..none },
            "label_name_length_limit exceeded: a label of a has a name of 9 bytes, and the limit is 8",
        ),
        (
            Limits { label_value: 9, ..none },
            "label_value_length_limit exceeded: the label long_name of a has 10 bytes, and the limit is 9",
        ),
    ];
    for (limits, error) in cases {
        assert_eq!(limited(limits).as_deref(), Some(error));
    }
}

#[test]
fn samples_are_counted_before_and_after_relabelling() {
    let mut rig = Rig::with(|settings| {
        settings.metric_relabel = rules(r#"[{"source_labels": ["__name__"], "regex": "go_.*", "action": "drop"}]"#);
    });
    let tally = rig.scrape(0, "go_a 1\ngo_b 1\nc 1\nd 1\nd 2\n").tally;
    assert_eq!(tally, Tally { scraped: 5, kept: 3, added: 2, bad: 1 });
    let tally = rig.scrape(1, "c 1\ne 1\n").tally;
    assert_eq!(tally, Tally { scraped: 2, kept: 2, added: 1, bad: 0 });
}

#[test]
fn a_metric_can_be_renamed() {
    let mut rig = Rig::with(|settings| {
        let yaml = r#"[{"source_labels": ["__name__"], "regex": "old_(.*)", "replacement": "new_${1}", "target_label": "__name__"}]"#;
        settings.metric_relabel = rules(yaml);
    });
    assert_eq!(rig.points(0, "old_x 1\n"), of_shop(&["gauge new_x{} 1 @1700000000000"]));
}

#[test]
fn suffixes_can_be_trimmed() {
    let page =
        "# TYPE foo_seconds counter\n# UNIT foo_seconds seconds\nfoo_seconds_total 1\nfoo_seconds_created 5\n# EOF\n";
    let mut rig = Rig::with(|settings| settings.trim_suffixes = true);
    assert_eq!(rig.points(0, page), of_shop(&["counter foo[s]{} 1 from 5000 @1700000000000"]));
}

#[test]
fn odd_histograms_stay_sane() {
    let cases = [
        // No count: that of the last bucket.
        ("h_bucket{le=\"+Inf\"} 3\nh_bucket{le=\"1\"} 2\n", "[1.0] [2, 1] count=3 sum=None"),
        // Counts that fall, or are no numbers.
        (
            "h_bucket{le=\"1\"} 5\nh_bucket{le=\"2\"} 3\nh_bucket{le=\"+Inf\"} NaN\nh_count 4\n",
            "[1.0, 2.0] [5, 0, 0] count=4 sum=None",
        ),
        // A bound that is there twice, in two spellings.
        ("h_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 1\nh_count 1\n", "[1.0] [1, 0] count=1 sum=None"),
        // No buckets.
        ("h_count 4\nh_sum 2\n", "[] [] count=4 sum=Some(2.0)"),
    ];
    for (page, text) in cases {
        let lines = Rig::new().points(0, &format!("# TYPE h histogram\n{page}"));
        let expected = of_shop(&[&format!("histogram h{{}} {text} from 1700000000000 @1700000000000")]);
        assert_eq!(lines, expected, "{page}");
    }
    // A sum alone is no histogram, and a bucket without a bound is none.
    let scraped = Rig::new().scrape(0, "# TYPE h histogram\nh_sum 1\nh_bucket 1\n");
    assert_eq!((points(&scraped.data).len(), scraped.tally.bad), (0, 1));
}

/// Metric, reason, and how many samples.
type Told = (&'static str, &'static str, usize);

/// What makes no point is told with the name of its metric and why.
#[test]
fn bad_samples_have_a_name_and_a_reason() {
    let cases: &[(&str, &[Told])] = &[
        ("a 1\na 2\na 3\nb 1\n", &[("a", "duplicate", 2)]),
        ("# TYPE h histogram\nh_sum 1\n", &[("h", "incomplete", 1)]),
        ("# TYPE h histogram\nh_bucket{le=\"NaN\"} 1\nh_count 1\n", &[("h_bucket", "bound", 1)]),
        (
            "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 1\nh_count 1\nh_count 1\n",
            &[("h_count", "duplicate", 1), ("h", "duplicate", 1)],
        ),
        ("# TYPE s summary\ns{quantile=\"0.5\"} 1\ns{quantile=\"0.50\"} 1\ns_count 1\n", &[("s", "duplicate", 1)]),
        ("# TYPE c counter\nc_total 1\nc_created -1\n# EOF\n", &[("c_created", "created", 1)]),
    ];
    for (page, expected) in cases {
        let scraped = Rig::new().scrape(0, page);
        let expected: Vec<_> = expected.iter().map(|(name, why, count)| ((*name).to_owned(), *why, *count)).collect();
        assert_eq!((scraped.bad, scraped.error), (expected, None), "{page}");
    }
    let nameless = r#"[{"target_label": "__name__", "replacement": ""}]"#;
    let mut rig = Rig::with(|settings| settings.metric_relabel = rules(nameless));
    assert_eq!(rig.scrape(0, "a 1\n").bad, [("(none)".to_owned(), "no_name", 1)]);
}
